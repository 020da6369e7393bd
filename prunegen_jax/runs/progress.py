"""Progress for a person: one line with time left on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm

_QUIET_SECONDS = 15.0  # between lines when not a terminal


class Progress:
    """Counts `total` pieces of work; a context manager, written to stderr."""

    def __init__(self, total: int, what: str, *, done: int = 0) -> None:
        self._what, self._total, self._done = what, total, done
        self._begin, self._shown, self._first = time.monotonic(), 0.0, done
        self._bar = tqdm(total=total, initial=done, desc=what, leave=False) if sys.stderr.isatty() else None

    def note(self, text: str) -> None:
        """Shows what the present piece is at, its loss for instance."""
        now = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str(text)
        elif now - max(self._shown, self._begin) >= _QUIET_SECONDS:
            self._shown = now
            print(f"{self._what}: {self._done}/{self._total}; {text}", file=sys.stderr, flush=True)

    def step(self, text: str = "") -> None:
        """One more piece is done."""
        self._done += 1
        if self._bar is not None:
            self._bar.update()
            self._bar.set_postfix_str(text)
            return
        now = time.monotonic()
        if self._done == self._total or now - self._shown >= _QUIET_SECONDS:
            self._shown = now
            left = (now - self._begin) / (self._done - self._first) * (self._total - self._done)
            print(f"{self._what}: {self._done}/{self._total}, {left:.0f} s left; {text}", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
