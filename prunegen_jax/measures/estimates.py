"""Estimates of quantities that may leave the range of floats, and the option `normalize` of measures."""

from __future__ import annotations

import math
from typing import Any

from prunegen_jax.compute.options import check_choice
from prunegen_jax.types import Estimate

NORMALIZATIONS = ("raw", "sqrt_m", "log", "log_sqrt_m")


def log(value: float) -> float:
    """ln of a number ≥ 0, −inf of zero."""
    return math.log(value) if value != 0.0 else -math.inf


def normalized_estimate(
    *,
    size: int,
    normalize: str,
    value: float | None = None,
    log_value: float | None = None,
    details: dict[str, Any] | None = None,
) -> Estimate:
    """The estimate of a quantity C ≥ 0, given as C or as ln C, after the transform that `normalize` names.

    Args:
        size: m, the number of training examples.
        normalize: "raw": C. "sqrt_m": √(C / m), the form in which the bounds hold and in which Jiang et al. (2020) and
            Dziugaite et al. (2020) compare measures. "log": ln C. "log_sqrt_m": ½ (ln C − ln m), what the code of the
            latter stores for products.
        value: C.
        log_value: ln C, instead of C.
        details: of the estimate. ln C is added as "log": a product may leave the range of floats (C = inf or 0), its
            logarithm does not.

    Returns:
        The estimate; its status is "failed" if C is undefined (0 · ∞, 0 / 0).

    Raises:
        ValueError: for an unknown transform.
    """
    check_choice("normalize", normalize, NORMALIZATIONS)
    if log_value is None:
        log_value = math.nan if value is None or math.isnan(value) else log(value)
    details = {"log": log_value, **(details or {})}
    if math.isnan(log_value):
        layers = details.get("zero_layers")
        reason = (
            f"undefined: all weights of {', '.join(layers)} are zero"
            if layers
            else "not a number: 0 · ∞, 0 / 0, or weights that are not finite"
        )
        return Estimate(math.nan, status="failed", reason=reason, details=details)
    if normalize == "raw":
        return Estimate(_exp(log_value) if value is None else value, details=details)
    if normalize == "log":
        return Estimate(log_value, details=details)
    half = 0.5 * (log_value - math.log(size))
    return Estimate(_exp(half) if normalize == "sqrt_m" else half, details=details)


def _exp(power: float) -> float:
    try:
        return math.exp(power)
    except OverflowError:
        return math.inf
