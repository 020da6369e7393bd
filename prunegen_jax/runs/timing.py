"""How long the parts of a command take, for `--timing`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping

from etils import epath

from prunegen_jax.runs import costs

_OF_TRAINING = ("train", "compile", "update", "check")


class Timing:
    """Seconds of wall time by part of a command. Parts are spans of time; one inside another is taken out of that.

    Args:
        before: seconds of the parts that ended before this object was made.
        detailed: also what the networks of a sweep took by their own account, which means reading all of it.

    Attributes:
        parts: seconds so far by part.
    """

    def __init__(self, before: Mapping[str, float] | None = None, *, detailed: bool = False) -> None:
        self.parts, self._detailed = dict(before or {}), detailed
        self._begin = time.monotonic() - sum(self.parts.values())
        self._work: dict[str, float] = {}

    @contextlib.contextmanager
    def span(self, part: str) -> Iterator[None]:
        """A stretch of `part`."""
        begin, others = time.monotonic(), sum(self.parts.values())
        try:
            yield
        finally:
            inside = sum(self.parts.values()) - others
            self.parts[part] = self.parts.get(part, 0.0) + time.monotonic() - begin - inside

    @contextlib.contextmanager
    def networks(self, folder: epath.Path) -> Iterator[None]:
        """The stretch in which the networks of a workdir are trained and measured."""
        before = self._noted(folder)
        with self.span("networks"):
            yield
        self._work = {name: value - before[name] for name, value in self._noted(folder).items()}

    def table(self) -> str:
        """One line for each part, with its seconds and its share of the command; the rest is "other"."""
        total = time.monotonic() - self._begin
        parts = self.parts | {"other": max(0.0, total - sum(self.parts.values()))}
        lines = [f"timing: {total:.1f} s"]
        for part, seconds in parts.items():
            lines.append(f"  {part:<10}{seconds:8.1f} s {seconds / total:6.1%}")
            if part == "networks" and self._work:
                shares = ", ".join(f"{name} {value:.1f} s" for name, value in self._work.items())
                lines.append(f"    of that, all processes together: {shares}")
        return "\n".join(lines)

    def _noted(self, folder: epath.Path) -> dict[str, float]:
        return _work(costs.read_all(folder)) if self._detailed else {}


def _work(times: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Seconds of compiling for training, of training without it, and of measuring, of all networks together."""
    total = {part: sum(seconds.get(part, 0.0) for seconds in times.values()) for part in ("train", "compile")}
    measuring = sum(value for seconds in times.values() for name, value in seconds.items() if name not in _OF_TRAINING)
    return {"compile": total["compile"], "train": total["train"] - total["compile"], "measure": measuring}
