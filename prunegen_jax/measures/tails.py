"""Heavy tails of the spectra of weights: WeightWatcher's alpha-hat, and the Hill estimate of AlphaPruning."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np

from prunegen_jax.compute.options import check_choice
from prunegen_jax.measures.structure import is_folded, select_network, standard_kernels
from prunegen_jax.types import Estimate, Measure, NotApplicableError, TrainedModel

RESCALINGS = ("receptive_field", "half", "none")
MIN_EIGENVALUES = 10  # eigenvalues that a layer must have
SMALLEST = 1e-5  # smaller eigenvalues count as zero and stay out of the fit
VALID = (2.0, 6.0)  # range of exponents in which WeightWatcher calls a fit meaningful


def alpha_hat(model: TrainedModel, key: jax.Array, *, rescale: str = "receptive_field", fold: bool = False) -> Estimate:
    """α̂ = mean over layers of α_l log₁₀ λ_max,l; a smaller value should predict a smaller gap.

    λ = σ², σ the singular values of a dense kernel, or of the kh·kw matrices [in, out] of a convolution together;
    α_l is the exponent of a power law p(λ) ∝ λ^{−α} fitted to their tail by `power_law`. Layers with fewer than 10
    eigenvalues, min(in, out)·kh·kw, are left out; the fit takes those above 1e-5. Very noisy for narrow layers:
    `details["layers"]` has, for each, α, its standard error, the fit's Kolmogorov–Smirnov distance, the number of
    eigenvalues in the tail and whether the fit is valid (2 ≤ α ≤ 6, a tail of 10 or more), `details["valid_share"]` the
    share of layers fitted validly, and `details["alpha_hat"]` α̂ under all three of `RESCALINGS`.

    Args:
        model: any; no data are used.
        key: not used.
        rescale: what the eigenvalues of convolutions are multiplied by, which moves λ_max but hardly α.
            "receptive_field": kh·kw / 2, WeightWatcher's factor where it takes the kh·kw matrices one by one
            (pool=False). "half": 1/2, its factor by default, where it takes them together as here (pool=True).
            "none": 1.
        fold: fold batch norm into the kernels first, which WeightWatcher does not.

    Raises:
        ValueError: for an unknown rescaling.
        NotApplicableError: if every layer is left out.
    """
    check_choice("rescale", rescale, RESCALINGS)
    kernels = standard_kernels(select_network(model, fold=fold))
    fits = {way: {"/".join(path): _fit(kernel, way) for path, kernel in kernels.items()} for way in RESCALINGS}
    fitted = {way: {name: fit for name, fit in by_layer.items() if fit} for way, by_layer in fits.items()}
    layers, skipped = fitted[rescale], [name for name, fit in fits[rescale].items() if fit is None]
    if not layers:
        raise NotApplicableError(
            f"needs a kernel with {MIN_EIGENVALUES} non-zero eigenvalues; {', '.join(skipped)} are too narrow for a fit"
        )
    values = {
        way: float(np.mean([fit["alpha"] * math.log10(fit["largest"]) for fit in by_layer.values()]))
        for way, by_layer in fitted.items()
        if by_layer
    }
    valid_share = float(np.mean([fit["valid"] for fit in layers.values()]))
    details = {"layers": layers, "skipped": skipped, "valid_share": valid_share, "folded": is_folded(model, fold=fold)}
    return Estimate(values[rescale], details={**details, "alpha_hat": values})


def pl_alpha_hill(model: TrainedModel, key: jax.Array, *, fold: bool = False) -> Estimate:
    """Mean over layers of α_l = 1 + k / Σ_{i ≤ k} ln(λ_{n−i+1} / λ_{n−k}), k = ⌊n/2⌋: Hill's estimate from half the λ.

    λ_1 ≤ … ≤ λ_n are the eigenvalues above 1e-5 of `alpha_hat`; a factor common to them changes nothing. Layers with
    fewer than 10 are left out. A smaller α, a heavier tail, should predict a smaller gap. `details["layers"]` has α_l.

    Args:
        model: any; no data are used.
        key: not used.
        fold: fold batch norm into the kernels first.

    Raises:
        NotApplicableError: if every layer is left out.
    """
    kernels = standard_kernels(select_network(model, fold=fold))
    layers = {}
    for path, kernel in kernels.items():
        eigenvalues = spectrum(kernel, "none")
        eigenvalues = eigenvalues[eigenvalues > SMALLEST]
        if eigenvalues.size >= MIN_EIGENVALUES:
            k = eigenvalues.size // 2
            excess = float(np.log(eigenvalues[-k:] / eigenvalues[-k - 1]).sum())
            layers["/".join(path)] = 1.0 + k / excess if excess > 0 else math.inf
    if not layers:
        raise NotApplicableError(f"needs a kernel with {MIN_EIGENVALUES} non-zero eigenvalues; all are too narrow")
    return Estimate(
        float(np.mean(list(layers.values()))), details={"layers": layers, "folded": is_folded(model, fold=fold)}
    )


def _fit(kernel: np.ndarray, rescale: str) -> dict[str, Any] | None:
    """The fit of one layer; None if it has too few eigenvalues."""
    eigenvalues = spectrum(kernel, rescale)
    if eigenvalues.size < MIN_EIGENVALUES:
        return None
    largest = float(eigenvalues[-1])
    eigenvalues = eigenvalues[eigenvalues > SMALLEST]
    if eigenvalues.size < 2 or eigenvalues[0] == eigenvalues[-1]:
        return None
    fit = power_law(eigenvalues)
    valid = VALID[0] <= fit["alpha"] <= VALID[1] and fit["tail"] >= MIN_EIGENVALUES
    return {**fit, "largest": largest, "valid": bool(valid)}


def spectrum(kernel: np.ndarray, rescale: str) -> np.ndarray:
    """Squared singular values, ascending, of the matrices in a kernel [..., in, out]; `rescale` as in `alpha_hat`."""
    matrices = kernel.reshape(-1, *kernel.shape[-2:])
    factor = {"receptive_field": len(matrices) / 2.0, "half": 0.5, "none": 1.0}[rescale] if kernel.ndim > 2 else 1.0
    return np.sort(factor * np.square(np.linalg.svd(matrices, compute_uv=False)).reshape(-1))


def power_law(values: np.ndarray) -> dict[str, Any]:
    """A power law p(x) ∝ x^{−α} for x ≥ x_min by maximum likelihood, x_min of least Kolmogorov–Smirnov distance.

    The distance is one-sided, max_i |F(x_i) − (i − 1)/n|: to the empirical distribution just below each value, as in
    the package powerlaw, not also just above it.
    α = 1 + n / Σ_{x ≥ x_min} ln(x / x_min) over the n values that large. Returns "alpha", its standard error
    (α − 1) / √n as "alpha_sem", "distance", "smallest" (x_min) and "tail" (n).

    Raises:
        ValueError: for fewer than two distinct values, or values ≤ 0.
    """
    values = np.sort(np.asarray(values, np.float64))
    if values.size < 2 or values[0] <= 0.0 or values[0] == values[-1]:
        raise ValueError("a power law needs two or more distinct positive values")
    logs, best = np.log(values), None
    for start in range(values.size - 1):
        tail = values[start:]
        excess = float(np.sum(logs[start:] - logs[start]))
        if excess <= 0.0:
            continue
        alpha = 1.0 + tail.size / excess
        distance = np.abs(1.0 - (tail / tail[0]) ** (1.0 - alpha) - np.arange(tail.size) / tail.size).max()
        if best is None or distance < best["distance"]:
            best = {
                "alpha": alpha,
                "alpha_sem": (alpha - 1.0) / math.sqrt(tail.size),
                "distance": float(distance),
                "smallest": float(tail[0]),
                "tail": int(tail.size),
            }
    assert best is not None  # the values are not all equal
    return best


MEASURES = {
    "pl_alpha_hill": Measure(pl_alpha_hill, +1, "beyond", 0.0, "Lu et al. 2024 (AlphaPruning)", (), ("permutation",)),
    "alpha_hat": Measure(
        alpha_hat, +1, "beyond", 0.0, "Martin, Peng & Mahoney 2021 (WeightWatcher)", (), ("permutation",)
    ),
}
