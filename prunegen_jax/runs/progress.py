"""Progress for a person: one line with the time left on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType

from etils import epath
from tqdm import tqdm

from prunegen_jax.runs import checkpoint, record
from prunegen_jax.runs.record import Missing, Record

_QUIET_SECONDS = 15.0  # between lines when not a terminal
_LOOK_SECONDS = 1.0  # between looks into the workdir, at least
_LOOK_SHARE = 10.0  # looking into the workdir takes a tenth of the driver's time at most
_PEEK_SECONDS = 15.0  # between looks at how far networks in training have come
_MOST_PEEKED = 200  # networks: those being trained are among the first that are not done


class Progress:
    """Counts `total` pieces of work, `done` of them from the start; a context manager, written to stderr."""

    def __init__(self, total: int, what: str, *, done: int = 0) -> None:
        self._what, self.total, self.done = what, total, done
        self._begin, self._shown, self._first = time.monotonic(), 0.0, done
        self._bar = tqdm(total=total, initial=done, leave=False) if _is_terminal() else None
        self.relabel(what)

    def relabel(self, what: str) -> None:
        """Replaces the words before the count."""
        self._what = what
        if self._bar is not None:
            self._bar.set_description(what.removesuffix(":"))

    def note(self, text: str) -> None:
        """Shows what the present piece is at, its loss for instance."""
        now = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str(text)
        elif now - max(self._shown, self._begin) >= _QUIET_SECONDS:
            self._shown = now
            print(f"{self._what} {self.done}/{self.total}; {text}", file=sys.stderr, flush=True)

    def step(self, text: str = "") -> None:
        """One more piece is done."""
        self.done += 1
        if self._bar is not None:
            self._bar.update()
            self._bar.set_postfix_str(text)
            return
        now = time.monotonic()
        if self.done == self.total or now - self._shown >= _QUIET_SECONDS:
            self._shown = now
            left = (now - self._begin) / (self.done - self._first) * (self.total - self.done)
            print(f"{self._what} {self.done}/{self.total}, {left:.0f} s left; {text}", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()  # None: the process began with a closed one


class SweepProgress:
    """Shows which networks of a workdir are done, by whichever process.

    Args:
        bar: shows how many are done; it is open.
        folder: the workdir.
        waiting: name -> what is missing of a network, given its record; of the networks that were not done at first.
        untrained: the names of those that have to be trained first, counted apart; None to count what is done alone.
        refresh: called at every update, to keep a report up to date; None for nothing.
    """

    def __init__(
        self,
        bar: Progress,
        folder: epath.Path,
        waiting: Mapping[str, Callable[[Record | None], Missing]],
        untrained: Iterable[str] | None = None,
        refresh: Callable[[], object] | None = None,
    ) -> None:
        self._bar, self._folder, self._refresh = bar, folder, refresh
        self._waiting = dict(waiting)
        self._untrained = None if untrained is None else set(untrained)
        self._count_trained()
        self._seen: dict[str, object] = {}
        self._due, self._peeked = time.monotonic() + _LOOK_SECONDS, time.monotonic()

    def update(self, text: str = "") -> None:
        """Shows `text` and the networks that are done by now. To be called often: it looks about once a second."""
        if text:
            self._bar.note(text)
        if self._refresh is not None:
            self._refresh()
        begin = time.monotonic()
        if begin >= self._due:
            self._look()
            now = time.monotonic()
            self._due = now + max(_LOOK_SECONDS, _LOOK_SHARE * (now - begin))

    def end(self, names: Iterable[str]) -> None:
        """The work on the networks `names` has ended, however."""
        for name in names:
            if name not in self._waiting:
                continue
            existing = None
            with contextlib.suppress(OSError):  # the outcome of the work says what cannot be read
                existing = record.read(self._folder, name)
            self._count_trained(*[] if self._waiting[name](existing).train else [name])
            self._step(name, existing)

    def _look(self) -> None:
        for name, stamp in record.stamps(self._folder, self._waiting).items():
            if self._seen.get(name) == stamp:
                continue
            self._seen[name] = stamp
            existing = record.read(self._folder, name)
            missing = self._waiting[name](existing)
            self._count_trained(*[] if missing.train else [name])
            if existing is not None and not missing:
                self._step(name, existing)
            elif existing is not None:
                self._bar.note(f"{name} {existing.describe()}, {len(existing.measures)} measures")
        if time.monotonic() - self._peeked >= _PEEK_SECONDS:
            self._peeked = time.monotonic()
            self._peek()

    def _peek(self) -> None:
        """Shows how far the network has come whose checkpoint is the latest."""
        written = {
            name: checkpoint.written(self._folder, name) for name in itertools.islice(self._waiting, _MOST_PEEKED)
        }
        times = {name: seconds for name, seconds in written.items() if seconds is not None}
        latest = max(times, key=times.__getitem__, default=None)
        epochs = None if latest is None else checkpoint.progress(self._folder, latest)
        if epochs is not None:
            self._bar.note(f"{latest}: epoch {epochs}")

    def _count_trained(self, *names: str) -> None:
        """Counts networks as trained."""
        if self._untrained is not None:
            self._untrained.difference_update(names)
            self._bar.relabel(f"trained {self._bar.total - len(self._untrained)}/{self._bar.total}, measured")

    def _step(self, name: str, existing: Record | None) -> None:
        del self._waiting[name]
        self._bar.step(f"{name} {existing.describe()}" if existing is not None else f"{name} has no record")
