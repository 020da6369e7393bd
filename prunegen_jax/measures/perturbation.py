"""Flatness by random perturbation: the largest noise in the weights at which the loss stays within a tolerance.

Kernels and biases are perturbed, of the network with batch norm folded into them (`fold=False`: of the network as it
is). Losses are over the whole training set.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from prunegen_jax.measures.objective import weight_function
from prunegen_jax.measures.search import largest_scale, scale_standard_error, search_details
from prunegen_jax.measures.weight_noise import add_gaussian, losses_under_noise, mean_loss_and_error
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

    The standard error is over the draws.

    Args:
        model: any.
        key: randomness of the noise.
        magnitude: whether the noise of a weight has standard deviation σ |w| instead of σ.
        beta: β, as in `pruning.limit_of`.
        tolerance: as in `pruning.limit_of`.
        delta: as in `pruning.limit_of`.
        draws: number of draws over which the expectation is taken, the same for every σ.
        scale_tolerance: σ is found to a factor 1 + `scale_tolerance`, from below.
        fold: fold batch norm into the weights first.

    Raises:
        ValueError: for fewer than two draws, or an unknown tolerance.
    """
    network = weight_function(model, fold=fold)
    dense = mean_loss_and_error(network, network.weights)[0]
    limit, note = limit_of(dense, tolerance=tolerance, beta=beta, delta=delta)
    perturb = functools.partial(add_gaussian, magnitude=magnitude, floor=jnp.float32(0.0))
    evaluate = losses_under_noise(network, key, draws, perturb)
    crossing = largest_scale(
        lambda scale: float(evaluate(scale)[0].mean()),
        limit,
        start=0.1 if magnitude else 0.01,
        scale_tolerance=scale_tolerance,
    )
    if not crossing.scale > 0:
        reason = "no scale was found: the smallest noise tried exceeds the tolerance"
        return Estimate(math.nan, status="failed", reason=reason, details=search_details(crossing))
    details = {**network.details(), **search_details(crossing), "limit": limit, "loss": crossing.response}
    details |= {"dense": dense, "note": note, "draws": draws}
    sem = scale_standard_error(crossing, lambda scale: evaluate(scale)[0])
    return Estimate(crossing.scale, sem, details=details)


_SOURCE = "noise robustness at the tolerance of Kuhn et al. 2021"

MEASURES = {
    "perturbation_robustness": Measure(perturbation_robustness, -1, "flatness", 130.0, _SOURCE),
    "perturbation_robustness_magnitude": Measure(
        perturbation_robustness_magnitude, -1, "flatness", 130.0, _SOURCE, (), ("neuron_scaling", "layer_scaling")
    ),
}

FORWARDS_OPTIONS_TO = dict.fromkeys(MEASURES, noise_robustness)
