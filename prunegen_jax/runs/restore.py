"""The trained network that a record describes, restored from its checkpoint."""

from __future__ import annotations

import os

import jax
from etils import epath

from prunegen_jax import data
from prunegen_jax.networks import as_trained_model
from prunegen_jax.runs import checkpoint, files, record, snapshot, task
from prunegen_jax.runs.record import Record
from prunegen_jax.runs.workdir import locate, safe_names
from prunegen_jax.types import History, TrainedModel


def load_model(
    workdir: str | os.PathLike[str], name: str, *, data_dir: str | None = None, cache_dir: str | None = None
) -> TrainedModel:
    """The trained network `name` of a workdir, with its training set, initial weights and history.

    The workdir may be untrusted: none of its files says where else to read, write, or what to download.

    Args:
        workdir: of the sweep.
        name: the name of a record.
        data_dir: where TFDS finds its prepared sets; None for TFDS's own default.
        cache_dir: where decoded images are kept; None for the user's cache folder.

    Raises:
        ValueError: if there is no such network, or it has no weights.
        DamagedError: if its checkpoint is not whole.
        FileNotFoundError: if its data set is not there.
    """
    folder = locate(workdir)
    known = record.read(folder, name)
    if known is None:
        names = ", ".join(safe_names(folder, "records")) or "none"
        raise ValueError(f"{folder} has no network {name!r}; it has {names}")
    split = task.load_split(known.point, directory=data_dir, cache_dir=cache_dir, download=False)
    known.check_data(split.fingerprint)
    return restore(folder, known, split)


def restore(
    folder: epath.Path, known: Record, split: data.Split, *, vmapped: bool = False, convolutions: str = "auto"
) -> TrainedModel:
    """The network of a record from its checkpoint.

    Args:
        folder: the workdir.
        known: the record.
        split: its data set.
        vmapped: the network will be measured together with others.
        convolutions: a name of `compute.planes.FORMS`.

    Raises:
        ValueError: if it has no checkpoint.
        DamagedError: if the checkpoint is not whole, or not of the end of its training.
    """
    loaded = checkpoint.load(folder, known.name)
    if loaded is None:
        raise ValueError(f"{folder} has no weights of {known.name!r}")
    arrays, meta = loaded
    if (meta["status"], meta["hash"]) != (known.status, known.hash):
        # Another process, which began before there was a record, still trains it; or another program wrote it.
        raise files.DamagedError(f"the checkpoint of {known.name!r} in {folder} is not from the end of its training")
    if (known.point.get("model.depth") or 1) > len(arrays):  # checked first: building a huge network takes long
        raise files.DamagedError(f"the record of {known.name!r} in {folder} has more layers than its checkpoint")
    shape = split.train.inputs.shape[1:]
    network = task.build_network(known.point, input_shape=shape, classes=split.classes, convolutions=convolutions)
    network = (network.vmapped or network) if vmapped else network
    params, stats = jax.eval_shape(network.init, jax.random.key(0))
    parts = {}
    for part in ("init", "first_epoch", "final") if meta["has_first_epoch"] else ("init", "final"):
        tree = snapshot.unflatten(part, {"params": params, "stats": stats}, arrays)
        parts[part] = tuple(jax.tree.map(jax.numpy.asarray, (tree["params"], tree["stats"])))
    return as_trained_model(
        network,
        *parts["final"],
        split.train,
        init=parts["init"],
        first_epoch=parts.get("first_epoch"),
        history=History.from_json(meta["history"]),
        name=known.name,
    )
