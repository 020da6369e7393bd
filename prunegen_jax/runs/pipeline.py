"""From a config to a report: train, measure, judge, report. Each stage skips what is done, so a run can be repeated."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Sequence

from etils import epath
from ml_collections import ConfigDict

from prunegen_jax import judging
from prunegen_jax.judging import Verdict
from prunegen_jax.judging.table import Table
from prunegen_jax.measures import MEASURES, check_options, select
from prunegen_jax.runs import compatibility, costs, driver, executors, record, slots, tables, task, workdir
from prunegen_jax.runs import points as sweeps
from prunegen_jax.runs.executors.base import RunContext, Unit, data_fingerprint
from prunegen_jax.runs.points import Point

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
        FailedError: if some networks could not be trained or measured; the others are.
        StoppedError: if SIGTERM arrived; what was reached is saved.
    """
    for stage in stages:
        if stage not in STAGES:
            raise ValueError(f"--stage={stage!r} is unknown; choose among {', '.join(STAGES)}")
    execute = executors.find(executor, config, address=address)
    target = workdir.locate(folder)
    names = _measure_names(config)
    points = sweeps.points(config)
    groups = sweeps.shard(sweeps.groups(points, size=slots.group_size(config.run.group)), shard)
    work = tuple(stage for stage in _WORK if stage in stages)
    if work:
        units = _units(target, config, points, groups, names, work)
        context = RunContext(workdir.absolute(folder), compatibility.resolve_paths(config), source, address)
        driver.drive(context, units, execute, refresh=_refresher(target, report_every, len(points)))
        if "train" in work and (sentence := costs.summary(target, [point for unit in units for point in unit.points])):
            print(sentence, file=sys.stderr)
    if not {"judge", "report"} & set(stages):
        return None
    waiting = {point.hash for point in points} - {existing.hash for existing in record.read_all(target)}
    if shard and waiting:  # the shard that ends last judges
        print(f"{len(waiting)} of {len(points)} networks of the sweep have no record yet: not judged", file=sys.stderr)
        return None
    verdict = judge(target, config) if "judge" in stages else None
    if "report" in stages:
        from prunegen_jax import report  # noqa: PLC0415 - plotting takes seconds to import

        print(f"report: {report.write(target, data_dir=config.data.dir, cache_dir=config.data.cache_dir)}")
    return verdict


def read_table(folder: epath.Path) -> Table:
    """All the records of a workdir as a table.

    Raises:
        ValueError: if there are none.
    """
    known = record.read_all(folder)
    if not known:
        raise ValueError(f"{folder} holds no record to judge; run the stages train and measure first")
    families = {name: row.family for name, row in MEASURES.items()}
    signs = {name: row.sign for name, row in MEASURES.items()}
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
    print(judging.format_table(verdict))
    return verdict


def _units(
    folder: epath.Path,
    config: ConfigDict,
    points: Sequence[Point],
    groups: Sequence[Sequence[Point]],
    names: Sequence[str],
    stages: tuple[str, ...],
) -> list[Unit]:
    """The units of work for `groups`, once it is checked that every point can be trained and fits the workdir.

    A point whose network exists under another name gets that name.
    """
    for group in groups:
        for point in group:
            task.build_task(point, config)
    existing = compatibility.prepare(
        folder, config, points, names, fingerprint=lambda point: data_fingerprint(config, [point])
    )
    units = []
    for group in groups:
        named = tuple(dataclasses.replace(p, name=existing.get(p.hash, p.name)) for p in group)
        units.append(Unit(named, tuple(names), stages, data_fingerprint(config, group)))
    return units


def _refresher(folder: epath.Path, seconds: float, total: int) -> Callable[[], object] | None:
    """What refreshes the report every so many seconds while the sweep runs; None if it is not asked for."""
    if not seconds:
        return None
    from prunegen_jax import report  # noqa: PLC0415 - plotting takes seconds to import

    return report.Refresher(folder, seconds, total=total, read=read_table)


def _measure_names(config: ConfigDict) -> list[str]:
    """The measures of the config, groups written out, each once. ValueError for an unknown name or option."""
    groups = [select(name if name in {"fast", "all"} else [name]) for name in config.measures.names]
    check_options(config.measures.options.to_dict())
    return list(dict.fromkeys(name for group in groups for name in group))
