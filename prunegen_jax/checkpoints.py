"""Checkpoints: arrays by name through Orbax, and beside them one JSON file that says which arrays count.

The arrays are written first, under a name of their own; then the JSON file is replaced. Whatever moment a process
dies at, the JSON file names arrays that are complete.
"""

from __future__ import annotations

import itertools
import shutil
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from prunegen_jax import files, trees

_STATE = "state.json"


def save(folder: epath.Path, name: str, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
    """Makes `arrays` and `meta` the checkpoint of `folder`; what was there before is deleted after."""
    taken = {path.name for path in folder.iterdir()} if folder.exists() else set()
    names = (name if i == 0 else f"{name}-{i}" for i in itertools.count())
    name = next(n for n in names if n not in taken)  # what the JSON file names now is kept until it is replaced
    target = folder.absolute() / name
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(target, arrays)
    files.write_json(folder / _STATE, {"arrays": name, "digest": files.digest(arrays), "meta": meta})
    for other in folder.iterdir():
        if other.is_dir() and other.name != name:
            shutil.rmtree(other)


def load(folder: epath.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """The arrays and `meta` of the checkpoint of `folder`, None if there is none.

    Raises:
        DamagedError: if it is not whole.
    """
    if not (folder / _STATE).exists():
        return None
    state = files.read_json(folder / _STATE)
    source = folder.absolute() / state["arrays"]
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            # As NumPy arrays whatever device wrote them.
            shapes = checkpointer.metadata(source).item_metadata.tree
            blank = {name: np.empty(x.shape, x.dtype) for name, x in shapes.items()}
            arrays = {name: np.asarray(x) for name, x in checkpointer.restore(source, blank).items()}
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise files.DamagedError(f"{source} is damaged: {str(error).splitlines()[0]}") from error
    if files.digest(arrays) != state["digest"]:
        raise files.DamagedError(f"{source} is damaged: its arrays are not those that were saved")
    return arrays, state["meta"]


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
