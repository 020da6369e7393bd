"""Draws the figures of a report, which is most of its work: in two processes if there are many."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import functools
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool

from matplotlib.figure import Figure

from prunegen_jax.report import figures
from prunegen_jax.report.material import Material
from prunegen_jax.runs import processes

_FEW = 20  # figures that are drawn before a second process is ready
_drawers: dict[str, Callable[[], Figure]] = {}  # of the second process

Images = Iterator[tuple[str, bytes]]


@contextlib.contextmanager
def begin(material: Material, second: Second | None = None) -> Iterator[Callable[[], Images]]:
    """Gives a function that yields file name and content of every figure, in any order.

    A second process draws from the beginning of the block on, if there are two cores and many figures; what it has not
    begun when the function is called is drawn here, from the last on.

    Args:
        material: of the report.
        second: the second process; None for one of its own.
    """
    drawers = figures.drawers(material)
    if len(drawers) < _FEW or not _has_room():
        yield functools.partial(figures.figures, material)
        return
    with contextlib.ExitStack() as stack:
        second = second or stack.enter_context(contextlib.closing(Second()))
        second.draw(material, list(drawers))
        yield functools.partial(_collect, drawers, second)


def second_process() -> contextlib.AbstractContextManager[Second | None]:
    """A second process for `begin`, which takes seconds to start: None if there is one core."""
    return contextlib.closing(Second()) if _has_room() else contextlib.nullcontext()


def _has_room() -> bool:
    return processes.cores() > 1 and not multiprocessing.current_process().daemon


class Second:
    """The second process. It is given one figure after another; those left are taken from the other end."""

    def __init__(self) -> None:
        self._left, self._lock = collections.deque[str](), threading.Lock()
        self.given: dict[str, concurrent.futures.Future[list[tuple[str, bytes]]]] = {}
        self._pool = concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_begin)
        with processes.without_script():
            self._pool.submit(_drawers.clear)  # starts it

    def draw(self, material: Material, names: list[str]) -> None:
        """Has the process draw the figures `names`, from the first on."""
        self._left.extend(names)
        with contextlib.suppress(BrokenProcessPool):  # then all are drawn here
            self._pool.submit(_receive, material).add_done_callback(self._give)

    def _give(self, done: concurrent.futures.Future[object]) -> None:
        """Gives the process the next figure; called when it is ready for one."""
        with self._lock:
            if done.cancelled() or done.exception() is not None or not self._left:
                return
            try:
                future = self._pool.submit(_render, self._left[0])
            except BrokenProcessPool:  # what is left is drawn here
                return
            self.given[self._left.popleft()] = future
        future.add_done_callback(self._give)

    def take(self) -> str | None:
        """The last figure that the process has not begun, which it does not get then; None if there is none."""
        with self._lock:
            return self._left.pop() if self._left else None

    def close(self) -> None:
        """Ends the process after the figure that it is at."""
        with self._lock:
            self._left.clear()
        self._pool.shutdown()


def _collect(drawers: dict[str, Callable[[], Figure]], second: Second) -> Images:
    while (name := second.take()) is not None:
        yield from figures.render(name, drawers[name])
    for name, future in second.given.items():  # none is added now
        try:
            yield from future.result()
        except BrokenProcessPool:  # it was killed, for its memory perhaps
            yield from figures.render(name, drawers[name])


def _begin() -> None:
    """Sets up the second process: it ends with its parent, to whom Ctrl-C is left."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    processes.end_with_parent()


def _receive(material: Material) -> None:
    _drawers.update(figures.drawers(material))


def _render(name: str) -> list[tuple[str, bytes]]:
    return figures.render(name, _drawers[name])
