"""The work on networks of equal shape: train them, measure them; what is reached is on disk at every moment."""

from __future__ import annotations

import dataclasses
import itertools
import operator
import sys
import time
from collections.abc import Callable, Sequence

import jax
from etils import epath
from ml_collections import ConfigDict

from prunegen_jax import compilation, files, processes, records, slots, snapshots, training
from prunegen_jax.measures import measure
from prunegen_jax.snapshots import Snapshot, task_of
from prunegen_jax.sweeps import Point

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
        waiting = [point for point in points if records.read(folder, point.name) is None]
        for _, same in itertools.groupby(sorted(waiting, key=_data), key=_data):
            train(folder, list(same), config, note=note, stop=stop)
    if "measure" in stages:
        for point in points:
            measure_missing(folder, point, names, config, stop=stop)


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
    jobs = [training.Job(task.h, task.recipe, now) for task, now in zip(tasks, begun, strict=True)]
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


def measure_missing(
    folder: epath.Path,
    point: Point,
    names: Sequence[str],
    config: ConfigDict,
    *,
    stop: Callable[[], bool] = bool,
) -> None:
    """Computes the measures of `names` that the record of `point` lacks, and writes it after each."""
    record = records.read(folder, point.name)
    if record is None or record["status"] == "diverged":
        return
    # What failed (out of memory, say) is tried again: the answer of what fails for good costs little.
    there = {name for name, entry in record["measures"].items() if entry["status"] != "failed"}
    missing = [name for name in names if name not in there]
    if not missing:
        return
    split = task_of(point, config).split
    records.check_data(record, split)
    try:
        model = records.restore(folder, record, split)
    except (files.DamagedError, FileNotFoundError, ValueError) as error:
        print(f"{error}; training {point.name} again", file=sys.stderr)
        train(folder, [point], config)
        model = records.restore(folder, record, split)
    key = jax.random.fold_in(jax.random.key(point.fields["seed"]), _MEASURE)
    for name in missing:
        if stop():
            raise processes.StoppedError(f"{point.name} stopped before {name!r} was measured")
        begin = time.monotonic()
        options = config.measures.options.get(name, ConfigDict()).to_dict()
        estimate = measure(model, [name], key=key, options={name: options})[name]
        record["measures"][name] = dataclasses.asdict(estimate) | {"options": options}
        records.write(folder, record)
        records.add_times(folder, point.name, {name: time.monotonic() - begin})
