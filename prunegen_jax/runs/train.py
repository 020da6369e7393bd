"""Trains what is missing of a group of points; checkpoints, weights and records are written on the way."""

from __future__ import annotations

import itertools
import operator
import time
from collections.abc import Callable, Iterator, Sequence

import jax
from etils import epath
from ml_collections import ConfigDict

from prunegen_jax import training
from prunegen_jax.runs import compilation, costs, processes, record, slots, snapshot, task
from prunegen_jax.runs.points import Point
from prunegen_jax.runs.record import Record
from prunegen_jax.training import Snapshot


def train_missing(
    folder: epath.Path,
    points: Sequence[Point],
    config: ConfigDict,
    *,
    note: Callable[[str], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> None:
    """Trains those of a group of points of equal shape that have no record.

    Args:
        folder: the workdir.
        points: of equal shape.
        config: of the run.
        note: called with what the training is at, for a person to see.
        stop: asked after every epoch whether to stop.

    Raises:
        ValueError: if another driver has put a record of the same name and other fields there.
        StoppedError: if `stop` said so; what was reached is saved.
    """
    for same in _waiting(folder, points):
        train(folder, same, config, note=note, stop=stop)


def train(
    folder: epath.Path,
    points: Sequence[Point],
    config: ConfigDict,
    *,
    note: Callable[[str], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> None:
    """Trains points of equal shape and data, in an ensemble of slots, from their latest checkpoints on.

    Writes the checkpoint, the weights and, last, the record of each as its training ends. For the arguments see
    `train_missing`.

    Raises:
        StoppedError: if `stop` said so; what was reached is saved.
    """
    tasks, devices = _tasks(folder, points, config)
    resumed = [snapshot.resume(folder, each) for each in tasks]
    inits, begun = [init for init, _ in resumed], [begin for _, begin in resumed]

    def finish(index: int, end: Snapshot) -> None:
        snapshot.finish(folder, tasks[index], inits[index], end)

    for index, begin in enumerate(begun):
        if begin.status != "training":  # the process died between the last checkpoint and the record
            finish(index, begin)
    watch, saved = compilation.Watch(), time.monotonic()
    spent: dict[str, dict[str, float]] = {point.name: {} for point in points}
    epochs = training.train_many(
        tasks[0].network,
        tasks[0].split.train,
        [training.TrainingRequest(each.h, each.recipe, begin) for each, begin in zip(tasks, begun, strict=True)],
        slots=tasks[0].slots,
        devices=devices,
        span=watch.span,
    )
    for trained in epochs:
        stopping = stop is not None and stop()
        due = stopping or time.monotonic() - saved >= config.run.checkpoint_seconds
        for index, now in trained:
            if note is not None:
                note(
                    f"{points[index].name}: epoch {now.epochs}, loss {now.epoch_loss[-1] if now.epoch_loss else 0:.3g}"
                )
            if now.status != "training":
                finish(index, now)
            elif due:
                snapshot.save(folder, tasks[index], inits[index], now)
        saved = time.monotonic() if due else saved
        _share(watch.lap(), [spent[points[index].name] for index, _ in trained])
        for index, now in trained:
            if now.status != "training":
                costs.add(folder, points[index].name, spent.pop(points[index].name))
        if stopping and any(now.status == "training" for _, now in trained):
            raise processes.StoppedError(f"{points[trained[0][0]].name} stopped after {trained[0][1].epochs} epochs")


def compile_ahead(folder: epath.Path, points: Sequence[Point], config: ConfigDict) -> None:
    """Compiles what training points of equal shape will need, while the device is busy with other work."""
    compilation.use_cache(config.run.compilation_cache)
    for same in _waiting(folder, points):
        tasks, devices = _tasks(folder, same, config)
        first = tasks[0]
        training.compile_ahead(
            first.network, first.recipe, first.split.train, first.h, slots=first.slots, devices=devices
        )
        return  # the others share the program


def own_record(folder: epath.Path, point: Point) -> Record | None:
    """The record of `point`, None if it has none.

    Raises:
        ValueError: if another driver has put a record of the same name and other fields there.
    """
    existing = record.read(folder, point.name)
    if existing is not None and existing.hash != point.hash:
        raise ValueError(
            f"{folder} contains {point.name!r}, made meanwhile by another driver with a different config. "
            "Choose another --workdir, or give the same values"
        )
    return existing


def by_data(points: Sequence[Point]) -> Iterator[list[Point]]:
    """The points in lists of equal data: only those train, or are measured, at once."""
    key = operator.attrgetter("data")
    for _, same in itertools.groupby(sorted(points, key=key), key=key):
        yield list(same)


def _waiting(folder: epath.Path, points: Sequence[Point]) -> Iterator[list[Point]]:
    """The points to train, in lists of equal data."""
    stages = ("train",)
    return by_data([p for p in points if record.find_missing(own_record(folder, p), p, stages, ()).train])


def _tasks(
    folder: epath.Path, points: Sequence[Point], config: ConfigDict
) -> tuple[list[task.Task], Sequence[jax.Device]]:
    """What training `points` needs, and the devices that their slots are spread over."""
    tasks = [task.build_task(point, config) for point in points]
    count = slots.choose(folder, tasks, config.run.slots)
    return [each._replace(slots=count) for each in tasks], jax.local_devices() if count > 1 else ()


def _share(seconds: dict[str, float], networks: Sequence[dict[str, float]]) -> None:
    """Adds to each of `networks` its equal part of `seconds` per activity."""
    for activity, value in seconds.items():
        for spent in networks:
            spent[activity] = spent.get(activity, 0.0) + value / len(networks)
