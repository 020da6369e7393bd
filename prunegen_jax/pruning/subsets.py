"""Networks without a few random parameters: subsets drawn where the loss is likely to rise, with their weights.

A few parameters make up most of the mean rise of the loss when one is dropped at random, and a uniform draw rarely
meets them. So the first parameter of a subset is drawn with probability

    q_j = 1 / (2p) + s_j / (2 Σ_k s_k),

s_j an estimate of how far the logits move without parameter j, and the others uniformly (Midzuno 1952). A subset S of
d of p parameters then counts (d / p) / Σ_{j ∈ S} q_j ≤ 2 times as much as in a uniform draw. Whatever s is, the mean is
that of uniform draws; s decides the standard error alone.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute import lockstep
from prunegen_jax.compute.evaluation import batches, default_batch_size
from prunegen_jax.compute.planes import as_partial
from prunegen_jax.types import Apply, Dataset, PyTree

PROBES = 8  # random directions of the logits, a gradient each


def first_probabilities(
    apply: Apply, params: PyTree, data: Dataset, key: jax.Array, prunable: tuple[bool, ...], *, probes: int = PROBES
) -> np.ndarray:
    """q `[p]`, with s_j = √(w_j² Σ_i ‖∂f(x_i) / ∂w_j‖²) over the training set, estimated from random directions.

    Args:
        apply: (params, inputs [n, ...]) → logits [n, K], in evaluation mode.
        params: the trained parameters.
        data: the training set.
        key: randomness of the directions.
        prunable: for each leaf of the parameters whether it is pruned.
        probes: number of directions for each batch of examples.
    """
    squares: Any = 0.0
    function = as_partial(apply)
    for number, indices in enumerate(batches(len(data), batch_size=default_batch_size(data))):
        for probe in range(probes):
            direction = jax.random.fold_in(jax.random.fold_in(key, number), probe)
            parts = _squared_moves(function, params, data, indices.astype(np.int32), direction, prunable=prunable)
            squares = squares + np.concatenate([np.asarray(part, np.float64).reshape(-1) for part in parts])
    s = np.sqrt(squares)
    if not (np.isfinite(s).all() and s.sum() > 0):
        return np.full(s.size, 1 / s.size)
    return 0.5 / s.size + 0.5 * s / s.sum()


@functools.partial(lockstep.jit, static_argnames="prunable")
def _squared_moves(
    apply: Any, params: PyTree, data: Dataset, indices: jax.Array, key: jax.Array, *, prunable: tuple[bool, ...]
) -> list[jax.Array]:
    """(w_j Σ_i vᵢᵀ ∂f(x_i)/∂w_j)², v_i of independent normal entries about their mean, of each leaf that is pruned."""
    inputs, _ = data.take(indices)
    leaves, structure = jax.tree.flatten(params)

    def logits(chosen: list[jax.Array]) -> jax.Array:
        rest = iter(chosen)
        mixed = [next(rest) if p else w for p, w in zip(prunable, leaves, strict=True)]
        return apply(jax.tree.unflatten(structure, mixed), inputs)

    chosen = [w for p, w in zip(prunable, leaves, strict=True) if p]
    with jax.default_matmul_precision("highest"):
        outputs, backward = jax.vjp(logits, chosen)
        noise = jax.random.normal(key, outputs.shape, outputs.dtype)
        if data.loss is None:  # the softmax does not see what all logits have in common
            noise = noise - noise.mean(axis=-1, keepdims=True)
        (gradients,) = backward(noise)
    return [jnp.square(w * g) for w, g in zip(chosen, gradients, strict=True)]


def draw_subsets(random: np.random.Generator, first: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One subset for each of `counts`, and how much it counts relative to a uniform draw.

    Args:
        random: the randomness.
        first: q `[p]`.
        counts: sizes `[n]`, from 1 to p.

    Returns:
        Positions `[n, largest count]`, filled up with p, and weights `[n]` of mean 1.
    """
    p = first.size
    positions = np.full((len(counts), counts.max()), p, np.int32)
    weights = np.empty(len(counts))
    firsts = random.choice(p, size=len(counts), p=first)
    for row, (one, count) in enumerate(zip(firsts, counts, strict=True)):
        others = random.choice(p - 1, size=count - 1, replace=False)
        subset = np.append(others + (others >= one), one)
        positions[row, :count] = subset
        weights[row] = count / p / first[subset].sum()
    return positions, weights
