"""What is on disk of a network on its way and at its end: its checkpoint, its weights, its record."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import sys
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from prunegen_jax import data, training
from prunegen_jax.compute.evaluation import loss_and_accuracy
from prunegen_jax.networks import Network
from prunegen_jax.runs import checkpoints, files, processes, records
from prunegen_jax.runs.points import Point
from prunegen_jax.runs.records import Record
from prunegen_jax.training import Hyper, Recipe, Snapshot
from prunegen_jax.types import Partial

Arrays = dict[str, np.ndarray]


class Task(NamedTuple):
    """A point and what its fields stand for; `slots` is the size of the ensemble that it is trained in."""

    point: Point
    network: Network
    split: data.Split
    h: Hyper
    recipe: Recipe
    slots: int = 1


def task_of(point: Point, config: ConfigDict) -> Task:
    """Everything needed to train `point`. ValueError, or FileNotFoundError for its data, if something does not fit."""
    fields = point.fields
    options = {key[6:]: value for key, value in fields.items() if key.startswith("train.")}
    rates = {key: options.pop(key) for key in ("learning_rate", "weight_decay", "dropout")}
    h, recipe = training.hyper(**rates, seed=fields["seed"]), Recipe(**options)
    split = records.data_of(fields, directory=config.data.dir, cache_dir=config.data.cache_dir)
    recipe.check(len(split.train))
    network = records.network_of(fields, input_shape=split.train.inputs.shape[1:], classes=split.classes)
    return Task(point, network, split, h, recipe)


def resume(folder: epath.Path, task: Task) -> tuple[Arrays, Snapshot]:
    """The initial weights, and the snapshot to go on from: that of the checkpoint if it is of this very network."""
    place = _place(folder, task)
    begin = training.start(task.network, task.recipe, task.h)
    init = checkpoints.flatten("init", {"params": begin.state.params, "stats": begin.state.stats})
    try:
        loaded = checkpoints.load(place, expected=_expected(begin))
        if loaded is None:
            return init, begin
        arrays, meta = loaded
        theirs, ours = ({key: m.get(key) for key in ("hash", "data", "versions")} for m in (meta, _meta(task, begin)))
        if theirs != ours:
            raise files.DamagedError(f"{place} is of another network, data set or machine: {theirs}, not {ours}")
        return init, _snapshot(arrays, meta, begin)
    except files.DamagedError as error:
        print(f"{error}; training starts over", file=sys.stderr)
        return init, begin


def save(folder: epath.Path, task: Task, init: Arrays, snapshot: Snapshot) -> None:
    """Makes `snapshot`, of a network in training, its checkpoint."""
    arrays = _arrays(init, snapshot) | checkpoints.flatten("moments", snapshot.state.moments)
    checkpoints.save(_place(folder, task), f"epoch-{snapshot.epochs:06d}", arrays, _meta(task, snapshot))


def finish(folder: epath.Path, task: Task, init: Arrays, snapshot: Snapshot) -> Record:
    """Writes the checkpoint and the weights of a network whose training has ended and, last, its record."""
    arrays = _arrays(init, snapshot)
    checkpoints.save(_place(folder, task), "final", arrays, _meta(task, snapshot))
    files.write_npz(files.inside(folder / "weights", f"{task.point.name}.npz"), arrays)
    record = _record(task, snapshot)
    records.write(folder, record)
    return record


def _expected(begin: Snapshot) -> dict[str, jax.ShapeDtypeStruct]:
    """The arrays that a checkpoint of the network of `begin` may have."""
    weights = {"params": begin.state.params, "stats": begin.state.stats}
    parts = {"init": weights, "first_epoch": weights, "final": weights, "moments": begin.state.moments}
    return {k: v for prefix, tree in parts.items() for k, v in checkpoints.shapes(prefix, tree).items()}


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


def _meta(task: Task, snapshot: Snapshot) -> dict[str, Any]:
    """What a checkpoint says beside its arrays: of which network it is, and how far it has come."""
    return {
        "hash": task.point.hash,
        "data": task.split.fingerprint,
        "versions": versions(task.slots),
        "status": snapshot.status,
        "reason": snapshot.reason,
        "epochs": snapshot.epochs,
        "history": dataclasses.asdict(snapshot.history(task.recipe)),
        "check_running": snapshot.check_running,
        "has_first_epoch": snapshot.first_epoch is not None,
    }


def _record(task: Task, snapshot: Snapshot) -> Record:
    point = task.point
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
        "versions": versions(task.slots),
    }


def _losses(task: Task, snapshot: Snapshot, examples: data.Dataset) -> dict[str, Any] | None:
    if snapshot.status == "diverged":
        return None
    apply = Partial(task.network.apply, snapshot.state.stats)
    loss, accuracy = loss_and_accuracy(apply, snapshot.state.params, examples)
    return {"loss": loss, "accuracy": accuracy, "size": len(examples)}


def versions(slots: int) -> dict[str, str]:
    """What the numbers were made with: packages, backend, device, threads, networks trained at once."""
    packages = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")}
    device = jax.devices()[0].device_kind
    machine = {"backend": jax.default_backend(), "device": device, "threads": str(processes.threads())}
    return packages | machine | {"slots": str(slots)}


def _place(folder: epath.Path, task: Task) -> epath.Path:
    return files.inside(folder / "checkpoints", task.point.name)
