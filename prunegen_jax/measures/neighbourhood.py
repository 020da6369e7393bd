"""Flatness by the loss in a neighbourhood of given size: average-case and worst-case sharpness.

Rises of the mean cross-entropy (nats) over the whole training set when kernels and biases move, of the network with
batch norm folded into them (`fold=False`: of the network as it is).
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute.options import check_at_least, check_positive
from prunegen_jax.compute.sampling import skewed_standard_error
from prunegen_jax.measures.objective import WeightFunction, Weights, mean_loss, weight_function
from prunegen_jax.measures.weight_noise import add_gaussian
from prunegen_jax.measures.worst_case import ascend_box, make_box
from prunegen_jax.types import Estimate, Measure, TrainedModel

PAIRS_PER_CHECK = 4  # pairs of draws between two checks of the standard error


def average_sharpness(model: TrainedModel, key: jax.Array, *, rho: float = 0.01, **options: Any) -> Estimate:
    """`average_rise` with c = 1: noise of the same standard deviation ρ in every weight."""
    return average_rise(model, key, rho, False, **options)


def average_sharpness_adaptive(model: TrainedModel, key: jax.Array, *, rho: float = 0.1, **options: Any) -> Estimate:
    """`average_rise` with c = |w|: noise in proportion to the weights."""
    return average_rise(model, key, rho, True, **options)


def average_rise(
    model: TrainedModel,
    key: jax.Array,
    rho: float,
    adaptive: bool,
    *,
    relative_error: float = 0.05,
    budget: int = 64,
    fold: bool = True,
    batch_size: int | None = None,
) -> Estimate:
    """E_{δ ∼ N(0, ρ² diag(c²))} [L̂(w + δ)] − L̂(w), with c = 1, or c = |w| if `adaptive`.

    For small ρ it is (ρ²/2) Σ_j c_j² H_jj. Draws come in pairs ±δ, which removes the odd orders, until the standard
    error is below `relative_error` of the value or `budget` evaluations of the loss are spent. Few directions make up
    most of the rise, so the draws are skewed: the standard error is `sampling.skewed_standard_error`.

    Args:
        model: any.
        key: randomness of the draws.
        rho: ρ.
        adaptive: whether the noise grows with the weights.
        relative_error: standard error to reach, relative to the value.
        budget: the most evaluations of the loss.
        fold: fold batch norm into the weights first.
        batch_size: examples per chunk; changes nothing but speed.

    Raises:
        ValueError: if ρ is not positive or the budget leaves fewer than two pairs.
    """
    check_positive(rho=rho)
    check_at_least(4, budget=budget)
    network = weight_function(model, fold=fold)
    objective = network.objective(batch_size)
    dense = mean_loss(objective, network.weights)
    perturb = functools.partial(add_gaussian, magnitude=adaptive, floor=jnp.float32(0.0))
    pairs: list[float] = []
    while True:
        pair_key = jax.random.fold_in(key, len(pairs))
        losses = (mean_loss(objective, perturb(network.weights, pair_key, jnp.float32(sign * rho))) for sign in (1, -1))
        pairs.append(sum(losses) / 2 - dense)
        value, sem = float(np.mean(pairs)), skewed_standard_error(np.array(pairs))
        sem = math.inf if sem is None else sem
        checked = len(pairs) >= 2 * PAIRS_PER_CHECK and len(pairs) % PAIRS_PER_CHECK == 0
        converged = checked and sem <= relative_error * abs(value)
        if converged or 2 * len(pairs) + 2 > budget:
            break
    details = {**network.details(), "evaluations": 2 * len(pairs), "converged": converged, "rho": rho}
    return Estimate(value, sem, details=details)


def worst_sharpness(model: TrainedModel, key: jax.Array, *, rho: float = 0.002, **options: Any) -> Estimate:
    """`worst_rise` with c = 1: the same box for every weight."""
    return worst_rise(model, key, rho, False, **options)


def worst_sharpness_adaptive(model: TrainedModel, key: jax.Array, *, rho: float = 0.01, **options: Any) -> Estimate:
    """`worst_rise` with c = |w|: the box in proportion to the weights."""
    return worst_rise(model, key, rho, True, **options)


def worst_rise(
    model: TrainedModel,
    key: jax.Array,
    rho: float,
    adaptive: bool,
    *,
    steps: int = 20,
    starts: int = 1,
    fold: bool = True,
    batch_size: int | None = None,
) -> Estimate:
    """max_{|δ_j| ≤ ρ c_j} L̂(w + δ) − L̂(w), c = 1, or c = |w| if `adaptive`, as far as `ascend_box` finds it.

    Args:
        model: any.
        key: randomness of the starting points.
        rho: ρ.
        adaptive: whether the box grows with the weights.
        steps: steps of ascent from each starting point.
        starts: number of starting points.
        fold: fold batch norm into the weights first.
        batch_size: examples per chunk; changes nothing but speed.

    Raises:
        ValueError: if ρ is not positive, for a negative number of steps or fewer than one start.
    """
    check_positive(rho=rho)
    network = weight_function(model, fold=fold)
    box = make_box(network.weights, jnp.float32(rho), jnp.float32(0.0), magnitude=adaptive)
    rise, _, details = _largest_rise(network, box, key, steps, starts, batch_size)
    return Estimate(rise, details={**details, "rho": rho})


def keskar_sharpness(
    model: TrainedModel,
    key: jax.Array,
    *,
    epsilon: float = 1e-3,
    steps: int = 20,
    starts: int = 1,
    fold: bool = True,
    batch_size: int | None = None,
) -> Estimate:
    """100 (max_{|δ_j| ≤ ε (|w_j| + 1)} L̂(w + δ) − L̂(w)) / (1 + L̂(w)), as far as `ascend_box` finds it.

    Args:
        model: any.
        key: randomness of the starting points.
        epsilon: ε.
        steps: as in `worst_rise`.
        starts: as in `worst_rise`.
        fold: as in `worst_rise`.
        batch_size: as in `worst_rise`.

    Raises:
        ValueError: if ε is not positive, for a negative number of steps or fewer than one start.
    """
    check_positive(epsilon=epsilon)
    network = weight_function(model, fold=fold)
    box = make_box(network.weights, jnp.float32(epsilon), jnp.float32(epsilon), magnitude=True)
    rise, loss, details = _largest_rise(network, box, key, steps, starts, batch_size)
    return Estimate(100 * rise / (1 + loss), details={**details, "epsilon": epsilon})


def _largest_rise(
    network: WeightFunction, box: Weights, key: jax.Array, steps: int, starts: int, batch_size: int | None
) -> tuple[float, float, dict[str, Any]]:
    """The largest rise of the loss found in a box, the loss of the network as it is, and details."""
    objective = network.objective(batch_size)
    worst = ascend_box(objective, network.weights, box, key, steps=steps, starts=starts)
    dense = ascend_box(objective, network.weights, box, key, steps=0, starts=1).loss  # by the same sums
    return worst.loss - dense, dense, {**network.details(), "gradients": worst.gradients}


_ANDRIUSHCHENKO = "Andriushchenko et al. 2023"
_SCALINGS = ("neuron_scaling", "layer_scaling")


def _row(function: Any, cost: float, source: str, *invariant: str) -> Measure:
    return Measure(function, +1, "flatness", cost, source, (), invariant)


MEASURES = {
    "average_sharpness": _row(average_sharpness, 40.0, _ANDRIUSHCHENKO),
    "average_sharpness_adaptive": _row(average_sharpness_adaptive, 40.0, _ANDRIUSHCHENKO, *_SCALINGS),
    "worst_sharpness": _row(worst_sharpness, 66.0, _ANDRIUSHCHENKO, "permutation"),
    "worst_sharpness_adaptive": _row(worst_sharpness_adaptive, 66.0, _ANDRIUSHCHENKO, "permutation", *_SCALINGS),
    "keskar_sharpness": _row(keskar_sharpness, 66.0, "Keskar et al. 2017", "permutation"),
}

FORWARDS_OPTIONS_TO = {
    "average_sharpness": average_rise,
    "average_sharpness_adaptive": average_rise,
    "worst_sharpness": worst_rise,
    "worst_sharpness_adaptive": worst_rise,
}
