"""Measures made of the largest perturbation that a network tolerates: what `pac_bayes` and `sharpness` share.

A search finds the scale of the perturbation; the measures are its inverse square, or a bound of `bounds` in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from prunegen_jax.measures.bounds import FLOOR
from prunegen_jax.measures.cache import cached
from prunegen_jax.measures.estimates import normalized_estimate
from prunegen_jax.measures.objective import WeightFunction, weight_function
from prunegen_jax.measures.search import Crossing, search_details
from prunegen_jax.measures.structure import NO_INITIAL_WEIGHTS
from prunegen_jax.types import Estimate, TrainedModel

Scale = tuple[Crossing, float | None]  # the scale found, and its standard error
Search = Callable[..., Scale]  # (model, key, magnitude, **options), of which `fold` is one


def cached_search(model: TrainedModel, key: jax.Array, search: Callable[[], Scale], *options: Any) -> Scale:
    """The result of `search()`, computed once per model, key and `options`, on which it depends."""
    bits = np.asarray(jax.random.key_data(key)).tolist()
    return cached(model, f"scale {options} {bits}", search)


def inverse_square(
    model: TrainedModel,
    key: jax.Array,
    search: Search,
    magnitude: bool,
    normalize: str,
    *,
    fold: bool = True,
    **options: Any,
) -> Estimate:
    """1 / scale²."""
    scale = search(model, key, magnitude, fold=fold, **options)
    return _estimate(weight_function(model, fold=fold), scale, lambda value: 1 / value**2, normalize)


def norm_bound(
    model: TrainedModel,
    key: jax.Array,
    search: Search,
    formula: Callable[[float, float, int, int], float],
    normalize: str,
    *,
    from_init: bool,
    fold: bool = True,
    **options: Any,
) -> Estimate:
    """A bound in ‖w − w⁰‖² (`from_init`) or ‖w‖²: `formula` of that square, the scale, ω and m."""
    network = weight_function(model, fold=fold)
    w, away = kernel_vectors(network)
    vector = away if from_init else w
    if vector is None:
        return NO_INITIAL_WEIGHTS
    square, omega, m = float(vector @ vector), w.size, len(model.train)
    scale = search(model, key, False, fold=fold, **options)
    return _estimate(network, scale, lambda value: formula(square, value, omega, m), normalize)


def magnitude_bound(
    model: TrainedModel,
    key: jax.Array,
    search: Search,
    formula: Callable[[np.ndarray, float, float, int], float],
    normalize: str,
    *,
    from_init: bool,
    fold: bool = True,
    **options: Any,
) -> Estimate:
    """A magnitude-aware bound: `formula` of w − w⁰, R², the scale and m, R = ‖w − w⁰‖ (`from_init`) or ‖w‖."""
    network = weight_function(model, fold=fold)
    w, away = kernel_vectors(network)
    if away is None:
        return NO_INITIAL_WEIGHTS
    vector = away if from_init else w
    square, m = float(vector @ vector), len(model.train)
    scale = search(model, key, True, fold=fold, **options)
    return _estimate(network, scale, lambda value: formula(away, square, value, m), normalize)


def kernel_vectors(network: WeightFunction) -> tuple[np.ndarray, np.ndarray | None]:
    """w and w − w⁰ of the kernels, float64 `[ω]` each; None instead of the latter without initial weights."""
    names = network.kernel_names()
    w = np.concatenate([np.asarray(network.weights[name], np.float64).reshape(-1) for name in names])
    if network.initial is None:
        return w, None
    return w, w - np.concatenate([np.asarray(network.initial[name], np.float64).reshape(-1) for name in names])


def _estimate(network: WeightFunction, scale: Scale, formula: Callable[[float], float], normalize: str) -> Estimate:
    """`formula` of the scale found, transformed, with the standard error that that of the scale implies."""
    crossing, sem = scale
    details = {**network.details(), **search_details(crossing), "scale": crossing.scale, "scale_sem": sem}
    details["response"] = crossing.response
    if crossing.high == 0:
        over = f"{crossing.response:.2g} > {crossing.limit:.2g}"
        reason = (
            f"undefined: ε = {FLOOR:g}, the perturbation at scale 0, already raises the error above its limit, {over}"
        )
        return Estimate(float("nan"), status="not_applicable", reason=reason, details=details)
    if not crossing.scale > 0:
        reason = "no scale was found: the smallest perturbation tried exceeds the target"
        return Estimate(float("nan"), status="failed", reason=reason, details=details)

    if not formula(crossing.scale) > 0:
        reason = f"no perturbation up to {crossing.scale:.2g} exceeds the target, and the bound is not positive there"
        return Estimate(float("nan"), status="failed", reason=reason, details=details)

    def transformed(value: float) -> Estimate:
        return normalized_estimate(value=formula(value), size=len(network.data), normalize=normalize, details=details)

    result = transformed(crossing.scale)
    if sem is None or sem >= crossing.scale:
        return result
    low, high = (transformed(crossing.scale + sign * sem).value for sign in (-1, 1))
    return Estimate(result.value, abs(high - low) / 2, result.status, result.reason, result.details)
