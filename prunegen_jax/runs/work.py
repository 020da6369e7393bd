"""The work on networks of equal shape: train them, measure them; what is reached is on disk at every moment."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
from etils import epath
from ml_collections import ConfigDict

from prunegen_jax import data, training
from prunegen_jax.compute import lockstep
from prunegen_jax.measures import measure
from prunegen_jax.runs import compilation, files, processes, records, slots, snapshots
from prunegen_jax.runs.points import Point
from prunegen_jax.runs.snapshots import Snapshot, task_of
from prunegen_jax.types import Estimate, TrainedModel

__all__ = ["measure_missing", "run_group", "task_of", "train"]

_data = operator.attrgetter("data")
_MEASURE = 1_000_003  # folded into a network's key for the measures that sample


def run_group(
    folder: epath.Path,
    points: Sequence[Point],
    names: Sequence[str],
    config: ConfigDict,
    *,
    stages: Sequence[str],
    note: Callable[[str], None] = str,
    stop: Callable[[], bool] = bool,
) -> None:
    """Trains and measures, as `stages` say, what is missing of a group of points of equal shape.

    `stop` is asked after every epoch and every measure. Raises StoppedError, what was reached being saved, if it says
    so.
    """
    compilation.use_cache(config.run.compilation_cache)
    if "train" in stages:
        waiting = [point for point in points if _record(folder, point) is None]
        for _, same in itertools.groupby(sorted(waiting, key=_data), key=_data):
            train(folder, list(same), config, note=note, stop=stop)
    if "measure" in stages:
        for _, same in itertools.groupby(sorted(points, key=_data), key=_data):
            measure_missing(folder, list(same), names, config, stop=stop)


def _record(folder: epath.Path, point: Point) -> records.Record | None:
    """The record of `point`. ValueError if another driver has put one of the same name and other fields there."""
    record = records.read(folder, point.name)
    if record is not None and record["hash"] != point.hash:
        raise ValueError(
            f"{folder} holds {point.name!r} made with another config, by another driver meanwhile. "
            "Choose another --workdir, or give the same values"
        )
    return record


def train(
    folder: epath.Path,
    points: Sequence[Point],
    config: ConfigDict,
    *,
    note: Callable[[str], None] = str,
    stop: Callable[[], bool] = bool,
) -> None:
    """Trains points of equal shape and data, in an ensemble of slots, from their latest checkpoints on.

    Writes the checkpoint, the weights and, last, the record of each as it ends.
    """
    tasks = [task_of(point, config) for point in points]
    count = slots.choose(folder, tasks, config.run.slots)
    tasks = [task._replace(slots=count) for task in tasks]
    inits, begun = zip(*(snapshots.resume(folder, task) for task in tasks), strict=True)
    jobs = [training.TrainingRequest(task.h, task.recipe, now) for task, now in zip(tasks, begun, strict=True)]
    watch, saved = compilation.Watch(), time.monotonic()

    def end(index: int, snapshot: Snapshot) -> None:
        snapshots.finish(folder, tasks[index], inits[index], snapshot)

    for index, snapshot in enumerate(begun):
        if snapshot.status != "training":  # killed between its checkpoint and its record
            end(index, snapshot)
    rounds = training.train_many(
        tasks[0].network,
        tasks[0].split.train,
        jobs,
        slots=count,
        devices=jax.local_devices() if count > 1 else (),
        span=watch.span,
    )
    spent: dict[str, dict[str, float]] = {point.name: {} for point in points}
    for now in rounds:
        stopping = stop()
        due = stopping or time.monotonic() - saved >= config.run.checkpoint_seconds
        for index, snapshot in now:
            name = points[index].name
            note(f"{name}: epoch {snapshot.epochs}, loss {snapshot.epoch_loss[-1] if snapshot.epoch_loss else 0:.3g}")
            if snapshot.status != "training":
                end(index, snapshot)
            elif due:
                snapshots.save(folder, tasks[index], inits[index], snapshot)
        saved = time.monotonic() if due else saved
        names = [points[index].name for index, _ in now]
        for activity, seconds in watch.lap().items():  # shared by those that trained meanwhile
            for name in names:
                spent[name][activity] = spent[name].get(activity, 0.0) + seconds / len(names)
        for index, snapshot in now:
            if snapshot.status != "training":
                records.add_times(folder, points[index].name, spent.pop(points[index].name))
        if stopping and any(snapshot.status == "training" for _, snapshot in now):
            raise processes.StoppedError(f"{names[0]} stopped after {now[0][1].epochs} epochs")


def compile_ahead(folder: epath.Path, points: Sequence[Point], config: ConfigDict) -> None:
    """Compiles what training points of equal shape will need, while the device is at something else."""
    compilation.use_cache(config.run.compilation_cache)
    waiting = sorted((point for point in points if _record(folder, point) is None), key=_data)
    for _, same in itertools.groupby(waiting, key=_data):
        tasks = [task_of(point, config) for point in same]
        count = slots.choose(folder, tasks, config.run.slots)
        devices = jax.local_devices() if count > 1 else ()
        task = tasks[0]
        training.compile_ahead(task.network, task.recipe, task.split.train, task.h, slots=count, devices=devices)
        return  # the others share the program


def measure_missing(
    folder: epath.Path,
    points: Sequence[Point],
    names: Sequence[str],
    config: ConfigDict,
    *,
    stop: Callable[[], bool] = bool,
) -> None:
    """Computes the measures of `names` that the records of points of equal shape and data lack.

    Where networks train together, in slots, they are measured together. Records are written after each measure. What
    cannot be measured does not keep the others from it, and raises in the end.
    """
    known = [(point, _record(folder, point)) for point in points]
    lacking = [(point, record) for point, record in known if _missing(record, names)]
    if not lacking:
        return
    tasks = [task_of(point, config) for point, _ in lacking]
    split = tasks[0].split  # one object, by which it is known to be shared
    lanes = slots.lanes(folder, tasks, config.run.slots)
    wrong: list[Exception] = []
    subjects = _each(lambda one: _subject(folder, *one, split, config, vmapped=lanes > 1), lacking, wrong)
    for some in iter(lambda: list(itertools.islice(subjects, lanes)), []):
        for name in names:
            of = [subject for subject in some if _missing(subject.record, [name])]
            if of and stop():
                raise processes.StoppedError(f"{of[0].model.name} stopped before {name!r} was measured")
            if of:
                _measure(folder, of, name, config, lanes)
    if wrong:
        raise wrong[0]


class _Subject(NamedTuple):
    """A network to measure."""

    record: records.Record
    model: TrainedModel
    key: jax.Array


def _each(function: Callable[[Any], Any], items: Iterable[Any], wrong: list[Exception]) -> Iterator[Any]:
    """`function` of those of `items` where it does not raise ValueError or OSError; these are added to `wrong`."""
    for item in items:
        try:
            yield function(item)
        except (ValueError, OSError) as error:
            wrong.append(error)


def _missing(record: records.Record | None, names: Sequence[str]) -> list[str]:
    """Those of `names` to compute. What failed (memory, say) is tried again: what fails for good costs little."""
    if record is None or record["status"] == "diverged":
        return []
    there = {name for name, entry in record["measures"].items() if entry["status"] != "failed"}
    return [name for name in names if name not in there]


def _subject(
    folder: epath.Path, point: Point, record: records.Record, split: data.Split, config: ConfigDict, *, vmapped: bool
) -> _Subject:
    """A network of the workdir; it is trained again if its checkpoint is damaged or gone."""
    records.check_data(record, split)
    try:
        model = records.restore(folder, record, split, vmapped=vmapped)
    except (files.DamagedError, FileNotFoundError, ValueError) as error:
        print(f"{error}; training {point.name} again", file=sys.stderr)
        train(folder, [point], config)
        record = records.read(folder, point.name)
        model = records.restore(folder, record, split, vmapped=vmapped)
    return _Subject(record, model, jax.random.fold_in(jax.random.key(point.fields["seed"]), _MEASURE))


def _measure(folder: epath.Path, subjects: Sequence[_Subject], name: str, config: ConfigDict, lanes: int) -> None:
    """Computes one measure of networks of equal shape and data, together if `lanes` is not 1."""
    begin = time.monotonic()
    options = config.measures.options.get(name, ConfigDict()).to_dict()
    ask = [functools.partial(measure, model, [name], key=key, options={name: options}) for _, model, key in subjects]
    devices = jax.local_devices() if lanes > 1 else ()
    found = lockstep.run(ask, lanes=lanes, common=subjects[0].model.train, devices=devices)
    seconds = (time.monotonic() - begin) / len(subjects)

    def write(subject: _Subject, answer: dict[str, Estimate]) -> None:
        subject.record["measures"][name] = dataclasses.asdict(answer[name]) | {"options": options}
        records.write(folder, subject.record)
        records.add_times(folder, subject.model.name, {name: seconds})

    wrong: list[Exception] = []
    list(_each(lambda one: write(*one), zip(subjects, found, strict=True), wrong))
    if wrong:  # the disk is full, say: what comes next would be lost as well
        raise wrong[0]
