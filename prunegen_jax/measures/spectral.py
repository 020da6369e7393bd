"""Spectral norms: their products and sums, over the margin, stable ranks, distances.

Options common to all: `spectral`, how ‖W_l‖₂ is computed, one of "exact" (the default), "reshaped", "fft_layer",
"fft_rgm", see `operators.spectral_norm`; `compat="rgm"` takes "fft_rgm", what the code of Dziugaite et al. (2020)
calls the exact norm; `fold` and `normalize` as in `norms`. "exact" and "fft_layer" need the geometry of the layers:
not applicable to a network with convolutions larger than 1×1 that does not bring `layers`.
d is the number of kernels, γ the 10th percentile of the output margins (`margins.tenth_percentile`).
"""

from __future__ import annotations

import math
from typing import Any

import jax

from prunegen_jax.compute import trees
from prunegen_jax.measures import norms
from prunegen_jax.measures.operators import METHODS, channels_last, obstacle, spectral_norm
from prunegen_jax.measures.weights import check_choice, measured, quantity, remembered
from prunegen_jax.types import Estimate, Measure, TrainedModel, not_applicable


def product_of_spectral_norms(
    model: TrainedModel,
    key: jax.Array,
    *,
    spectral: str | None = None,
    compat: str | None = None,
    fold: bool = True,
    normalize: str = "raw",
) -> Estimate:
    """Π_l ‖W_l‖₂²; `details["layers"]` has every ‖W_l‖₂."""
    found = spectral_norms(model, spectral=spectral, compat=compat, fold=fold)
    if isinstance(found, Estimate):
        return found
    return norms.product(model, _squares(found), fold, normalize, details={"layers": found})


def product_of_spectral_norms_over_margin(
    model: TrainedModel,
    key: jax.Array,
    *,
    spectral: str | None = None,
    compat: str | None = None,
    fold: bool = True,
    normalize: str = "raw",
) -> Estimate:
    """Π_l ‖W_l‖₂² / γ²."""
    found = spectral_norms(model, spectral=spectral, compat=compat, fold=fold)
    if isinstance(found, Estimate):
        return found
    return norms.product(model, _squares(found), fold, normalize, over_margin=True)


def sum_of_spectral_norms(
    model: TrainedModel,
    key: jax.Array,
    *,
    spectral: str | None = None,
    compat: str | None = None,
    fold: bool = True,
    normalize: str = "raw",
) -> Estimate:
    """d (Π_l ‖W_l‖₂²)^{1/d}."""
    found = spectral_norms(model, spectral=spectral, compat=compat, fold=fold)
    if isinstance(found, Estimate):
        return found
    return norms.product(model, _squares(found), fold, normalize, as_sum=True)


def sum_of_spectral_norms_over_margin(
    model: TrainedModel,
    key: jax.Array,
    *,
    spectral: str | None = None,
    compat: str | None = None,
    fold: bool = True,
    normalize: str = "raw",
) -> Estimate:
    """d (Π_l ‖W_l‖₂² / γ²)^{1/d}."""
    found = spectral_norms(model, spectral=spectral, compat=compat, fold=fold)
    if isinstance(found, Estimate):
        return found
    return norms.product(model, _squares(found), fold, normalize, as_sum=True, over_margin=True)


def frobenius_over_spectral(
    model: TrainedModel,
    key: jax.Array,
    *,
    spectral: str | None = None,
    compat: str | None = None,
    fold: bool = True,
    normalize: str = "raw",
) -> Estimate:
    """Σ_l ‖W_l‖_F² / ‖W_l‖₂², the sum of stable ranks. Undefined for a kernel of zeros, which fails."""
    found = spectral_norms(model, spectral=spectral, compat=compat, fold=fold)
    if isinstance(found, Estimate):
        return found
    details = {"folded": norms.is_folded(model, fold), "zero_layers": [name for name in found if not found[name]]}
    value = _ratio(norms.squared_norms(model, fold), found)
    return quantity(value=value, size=len(model.train), normalize=normalize, details=details)


def spectral_bound_from_origin(
    model: TrainedModel,
    key: jax.Array,
    *,
    spectral: str | None = None,
    compat: str | None = None,
    fold: bool = True,
    normalize: str = "raw",
) -> Estimate:
    """(Π_l ‖W_l‖₂² / γ²) · Σ_l ‖W_l‖_F² / ‖W_l‖₂², the main term of the spectrally normalized margin bound."""
    found = spectral_norms(model, spectral=spectral, compat=compat, fold=fold)
    if isinstance(found, Estimate):
        return found
    times = _ratio(norms.squared_norms(model, fold), found)
    return norms.product(model, _squares(found), fold, normalize, over_margin=True, times=times)


