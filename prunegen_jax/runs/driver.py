"""The driver: gives the work of a sweep to an executor, shows how it goes, and sees that all of it was done."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from prunegen_jax.runs import executors, files, processes, records
from prunegen_jax.runs.executors import Executor, Job, Unit
from prunegen_jax.runs.points import Point
from prunegen_jax.runs.progress import Progress
from prunegen_jax.runs.records import Record

_LOOK = 1.0  # seconds between looks into the workdir, at least
_SHARE = 10.0  # looking into the workdir takes a tenth of the driver's time at most
_PEEK = 15.0  # seconds between looks at how far networks in training have come
_MOST = 200  # networks that are looked at: those being trained are among the first that are not done
_DOING = {"train": "training", "measure": "measuring"}
_PASSES = 3  # over what is missing, when another driver in the workdir wrote over what this one had written


class FailedError(Exception):
    """Some networks could not be trained or measured."""


def drive(job: Job, units: Sequence[Unit], work_on: Executor, *, refresh: Callable[[], object] = bool) -> None:
    """Has `work_on` do what is missing of `units`; a line of progress for every network that is done.

    Raises:
        OSError: if files of the workdir or the data set could not be read or written, however often it was tried.
        FailedError: if units failed otherwise; the rest is done.
        StoppedError: if this process was told to stop.
    """
    if not units:
        return
    folder = epath.Path(job.folder)
    known = {record["name"]: record for record in records.read_all(folder)}
    begun = [unit for unit in units if any(_lacks(known.get(p.name), p, unit, again=True) for p in unit.points)]
    if not begun:
        return
    failed: dict[str, str] = {}
    unreachable: list[str] = []
    with processes.heeding(), _Watch(folder, units, begun, refresh) as watch:
        for _ in range(_PASSES):
            in_a_row = False
            with contextlib.closing(work_on(job, begun, watch)) as ends:
                for unit, outcome in ends:
                    if outcome.status == "unreachable":
                        unreachable.append(f"{executors.title(unit)}: {outcome.reason}")
                        if in_a_row:  # it is not one group's files alone
                            raise OSError(unreachable[0])
                    if outcome.status != "done":
                        failed[executors.title(unit)] = outcome.reason
                    in_a_row = outcome.status == "unreachable"
                    watch.end(unit)
            if processes.stopping():
                raise processes.StoppedError(f"stopped with {watch.done} of {watch.total} networks done")
            begun = [unit for unit in begun if executors.title(unit) not in failed and _unfinished(folder, unit)]
            if not begun:
                break
    if unreachable and len(unreachable) == len(failed):
        raise OSError("; ".join(unreachable))
    if begun:
        told = ", ".join(executors.title(unit) for unit in begun)
        raise FailedError(f"{told} ended without their records in {folder}: do the workers have the same folder?")
    if failed:
        told = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        raise FailedError(f"{len(failed)} of {len(units)} groups failed: {told}")


def _lacks(record: Record | None, point: Point, unit: Unit, *, again: bool) -> bool:
    """Whether anything that `unit` asks for is not in the `record` of `point`; `again`: also what failed."""
    if record is None or record["hash"] != point.hash:
        return "train" in unit.stages
    if "measure" not in unit.stages or record["status"] == "diverged":
        return False
    measures = record["measures"]
    return any(name not in measures or (again and measures[name]["status"] == "failed") for name in unit.names)


def _unfinished(folder: epath.Path, unit: Unit) -> bool:
    return any(_lacks(records.read(folder, point.name), point, unit, again=False) for point in unit.points)


class _Watch:
    """Shows what goes on in the workdir, whoever does it; to be called often, it looks about once a second."""

    def __init__(
        self, folder: epath.Path, units: Sequence[Unit], begun: Sequence[Unit], refresh: Callable[[], object]
    ) -> None:
        self._folder, self._refresh, self._due = folder, refresh, time.monotonic() + _LOOK
        self._open = {point.name: (point, unit) for unit in begun for point in unit.points}
        self._seen: dict[str, object] = {}
        self._peeked = time.monotonic()
        self.total = sum(len(unit.points) for unit in units)
        what = " and ".join(_DOING[stage] for stage in units[0].stages)
        self._progress = Progress(self.total, what, done=self.done)

    @property
    def done(self) -> int:
        """How many networks are done."""
        return self.total - len(self._open)

    def __call__(self, text: str) -> None:
        """Shows `text`, what a network in this process is at, and the networks that are done by now."""
        if text:
            self._progress.note(text)
        self._refresh()
        begin = time.monotonic()
        if begin >= self._due:
            self._look()
            now = time.monotonic()
            self._due = now + max(_LOOK, _SHARE * (now - begin))

    def end(self, unit: Unit) -> None:
        """The work on `unit` has ended."""
        for point in unit.points:
            if point.name not in self._open:
                continue
            record = None
            with contextlib.suppress(OSError):  # what cannot be read is told by how the unit ended
                record = records.read(self._folder, point.name)
            self._step(point.name, record)

    def _look(self) -> None:
        for name, stamp in records.stamps(self._folder, self._open).items():
            if self._seen.get(name) == stamp:
                continue
            self._seen[name] = stamp
            record = records.read(self._folder, name)
            if record and not _lacks(record, *self._open[name], again=True):
                self._step(name, record)
            elif record:
                self._progress.note(f"{name} {_training(record)}, {len(record['measures'])} measures")
        if time.monotonic() - self._peeked >= _PEEK:
            self._peeked = time.monotonic()
            self._peek()

    def _peek(self) -> None:
        """Shows how far the network has come whose checkpoint is the latest."""
        written = {}
        for name in itertools.islice(self._open, _MOST):
            state = files.inside(self._folder / "checkpoints", name) / "state.json"
            with contextlib.suppress(OSError):
                written[state] = state.stat().mtime
        if not written:
            return
        latest = max(written, key=written.__getitem__)
        with contextlib.suppress(FileNotFoundError, files.DamagedError):  # who trains it sees to it
            meta = files.read_json(latest).get("meta")
            if isinstance(meta, dict) and isinstance(meta.get("epochs"), int):
                self._progress.note(f"{latest.parent.name}: epoch {meta['epochs']}")

    def _step(self, name: str, record: Record | None) -> None:
        del self._open[name]
        self._progress.step(f"{name} {_training(record)}" if record else f"{name} has no record")

    def __enter__(self) -> _Watch:
        self._progress.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._progress.__exit__(*error)


def _training(record: Record) -> str:
    """How the training of a network ended, in a few words."""
    loss = f"loss {record['train']['loss']:.4g}" if record["train"] else record["reason"]
    return f"{record['status']}, {loss}"
