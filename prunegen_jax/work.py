"""The work on one network of a sweep: train it, measure it; what it has reached is on disk at every moment."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from prunegen_jax import checkpoints, data, files, processes, records, training
from prunegen_jax.evaluation import loss_and_accuracy
from prunegen_jax.measures import measure
from prunegen_jax.models import Network
from prunegen_jax.records import Record
from prunegen_jax.sweeps import Point
from prunegen_jax.training import Hyper, Recipe, Snapshot
from prunegen_jax.types import Partial

_MEASURE = 1_000_003  # folded into a network's key for the measures that sample
Arrays = dict[str, np.ndarray]


class Task(NamedTuple):
    """What a point's fields stand for."""

    network: Network
    split: data.Split
    h: Hyper
    recipe: Recipe


def task_of(point: Point, config: ConfigDict) -> Task:
    """Everything needed to train `point`. ValueError, or FileNotFoundError for its data, if something does not fit."""
    fields = point.fields
    options = {key[6:]: value for key, value in fields.items() if key.startswith("train.")}
    rates = {key: options.pop(key) for key in ("learning_rate", "weight_decay", "dropout")}
    h, recipe = training.hyper(**rates, seed=fields["seed"]), Recipe(**options)
    split = records.data_of(fields, directory=config.data.dir, cache_dir=config.data.cache_dir)
    recipe.check(len(split.train))
    network = records.network_of(fields, image_shape=split.train.images.shape[1:], classes=split.classes)
    return Task(network, split, h, recipe)


def run_group(
    folder: pathlib.Path,
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
    if "train" in stages:
        for point in points:
            if records.read(folder, point.name) is None:
                train(folder, point, config, note=note, stop=stop)
    if "measure" in stages:
        for point in points:
            measure_missing(folder, point, names, config, stop=stop)


def train(
    folder: pathlib.Path,
    point: Point,
    config: ConfigDict,
    *,
    note: Callable[[str], None] = str,
    stop: Callable[[], bool] = bool,
) -> Record:
    """Trains `point` from its latest checkpoint on; writes its checkpoint, its weights and, last, its record."""
    begin = saved = time.monotonic()
    task = task_of(point, config)
    place = folder / "checkpoints" / point.name
    init, snapshot = _resume(place, point, task)
    steps = training.train(task.network, task.split.train, task.h, task.recipe, resume=snapshot)
    for snapshot in steps:
        note(f"{point.name}: epoch {snapshot.epochs}, loss {snapshot.epoch_loss[-1] if snapshot.epoch_loss else 0:.3g}")
        stopping = stop()
        due = stopping or time.monotonic() - saved >= config.run.checkpoint_seconds
        if snapshot.status == "training" and due:
            arrays = _arrays(init, snapshot) | checkpoints.flatten("moments", snapshot.state.moments)
            checkpoints.save(place, f"epoch-{snapshot.epochs:06d}", arrays, _meta(point, task, snapshot))
            saved = time.monotonic()
        if snapshot.status == "training" and stopping:
            raise processes.StoppedError(f"{point.name} stopped after {snapshot.epochs} epochs")
    arrays = _arrays(init, snapshot)
    checkpoints.save(place, "final", arrays, _meta(point, task, snapshot))
    files.write_npz(folder / "weights" / f"{point.name}.npz", arrays)
    record = _record(point, task, snapshot)
    records.write(folder, record)
    records.add_times(folder, point.name, {"train": time.monotonic() - begin})
    return record


def measure_missing(
    folder: pathlib.Path,
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
        train(folder, point, config)
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


def _resume(place: pathlib.Path, point: Point, task: Task) -> tuple[Arrays, Snapshot]:
    """The initial weights, and the snapshot to go on from: that of the checkpoint if it is of this very network."""
    begin = training.start(task.network, task.recipe, task.h)
    init = checkpoints.flatten("init", {"params": begin.state.params, "stats": begin.state.stats})
    try:
        loaded = checkpoints.load(place)
        if loaded is None:
            return init, begin
        arrays, meta = loaded
        theirs, ours = (
            {key: m.get(key) for key in ("hash", "data", "versions")} for m in (meta, _meta(point, task, begin))
        )
        if theirs != ours:
            raise files.DamagedError(f"{place} is of another network, data set or machine: {theirs}, not {ours}")
        return init, _snapshot(arrays, meta, begin)
    except files.DamagedError as error:
        print(f"{error}; training starts over", file=sys.stderr)
        return init, begin


def _snapshot(arrays: Arrays, meta: dict[str, Any], begin: Snapshot) -> Snapshot:
    """The snapshot that a checkpoint holds. A finished network's has no moments: it takes no more updates."""
    template = {"params": begin.state.params, "stats": begin.state.stats}
    now = jax.tree.map(jax.numpy.asarray, checkpoints.unflatten("final", template, arrays))
    moments = begin.state.moments
    if meta["status"] == "training":
        moments = jax.tree.map(jax.numpy.asarray, checkpoints.unflatten("moments", moments, arrays))
    early = checkpoints.unflatten("first_epoch", template, arrays) if meta["has_first_epoch"] else None
    history = records.history_from(meta["history"])
    return Snapshot(
        training.State(now["params"], now["stats"], moments),
        meta["epochs"],
        history.updates,
        history.epoch_loss,
        history.check_update,
        history.check_loss,
        tuple(files.number(x) for x in meta["check_running"]),
        early and (early["params"], early["stats"]),
        meta["status"],
        meta["reason"],
    )


def _arrays(init: Arrays, snapshot: Snapshot) -> Arrays:
    """The weights at the start, after the first epoch and now."""
    now = {"params": snapshot.state.params, "stats": snapshot.state.stats}
    arrays = init | checkpoints.flatten("final", now)
    if snapshot.first_epoch is not None:
        params, stats = snapshot.first_epoch
        arrays |= checkpoints.flatten("first_epoch", {"params": params, "stats": stats})
    return arrays


def _meta(point: Point, task: Task, snapshot: Snapshot) -> dict[str, Any]:
    """What a checkpoint says beside its arrays: of which network it is, and how far it has come."""
    return {
        "hash": point.hash,
        "data": task.split.fingerprint,
        "versions": versions(),
        "status": snapshot.status,
        "reason": snapshot.reason,
        "epochs": snapshot.epochs,
        "history": dataclasses.asdict(snapshot.history(task.recipe)),
        "check_running": snapshot.check_running,
        "has_first_epoch": snapshot.first_epoch is not None,
    }


def _record(point: Point, task: Task, snapshot: Snapshot) -> Record:
    return {
        "name": point.name,
        "hash": point.hash,
        "point": point.fields,
        "axes": list(point.axes),
        "status": snapshot.status,
        "reason": snapshot.reason,
        "train": _losses(task, snapshot, task.split.train),
        "test": _losses(task, snapshot, task.split.test),
        "updates": snapshot.updates,
        "epochs": snapshot.epochs,
        "data": task.split.fingerprint,
        "measures": {},
        "versions": versions(),
    }


def _losses(task: Task, snapshot: Snapshot, examples: data.Dataset) -> dict[str, Any] | None:
    if snapshot.status == "diverged":
        return None
    apply = Partial(task.network.apply, snapshot.state.stats)
    loss, accuracy = loss_and_accuracy(apply, snapshot.state.params, examples)
    return {"loss": loss, "accuracy": accuracy, "size": len(examples)}


def versions() -> dict[str, str]:
    """What the numbers were made with: packages, backend, device, threads."""
    packages = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")}
    device = jax.devices()[0].device_kind
    return packages | {"backend": jax.default_backend(), "device": device, "threads": str(processes.threads())}
