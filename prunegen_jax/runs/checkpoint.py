"""Checkpoints: the one module that opens them. A checkpoint is named arrays, and a JSON file that says which count.

The arrays are written first, under a name that is never used again; then the JSON file is replaced; then the arrays
that it named before are deleted. Whenever a process dies, the JSON file names arrays that are complete. Two processes
may save and load one checkpoint at a time: each save is complete in itself, and a reader that finds the arrays gone
reads the JSON file again. `snapshot` says what is put into a checkpoint; `arrays` reads and writes the arrays.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from etils import epath

from prunegen_jax.runs import arrays, files, schema, workdir
from prunegen_jax.runs.schema import Json

if TYPE_CHECKING:
    import jax

FINAL = "final"  # what the arrays of a network whose training has ended are called
_STATE = "state.json"
_STALE_SECONDS = 3600.0  # after which arrays that no JSON file names are not being written any more
# What may be deleted: arrays, half written arrays of Orbax, half written files of `files.atomic`.
_DELETABLE = re.compile(r"(epoch-\d+|final)-[0-9a-f]{8}(\.orbax-checkpoint-tmp(-\d+)?)?|\.[a-z0-9_]{8}\.tmp")
_HISTORY = {
    "epoch_loss": schema.list_of(schema.is_number), "check_update": schema.list_of(schema.is_count),
    "check_loss": schema.list_of(schema.is_number), "updates": schema.is_count, "batch_size": schema.is_count,
    "target": schema.is_number,
}  # fmt: skip
_META = {
    "hash": schema.is_text, "data": schema.is_text, "versions": schema.map_of(schema.is_text),
    "status": schema.one_of("training", "converged", "ended", "not_converged", "diverged"),
    "reason": schema.is_text,
    "epochs": schema.is_count, "history": _HISTORY, "check_running": schema.list_of(schema.is_number),
    "has_first_epoch": schema.is_flag,
}  # fmt: skip
_REFERENCE = {  # what the JSON file must hold to say which arrays count
    "arrays": schema.is_text,
    "digest": schema.is_text,
    "files": schema.map_of(schema.is_text),
    "meta": schema.is_object,
}
_ATTEMPTS = 5  # to read a checkpoint while another process replaces it
_MOST_KEPT = 2**28  # bytes of arrays kept in memory

_kept: dict[str, dict[str, np.ndarray]] | None = None  # by digest; see `kept_in_memory`


@contextlib.contextmanager
def kept_in_memory() -> Iterator[None]:
    """Within the block, final arrays that are saved or loaded stay in memory, up to 256 MiB of them.

    A network that is trained, measured and drawn in one process is then not read from its files, which takes Orbax
    some 80 ms each time.
    """
    global _kept  # noqa: PLW0603 - one for the process, as the files are
    _kept = {}
    try:
        yield
    finally:
        _kept = None


def _keep(digest: str, content: dict[str, np.ndarray]) -> None:
    if _kept is None:
        return
    taken = sum(array.nbytes for held in (*_kept.values(), content) for array in held.values())
    if taken <= _MOST_KEPT:
        _kept[digest] = content


def save(folder: epath.Path, network: str, name: str, content: dict[str, np.ndarray], meta: Json) -> None:
    """Makes the arrays `content` and `meta` the checkpoint of `network`, then deletes the one that it had.

    The final checkpoint of a network stays: another process that still trains it does not replace it.

    Args:
        folder: the workdir.
        network: the name of the network.
        name: what the folder of the arrays begins with; "final" for a network whose training has ended.
        content: arrays by name.
        meta: what else to keep; see `_META`.

    Raises:
        OSError: if it cannot be written. The checkpoint that existed is whole then.
        ValueError: if a link leads out of the workdir.
    """
    place = _place(folder, network)
    if name != FINAL and _is_final(place, meta):
        return
    name = f"{name}-{secrets.token_hex(4)}"
    target = place / name
    hashes = arrays.write(target, content)
    if not name.startswith(f"{FINAL}-") and _is_final(place, meta):  # another process ended training meanwhile
        target.rmtree(missing_ok=True)
        return
    before = _read_reference(place)
    digest = files.digest(content)
    files.write_json(place / _STATE, {"arrays": name, "files": hashes, "digest": digest, "meta": meta})
    _clean(place, name, before and before["arrays"])
    if name.startswith(f"{FINAL}-"):
        _keep(digest, content)


def load(
    folder: epath.Path, network: str, *, expected: dict[str, jax.ShapeDtypeStruct] | None = None
) -> tuple[dict[str, np.ndarray], Json] | None:
    """The arrays and `meta` of the checkpoint of `network`; None if it has none.

    Args:
        folder: the workdir.
        network: the name of the network.
        expected: the arrays that there may be; memory is taken for no other. None for arrays of any shape, up to a
            limit on the whole.

    Raises:
        DamagedError: if it is not whole, or has other arrays.
        ValueError: if a link leads out of the workdir.
    """
    place = _place(folder, network)
    for _ in range(_ATTEMPTS):
        try:
            state = _read_state(place)
        except FileNotFoundError:
            return None
        try:
            meta = _check_meta(state, place / _STATE)
            return _read_arrays(place, state, expected), meta
        except files.DamagedError:
            if _read_state(place)["arrays"] == state["arrays"]:
                raise
    raise files.DamagedError(f"{place} is overwritten by another process faster than it can be read")


def progress(folder: epath.Path, network: str) -> int | None:
    """How many epochs the latest checkpoint of `network` has; None if it has none that is whole."""
    meta = _read_meta(folder, network)
    return meta and meta["epochs"]


def written(folder: epath.Path, network: str) -> float | None:
    """When the latest checkpoint of `network` was written, in seconds; None if it has none."""
    try:
        return files.time_and_size(workdir.path(folder, "checkpoints", network) / _STATE)[0]
    except OSError:
        return None


def history(folder: epath.Path, network: str) -> Json | None:
    """How `network` was trained so far, as `History.to_json` gives it; None if it has no checkpoint that is whole.

    Not a `History`, whose module imports JAX: the report does without.
    """
    meta = _read_meta(folder, network)
    losses = ("epoch_loss", "check_loss")
    return meta and meta["history"] | {key: [float(x) for x in meta["history"][key]] for key in losses}


def _place(folder: epath.Path, network: str) -> epath.Path:
    """The folder of the checkpoint of `network`, as Orbax wants it. ValueError if a link leads out of the workdir."""
    place = workdir.path(folder, "checkpoints", network)
    place = place if files.in_bucket(place) else epath.Path(os.path.abspath(place))
    files.check_within(place, place.parent.parent)
    return place


def _read_meta(folder: epath.Path, network: str) -> Json | None:
    """What the checkpoint of `network` says of its training; None if it has none that is whole."""
    try:
        place = workdir.path(folder, "checkpoints", network)
        return _check_meta(_read_state(place), place / _STATE)
    except (FileNotFoundError, NotADirectoryError, files.DamagedError):
        return None


def _read_reference(place: epath.Path) -> Json | None:
    """The JSON file of `place` as far as it says which arrays count; None if there is none that is whole."""
    with contextlib.suppress(FileNotFoundError, files.DamagedError):
        return _read_state(place)


def _read_state(place: epath.Path) -> Json:
    """The JSON file of `place`. FileNotFoundError if there is none, DamagedError if it names no arrays."""
    return schema.check(files.read_json(place / _STATE), _REFERENCE, place / _STATE)


def _check_meta(state: Json, source: epath.Path) -> Json:
    """The `meta` of `state` if it says how far a network has come; else DamagedError."""
    meta = schema.check(state, {"meta": _META}, source)["meta"]
    history = meta["history"]
    losses = [*history["epoch_loss"], *history["check_loss"], *meta["check_running"]]
    checks = history["check_update"], history["check_loss"], meta["check_running"]
    finite = meta["status"] == "diverged" or all(map(schema.is_finite, losses))
    rules = {
        "its history has unexpected fields": history.keys() == _HISTORY.keys(),
        "a loss is not finite": finite and history["target"] != "nan",
        "its lists of checks differ in length": len({*map(len, checks)}) == 1,
    }
    for problem, holds in rules.items():
        if not holds:
            raise files.DamagedError(f"{source} is damaged: {problem}")
    return meta


def _is_final(place: epath.Path, meta: Json) -> bool:
    """Whether the checkpoint is of the end of training of the very network of `meta`."""
    state = _read_reference(place)
    if state is None:
        return False
    same = all(state["meta"].get(key) == meta.get(key) for key in ("hash", "data", "versions"))
    return same and state["arrays"].startswith(f"{FINAL}-")


def _clean(place: epath.Path, name: str, before: str | None) -> None:
    """Deletes the arrays `before` those of `name`, and what killed processes left; nothing that is named otherwise."""
    for other in place.iterdir():
        if not _DELETABLE.fullmatch(other.name) or other.name == name or files.is_link(other):
            continue
        if other.name == before or _is_stale(other):
            with contextlib.suppress(OSError):  # the checkpoint is whole; this is tried again at the next
                other.rmtree(missing_ok=True) if other.is_dir() else other.unlink(missing_ok=True)


def _is_stale(path: epath.Path) -> bool:
    """Whether a folder is so old that the process that wrote it is gone. In a bucket, which does not say, none is."""
    try:
        return 0 < files.time_and_size(path)[0] < time.time() - _STALE_SECONDS
    except (OSError, AttributeError, TypeError):
        return False


def _read_arrays(
    place: epath.Path, state: Json, expected: dict[str, jax.ShapeDtypeStruct] | None
) -> dict[str, np.ndarray]:
    """The arrays that `state` names. DamagedError if they are not whole or not expected."""
    if _kept and state["digest"] in _kept:  # equal arrays, wherever they are from
        return dict(_kept[state["digest"]])
    try:
        source = files.inside(place, state["arrays"])
        files.check_within(source, place)
    except ValueError as error:
        raise files.DamagedError(f"{place / _STATE} is damaged: {error}") from None
    content = arrays.read(source, state["files"], expected)
    if files.digest(content) != state["digest"]:
        raise files.DamagedError(f"{source} is damaged: its arrays are not those that were saved")
    if state["arrays"].startswith(f"{FINAL}-"):
        _keep(state["digest"], content)
    return content
