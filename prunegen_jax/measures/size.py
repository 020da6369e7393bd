"""Size: how many parameters a network has."""

from __future__ import annotations

import jax

from prunegen_jax import trees
from prunegen_jax.types import Estimate, Measure, TrainedModel


def num_parameters(model: TrainedModel, key: jax.Array) -> Estimate:
    """ω, the number of scalars in the kernels (biases and batch norm aside), as Jiang et al. (2020) count."""
    return Estimate(float(sum(kernel.size for kernel in trees.kernels(model.params).values())))


MEASURES = {
    "num_parameters": Measure(
        num_parameters,
        +1,
        "size",
        0.0,
        "Jiang et al. 2020 (20)",
        invariant=("permutation", "neuron_scaling", "layer_scaling"),
    ),
}
