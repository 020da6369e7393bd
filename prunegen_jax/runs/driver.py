"""The driver: gives the work of a sweep to an executor, shows how it goes, and checks that all of it was done."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence

from etils import epath

from prunegen_jax.runs import processes, record
from prunegen_jax.runs.executors import base
from prunegen_jax.runs.executors.base import Executor, RunContext, Unit
from prunegen_jax.runs.points import Point
from prunegen_jax.runs.progress import Progress, SweepProgress
from prunegen_jax.runs.record import Missing, Record

_ACTIVITIES = {"train": "training:", "measure": "measuring:"}
_PASSES = 3  # over what is missing, when another driver in the workdir wrote over what this one had written


class FailedError(Exception):
    """Some networks could not be trained or measured."""


def drive(
    context: RunContext,
    units: Sequence[Unit],
    execute: Executor,
    *,
    refresh: Callable[[], object] | None = None,
    spare: Callable[[], object] | None = None,
) -> None:
    """Has an executor do what is missing of `units`; shows a line of progress for every network that is done.

    Args:
        context: what all units share.
        units: of the run.
        execute: the executor.
        refresh: called about once a second, to keep a report up to date; None for nothing.
        spare: called once, when the last unit is being done and other workers may be idle; None for nothing.

    Raises:
        OSError: if files of the workdir or the data set could not be read or written, however often it was tried.
        FailedError: if units failed otherwise; the rest is done.
        StoppedError: if this process was told to stop.
    """
    folder = epath.Path(context.folder)
    known = {existing.name: existing for existing in record.read_all(folder)} if units else {}
    waiting = [unit for unit in units if any(_missing(known.get(p.name), p, unit) for p in unit.points)]
    if not waiting:
        return
    failed: dict[str, str] = {}
    unreachable: list[str] = []
    with processes.handle_signals(), _progress_bar(units, waiting) as bar:
        progress = _progress(bar, folder, waiting, known, refresh)
        for _ in range(_PASSES):
            _run_pass(context, waiting, execute, progress, failed, unreachable, spare)
            spare = None
            if processes.stopping():
                raise processes.StoppedError(f"stopped with {bar.done} of {bar.total} networks done")
            waiting = [unit for unit in waiting if base.title(unit) not in failed and _is_unfinished(folder, unit)]
            if not waiting:
                break
    if unreachable and len(unreachable) == len(failed):
        raise OSError("; ".join(unreachable))
    if waiting:
        titles = ", ".join(base.title(unit) for unit in waiting)
        raise FailedError(f"{titles} wrote no records to {folder}: do the workers use the same folder?")
    if failed:
        reasons = "; ".join(f"{title}: {reason}" for title, reason in failed.items())
        others = "to judge the others, use --stage=judge,report"
        raise FailedError(f"{len(failed)} of {len(units)} groups failed: {reasons}; {others}")


def _run_pass(
    context: RunContext,
    units: Sequence[Unit],
    execute: Executor,
    progress: SweepProgress,
    failed: dict[str, str],
    unreachable: list[str],
    spare: Callable[[], object] | None,
) -> None:
    """Has `units` done once; notes those that failed, and of these those that could not reach their files.

    Raises:
        OSError: if two units in a row could not reach their files: then it is not the files of one group.
    """
    in_a_row, left = False, len(units)

    def tick(text: str) -> None:
        nonlocal spare
        progress.update(text)
        if left == 1 and spare is not None:  # it has been handed out: executors tick after that
            spare, call = None, spare
            call()

    with contextlib.closing(execute(context, units, tick)) as outcomes:
        for unit, outcome in outcomes:
            left -= 1
            title = base.title(unit)
            if outcome.status == "unreachable":
                unreachable.append(f"{title}: {outcome.reason}")
                if in_a_row:
                    raise OSError(unreachable[0])
            if outcome.status != "done":
                failed[title] = outcome.reason
            in_a_row = outcome.status == "unreachable"
            progress.end(point.name for point in unit.points)


def _progress_bar(units: Sequence[Unit], waiting: Sequence[Unit]) -> Progress:
    """The progress of a sweep of `units`, of which those in `waiting` are not done."""
    total, left = (sum(len(unit.points) for unit in some) for some in (units, waiting))
    stages = units[0].stages
    return Progress(total, _ACTIVITIES[stages[0]] if len(stages) == 1 else "measured", done=total - left)


def _progress(
    bar: Progress,
    folder: epath.Path,
    waiting: Sequence[Unit],
    known: Mapping[str, Record],
    refresh: Callable[[], object] | None,
) -> SweepProgress:
    def check(point: Point, unit: Unit) -> Callable[[Record | None], Missing]:
        return lambda existing: _missing(existing, point, unit)

    checks = {point.name: check(point, unit) for unit in waiting for point in unit.points}
    untrained = None  # with one stage there is nothing to tell apart
    if len(waiting[0].stages) > 1:
        untrained = [name for name, missing in checks.items() if missing(known.get(name)).train]
    return SweepProgress(bar, folder, checks, untrained, refresh)


def _missing(existing: Record | None, point: Point, unit: Unit, *, retry_failed: bool = True) -> Missing:
    wanted = {"tests": unit.tests, "retry_failed": retry_failed}
    return record.find_missing(existing, point, unit.stages, unit.names, **wanted)


def _is_unfinished(folder: epath.Path, unit: Unit) -> bool:
    """Whether anything is missing of `unit` besides measures that failed."""
    return any(_missing(record.read(folder, p.name), p, unit, retry_failed=False) for p in unit.points)
