"""Data-free proxies of prunability: how concentrated the weights are.

Like prunability, they take the weights as they are (`fold=False`); `fold=True` folds batch norm first.
"""

from __future__ import annotations

import jax
import numpy as np

from prunegen_jax.measures.structure import is_folded, named_kernels, select_network
from prunegen_jax.types import Estimate, Measure, TrainedModel


def weight_kurtosis(model: TrainedModel, key: jax.Array, *, per_layer: bool = False, fold: bool = False) -> Estimate:
    """E(w − w̄)⁴ / (E(w − w̄)²)² over all kernel entries w: 3 for a Gaussian, larger for heavier tails.

    Heavier tails leave more weights to prune (Mason-Williams & Dahlqvist 2024): a larger value should predict a
    smaller gap.

    Args:
        model: any.
        key: not used.
        per_layer: take the mean of the kurtosis of each kernel instead.
        fold: fold batch norm into the weights first.

    Raises:
        ValueError: if all entries (of a kernel) are equal.
    """
    vectors = _vectors(model, fold)
    groups = vectors if per_layer else {"all kernels": np.concatenate(list(vectors.values()))}
    values = {name: _kurtosis(name, vector) for name, vector in groups.items()}
    return Estimate(
        float(np.mean(list(values.values()))), details={"layers": values, "folded": is_folded(model, fold=fold)}
    )


def effective_weights(model: TrainedModel, key: jax.Array, *, fold: bool = False) -> Estimate:
    """N_eff / p = (Σ_j |w_j|)² / (p Σ_j w_j²) in (0, 1], over the p kernel entries: the share of weights that count.

    1 for weights of equal magnitude, k / p if k of them are equal and the others zero. Larger: less can be pruned.

    Raises:
        ValueError: if all weights are zero.
    """
    weights = np.concatenate(list(_vectors(model, fold).values()))
    squares = float(np.sum(np.square(weights)))
    if squares == 0.0:
        raise ValueError("the effective number of weights is undefined: all weights are zero")
    value = float(np.sum(np.abs(weights))) ** 2 / squares / weights.size
    return Estimate(value, details={"effective_number": value * weights.size, "folded": is_folded(model, fold=fold)})


def _vectors(model: TrainedModel, fold: bool) -> dict[str, np.ndarray]:
    kernels = named_kernels(select_network(model, fold=fold))
    return {name: np.asarray(kernel, np.float64).reshape(-1) for name, kernel in kernels.items()}


def _kurtosis(name: str, weights: np.ndarray) -> float:
    centred = weights - weights.mean()
    variance = np.mean(np.square(centred))
    if variance == 0.0:
        raise ValueError(f"the kurtosis of {name} is undefined: all entries are equal")
    return float(np.mean(centred**4) / variance**2)


_PERMUTATION = ("permutation",)

MEASURES = {
    "weight_kurtosis": Measure(
        weight_kurtosis, -1, "pruning", 0.0, "Mason-Williams & Dahlqvist 2024", invariant=_PERMUTATION
    ),
    "effective_weights": Measure(
        effective_weights, +1, "pruning", 0.0, "inverse Simpson index", invariant=_PERMUTATION
    ),
}
