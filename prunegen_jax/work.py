"""The work on one network of a sweep: train it, measure it; what it has reached is on disk at every moment."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from prunegen_jax import checkpoints, data, files, records, training
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


def train(folder: pathlib.Path, point: Point, config: ConfigDict, *, note: Callable[[str], None] = str) -> Record:
    """Trains `point` from its latest checkpoint on; writes its checkpoint, its weights and, last, its record."""
    begin = saved = time.monotonic()
    task = task_of(point, config)
    place = folder / "checkpoints" / point.name
    init, snapshot = _resume(place, task)
    steps = training.train(task.network, task.split.train, task.h, task.recipe, resume=snapshot)
    for snapshot in steps:
        note(f"{point.name}: epoch {snapshot.epochs}, loss {snapshot.epoch_loss[-1] if snapshot.epoch_loss else 0:.3g}")
        if snapshot.status == "training" and time.monotonic() - saved >= config.run.checkpoint_seconds:
            _save(place, f"epoch-{snapshot.epochs:06d}", init, snapshot, checkpoints.flatten("state", snapshot.state))
            saved = time.monotonic()
    final = {"params": snapshot.state.params, "stats": snapshot.state.stats}
    arrays = _save(place, "final", init, snapshot, checkpoints.flatten("final", final), task.recipe)
    files.write_npz(folder / "weights" / f"{point.name}.npz", arrays)
    record = _record(point, task, snapshot)
    records.write(folder, record)
    records.add_times(folder, point.name, {"train": time.monotonic() - begin})
    return record


def measure_missing(folder: pathlib.Path, point: Point, names: Sequence[str], config: ConfigDict) -> None:
    """Computes the measures of `names` that the record of `point` lacks, and writes it after each."""
    record = records.read(folder, point.name)
    if record is None or record["status"] == "diverged":
        return
    missing = [name for name in names if name not in record["measures"]]
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
        begin = time.monotonic()
        options = config.measures.options.get(name, ConfigDict()).to_dict()
        estimate = measure(model, [name], key=key, options={name: options})[name]
        record["measures"][name] = dataclasses.asdict(estimate) | {"options": options}
        records.write(folder, record)
        records.add_times(folder, point.name, {name: time.monotonic() - begin})


def _resume(place: pathlib.Path, task: Task) -> tuple[Arrays, Snapshot | None]:
    """The initial weights and the snapshot to go on from; None to begin."""
    begin = training.start(task.network, task.recipe, task.h)
    init = checkpoints.flatten("init", {"params": begin.state.params, "stats": begin.state.stats})
    try:
        loaded = checkpoints.load(place)
        if loaded is None or loaded[1]["status"] != "training":
            return init, begin
        arrays, meta = loaded
        state = jax.tree.map(jax.numpy.asarray, checkpoints.unflatten("state", begin.state, arrays))
        template = {"params": begin.state.params, "stats": begin.state.stats}
        early = checkpoints.unflatten("first_epoch", template, arrays)
    except files.DamagedError as error:
        print(f"{error}; training starts over", file=sys.stderr)
        return init, begin
    listed = {key: tuple(value) if isinstance(value, list) else value for key, value in meta.items()}
    return init, Snapshot(state=state, first_epoch=(early["params"], early["stats"]), **listed)


def _save(
    place: pathlib.Path, name: str, init: Arrays, snapshot: Snapshot, arrays: Arrays, recipe: Recipe | None = None
) -> Arrays:
    """Saves the weights at the start, after the first epoch and now; with `recipe`, the history of a finished run."""
    arrays = init | arrays
    if snapshot.first_epoch is not None:
        params, stats = snapshot.first_epoch
        arrays |= checkpoints.flatten("first_epoch", {"params": params, "stats": stats})
    if recipe is None:
        meta = {key: value for key, value in snapshot._asdict().items() if key not in {"state", "first_epoch"}}
    else:
        meta = {"status": snapshot.status, "history": dataclasses.asdict(snapshot.history(recipe))}
    checkpoints.save(place, name, arrays, meta)
    return arrays


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
    threads = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    device = jax.devices()[0].device_kind
    return packages | {"backend": jax.default_backend(), "device": device, "threads": threads}
