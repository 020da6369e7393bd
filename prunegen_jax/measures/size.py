"""Size: the number of parameters of a network, and a capacity computed from it."""

from __future__ import annotations

import math

import jax

from prunegen_jax.compute import trees
from prunegen_jax.measures.estimates import normalized_estimate
from prunegen_jax.measures.structure import kernels_of
from prunegen_jax.types import Estimate, Measure, TrainedModel, not_applicable


def num_parameters(model: TrainedModel, key: jax.Array, *, normalize: str = "raw") -> Estimate:
    """ω, the number of scalars in the kernels (biases and batch norm aside), as Jiang et al. (2020) count.

    `normalize`: see `estimates.normalized_estimate`.
    """
    count = float(trees.count(kernels_of(model)))
    return normalized_estimate(value=count, size=len(model.train), normalize=normalize)


def vc_dimension(model: TrainedModel, key: jax.Array, *, normalize: str = "raw") -> Estimate:
    """d · (log₂(6 d n))³ · Σ_l k_l² c_l c_{l−1}, the VC term of a convolutional network's bound.

    d kernels, inputs of n × n pixels; k_l² c_l c_{l−1}, the number of entries of kernel l of k_l × k_l pixels, makes
    the sum ω. The formula is quoted from memory of Jiang et al. (2020), (19); its constant factor is left out.
    `normalize`: see `estimates.normalized_estimate`. Not applicable unless the inputs are images.
    """
    if model.train.inputs.ndim != 4:
        return not_applicable(f"needs images [N, H, W, C]; the inputs have shape {model.train.inputs.shape}")
    kernels = kernels_of(model)
    depth, side = len(kernels), max(model.train.inputs.shape[1:3])
    value = depth * math.log2(6 * depth * side) ** 3 * trees.count(kernels)
    return normalized_estimate(value=value, size=len(model.train), normalize=normalize)


_EVERYTHING = ("permutation", "neuron_scaling", "layer_scaling")

MEASURES = {
    "num_parameters": Measure(num_parameters, +1, "size", 0.0, "Jiang et al. 2020 (20)", invariant=_EVERYTHING),
    "vc_dimension": Measure(vc_dimension, +1, "size", 0.0, "Jiang et al. 2020 (19)", invariant=_EVERYTHING),
}
