"""Noise over curvature: Takeuchi's information criterion, and what it becomes with traces in place of matrices."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from prunegen_jax.compute import trees
from prunegen_jax.compute.options import check_at_least, check_positive
from prunegen_jax.measures import curvature, gradient_noise, hessian
from prunegen_jax.measures.objective import WeightFunction, weight_function
from prunegen_jax.types import Estimate, Measure, NotApplicableError, TrainedModel

ROWS = 64  # products with the Hessian made in one call


def takeuchi_trace_ratio(
    model: TrainedModel, key: jax.Array, *, fold: bool = True, batch_size: int | None = None, **options: Any
) -> Estimate:
    """tr C / tr H, C = (1/m) Σ_i (∇ℓ_i − ∇L̂)(∇ℓ_i − ∇L̂)ᵀ the covariance of the gradients of examples.

    Takeuchi's information criterion estimates the gap of the loss as tr(H⁻¹ C) / m; H is singular in overparametrized
    networks, and Thomas et al. (2020) replace it by this ratio. tr C is exact, the standard error is that of tr H.

    Args:
        model: any.
        key: randomness of the probes of tr H.
        fold: fold batch norm into the weights first.
        batch_size: examples per chunk; changes nothing but speed.
        **options: those of `curvature.operator_trace`.

    Raises:
        ValueError: for an unknown option.
    """
    network = weight_function(model, fold=fold)
    squares, mean = gradient_noise.example_gradients(network, np.arange(len(model.train)), batch_size)
    covariance = float(squares.mean() - mean @ mean)
    trace = curvature.hessian_trace(model, key, fold=fold, batch_size=batch_size, **options)
    details = {**trace.details, "covariance_trace": covariance, "hessian_trace": trace.value}
    if not trace.value > 0:
        reason = f"tr H is {trace.value:.3g}, and must be positive: the network is not near a minimum"
        return Estimate(math.nan, status="failed", reason=reason, details=details)
    sem = None if trace.sem is None else abs(covariance) * trace.sem / trace.value**2
    return Estimate(covariance / trace.value, sem, details=details)


def takeuchi_information_criterion(
    model: TrainedModel,
    key: jax.Array,
    *,
    damping: float = 1e-3,
    max_parameters: int = 3000,
    fold: bool = True,
    batch_size: int | None = None,
) -> Estimate:
    """tr((H₊ + λ I)⁻¹ C) / m, C as in `takeuchi_trace_ratio`, λ = 10⁻³ times the largest eigenvalue of H.

    H₊ is H with its negative eigenvalues set to 0. At a minimum it is H, and for λ → 0 the value is Takeuchi's estimate
    of the gap of the loss. Exact, from the dense Hessian; the details have the eigenvalues at both ends and
    `effective_parameters` = tr((H₊ + λ I)⁻¹ H₊). Not applicable to networks of more than `max_parameters` weights.

    Args:
        model: any.
        key: not used.
        damping: λ over the largest eigenvalue of H.
        max_parameters: the most kernel entries and biases, p; the cost is p products with H and p³ operations.
        fold: fold batch norm into the weights first.
        batch_size: examples per chunk; changes nothing but speed.

    Raises:
        ValueError: if the damping is not positive.
    """
    check_positive(damping=damping)
    check_at_least(1, max_parameters=max_parameters)
    network = weight_function(model, fold=fold)
    size = trees.count(network.weights)
    if size > max_parameters:
        raise NotApplicableError(f"needs a dense Hessian: {size} weights are more than max_parameters={max_parameters}")
    values, vectors = np.linalg.eigh(_dense_hessian(network, batch_size))
    details = {**network.details(), "largest_eigenvalue": float(values[-1]), "smallest_eigenvalue": float(values[0])}
    if not values[-1] > 0:
        reason = f"the largest eigenvalue of H is {values[-1]:.3g}, and must be positive: there is no curvature"
        return Estimate(math.nan, status="failed", reason=reason, details=details)
    curvatures = np.maximum(values, 0.0)
    damped = curvatures + damping * values[-1]
    noise = np.einsum("pi,pi->i", vectors, gradient_noise.covariance(network, batch_size) @ vectors)
    details |= {"damping": float(damping * values[-1]), "effective_parameters": float(np.sum(curvatures / damped))}
    return Estimate(float(np.sum(noise / damped)) / len(model.train), details=details)


def _dense_hessian(network: WeightFunction, batch_size: int | None) -> np.ndarray:
    """H `[p, p]` in float64, made symmetric."""
    operator = hessian.linearized(network.objective(batch_size), network.weights)
    flat = ravel_pytree(network.weights)[0]
    rows = []
    for start in range(0, flat.size, ROWS):
        units = jnp.asarray(np.eye(ROWS, flat.size, start), flat.dtype)
        rows.append(np.asarray(hessian.products(operator, units), np.float64))
    matrix = np.concatenate(rows)[: flat.size]
    return (matrix + matrix.T) / 2


MEASURES = {
    "takeuchi_trace_ratio": Measure(takeuchi_trace_ratio, +1, "noise", 254.0, "Takeuchi 1976; Thomas et al. 2020"),
    "takeuchi_information_criterion": Measure(
        takeuchi_information_criterion, +1, "noise", 5000.0, "Takeuchi 1976", (), ("permutation",)
    ),
}

FORWARDS_OPTIONS_TO = {"takeuchi_trace_ratio": curvature.operator_trace}
