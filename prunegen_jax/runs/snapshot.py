"""What is put into a checkpoint: a network in training as arrays and JSON, and back; and what is written at the end."""

from __future__ import annotations

import importlib.metadata
import sys
from typing import Any

import jax
import numpy as np
from etils import epath

from prunegen_jax import training
from prunegen_jax.compute import trees
from prunegen_jax.compute.evaluation import loss_and_accuracy
from prunegen_jax.compute.planes import choose_form
from prunegen_jax.runs import checkpoint, files, processes, record, workdir
from prunegen_jax.runs.record import Record
from prunegen_jax.runs.schema import Json
from prunegen_jax.runs.task import Task
from prunegen_jax.training import Snapshot
from prunegen_jax.types import Dataset, History, Partial

Arrays = dict[str, np.ndarray]


def resume(folder: epath.Path, task: Task) -> tuple[Arrays, Snapshot]:
    """The initial weights, and the snapshot to go on from: that of the checkpoint if it is of this very network."""
    begin = training.start(task.network, task.recipe, task.h)
    init = flatten("init", {"params": begin.state.params, "stats": begin.state.stats})
    name = task.point.name
    try:
        loaded = checkpoint.load(folder, name, expected=_expected(begin))
        if loaded is None:
            return init, begin
        arrays, meta = loaded
        theirs, ours = ({key: m[key] for key in ("hash", "data", "versions")} for m in (meta, _meta(task, begin)))
        theirs["versions"] = record.DEFAULT_SETTINGS | theirs["versions"]
        if theirs != ours:
            place = workdir.path(folder, "checkpoints", name)
            raise files.DamagedError(
                f"{place} was written for another network, data set or machine: {theirs}, not {ours}"
            )
        return init, _snapshot(arrays, meta, begin)
    except files.DamagedError as error:
        print(f"{error}; training starts over", file=sys.stderr)
        return init, begin


def save(folder: epath.Path, task: Task, init: Arrays, snapshot: Snapshot) -> None:
    """Makes `snapshot`, of a network in training, its checkpoint."""
    arrays = _arrays(init, snapshot) | flatten("moments", snapshot.state.moments)
    checkpoint.save(folder, task.point.name, f"epoch-{snapshot.epochs:06d}", arrays, _meta(task, snapshot))


def finish(folder: epath.Path, task: Task, init: Arrays, snapshot: Snapshot) -> Record:
    """Writes the checkpoint and the weights of a network whose training has ended and, last, its record."""
    arrays = _arrays(init, snapshot)
    checkpoint.save(folder, task.point.name, checkpoint.FINAL, arrays, _meta(task, snapshot))
    files.write_npz(workdir.path(folder, "weights", task.point.name), arrays)
    result = _record(task, snapshot)
    record.write(folder, result)
    return result


def restore_weights(folder: epath.Path, name: str) -> bool:
    """Writes the weights of a network whose training has ended again, from its checkpoint.

    Returns:
        False if it has no checkpoint of the end that is whole.
    """
    try:
        loaded = checkpoint.load(folder, name)
    except files.DamagedError:
        return False
    if loaded is None or loaded[1]["status"] == "training":
        return False
    files.write_npz(workdir.path(folder, "weights", name), loaded[0])
    return True


def versions(task: Task) -> dict[str, str]:
    """What the numbers were made with: packages, backend, device, threads, networks at once, form of convolutions,
    settings of JAX."""
    packages = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")}
    device = jax.devices()[0].device_kind
    machine = {"backend": jax.default_backend(), "device": device, "threads": str(processes.threads())}
    form = choose_form(task.convolutions, vmapped=task.slots > 1)
    return packages | machine | {"slots": str(task.slots), "convolutions": form} | settings()


def settings() -> dict[str, str]:
    """The settings of JAX in this process that change numbers; see `record.DEFAULT_SETTINGS`."""
    precision = jax.config.jax_default_matmul_precision
    return {
        "jax_default_prng_impl": str(jax.config.jax_default_prng_impl),
        "jax_threefry_partitionable": str(jax.config.jax_threefry_partitionable),
        "jax_enable_x64": str(jax.config.jax_enable_x64),
        "jax_default_matmul_precision": str(None if precision == "default" else precision),
        "XLA_FLAGS": processes.numeric_flags(),
    }


def flatten(prefix: str, tree: Any) -> Arrays:
    """The leaves of a tree by name: `prefix/block0_conv0/kernel`."""
    return {"/".join((prefix, *path)): np.asarray(leaf) for path, leaf in trees.named_leaves(tree)}


