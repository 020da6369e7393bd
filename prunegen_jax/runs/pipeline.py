"""From a config to a report: train, measure, judge, report. Each stage skips what is done, so a run can be repeated."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from types import ModuleType

from etils import epath
from ml_collections import ConfigDict

from prunegen_jax import judging
from prunegen_jax.compute.backend import check_backend
from prunegen_jax.judging.ranges import check_numbers
from prunegen_jax.judging.table import Table
from prunegen_jax.judging.verdict import Verdict
from prunegen_jax.measures import MEASURES, check_options, find, select
from prunegen_jax.runs import (
    compatibility,
    costs,
    driver,
    estimate,
    executors,
    files,
    record,
    slots,
    snapshot,
    tables,
    task,
    workdir,
)
from prunegen_jax.runs import points as sweeps
from prunegen_jax.runs.executors.base import RunContext, Unit, data_fingerprint
from prunegen_jax.runs.points import Point
from prunegen_jax.runs.timing import Timing

STAGES = ("train", "measure", "judge", "report")
_WORK = ("train", "measure")  # what executors do


def run(
    config: ConfigDict,
    folder: str | os.PathLike[str],
    *,
    stages: Sequence[str] = STAGES,
    shard: str = "",
    report_every: float = 0.0,
    executor: str = "local",
    address: str = "",
    source: str = "",
    timing: Timing | None = None,
) -> Verdict | None:
    """Runs the stages of a sweep in the workdir `folder`; returns the verdict if it judged.

    Args:
        config: see `configs/default.py`.
        folder: the workdir; it is created, or extended by what it lacks.
        stages: among `STAGES`.
        shard: "i/n" for every n-th group of work from the i-th on, "" for all.
        report_every: seconds between refreshes of the report while the sweep runs; 0 for only at the end.
        executor: where networks are trained and measured: a name of `executors.EXECUTORS`.
        address: of the Ray cluster, "auto" for the one this machine belongs to; "" for one of its own.
        source: the Python file that `config` came from, if it adds to our registries (measures, models, data sets):
            workers run it as well. Without it, such a sweep is run in this process alone.

    Raises:
        ValueError: for a config or a workdir that does not fit, before any work is spent.
        OSError: if the data are not there or the workdir cannot be read or written.
        FailedError: if some networks could not be trained or measured; the others are. If only some measures failed, it
            is raised when all stages are done.
        StoppedError: if SIGTERM arrived; what was reached is saved.
    """
    for stage in stages:
        if stage not in STAGES:
            raise ValueError(f"--stage={stage!r} is unknown; choose among {', '.join(STAGES)}")
    timing = timing or Timing()
    execute = executors.find(executor, config, address=address)
    target = workdir.locate(folder)
    compatibility.check_paths(config)
    if "judge" in stages:
        check_numbers(level=config.judge.level, seed=config.judge.seed, draws=config.judge.draws)
    names = _measure_names(config)
    points = sweeps.points(config)
    work = tuple(stage for stage in _WORK if stage in stages)
    if work:
        check_backend()
    groups = sweeps.shard(sweeps.groups(points, size=slots.group_size(config.run.group)), shard)
    if work:
        with timing.span("preparing"):
            units = _units(target, config, points, groups, names, stages)
        if "train" in work:
            trained = {existing.hash for existing in record.scan(target)[0]}
            waiting = [point for unit in units for point in unit.points if point.hash not in trained]
            if waiting:
                print(estimate.estimate(waiting, names if "measure" in work else (), config), file=sys.stderr)
        context = RunContext(workdir.absolute(folder), compatibility.resolve_paths(config), source, address)
        with timing.networks(target):
            refresh = _refresher(target, report_every, len(points))
            driver.drive(context, units, execute, refresh=refresh, spare=functools.partial(_prepare, stages))
        if "train" in work:
            _restore_weights(target, units)
        if "train" in work and (sentence := costs.summary(target, [point for unit in units for point in unit.points])):
            print(sentence, file=sys.stderr)
    verdict = _judge_and_report(target, config, stages, points, shard, timing)
    if "measure" in work:
        _check_measures(target, units, names)
    return verdict


def _judge_and_report(
    target: epath.Path, config: ConfigDict, stages: Sequence[str], points: Sequence[Point], shard: str, timing: Timing
) -> Verdict | None:
    """The stages after the work, as far as they are asked for; returns the verdict if it judged."""
    if not {"judge", "report"} & set(stages):
        return None
    waiting = {point.hash for point in points} - {existing.hash for existing in record.read_all(target)}
    if shard and waiting:  # the shard that ends last judges
        print(f"{len(waiting)} of {len(points)} networks of the sweep have no record yet: not judged", file=sys.stderr)
        return None
    verdict = second = None
    with contextlib.ExitStack() as stack:
        if "judge" in stages:
            with timing.span("judge"):
                if "report" in stages:  # judging leaves a core free, on which it starts meanwhile
                    second = stack.enter_context(_report().second_process())
                verdict = judge(target, config)
        if "report" in stages:
            with timing.span("report"):
                places = {"data_dir": config.data.dir, "cache_dir": config.data.cache_dir}
                page = _report().write(target, **places, span=timing.span, second=second)
                print(f"report: {page}")
    return verdict


def _prepare(stages: Sequence[str]) -> None:
    """Imports what the stages after the work need, which takes seconds. An import that fails does so again there."""
    with contextlib.suppress(ImportError):
        if "judge" in stages:
            judging.judge  # noqa: B018 - a lazy name
        if "report" in stages:
            _report()


def _report() -> ModuleType:
    from prunegen_jax import report  # noqa: PLC0415 - plotting takes seconds to import

    return report


def _restore_weights(folder: epath.Path, units: Sequence[Unit]) -> None:
    """Writes again what is gone of `weights/`, from the checkpoints; with a warning where that cannot be."""
    there = set(workdir.names(folder, "weights"))
    gone = [point.name for unit in units for point in unit.points if point.name not in there]
    lost = [name for name in gone if not snapshot.restore_weights(folder, name)]
    if len(gone) > len(lost):
        restored = len(gone) - len(lost)
        print(f"missing weights of {restored} networks were restored from their checkpoints", file=sys.stderr)
    if lost:
        advice = f"to train them again, delete their files in {folder / 'records'}"
        which = f"{len(lost)} networks, such as {lost[0]}"
        print(f"weights and checkpoints of {which}, are missing or damaged; {advice}", file=sys.stderr)


def _check_measures(folder: epath.Path, units: Sequence[Unit], names: Sequence[str]) -> None:
    """FailedError if measures of the networks of `units` failed; the first reason of each stands for all."""
    points = {point.name for unit in units for point in unit.points}
    known = [existing for existing in record.read_all(folder) if existing.name in points]
    reasons = []
    for name in names:
        failed = [(r.name, r.measures[name].get("reason", "")) for r in known if r.is_failed(name)]
        if failed:
            network, reason = failed[0]
            reasons.append(f"{name} of {len(failed)} of {len(known)} networks, such as {network}: {reason}")
    if reasons:
        raise driver.FailedError(f"measures failed: {'; '.join(reasons)}")


def read_table(folder: epath.Path) -> Table:
    """All the records of a workdir as a table.

    Raises:
        ValueError: if there are none.
    """
    known = record.read_all(folder)
    if not known:
        raise ValueError(f"{folder} has no records to judge; run the stages train and measure first")
    names = {name for existing in known for name in existing.measures if name.partition(":")[0] in MEASURES}
    families, signs = {name: find(name).family for name in names}, {name: find(name).sign for name in names}
    return tables.from_records([existing.to_json() for existing in known], families=families, signs=signs)


def judge(folder: epath.Path, config: ConfigDict) -> Verdict:
    """Judges all the records of a workdir: writes results.csv and the verdict's files, and prints the table.

    Raises:
        ValueError: if no network can be judged.
    """
    table = read_table(folder)
    tables.write_csv(table, workdir.results_path(folder))
    if not len(table):
        statuses = [reason.partition(":")[0] for _, reason in table.left_out]
        counts = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
        sentence = f"none of the {len(statuses)} networks in {folder} reached the target ({counts}): nothing to judge"
        raise ValueError(sentence)
    verdict = judging.judge(table, draws=config.judge.draws, level=config.judge.level, seed=config.judge.seed)
    judging.write(verdict, folder)
    print(f"{judging.format_table(verdict)}\n\n{textwrap.fill(judging.describe(verdict), 120)}")
    return verdict


def _units(
    folder: epath.Path,
    config: ConfigDict,
    points: Sequence[Point],
    groups: Sequence[Sequence[Point]],
    names: Sequence[str],
    stages: Sequence[str],
) -> list[Unit]:
    """The units of work for `groups`, once it is checked that every point can be trained and fits the workdir.

    A point whose network exists under another name gets that name.
    """
    tests = task.test_sets(config)
    for group in groups:
        for point in group:
            task.build_task(point, config)
    for fields in {point.fields["data.name"]: point.fields for point in points}.values():
        for _ in task.load_shifts(config, fields, tests):  # raises an error if a test set does not fit
            pass
    existing = compatibility.prepare(
        folder, config, points, names, fingerprint=lambda point: data_fingerprint(config, [point])
    )
    units, work = [], tuple(stage for stage in _WORK if stage in stages)
    for group in groups:
        named = tuple(dataclasses.replace(p, name=existing.get(p.hash, p.name)) for p in group)
        data, curves = data_fingerprint(config, group), "report" in stages
        units.append(Unit(named, tuple(names), work, data, tests, curves))
    return units


def _refresher(folder: epath.Path, seconds: float, total: int) -> Callable[[], object] | None:
    """What refreshes the report every so many seconds while the sweep runs; None if it is not asked for."""
    if not seconds:
        return None
    return _report().Refresher(folder, seconds, total=total, read=read_table)


def _measure_names(config: ConfigDict) -> list[str]:
    """The measures of the config, groups written out, each once. ValueError for an unknown name or a wrong option."""
    groups = [select(name if name in {"fast", "all"} else [name]) for name in config.measures.names]
    options = config.measures.options.to_dict()
    check_options(options)
    try:
        json.dumps(files.plain(options))
    except TypeError as error:
        raise ValueError(f"measures.options cannot be written into records: {error}") from None
    return list(dict.fromkeys(name for group in groups for name in group))
