"""Checkpoints: arrays by name through Orbax, and beside them one JSON file that says which arrays count.

The arrays are written first, under a name that is never used again; then the JSON file is replaced; then the arrays
that it named before are deleted. Whatever moment a process dies at, the JSON file names arrays that are complete. Two
processes may save and load one checkpoint at a time: each save stands by itself, and who finds the arrays gone that the
JSON file named a moment ago looks again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import math
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import Any, get_args

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from prunegen_jax.compute import trees
from prunegen_jax.runs import files
from prunegen_jax.training.recipe import Status
from prunegen_jax.types import History

FINAL = "final"  # what the arrays of a network whose training has ended are called
_STATE = "state.json"
_STALE = 3600.0  # seconds after which arrays that no JSON file names are not being written any more
_SLACK = 2**18  # bytes that a checkpoint needs beside its arrays
# What may be deleted: arrays, half written ones of Orbax's, half written files of `files.atomic`'s.
_OURS = re.compile(r"(epoch-\d+|final)-[0-9a-f]{8}(\.orbax-checkpoint-tmp(-\d+)?)?|\.[a-z0-9_]{8}\.tmp")
_MOST = 2**33  # bytes of arrays, and of their files, where nobody says what is expected
_RATIO = 64  # by which they are compressed at most: trained weights hardly are
_ROOM = 2**26  # bytes that any checkpoint may take
_META = {
    "hash": str, "data": str, "versions": dict, "status": str, "reason": str, "epochs": int, "history": dict,
    "check_running": list, "has_first_epoch": bool,
}  # fmt: skip
_HISTORY = {"epoch_loss": list, "check_update": list, "check_loss": list, "updates": int, "batch_size": int}
_LOOKS = 5  # at the JSON file, while another process replaces it


def save(folder: files.Path, name: str, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
    """Makes `arrays` and `meta` the checkpoint of `folder`; what was there before is deleted after.

    The final checkpoint of a network stays: another process, that is still training it, does not replace it.

    Args:
        folder: where the checkpoint of a network is.
        name: what the arrays' folder begins with; "final" for a network whose training has ended.
        arrays: by name.
        meta: what else to keep, as JSON has it: what `_META` names, at least, for `load` to take it.

    Raises:
        OSError: if it cannot be written. The checkpoint that was there is whole then.
        ValueError: if a link leads the folder out of its workdir.
    """
    folder = _place(folder)
    if name != FINAL and _is_final(folder, meta):
        return
    name = f"{name}-{secrets.token_hex(4)}"
    target = folder / name
    _require_room(folder, 2 * sum(array.nbytes for array in arrays.values()) + _SLACK)
    with _at_hand(target) as local:
        try:
            with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:  # the asynchronous one may hang
                checkpointer.save(local, args=ocp.args.StandardSave(arrays))
        except ValueError as error:  # what TensorStore makes of a full disk
            raise OSError(f"{target} cannot be written: {str(error).splitlines()[0]}") from error
        hashes = {path: files.hash_of(file)[0] for path, file in files.walk(local).items()}
        if local != target:
            for path in hashes:
                (target / path).write_bytes((local / path).read_bytes())
    state = {"arrays": name, "files": hashes, "digest": files.digest(arrays), "meta": meta}
    if not name.startswith(f"{FINAL}-") and _is_final(folder, meta):  # by now
        target.rmtree(missing_ok=True)
        return
    try:
        before = _state(folder)["arrays"]
    except (FileNotFoundError, files.DamagedError):
        before = None
    files.write_json(folder / _STATE, state)
    _clean(folder, name, before)


def _clean(folder: epath.Path, name: str, before: str | None) -> None:
    """Deletes the arrays `before` those of `name`, and what killed processes left: nothing whose name is not ours."""
    for other in folder.iterdir():
        if not _OURS.fullmatch(other.name) or other.name == name or files.is_link(other):
            continue
        if other.name == before or _is_stale(other):
            with contextlib.suppress(OSError):  # the checkpoint is whole; this is tried again at the next
                other.rmtree(missing_ok=True) if other.is_dir() else other.unlink(missing_ok=True)


def _is_final(folder: epath.Path, meta: dict[str, Any]) -> bool:
    """Whether the training of the very network of `meta` has ended."""
    try:
        state = _state(folder)
    except (FileNotFoundError, files.DamagedError):
        return False
    same = all(state["meta"].get(key) == meta.get(key) for key in ("hash", "data", "versions"))
    return same and state["arrays"].startswith(f"{FINAL}-")


def load(
    folder: files.Path, *, expected: dict[str, jax.ShapeDtypeStruct] | None = None
) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """The arrays and `meta` of the checkpoint of `folder`, None if there is none.

    Args:
        folder: where the checkpoint of a network is.
        expected: what `shapes` says of the arrays that may be there. Memory is taken for nothing else. None for arrays
            of any shape, up to a limit on the whole.

    Raises:
        DamagedError: if it is not whole, or has other arrays.
        ValueError: if a link leads the folder out of its workdir.
    """
    folder = _place(folder)
    for _ in range(_LOOKS):
        try:
            state = _state(folder)
        except FileNotFoundError:
            return None
        try:
            _check_meta(state["meta"], folder / _STATE)
            return _arrays(folder, state, expected), state["meta"]
        except files.DamagedError:
            if _state(folder)["arrays"] == state["arrays"]:
                raise
    raise files.DamagedError(f"{folder} is replaced faster than it can be read")


def _place(folder: files.Path) -> epath.Path:
    """`folder`, which is WORKDIR/checkpoints/NAME, as Orbax wants it. ValueError if a link leads out of the workdir."""
    folder = epath.Path(folder if files.in_bucket(folder) else os.path.abspath(folder))
    files.check_within(folder, folder.parent.parent)
    return folder


def _state(folder: epath.Path) -> dict[str, Any]:
    """What the JSON file of `folder` says. FileNotFoundError if there is none, DamagedError if it is not ours."""
    state = files.read_json(folder / _STATE)
    files.check_kinds(state, {"arrays": str, "digest": str, "files": dict, "meta": dict}, folder / _STATE)
    files.check_kinds(state["files"], dict.fromkeys(state["files"], str), folder / _STATE)
    return state


def _check_meta(meta: dict[str, Any], source: epath.Path) -> None:
    """DamagedError if `meta`, of the JSON file `source`, does not say how far a network has come."""
    files.check_kinds(meta, _META, source)
    history, status = meta["history"], meta["status"]
    files.check_kinds(history, _HISTORY, source)
    counts = [meta["epochs"], history["updates"], history["batch_size"], *history["check_update"]]
    checks = history["check_update"], history["check_loss"], meta["check_running"]
    try:
        losses = [files.number(x) for x in (*history["epoch_loss"], *history["check_loss"], *meta["check_running"])]
        target = files.number(history.get("target"))
    except (KeyError, TypeError, ValueError):
        raise files.DamagedError(f"{source} is damaged: a loss is no number") from None
    wrong = {
        f"its status is {status!r}": status not in get_args(Status),
        "its history has other fields": history.keys() != {field.name for field in dataclasses.fields(History)},
        "a count is none": any(type(count) is not int or count < 0 for count in counts),
        "a loss is not finite": math.isnan(target) or (status != "diverged" and not all(map(math.isfinite, losses))),
        "its checks are not as many": len({*map(len, checks)}) > 1,
    }
    if any(wrong.values()):
        raise files.DamagedError(f"{source} is damaged: {next(what for what, is_so in wrong.items() if is_so)}")


def _arrays(
    folder: epath.Path, state: dict[str, Any], expected: dict[str, jax.ShapeDtypeStruct] | None
) -> dict[str, np.ndarray]:
    try:
        source = files.inside(folder, state["arrays"])
        files.check_within(source, folder)
    except ValueError as error:
        raise files.DamagedError(f"{folder / _STATE} is damaged: {error}") from None
    most = _MOST if expected is None else 4 * sum(x.size * x.dtype.itemsize for x in expected.values()) + _ROOM
    try:
        with _at_hand(source) as local, ocp.StandardCheckpointer() as checkpointer:
            if local != source:
                files.fetch(source, local, most)
            size = _check_files(local, state["files"], most)  # before Orbax, which would say much and little
            # As NumPy arrays whatever device wrote them.
            found = checkpointer.metadata(local).item_metadata.tree
            _check_shapes(found, expected, min(_MOST, _RATIO * size + _ROOM))
            blank = {name: np.empty(x.shape, x.dtype) for name, x in found.items()}
            arrays = {name: np.asarray(x) for name, x in checkpointer.restore(local, blank).items()}
    except Exception as error:  # Orbax and TensorStore have many ways to say it
        raise files.DamagedError(f"{source} is damaged: {(str(error) or repr(error)).splitlines()[0]}") from error
    if files.digest(arrays) != state["digest"]:
        raise files.DamagedError(f"{source} is damaged: its arrays are not those that were saved")
    return arrays


@contextlib.contextmanager
def _at_hand(place: epath.Path) -> Iterator[epath.Path]:
    """`place`, or for one in a bucket, few of which Orbax knows, a folder that stands for it meanwhile."""
    if not files.in_bucket(place):
        yield place
        return
    with tempfile.TemporaryDirectory() as folder:
        yield epath.Path(folder) / place.name


def _check_files(folder: epath.Path, wanted: dict[str, str], most: int) -> int:
    """The bytes of the files of a folder. ValueError if they are not those `wanted`, or have more than `most`."""
    paths, size = files.walk(folder), 0
    for name in sorted(paths.keys() | wanted.keys()):
        digest, count = files.hash_of(paths[name], most - size) if name in paths and name in wanted else (None, 0)
        size += count
        if size > most:
            raise ValueError(f"its files have more than {most} bytes")
        if digest != wanted.get(name, ""):
            raise ValueError(f"{name!r} is not as it was written")
    return size


def _check_shapes(found: dict[str, Any], expected: dict[str, jax.ShapeDtypeStruct] | None, most: int) -> None:
    """ValueError if Orbax's description of arrays is not as `expected`, or they take more than `most` bytes."""
    whole = 0
    for name, x in found.items():
        shape, dtype = tuple(x.shape), np.dtype(x.dtype)
        whole += math.prod(shape) * dtype.itemsize
        if x.storage and math.prod(x.storage.chunk_shape or ()) > max(math.prod(shape), 1):  # read in memory, whole
            raise ValueError(f"{name!r} of shape {shape} is stored in pieces of shape {x.storage.chunk_shape}")
        if expected is None:
            continue
        wanted = expected.get(name)
        if wanted is None:
            raise ValueError(f"{name!r} is no array of this network")
        if (shape, dtype) != (wanted.shape, wanted.dtype):
            raise ValueError(f"{name!r} is {dtype}{list(shape)}; the network needs {wanted.dtype}{list(wanted.shape)}")
    if expected is None and whole > most:
        raise ValueError(f"its arrays take {whole} bytes, more than its files can hold")


