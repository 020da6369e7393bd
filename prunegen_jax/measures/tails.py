"""Heavy tails of the spectra of weights: WeightWatcher's alpha-hat."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np

from prunegen_jax import trees
from prunegen_jax.measures.norms import is_folded
from prunegen_jax.measures.operators import channels_last
from prunegen_jax.measures.weights import measured
from prunegen_jax.types import Estimate, Measure, TrainedModel

FEWEST = 10  # eigenvalues that a layer must have
SMALLEST = 1e-5  # smaller eigenvalues count as zero and stay out of the fit
VALID = (2.0, 6.0)  # range of exponents in which WeightWatcher calls a fit meaningful


def alpha_hat(model: TrainedModel, key: jax.Array, *, rescale: bool = True, fold: bool = False) -> Estimate:
    """α̂ = mean over layers of α_l log₁₀ λ_max,l; a smaller value is held to predict a smaller gap.

    λ = σ², σ the singular values of a dense kernel, or of the kh·kw matrices [in, out] of a convolution together;
    α_l is the exponent of a power law p(λ) ∝ λ^{−α} fitted to their tail by `power_law`. Layers with fewer than 10
    non-zero eigenvalues are left out. Very noisy for narrow layers: `details["layers"]` has, for each, α, its standard
    error, the fit's Kolmogorov–Smirnov distance, the number of eigenvalues in the tail and whether the fit is valid
    (2 ≤ α ≤ 6, a tail of 10 or more), `details["valid_share"]` the share of layers fitted validly.

    Args:
        model: any; no data are used.
        key: not used.
        rescale: multiply the eigenvalues of convolutions by kh·kw / 2, as WeightWatcher does by default.
        fold: fold batch norm into the kernels first, which WeightWatcher does not.

    Raises:
        ValueError: if every layer is left out.
    """
    kernels = trees.kernels(measured(model, fold).params)
    found: dict[str, dict[str, Any]] = {}
    skipped = []
    for path, kernel in kernels.items():
        eigenvalues = spectrum(channels_last(path, kernel), rescale)
        if eigenvalues.size < FEWEST:
            skipped.append("/".join(path))
            continue
        fit = power_law(eigenvalues)
        valid = VALID[0] <= fit["alpha"] <= VALID[1] and fit["tail"] >= FEWEST
        found["/".join(path)] = {**fit, "largest": float(eigenvalues[-1]), "valid": bool(valid)}
    if not found:
        raise ValueError(f"no kernel has {FEWEST} non-zero eigenvalues: {', '.join(skipped)} are too narrow for a fit")
    value = np.mean([layer["alpha"] * math.log10(layer["largest"]) for layer in found.values()])
    valid_share = float(np.mean([layer["valid"] for layer in found.values()]))
    details = {"layers": found, "skipped": skipped, "valid_share": valid_share, "folded": is_folded(model, fold)}
    return Estimate(float(value), details=details)


def spectrum(kernel: np.ndarray, rescale: bool) -> np.ndarray:
    """The squared singular values, ascending, above 1e-5, of the matrices in a kernel [..., in, out]."""
    matrices = kernel.reshape(-1, *kernel.shape[-2:])
    if rescale and kernel.ndim > 2:
        matrices = matrices * math.sqrt(len(matrices) / 2.0)
    values = np.sort(np.square(np.linalg.svd(matrices, compute_uv=False)).reshape(-1))
    return values[values > SMALLEST]


def power_law(values: np.ndarray) -> dict[str, Any]:
    """A power law p(x) ∝ x^{−α} for x ≥ x_min by maximum likelihood, x_min of least Kolmogorov–Smirnov distance.

    α = 1 + n / Σ_{x ≥ x_min} ln(x / x_min) over the n values that large. Returns "alpha", its standard error
    (α − 1) / √n as "alpha_sem", "distance", "smallest" (x_min) and "tail" (n).

    Raises:
        ValueError: for fewer than two distinct values, or values ≤ 0.
    """
    values = np.sort(np.asarray(values, np.float64))
    if values.size < 2 or values[0] <= 0.0 or values[0] == values[-1]:
        raise ValueError("a power law takes two or more distinct positive values")
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
    "alpha_hat": Measure(
        alpha_hat, +1, "beyond", 0.0, "Martin, Peng & Mahoney 2021 (WeightWatcher)", (), ("permutation",)
    ),
}
