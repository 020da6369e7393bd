"""Norms of the weights and distances from initialization."""

from __future__ import annotations

import jax

from prunegen_jax import trees
from prunegen_jax.types import Estimate, Measure, TrainedModel


def parameter_norm(model: TrainedModel, key: jax.Array) -> Estimate:
    """Σ_l ‖W_l‖_F² over the kernels."""
    return Estimate(trees.squared_norm(trees.kernels(model.params)))


def distance_from_initialization(model: TrainedModel, key: jax.Array) -> Estimate:
    """Σ_l ‖W_l − W_l⁰‖_F² over the kernels, W⁰ the initial weights."""
    difference = trees.subtract(trees.kernels(model.params), trees.kernels(model.init_params))
    return Estimate(trees.squared_norm(difference))


MEASURES = {
    "parameter_norm": Measure(parameter_norm, +1, "norms", 0.0, "Jiang et al. 2020 (42)", invariant=("permutation",)),
    "distance_from_initialization": Measure(
        distance_from_initialization, +1, "norms", 0.0, "Jiang et al. 2020 (40)", ("init_params",), ("permutation",)
    ),
}
