"""Prunability as slope and curvature of the loss at the trained weights predict it, without any pruned network."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from prunegen_jax.compute.options import check_at_least
from prunegen_jax.measures import hessian
from prunegen_jax.measures.objective import mean_loss, weight_function
from prunegen_jax.pruning import Tolerance, limit_of, masks
from prunegen_jax.types import Estimate, Measure, TrainedModel


def predicted_prunability(
    model: TrainedModel,
    key: jax.Array,
    *,
    steps: int = 50,
    beta: float = 0.1,
    tolerance: Tolerance = "relative",
    delta: float = 1e-6,
    fold: bool = False,
    batch_size: int | None = None,
) -> Estimate:
    """min { α : ⟨∇L̂, δ_α⟩ + ½ δ_αᵀ H δ_α ≤ β L̂ }, δ_α what magnitude pruning to the kept fraction α adds to w.

    The second-order model of `prunability` on the grid j / `steps`: the flatter the loss and the smaller the weights,
    the less must be kept. It holds where pruning moves the weights little. `details["rises"]` has the left side at
    every point of the grid, from α = 0.

    Args:
        model: any.
        key: not used.
        steps: number of steps of the grid, a Hessian-vector product each.
        beta: β, as in `pruning.limit_of`.
        tolerance: as in `pruning.limit_of`.
        delta: as in `pruning.limit_of`.
        fold: fold batch norm into the weights first.
        batch_size: examples per chunk; changes nothing but speed.

    Raises:
        ValueError: for a number of steps below 1 or an unknown tolerance.
    """
    check_at_least(1, steps=steps)
    network = weight_function(model, fold=fold)
    objective, weights = network.objective(batch_size), network.weights
    dense = mean_loss(objective, weights)
    limit, note = limit_of(dense, tolerance=tolerance, beta=beta, delta=delta)
    scores = masks.magnitude_scores(weights, prunable=lambda path, _: "/".join(path) in network.kernels)
    orders = tuple(None if leaf is None else leaf[0] for leaf in scores.leaves)
    flat = ravel_pytree(weights)[0]
    pruned = [masks.apply_mask(weights, orders, np.asarray(scores.keep(j, steps), np.int32)) for j in range(steps)]
    moves = jnp.stack([ravel_pytree(w)[0] - flat for w in pruned])
    slope = ravel_pytree(hessian.gradient(objective, weights))[0]
    bends = hessian.products(hessian.hessian(objective, weights), moves)
    rises = np.asarray(moves, np.float64) @ np.asarray(slope, np.float64)
    rises += 0.5 * np.einsum("vp,vp->v", np.asarray(moves, np.float64), np.asarray(bends, np.float64))
    passing = np.flatnonzero(rises <= limit - dense)
    j = int(passing[0]) if passing.size else steps
    details = {**network.details(), "rises": rises.tolist(), "limit": limit, "dense": dense, "note": note}
    return Estimate(j / steps, details=details)


MEASURES = {
    "predicted_prunability": Measure(
        predicted_prunability, +1, "pruning", 140.0, "second-order model; Zhang et al. 2024", (), ("permutation",)
    ),
}
