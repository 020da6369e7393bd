"""Draws the figures of a report, which is most of its work: in two processes if there are many."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
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
def begin(material: Material) -> Iterator[Callable[[], Images]]:
    """Gives a function that yields file name and content of every figure, in any order.

    A second process draws from the beginning of the block on, if there are two cores and many figures; what it has not
    begun when the function is called is drawn here, from the last on.
    """
    drawers = figures.drawers(material)
    alone = len(drawers) < _FEW or processes.cores() < 2 or multiprocessing.current_process().daemon
    if alone:
        yield functools.partial(figures.figures, material)
        return
    pool = concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_begin)
    try:
        with processes.without_script():
            pool.submit(_receive, material)  # not by the initializer, for which this process would have to wait
        futures = {name: pool.submit(_render, name) for name in drawers}
        yield functools.partial(_collect, drawers, futures)
    finally:
        pool.shutdown(cancel_futures=True)


def _collect(
    drawers: dict[str, Callable[[], Figure]], futures: dict[str, concurrent.futures.Future[list[tuple[str, bytes]]]]
) -> Images:
    for name in reversed(futures):
        if futures[name].cancel():
            yield from figures.render(name, drawers[name])
    for name, future in futures.items():
        if future.cancelled():
            continue
        try:
            yield from future.result()
        except BrokenProcessPool:  # it was killed, for its memory perhaps
            yield from figures.render(name, drawers[name])


def _begin() -> None:
    """Sets up the second process: it ends with its parent, to whom Ctrl-C is left."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    multiprocessing.parent_process().join()
    os._exit(processes.TERMINATED)


def _receive(material: Material) -> None:
    _drawers.update(figures.drawers(material))


def _render(name: str) -> list[tuple[str, bytes]]:
    return figures.render(name, _drawers[name])
