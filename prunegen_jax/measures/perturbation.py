"""Flatness by random perturbation: how much noise in the weights a network stands.

Noise is drawn once per draw and scaled (common random numbers), so that its effect is a smooth function of the scale.
Kernels and biases are perturbed, of the network with batch norm folded into them (`fold=False`: of the network as it
is). Losses are over the whole training set.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute import lockstep
from prunegen_jax.compute.evaluation import example_losses
from prunegen_jax.measures import subject
from prunegen_jax.measures.search import Crossing, largest_scale
from prunegen_jax.pruning import limit_of
from prunegen_jax.types import Estimate, Measure, TrainedModel


def perturbation_robustness(model: TrainedModel, key: jax.Array, **options: Any) -> Estimate:
    """`noise_robustness` with noise of the same standard deviation σ in every weight."""
    return noise_robustness(model, key, False, **options)


def perturbation_robustness_magnitude(model: TrainedModel, key: jax.Array, **options: Any) -> Estimate:
    """`noise_robustness` with noise in proportion to the weights, of standard deviation σ |w|."""
    return noise_robustness(model, key, True, **options)


def noise_robustness(
    model: TrainedModel,
    key: jax.Array,
    magnitude: bool,
    *,
    beta: float = 0.1,
    tolerance: str = "relative",
    delta: float = 1e-6,
    draws: int = 10,
    scale_tolerance: float = 0.01,
    fold: bool = True,
) -> Estimate:
    """max { σ : E_{u ∼ N(0, σ²)} L̂(w + u) ≤ (1 + β) L̂(w) }: the largest noise within the tolerance of prunability.

    With `magnitude` the noise of a weight has standard deviation σ |w|. The expectation is over `draws` draws, the
    same for every σ. `tolerance`, `beta` and `delta` as in `pruning.limit_of`; σ is found to a factor
    1 + `scale_tolerance`, from below. The standard error is over the draws.

    Raises:
        ValueError: for fewer than two draws, or a tolerance that is not known.
    """
    moved = subject.subject(model, fold=fold)
    dense = float(np.mean(example_losses(moved.apply, moved.weights, moved.data)[0], dtype=np.float64))
    limit, note = limit_of(dense, tolerance=tolerance, beta=beta, delta=delta)
    losses = drawn(moved, key, draws, functools.partial(gaussian, magnitude=magnitude, floor=jnp.float32(0.0)), 0)
    found = largest_scale(
        lambda scale: float(losses(scale).mean()), limit, start=0.1 if magnitude else 0.01,
        scale_tolerance=scale_tolerance,
    )  # fmt: skip
    if not found.scale > 0:
        reason = "no scale was found: the smallest noise tried exceeds the tolerance"
        return Estimate(math.nan, status="failed", reason=reason, details=search_details(found))
    more = {"limit": limit, "loss": found.response, "dense": dense, "note": note, "draws": draws}
    return Estimate(
        found.scale, scale_sem(found, losses), details={**subject.details(moved), **search_details(found), **more}
    )


@functools.partial(lockstep.jit, static_argnames="magnitude")
def gaussian(
    weights: subject.Weights, key: jax.Array, scale: jax.Array, *, magnitude: bool, floor: jax.Array
) -> subject.Weights:
    """w + u, u Gaussian of standard deviation `scale`, or √(`scale`² w² + `floor`²) if `magnitude`.

    A negative scale gives −u. With a floor of zero the noise is `scale` · w times a standard normal, so that scaling a
    weight scales its noise, sign and all.
    """

    def perturb(w: jax.Array, key: jax.Array) -> jax.Array:
        size = scale.astype(w.dtype)
        if magnitude:
            flat, low = size * w, floor.astype(w.dtype)
            size = jnp.where(low > 0, jnp.sign(size) * jnp.sqrt(jnp.square(flat) + jnp.square(low)), flat)
        return w + size * jax.random.normal(key, w.shape, w.dtype)

    keys = dict(zip(weights, jax.random.split(key, len(weights)), strict=True))
    return {name: perturb(leaf, keys[name]) for name, leaf in weights.items()}


def drawn(
    moved: subject.Subject, key: jax.Array, draws: int, perturb: Callable[..., subject.Weights], which: int
) -> Callable[[float], np.ndarray]:
    """scale ↦ mean loss (`which` = 0) or error (1) over the training set for each of `draws` perturbations, `[draws]`.

    Raises:
        ValueError: for fewer than two draws.
    """
    if draws < 2:
        raise ValueError(f"draws={draws} must be at least 2, for a standard error")

    @functools.cache
    def evaluate(scale: float) -> np.ndarray:
        values = []
        for draw in range(draws):
            weights = perturb(moved.weights, jax.random.fold_in(key, draw), jnp.float32(scale))
            examples = example_losses(moved.apply, weights, moved.data)[which]
            values.append(np.mean(examples, dtype=np.float64))
        return np.array(values)

    return evaluate


def scale_sem(found: Crossing, evaluate: Callable[[float], np.ndarray]) -> float | None:
    """Standard error of the scale found: that of the mean response over draws, divided by its slope."""
    if found.scale <= 0:
        return None
    values = evaluate(found.scale)
    sem = float(values.std(ddof=1) / math.sqrt(len(values)) / found.slope())
    return sem if math.isfinite(sem) else None


def search_details(found: Crossing) -> dict[str, Any]:
    """What a searched measure says about its search."""
    return {
        "low": found.low,
        "high": found.high if math.isfinite(found.high) else None,
        "evaluations": found.evaluations,
        "converged": found.converged,
    }


_SOURCE = "noise robustness at the tolerance of Kuhn et al. 2021"

MEASURES = {
    "perturbation_robustness": Measure(perturbation_robustness, -1, "flatness", 130.0, _SOURCE),
    "perturbation_robustness_magnitude": Measure(
        perturbation_robustness_magnitude, -1, "flatness", 130.0, _SOURCE, (), ("neuron_scaling", "layer_scaling")
    ),
}

HANDS_ON = dict.fromkeys(MEASURES, noise_robustness)
