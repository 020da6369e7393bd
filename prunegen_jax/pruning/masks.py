"""Pruning masks: which parameters are prunable, in which order they are dropped, and what is left at a kept count.

A mask is a comparison, `where(score < keep, w, 0)`, of integer scores fixed once per network with a count that is
traced, so one program serves every kept fraction, exactly k parameters stay and keeping all is the identity.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute import trees
from prunegen_jax.compute.options import check_choice
from prunegen_jax.types import PyTree

Prunable = Literal["kernels", "all"] | Callable[[tuple[str, ...], jax.Array], bool]


class Scores(NamedTuple):
    """R orders in which the parameters of a network are kept.

    Attributes:
        leaves: for each leaf of the parameters, int32 scores `[R, *shape]`, or None where nothing is pruned.
        sizes: number of prunable scalars in each leaf that has scores.
        shared: whether the scores run through all leaves (one kept count) or within each (one count per leaf).
        kept_below: where the scores are not ranks of single scalars: how many scalars have a score below 0, 1, …, L.
            A kept count is then such a bound for the scores of all leaves.
    """

    leaves: tuple[jax.Array | None, ...]
    sizes: tuple[int, ...]
    shared: bool
    kept_below: tuple[int, ...] = ()

    @property
    def prunable(self) -> int:
        """p, the number of prunable scalars."""
        return sum(self.sizes)

    @property
    def masks(self) -> int:
        """R, the number of orders."""
        return next(leaf.shape[0] for leaf in self.leaves if leaf is not None)

    def keep(self, j: int, steps: int) -> tuple[int, ...]:
        """Kept counts of the grid point j / steps, one per leaf with scores, in exact integer arithmetic.

        k = (p·j + steps // 2) // steps of all p together, or of each leaf's own p within layers; L for p where the
        scores are not ranks of scalars.
        """
        total = len(self.kept_below) - 1 if self.kept_below else self.prunable
        totals = [total] * len(self.sizes) if self.shared else self.sizes
        return tuple((p * j + steps // 2) // steps for p in totals)

    def kept(self, keep: tuple[int, ...]) -> int:
        """How many of the p parameters stay at these kept counts."""
        if self.kept_below:
            return self.kept_below[keep[0]]
        return keep[0] if self.shared else sum(keep)


def magnitude_scores(params: PyTree, *, scope: str = "global", prunable: Prunable = "kernels") -> Scores:
    """Ranks by magnitude: the largest |w| has rank 0, so keeping rank < k prunes the smallest first.

    One stable sort on (|w|, position) with JAX's order of leaves: of equal magnitudes the earlier goes first.

    Args:
        params: the network's parameters.
        scope: "global" ranks all prunable parameters together, "layer" within each leaf.
        prunable: "kernels" of convolutions and dense layers, "all" parameters, or a predicate of (path, leaf).

    Raises:
        ValueError: for an unknown scope, or if nothing is prunable.
    """
    check_choice("scope", scope, ("global", "layer"))
    magnitudes = [np.abs(np.asarray(leaf)) for leaf in _prunable_leaves(params, prunable)]
    if scope == "global":
        return _scores_of_flat(params, prunable, _ranks(np.concatenate([w.ravel() for w in magnitudes]))[None])
    shaped = [_ranks(w.ravel()).reshape(1, *w.shape) for w in magnitudes]
    return _scores_of_leaves(params, prunable, shaped, shared=False)


def uniform_scores(key: jax.Array, params: PyTree, *, masks: int, prunable: Prunable = "kernels") -> Scores:
    """`masks` uniformly random orders; score < k keeps a uniform subset of exactly k, nested in k."""
    size = sum(leaf.size for leaf in _prunable_leaves(params, prunable))
    orders = [np.asarray(jax.random.permutation(jax.random.fold_in(key, r), size)) for r in range(masks)]
    return _scores_of_flat(params, prunable, np.stack(orders))


def bernoulli_scores(key: jax.Array, params: PyTree, *, masks: int, prunable: Prunable = "kernels") -> Scores:
    """`masks` draws of one uniform 32-bit integer per parameter.

    Compared with `bernoulli_keep(1 − α)` each parameter stays with probability α, independently of the others, and
    masks are nested in α.
    """
    sizes = [leaf.size for leaf in _prunable_leaves(params, prunable)]
    bits = np.asarray(jax.random.bits(key, (masks, sum(sizes)), jnp.uint32)).view(np.int32)
    return _scores_of_flat(params, prunable, np.minimum(bits, 2**31 - 2))  # below the threshold that keeps all


def bernoulli_keep(dropped: float) -> int:
    """The threshold under which a uniform int32 falls with probability 1 − `dropped`."""
    return min(round((1.0 - dropped) * 2**32) - 2**31, 2**31 - 1)


def apply_mask(params: PyTree, leaves: tuple[jax.Array | None, ...], keep: jax.Array) -> PyTree:
    """w where its score (`leaves`, without the leading R) is below the kept count `keep [number of scored leaves]`."""
    values, structure = jax.tree.flatten(params)
    counts = iter(range(len(values)))
    masked = [
        w if score is None else jnp.where(score < keep[next(counts)], w, jnp.zeros_like(w))
        for w, score in zip(values, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, masked)


def drop_positions(params: PyTree, positions: jax.Array, prunable: tuple[bool, ...]) -> PyTree:
    """w with zeros at `positions [d]` among the entries of the `prunable` leaves, in order; those beyond do nothing."""
    values, structure = jax.tree.flatten(params)
    begin = 0
    for i, w in enumerate(values):
        if prunable[i]:
            inside = (positions >= begin) & (positions < begin + w.size)
            local = jnp.where(inside, positions - begin, w.size)  # negative positions would count from the end
            values[i] = w.reshape(-1).at[local].set(0, mode="drop").reshape(w.shape)
            begin += w.size
    return jax.tree.unflatten(structure, values)


def _scores_of_flat(params: PyTree, prunable: Prunable, flat: np.ndarray) -> Scores:
    """Scores from `flat [R, p]`, which runs through the prunable leaves in order."""
    leaves = _prunable_leaves(params, prunable)
    parts = np.split(flat, np.cumsum([leaf.size for leaf in leaves])[:-1], axis=1)
    shaped = [part.reshape(len(flat), *leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
    return _scores_of_leaves(params, prunable, shaped, shared=True)


def _prunable_leaves(params: PyTree, prunable: Prunable) -> list[jax.Array]:
    """The leaves that may be pruned. ValueError if there is none."""
    leaves = [leaf for path, leaf in trees.named_leaves(params) if _is_prunable(prunable)(path, leaf)]
    if not leaves:
        names = ", ".join("/".join(path) for path, _ in trees.named_leaves(params))
        raise ValueError(f"prunable={prunable!r} selects none of the parameters: {names}")
    return leaves


def _is_prunable(prunable: Prunable) -> Callable[[tuple[str, ...], Any], bool]:
    if callable(prunable):
        return prunable
    if prunable not in {"kernels", "all"}:
        raise ValueError(f"prunable={prunable!r} is unknown; choose 'kernels', 'all' or a function of (path, leaf)")
    return trees.is_kernel if prunable == "kernels" else lambda path, leaf: True


def _scores_of_leaves(params: PyTree, prunable: Prunable, shaped: list[np.ndarray], *, shared: bool) -> Scores:
    """Scores from those of each prunable leaf, `[R, *shape]`."""
    scores = iter(shaped)
    is_prunable = _is_prunable(prunable)
    leaves = tuple(
        jnp.asarray(next(scores), jnp.int32) if is_prunable(path, leaf) else None
        for path, leaf in trees.named_leaves(params)
    )
    return Scores(leaves, tuple(int(s[0].size) for s in shaped), shared)


def _ranks(magnitudes: np.ndarray) -> np.ndarray:
    """Position from the largest in a stable ascending sort."""
    ranks = np.empty(magnitudes.size, np.int32)
    ranks[np.argsort(magnitudes, kind="stable")] = np.arange(magnitudes.size - 1, -1, -1, dtype=np.int32)
    return ranks
