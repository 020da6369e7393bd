"""Parameter trees: names of leaves, which of them are kernels, sums over them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_NOT_KERNELS = {"bias", "b", "scale", "embedding", "mean", "var"}


def path_names(path: tuple[Any, ...]) -> tuple[str, ...]:
    """The names along a key path of `jax.tree_util`, without the `.value` that ends the path of an NNX variable."""
    if len(path) > 1 and isinstance(path[-1], jax.tree_util.GetAttrKey) and path[-1].name == "value":
        path = path[:-1]
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def named_leaves(tree: Any) -> list[tuple[tuple[str, ...], jax.Array]]:
    """The leaves of a tree with their key paths, in JAX's fixed order."""
    return [(path_names(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def is_kernel(path: tuple[str, ...], leaf: jax.Array) -> bool:
    """Whether a leaf is the kernel of a convolution or a dense layer: of two axes or more, and not named otherwise."""
    return leaf.ndim >= 2 and not (path and path[-1].lower() in _NOT_KERNELS)


def kernels(params: Any) -> dict[tuple[str, ...], jax.Array]:
    """The kernels of a network by key path.

    Raises:
        ValueError: if there is none.
    """
    by_path = {path: leaf for path, leaf in named_leaves(params) if is_kernel(path, leaf)}
    if not by_path:
        names = ", ".join("/".join(path) or "(root)" for path, _ in named_leaves(params)) or "no parameters"
        raise ValueError(f"no kernel among the parameters: a kernel has at least two axes; found {names}")
    return by_path


def count(tree: Any) -> int:
    """Number of scalars in a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def subtract(a: Any, b: Any) -> Any:
    """a − b, leaf by leaf."""
    return jax.tree.map(jnp.subtract, a, b)


def squared_norm(tree: Any) -> float:
    """‖w‖₂² over all leaves, summed in float64 on the host."""
    return float(sum(np.sum(np.square(np.asarray(leaf, np.float64))) for leaf in jax.tree.leaves(tree)))
