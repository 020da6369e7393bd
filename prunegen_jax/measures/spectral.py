"""Spectral norms: their products and sums, over the margin, stable ranks, distances.

Options common to all are those of `spectral_estimate`. Not applicable to a network with a kernel that is no layer whose
geometry could be read. d is the number of kernels, γ the 10th percentile of the output margins
(`margins.tenth_percentile`). Products and sums over the layers bound the Lipschitz constant of a plain sequence of
layers; of a network with residual sums they are what they say, and bound nothing: `details["sequential"]` is false.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from prunegen_jax.compute.options import check_choice
from prunegen_jax.measures import norms
from prunegen_jax.measures.cache import cached
from prunegen_jax.measures.convolution_norms import METHODS, spectral_norm
from prunegen_jax.measures.estimates import normalized_estimate
from prunegen_jax.measures.structure import is_folded, layer_geometry, select_network, standard_kernels
from prunegen_jax.networks.reading.layers import Path, standard_kernel
from prunegen_jax.types import Estimate, Measure, TrainedModel

NormByLayer = dict[str, float]
Formula = Callable[[NormByLayer, bool, str], Estimate]  # from ‖W_l‖₂ by name of the kernel, `fold` and `normalize`


def product_of_spectral_norms(model: TrainedModel, key: jax.Array, **options: Any) -> Estimate:
    """Π_l ‖W_l‖₂²; `details["layers"]` has every ‖W_l‖₂."""

    def product(spectral: NormByLayer, fold: bool, normalize: str) -> Estimate:
        return norms.product(model, _squares(spectral), fold, normalize, details={"layers": spectral})

    return spectral_estimate(model, product, **options)


def product_of_spectral_norms_over_margin(model: TrainedModel, key: jax.Array, **options: Any) -> Estimate:
    """Π_l ‖W_l‖₂² / γ²."""
    return spectral_estimate(model, _product(model, over_margin=True), **options)


def sum_of_spectral_norms(model: TrainedModel, key: jax.Array, **options: Any) -> Estimate:
    """d (Π_l ‖W_l‖₂²)^{1/d}."""
    return spectral_estimate(model, _product(model, as_sum=True), **options)


def sum_of_spectral_norms_over_margin(model: TrainedModel, key: jax.Array, **options: Any) -> Estimate:
    """d (Π_l ‖W_l‖₂² / γ²)^{1/d}."""
    return spectral_estimate(model, _product(model, as_sum=True, over_margin=True), **options)


def frobenius_over_spectral(model: TrainedModel, key: jax.Array, **options: Any) -> Estimate:
    """Σ_l ‖W_l‖_F² / ‖W_l‖₂², the sum of stable ranks. Undefined for a kernel of zeros, which fails."""

    def stable_ranks(spectral: NormByLayer, fold: bool, normalize: str) -> Estimate:
        zeros = [name for name, norm in spectral.items() if not norm]
        details = {"folded": is_folded(model, fold=fold), "zero_layers": zeros}
        value = _ratio(norms.squared_norms(model, fold), spectral)
        return normalized_estimate(value=value, size=len(model.train), normalize=normalize, details=details)

    return spectral_estimate(model, stable_ranks, **options)


def spectral_bound_from_origin(model: TrainedModel, key: jax.Array, **options: Any) -> Estimate:
    """(Π_l ‖W_l‖₂² / γ²) · Σ_l ‖W_l‖_F² / ‖W_l‖₂², the main term of the spectrally normalized margin bound."""

    def bound(spectral: NormByLayer, fold: bool, normalize: str) -> Estimate:
        ratio = _ratio(norms.squared_norms(model, fold), spectral)
        return norms.product(model, _squares(spectral), fold, normalize, over_margin=True, times=ratio)

    return spectral_estimate(model, bound, **options)


def spectral_bound_from_initialization(model: TrainedModel, key: jax.Array, **options: Any) -> Estimate:
    """(Π_l ‖W_l‖₂² / γ²) · Σ_l ‖W_l − W_l⁰‖_F² / ‖W_l‖₂²."""

    def bound(spectral: NormByLayer, fold: bool, normalize: str) -> Estimate:
        distances = norms.squared_distances(model, fold)
        if isinstance(distances, Estimate):
            return distances
        ratio = _ratio(distances, spectral)
        return norms.product(model, _squares(spectral), fold, normalize, over_margin=True, times=ratio)

    return spectral_estimate(model, bound, **options)


def spectral_distance_from_initialization(
    model: TrainedModel,
    key: jax.Array,
    *,
    spectral: str | None = None,
    compat: str | None = None,
    fold: bool = True,
    normalize: str = "raw",
) -> Estimate:
    """Σ_l ‖W_l − W_l⁰‖₂².

    Options: those of `spectral_estimate`.
    """
    differences = norms.differences(model, fold)
    if isinstance(differences, Estimate):
        return differences
    network = select_network(model, fold=fold)
    layers = layer_geometry(network)
    standard = {path: np.asarray(standard_kernel(layers[path], array)) for path, array in differences.items()}
    distances = _spectral_norms(network, standard, _method(spectral, compat))
    details = {"folded": is_folded(model, fold=fold), "layers": distances}
    value = sum(_squares(distances).values())
    return normalized_estimate(value=value, size=len(model.train), normalize=normalize, details=details)


def spectral_estimate(
    model: TrainedModel,
    formula: Formula,
    *,
    spectral: str | None = None,
    compat: str | None = None,
    fold: bool = True,
    normalize: str = "raw",
) -> Estimate:
    """`formula` of the spectral norms of all kernels, which are computed once per model.

    Args:
        model: any.
        formula: from the norms to the estimate.
        spectral: how ‖W_l‖₂ is computed: "exact" (the default), "reshaped", "fft_layer" or "fft_rgm", see
            `convolution_norms.spectral_norm`.
        compat: "rgm" makes "fft_rgm" the default, the second of two sets of norms in the code of Dziugaite et al.
            (2020), which calls it exact; the first set is "reshaped".
        fold: fold batch norm into the kernels first.
        normalize: see `estimates.normalized_estimate`.

    Returns:
        The estimate.

    Raises:
        ValueError: for an unknown option.
        NotApplicableError: if a kernel is not a layer whose geometry could be read.
    """
    method = _method(spectral, compat)
    network = select_network(model, fold=fold)
    kernels = standard_kernels(network)
    by_layer = cached(network, f"spectral norms, {method}", lambda: _spectral_norms(network, kernels, method))
    return formula(by_layer, fold, normalize)


def _product(model: TrainedModel, **flags: bool) -> Formula:
    """The formula `norms.product` of the squared spectral norms."""
    return lambda spectral, fold, normalize: norms.product(model, _squares(spectral), fold, normalize, **flags)


def _method(spectral: str | None, compat: str | None) -> str:
    check_choice("compat", compat, (None, "rgm"))
    method = spectral or ("fft_rgm" if compat == "rgm" else "exact")
    check_choice("spectral", method, METHODS)
    return method


def _spectral_norms(network: TrainedModel, kernels: dict[Path, np.ndarray], method: str) -> NormByLayer:
    """‖W‖₂ by name of arrays in the place of the network's kernels."""
    layers, image = layer_geometry(network), network.train.inputs.shape[1:]
    return {"/".join(path): spectral_norm(array, layers[path], method, image=image) for path, array in kernels.items()}


def _squares(spectral: NormByLayer) -> NormByLayer:
    return {name: norm**2 for name, norm in spectral.items()}


def _ratio(squares: NormByLayer, spectral: NormByLayer) -> float:
    return sum(squares[name] / norm**2 if norm else math.nan for name, norm in spectral.items())


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

FORWARDS_OPTIONS_TO = {name: spectral_estimate for name in MEASURES if name != "spectral_distance_from_initialization"}