def shapes(prefix: str, tree: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """What `flatten` would make of a tree, for `checkpoint.load` to expect: only shapes and types are read."""
    return {
        "/".join((prefix, *path)): jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        for path, leaf in trees.named_leaves(tree)
    }


def unflatten(prefix: str, template: Any, arrays: Arrays) -> Any:
    """The tree of the structure, shapes and types of `template` from what `flatten` made.

    Raises:
        DamagedError: if a leaf is missing or has another shape or type.
    """

    def leaf(path: tuple[Any, ...], wanted: Any) -> np.ndarray:
        name = "/".join((prefix, *trees.path_names(path)))
        array = arrays.get(name)
        if array is None or (array.shape, array.dtype) != (wanted.shape, wanted.dtype):
            existing = "nothing" if array is None else f"{array.dtype}{list(array.shape)}"
            needed = f"{wanted.dtype}{list(wanted.shape)}"
            raise files.DamagedError(f"the checkpoint has {existing} for {name!r}; the network needs {needed}")
        return array

    return jax.tree_util.tree_map_with_path(leaf, template)


def _expected(begin: Snapshot) -> dict[str, jax.ShapeDtypeStruct]:
    """The arrays that a checkpoint of the network of `begin` may have."""
    weights = {"params": begin.state.params, "stats": begin.state.stats}
    parts = {"init": weights, "first_epoch": weights, "final": weights, "moments": begin.state.moments}
    return {k: v for prefix, tree in parts.items() for k, v in shapes(prefix, tree).items()}


def _arrays(init: Arrays, snapshot: Snapshot) -> Arrays:
    """The weights at the start, after the first epoch and now."""
    arrays = init | flatten("final", {"params": snapshot.state.params, "stats": snapshot.state.stats})
    if snapshot.first_epoch is not None:
        params, stats = snapshot.first_epoch
        arrays |= flatten("first_epoch", {"params": params, "stats": stats})
    return arrays


def _meta(task: Task, snapshot: Snapshot) -> Json:
    """What a checkpoint says in addition to its arrays: of which network it is, and how far it has come."""
    return {
        "hash": task.point.hash,
        "data": task.split.fingerprint,
        "versions": versions(task),
        "status": snapshot.status,
        "reason": snapshot.reason,
        "epochs": snapshot.epochs,
        "history": snapshot.history(task.recipe).to_json(),
        "check_running": snapshot.check_running,
        "has_first_epoch": snapshot.first_epoch is not None,
    }


def _snapshot(arrays: Arrays, meta: Json, begin: Snapshot) -> Snapshot:
    """The snapshot that a checkpoint holds. A finished network's has no moments: it takes no more updates."""
    template = {"params": begin.state.params, "stats": begin.state.stats}
    now = jax.tree.map(jax.numpy.asarray, unflatten("final", template, arrays))
    moments = begin.state.moments
    if meta["status"] == "training":
        moments = jax.tree.map(jax.numpy.asarray, unflatten("moments", moments, arrays))
    early = unflatten("first_epoch", template, arrays) if meta["has_first_epoch"] else None
    history = History.from_json(meta["history"])
    return Snapshot(
        training.State(now["params"], now["stats"], moments),
        epochs=meta["epochs"],
        updates=history.updates,
        epoch_loss=history.epoch_loss,
        check_update=history.check_update,
        check_loss=history.check_loss,
        check_running=tuple(map(float, meta["check_running"])),
        first_epoch=early and (early["params"], early["stats"]),
        status=meta["status"],
        reason=meta["reason"],
    )


def _record(task: Task, snapshot: Snapshot) -> Record:
    """The record of a network whose training has ended, without measures."""
    point = task.point
    return Record(
        name=point.name,
        hash=point.hash,
        point=point.fields,
        axes=point.axes,
        status=snapshot.status,
        reason=snapshot.reason,
        train=_losses(task, snapshot, task.split.train),
        test=_losses(task, snapshot, task.split.test),
        updates=snapshot.updates,
        epochs=snapshot.epochs,
        data=task.split.fingerprint,
        versions=versions(task) | {"processor": processes.processor()},  # training may have begun on another
    )


def _losses(task: Task, snapshot: Snapshot, examples: Dataset) -> Json | None:
    """Loss and accuracy on a data set; None for a network that diverged."""
    if snapshot.status == "diverged":
        return None
    apply = Partial(task.network.apply, snapshot.state.stats)
    loss, accuracy = loss_and_accuracy(apply, snapshot.state.params, examples)
    return {"loss": loss, "accuracy": accuracy, "size": len(examples)}