def _require_room(folder: epath.Path, size: int) -> None:
    """OSError if the disk has less than `size` bytes left. TensorStore says so too, but in a hundred lines."""
    if files.in_bucket(folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(folder))


def _is_stale(path: epath.Path) -> bool:
    """Whether a folder is so old that whoever wrote it is gone. A bucket does not say: there nothing is."""
    try:
        return 0 < path.stat().mtime < time.time() - _STALE
    except (OSError, AttributeError, TypeError):
        return False


def flatten(prefix: str, tree: Any) -> dict[str, np.ndarray]:
    """The leaves of a tree by name: `prefix/block0_conv0/kernel`."""
    return {"/".join((prefix, *path)): np.asarray(leaf) for path, leaf in trees.named_leaves(tree)}


def shapes(prefix: str, tree: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """What `flatten` would make of a tree, for `load` to expect: of its leaves only shapes and types are asked."""
    return {
        "/".join((prefix, *path)): jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        for path, leaf in trees.named_leaves(tree)
    }


def unflatten(prefix: str, template: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The tree of the structure, shapes and types of `template` from what `flatten` made.

    Raises:
        DamagedError: if a leaf is missing or has another shape or type.
    """

    def leaf(path: tuple[Any, ...], wanted: Any) -> np.ndarray:
        name = "/".join((prefix, *trees.path_names(path)))
        found = arrays.get(name)
        if found is None or (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
            there = "nothing" if found is None else f"{found.dtype}{list(found.shape)}"
            needed = f"{wanted.dtype}{list(wanted.shape)}"
            raise files.DamagedError(f"the checkpoint has {there} for {name!r}; the network needs {needed}")
        return found

    return jax.tree_util.tree_map_with_path(leaf, template)
