"""Flatness by the rise of the loss after one step up the gradient: sharpness as SAM and ASAM define it.

Rises of the mean cross-entropy (nats) over the whole training set when kernels and biases move, of the network with
batch norm folded into them (`fold=False`: of the network as it is).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute import lockstep
from prunegen_jax.compute.options import check_at_least, check_positive
from prunegen_jax.measures import hessian
from prunegen_jax.measures.objective import Objective, Weights, chunk_loss, mean_loss, weight_function
from prunegen_jax.types import Estimate, Measure, TrainedModel


def sam_sharpness(
    model: TrainedModel, key: jax.Array, *, rho: float = 0.05, fold: bool = True, batch_size: int | None = None
) -> Estimate:
    """L̂(w + δ) − L̂(w) after one step δ = ρ ∇L̂ / ‖∇L̂‖₂ up the gradient over the whole set.

    Args:
        model: any.
        key: not used.
        rho: ρ.
        fold: fold batch norm into the weights first.
        batch_size: examples per chunk; changes nothing but speed.

    Raises:
        ValueError: if ρ is not positive.
    """
    return _one_step(model, rho, None, fold, batch_size)


def asam_sharpness(
    model: TrainedModel,
    key: jax.Array,
    *,
    rho: float = 0.5,
    eta: float = 0.01,
    fold: bool = True,
    batch_size: int | None = None,
) -> Estimate:
    """L̂(w + δ) − L̂(w) for δ = ρ T² ∇L̂ / ‖T ∇L̂‖₂ over the whole set; T = |w| + η for kernels, 1 for biases.

    Args:
        model: any.
        key: not used.
        rho: ρ.
        eta: η.
        fold: fold batch norm into the weights first.
        batch_size: examples per chunk; changes nothing but speed.

    Raises:
        ValueError: if ρ is not positive.
    """
    return _one_step(model, rho, eta, fold, batch_size)


def sam_sharpness_batches(
    model: TrainedModel, key: jax.Array, *, rho: float = 0.05, size: int = 128, fold: bool = True
) -> Estimate:
    """m-SAM: the mean over disjoint batches B of L_B(w + δ_B) − L_B(w), δ_B = ρ ∇L_B / ‖∇L_B‖₂.

    Batches are of consecutive examples, the last one may be shorter; the mean weighs batches by their size, so that it
    is a mean over examples. Smaller batches give larger values.

    Args:
        model: any.
        key: not used.
        rho: ρ.
        size: of the batches.
        fold: fold batch norm into the weights first.

    Raises:
        ValueError: if ρ or the size is not positive.
    """
    check_positive(rho=rho)
    check_at_least(1, size=size)
    network = weight_function(model, fold=fold)
    count = len(network.data)
    groups = [np.arange(start, min(start + size, count)) for start in range(0, count, size)]
    longest = max(len(group) for group in groups)
    indices = np.stack([np.pad(group, (0, longest - len(group)), mode="edge") for group in groups])
    used = np.stack([np.arange(longest) < len(group) for group in groups])
    scale = (used / used.sum(axis=1, keepdims=True)).astype(jnp.result_type(*network.weights.values()))
    objective = network.objective()._replace(indices=jnp.asarray(indices, jnp.int32), scale=jnp.asarray(scale))
    rises = np.asarray(_batch_rises(objective, network.weights, jnp.float32(rho)), np.float64)
    value = float(np.average(rises, weights=used.sum(axis=1)))
    return Estimate(value, details={**network.details(), "rho": rho, "batches": len(groups)})


@lockstep.jit
def _batch_rises(objective: Objective, weights: Weights, rho: jax.Array) -> jax.Array:
    def one(batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        loss, gradient = jax.value_and_grad(chunk_loss, argnums=1)(objective, weights, *batch)
        return chunk_loss(objective, _step(weights, gradient, rho, jnp.float32(0.0), adaptive=()), *batch) - loss

    with jax.default_matmul_precision("highest"):
        return jax.lax.map(one, (objective.indices, objective.scale))


@functools.partial(lockstep.jit, static_argnames="adaptive")
def _step(weights: Weights, gradient: Weights, rho: jax.Array, eta: jax.Array, *, adaptive: tuple[str, ...]) -> Weights:
    """w + ρ T² g / ‖T g‖₂, T = |w| + η for the weights named in `adaptive`; w if the gradient is zero."""

    def scaling(name: str, w: jax.Array) -> jax.Array:
        if name in adaptive:
            return jnp.abs(w) + eta.astype(w.dtype)
        return jnp.ones_like(w)

    t = {name: scaling(name, w) for name, w in weights.items()}
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(t[name] * g)) for name, g in gradient.items()))
    factor = jnp.where(norm > 0, rho.astype(norm.dtype) / norm, jnp.zeros_like(norm))
    return {name: w + factor * jnp.square(t[name]) * gradient[name] for name, w in weights.items()}


def _one_step(model: TrainedModel, rho: float, eta: float | None, fold: bool, batch_size: int | None) -> Estimate:
    check_positive(rho=rho)
    network = weight_function(model, fold=fold)
    objective = network.objective(batch_size)
    gradient = hessian.gradient(objective, network.weights)
    adaptive = () if eta is None else network.kernels
    perturbed = _step(network.weights, gradient, jnp.float32(rho), jnp.float32(eta or 0.0), adaptive=adaptive)
    rise = mean_loss(objective, perturbed) - mean_loss(objective, network.weights)
    return Estimate(rise, details={**network.details(), "rho": rho})


_PERMUTATION = ("permutation",)

MEASURES = {
    "sam_sharpness": Measure(sam_sharpness, +1, "flatness", 5.0, "Foret et al. 2021", (), _PERMUTATION),
    "sam_sharpness_batches": Measure(
        sam_sharpness_batches, +1, "flatness", 4.0, "Foret et al. 2021 (m-sharpness)", (), _PERMUTATION
    ),
    "asam_sharpness": Measure(asam_sharpness, +1, "flatness", 5.0, "Kwon et al. 2021", (), _PERMUTATION),
}
