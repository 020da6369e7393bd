"""Records: what is known of each network of a workdir, one JSON file each; the network that a record describes.

workdir/
  config.json             the config of the latest run
  records/NAME.json       a network: its point, how training ended, losses, measures
  times/NAME.json         seconds, apart, so that records of equal runs are equal
  checkpoints/NAME/       weights at the start, after the first epoch and at the end (Orbax)
  weights/NAME.npz        the same as plain arrays
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Container, Iterator
from typing import Any

import jax
from etils import epath

from prunegen_jax import data
from prunegen_jax.networks import Network, as_trained_model, build
from prunegen_jax.runs import checkpoints, files
from prunegen_jax.runs import record_form as form
from prunegen_jax.runs.record_form import Record
from prunegen_jax.types import History, TrainedModel


def path(workdir: epath.Path, name: str) -> epath.Path:
    """Where the record of `name` is. ValueError if that would be outside the workdir."""
    return files.inside(workdir / "records", f"{name}.json")


def read(workdir: epath.Path, name: str) -> Record | None:
    """The record of `name`; None if there is none, or, with a word on stderr, if it is damaged."""
    try:
        return form.checked(files.read_json(path(workdir, name)), path(workdir, name))
    except FileNotFoundError:
        return None
    except files.DamagedError as error:
        print(f"{error}; it counts as missing, and training makes it again", file=sys.stderr)
        return None


def read_all(workdir: epath.Path) -> list[Record]:
    """Every record of a workdir that is whole, by name; a word on stderr for what is not."""
    found = (read(workdir, file.stem) for file in _files(workdir))
    return [record for record in found if record is not None]


def _files(workdir: epath.Path) -> Iterator[epath.Path]:
    """The files of records; for one that has no name of ours, a copy made by hand, say, a word on stderr."""
    for file in files.listing(workdir / "records", ".json"):
        try:
            yield path(workdir, file.stem)
        except ValueError:
            print(f"{workdir / 'records'} holds {file.name!r}, which is no record of ours: left out", file=sys.stderr)


def stamps(workdir: epath.Path, names: Container[str]) -> dict[str, tuple[float, int]]:
    """Time and size of the files of those records among `names` that are there: they change when the record does."""
    found = {}
    for file in files.listing(workdir / "records", ".json"):
        if file.stem in names:
            with contextlib.suppress(FileNotFoundError):
                stat = file.stat()
                found[file.stem] = (stat.mtime, stat.length)
    return found


def write(workdir: epath.Path, record: Record) -> None:
    """Writes a record, whole, with the measures that another process has put there meanwhile.

    Raises:
        ValueError: if the one that is there is of another point, or if the record has measures, and the one that is
            there is of a network trained otherwise; or if links lead out of the workdir.
        OSError: if it cannot be written.
    """
    record = files.plain(record)
    there = read(workdir, record["name"])
    if there is not None:
        if there["hash"] != record["hash"]:
            raise ValueError(
                f"{workdir} holds {record['name']!r} made with another config: its hash is {there['hash']} there and "
                f"{record['hash']} here. Choose another --workdir, or give the old values"
            )
        if _network(there) == _network(record):
            better = {k: v for k, v in record["measures"].items() if k not in there["measures"] or not _failed(v)}
            record = record | {"measures": there["measures"] | better}
        elif record["measures"]:
            raise ValueError(f"{record['name']} was trained anew while it was measured; run the same command again")
    if record != there:
        files.write_json(path(workdir, record["name"]), record)


def _network(record: Record) -> Record:
    return {key: value for key, value in record.items() if key != "measures"}


def _failed(measure: dict[str, Any]) -> bool:
    return measure["status"] == "failed"


def add_times(workdir: epath.Path, name: str, seconds: dict[str, float]) -> None:
    """Adds seconds per activity to the times of `name`."""
    target = files.inside(workdir / "times", f"{name}.json")
    try:
        known = {key: value for key, value in files.read_json(target).items() if form.is_plain_number(value)}
    except (FileNotFoundError, files.DamagedError):
        known = {}  # times are no results; what is lost is only their sum
    files.write_json(target, known | {key: round(known.get(key, 0.0) + value, 4) for key, value in seconds.items()})


def network_of(fields: dict[str, Any], *, image_shape: tuple[int, int, int], classes: int) -> Network:
    """The network that the `model.*` fields of a point describe. ValueError if they describe none."""
    options = {key[6:]: value for key, value in fields.items() if key.startswith("model.")}
    try:
        return build(options.pop("name"), input_shape=image_shape, classes=classes, **options)
    except (KeyError, TypeError) as error:
        raise ValueError(f"the fields model.* describe no network: {error!r}") from error


@functools.lru_cache(maxsize=2)
def split_of(
    name: str,
    directory: str | None,
    cache_dir: str | None,
    train_size: int | None,
    label_noise: float,
    seed: int,
    download: bool = True,
) -> data.Split:
    """A data set as the networks see it; the latest two are kept."""
    raw = _raw(name, directory, cache_dir, download)
    return data.split(raw, train_size=train_size, label_noise=label_noise, seed=seed)


@functools.lru_cache(maxsize=1)
def _raw(name: str, directory: str | None, cache_dir: str | None, download: bool) -> data.Raw:
    return data.load(name, dir=directory, cache_dir=cache_dir, download=download)


def data_of(
    fields: dict[str, Any], *, directory: str | None, cache_dir: str | None, download: bool = True
) -> data.Split:
    """The data set that the `data.*` fields of a point describe. ValueError if they describe none."""
    kinds = {"name": str, "train_size": int | None, "label_noise": int | float, "seed": int}
    for key, kind in kinds.items():
        if not isinstance(fields.get(f"data.{key}", ()), kind):
            raise ValueError(f"data.{key}={fields.get(f'data.{key}')!r} describes no data set")
    options = (fields[f"data.{key}"] for key in ("train_size", "label_noise", "seed"))
    return split_of(fields["data.name"], directory, cache_dir, *options, *(() if download else (False,)))


def load_model(
    workdir: str | os.PathLike[str], name: str, *, data_dir: str | None = None, cache_dir: str | None = None
) -> TrainedModel:
    """The trained network `name` of a workdir, with its training set, initial weights and history.

    The workdir may be a stranger's: none of its files says where else to read, write, or what to download.

    Args:
        workdir: where the sweep was run.
        name: the name of a record.
        data_dir: where TFDS finds its prepared sets; None for TFDS's own default.
        cache_dir: where decoded images are kept; None for the person's cache folder.

    Raises:
        ValueError: if there is no such network, or it has no weights.
        DamagedError: if its checkpoint is not whole.
        FileNotFoundError: if its data set is not there.
    """
    folder = epath.Path(workdir)
    record = read(folder, name)
    if record is None:
        names = ", ".join(file.stem for file in _files(folder)) or "none"
        raise ValueError(f"{folder} has no network {name!r}; it has {names}")
    split = data_of(record["point"], directory=data_dir, cache_dir=cache_dir, download=False)
    check_data(record, split)
    return restore(folder, record, split)


def check_data(record: Record, split: data.Split) -> None:
    """ValueError if the data set is not the one that the network of `record` was trained on."""
    check_fingerprint(record, split.fingerprint)


def check_fingerprint(record: Record, found: str) -> None:
    """ValueError if a data set of the fingerprint `found` is not the one that `record` was trained on."""
    if found != record.get("data"):
        raise ValueError(
            f"the data set is not the one that {record['name']!r} was trained on: "
            f"its fingerprint is {found}, and was {record.get('data')}"
        )


def restore(workdir: epath.Path, record: Record, split: data.Split, *, vmapped: bool = False) -> TrainedModel:
    """The network of `record` from its checkpoint, `vmapped` for one that is measured together with others.

    Raises:
        ValueError: if it has none.
        DamagedError: if it is not whole.
    """
    loaded = checkpoints.load(workdir / "checkpoints" / record["name"])
    if loaded is None:
        raise ValueError(f"{workdir} has no weights of {record['name']!r}")
    arrays, meta = loaded
    if meta.get("status") != record["status"] or meta.get("hash") != record["hash"]:
        # Another process still trains it, having begun before there was a record; or it is of another making.
        raise files.DamagedError(f"the checkpoint of {record['name']!r} in {workdir} is not that of its end")
    if record["point"].get("model.depth", 1) > len(arrays):  # of which no network is built, to find out
        raise files.DamagedError(f"the record of {record['name']!r} in {workdir} has more layers than its checkpoint")
    network = network_of(record["point"], input_shape=split.train.inputs.shape[1:], classes=split.classes)
    network = (network.vmapped or network) if vmapped else network
    params, stats = jax.eval_shape(network.init, jax.random.key(0))
    parts = {}
    for part in ("init", "first_epoch", "final") if meta["has_first_epoch"] else ("init", "final"):
        tree = checkpoints.unflatten(part, {"params": params, "stats": stats}, arrays)
        parts[part] = tuple(jax.tree.map(jax.numpy.asarray, (tree["params"], tree["stats"])))
    return as_trained_model(
        network,
        *parts["final"],
        split.train,
        init=parts["init"],
        first_epoch=parts.get("first_epoch"),
        history=history_from(meta["history"]),
        name=record["name"],
    )


def history_from(stored: dict[str, Any]) -> History:
    """A history as it was put into a checkpoint's JSON file."""
    losses = {key: tuple(files.number(x) for x in stored[key]) for key in ("epoch_loss", "check_loss")}
    return History(**(stored | losses | {"check_update": tuple(stored["check_update"])}))