def spectral_bound_from_initialization(
    model: TrainedModel,
    key: jax.Array,
    *,
    spectral: str | None = None,
    compat: str | None = None,
    fold: bool = True,
    normalize: str = "raw",
) -> Estimate:
    """(Π_l ‖W_l‖₂² / γ²) · Σ_l ‖W_l − W_l⁰‖_F² / ‖W_l‖₂²."""
    found = spectral_norms(model, spectral=spectral, compat=compat, fold=fold)
    away = norms.squared_distances(model, fold)
    if isinstance(found, Estimate) or isinstance(away, Estimate):
        return found if isinstance(found, Estimate) else away
    return norms.product(model, _squares(found), fold, normalize, over_margin=True, times=_ratio(away, found))


def spectral_distance_from_initialization(
    model: TrainedModel,
    key: jax.Array,
    *,
    spectral: str | None = None,
    compat: str | None = None,
    fold: bool = True,
    normalize: str = "raw",
) -> Estimate:
    """Σ_l ‖W_l − W_l⁰‖₂²."""
    away = norms.differences(model, fold)
    if isinstance(away, Estimate):
        return away
    found = _norms_of(model, away, _method(spectral, compat), fold)
    if isinstance(found, Estimate):
        return found
    value = sum(_squares(found).values())
    details = {"folded": norms.is_folded(model, fold), "layers": found}
    return quantity(value=value, size=len(model.train), normalize=normalize, details=details)


def spectral_norms(
    model: TrainedModel, *, spectral: str | None, compat: str | None, fold: bool
) -> dict[str, float] | Estimate:
    """‖W_l‖₂ of every kernel by name, computed once per model; or the answer "not applicable"."""
    method = _method(spectral, compat)
    network = measured(model, fold)
    kernels = trees.kernels(network.params)
    return remembered(network, f"spectral norms, {method}", lambda: _norms_of(model, kernels, method, fold))


def _method(spectral: str | None, compat: str | None) -> str:
    check_choice("compat", compat, (None, "rgm"))
    method = spectral or ("fft_rgm" if compat == "rgm" else "exact")
    check_choice("spectral", method, METHODS)
    return method


def _norms_of(
    model: TrainedModel, kernels: dict[tuple[str, ...], Any], method: str, fold: bool
) -> dict[str, float] | Estimate:
    layers = {layer.path: layer for layer in measured(model, fold).layers or ()}
    ready = {path: channels_last(path, kernel) for path, kernel in kernels.items()}
    for path, kernel in ready.items():
        if reason := obstacle(kernel, layers.get(path), method):
            return not_applicable(reason)
    return {"/".join(path): spectral_norm(kernel, layers.get(path), method) for path, kernel in ready.items()}


def _squares(found: dict[str, float]) -> dict[str, float]:
    return {name: norm**2 for name, norm in found.items()}


def _ratio(squares: dict[str, float], found: dict[str, float]) -> float:
    return sum(squares[name] / norm**2 if norm else math.nan for name, norm in found.items())


_LAYER = ("permutation", "layer_scaling")
_INIT = ("init_params",)
_JIANG = "Jiang et al. 2020"

MEASURES = {
    "product_of_spectral_norms": Measure(product_of_spectral_norms, +1, "norms", 0.0, f"{_JIANG} (32)", (), _LAYER),
    "product_of_spectral_norms_over_margin": Measure(
        product_of_spectral_norms_over_margin, +1, "norms", 1.0, f"{_JIANG} (31)", (), _LAYER
    ),
    "sum_of_spectral_norms": Measure(sum_of_spectral_norms, +1, "norms", 0.0, f"{_JIANG} (35)", (), _LAYER),
    "sum_of_spectral_norms_over_margin": Measure(
        sum_of_spectral_norms_over_margin, +1, "norms", 1.0, f"{_JIANG} (34)", (), _LAYER
    ),
    "frobenius_over_spectral": Measure(frobenius_over_spectral, +1, "norms", 0.0, f"{_JIANG} (33)", (), _LAYER),
    "spectral_bound_from_origin": Measure(
        spectral_bound_from_origin, +1, "norms", 1.0, f"{_JIANG} (30), Bartlett et al. 2017", (), _LAYER
    ),
    "spectral_bound_from_initialization": Measure(
        spectral_bound_from_initialization, +1, "norms", 1.0, f"{_JIANG} (29)", _INIT, ("permutation",)
    ),
    "spectral_distance_from_initialization": Measure(
        spectral_distance_from_initialization, +1, "norms", 0.0, f"{_JIANG} (41)", _INIT, ("permutation",)
    ),
}
