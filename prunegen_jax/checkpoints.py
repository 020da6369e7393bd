"""Checkpoints: arrays by name through Orbax, and beside them one JSON file that says which arrays count.

The arrays are written first, under a name that is never used again; then the JSON file is replaced; then the arrays
that it named before are deleted. Whatever moment a process dies at, the JSON file names arrays that are complete. Two
processes may save and load one checkpoint at a time: each save stands by itself, and who finds the arrays gone that the
JSON file named a moment ago looks again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import time
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from prunegen_jax import files, trees

FINAL = "final"  # what the arrays of a network whose training has ended are called
_STATE = "state.json"
_STALE = 3600.0  # seconds after which arrays that no JSON file names are not being written any more
_SLACK = 2**18  # bytes that a checkpoint needs beside its arrays
# What may be deleted: arrays, half written ones of Orbax's, half written files of `files.atomic`'s.
_OURS = re.compile(r"(epoch-\d+|final)-[0-9a-f]{8}(\.orbax-checkpoint-tmp(-\d+)?)?|\.[a-z0-9_]{8}\.tmp")
_LOOKS = 5  # at the JSON file, while another process replaces it


def save(folder: files.Path, name: str, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
    """Makes `arrays` and `meta` the checkpoint of `folder`; what was there before is deleted after.

    The final checkpoint of a network stays: another process, that is still training it, does not replace it.

    Args:
        folder: where the checkpoint of a network is.
        name: what the arrays' folder begins with; "final" for a network whose training has ended.
        arrays: by name.
        meta: what else to keep, as JSON has it.

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
    try:
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:  # the asynchronous one may hang
            checkpointer.save(target, args=ocp.args.StandardSave(arrays))
    except ValueError as error:  # what TensorStore makes of a full disk
        raise OSError(f"{target} cannot be written: {str(error).splitlines()[0]}") from error
    state = {"arrays": name, "files": _hashes(target), "digest": files.digest(arrays), "meta": meta}
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


def load(folder: files.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """The arrays and `meta` of the checkpoint of `folder`, None if there is none.

    Raises:
        DamagedError: if it is not whole.
        ValueError: if a link leads the folder out of its workdir.
    """
    folder = _place(folder)
    for _ in range(_LOOKS):
        try:
            state = _state(folder)
        except FileNotFoundError:
            return None
        try:
            return _arrays(folder, state), state["meta"]
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
    kinds = {"arrays": str, "digest": str, "meta": dict}
    for key, kind in kinds.items():
        if not isinstance(state.get(key), kind):
            raise files.DamagedError(f"{folder / _STATE} is damaged: its {key!r} is {state.get(key)!r}")
    return state


def _arrays(folder: epath.Path, state: dict[str, Any]) -> dict[str, np.ndarray]:
    try:
        source = files.inside(folder, state["arrays"])
    except ValueError as error:
        raise files.DamagedError(f"{folder / _STATE} is damaged: {error}") from None
    try:
        found = _hashes(source)
    except OSError as error:
        raise files.DamagedError(f"{source} is damaged: it cannot be read: {error}") from error
    wanted = state.get("files", found)
    if found != wanted:  # told before Orbax, which would say much and little
        name = min(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
        raise files.DamagedError(f"{source} is damaged: {name!r} is not as it was written")
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            # As NumPy arrays whatever device wrote them.
            shapes = checkpointer.metadata(source).item_metadata.tree
            blank = {name: np.empty(x.shape, x.dtype) for name, x in shapes.items()}
            arrays = {name: np.asarray(x) for name, x in checkpointer.restore(source, blank).items()}
    except Exception as error:  # Orbax and TensorStore have many ways to say it
        raise files.DamagedError(f"{source} is damaged: {(str(error) or repr(error)).splitlines()[0]}") from error
    if files.digest(arrays) != state["digest"]:
        raise files.DamagedError(f"{source} is damaged: its arrays are not those that were saved")
    return arrays


def _require_room(folder: epath.Path, size: int) -> None:
    """OSError if the disk has less than `size` bytes left. TensorStore says so too, but in a hundred lines."""
    if files.in_bucket(folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(folder))


def _hashes(folder: epath.Path, prefix: str = "") -> dict[str, str]:
    """SHA-256 of every file in a folder and its folders, by relative path."""
    found = {}
    for path in folder.iterdir():
        name = prefix + path.name
        if path.is_dir():
            found |= _hashes(path, f"{name}/")
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _is_stale(path: epath.Path) -> bool:
    """Whether a folder is so old that whoever wrote it is gone. A bucket does not say: there nothing is."""
    try:
        return 0 < path.stat().mtime < time.time() - _STALE
    except (OSError, AttributeError, TypeError):
        return False


def flatten(prefix: str, tree: Any) -> dict[str, np.ndarray]:
    """The leaves of a tree by name: `prefix/block0_conv0/kernel`."""
    return {"/".join((prefix, *path)): np.asarray(leaf) for path, leaf in trees.named_leaves(tree)}


def unflatten(prefix: str, template: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The tree of the structure and shapes of `template` from what `flatten` made.

    Raises:
        DamagedError: if a leaf is missing or has another shape.
    """

    def leaf(path: tuple[Any, ...], wanted: Any) -> np.ndarray:
        name = "/".join((prefix, *trees.path_names(path)))
        if name not in arrays or arrays[name].shape != wanted.shape:
            found = arrays[name].shape if name in arrays else "nothing"
            raise files.DamagedError(f"the checkpoint has {found} for {name!r}; the network needs {wanted.shape}")
        return arrays[name]

    return jax.tree_util.tree_map_with_path(leaf, template)
