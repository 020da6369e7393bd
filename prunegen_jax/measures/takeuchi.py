"""Noise over curvature: what Takeuchi's information criterion becomes with traces in place of matrices."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np

from prunegen_jax.measures import curvature, gradient_noise
from prunegen_jax.measures.objective import weight_function
from prunegen_jax.types import Estimate, Measure, TrainedModel


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


MEASURES = {
    "takeuchi_trace_ratio": Measure(takeuchi_trace_ratio, +1, "noise", 254.0, "Takeuchi 1976; Thomas et al. 2020"),
}

FORWARDS_OPTIONS_TO = dict.fromkeys(MEASURES, curvature.operator_trace)
