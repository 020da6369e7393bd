"""Gradients of the network's output with respect to its input."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute import evaluation, lockstep
from prunegen_jax.measures.structure import require_real_inputs
from prunegen_jax.types import Dataset, Estimate, Measure, PyTree, TrainedModel


def input_gradient_norm(model: TrainedModel, key: jax.Array) -> Estimate:
    """Mean over the training set of ‖∂ softmax(f(x)) / ∂x‖_F, x the network's input (standardized images).

    Exact, in K forward and backward passes, one for each class. Large: the output is sensitive to the input near the
    data, which should predict a larger gap.
    """
    require_real_inputs(model)

    def step(indices: np.ndarray) -> tuple[jax.Array]:
        return (_jacobian_norms(model.apply, model.params, model.train, indices),)

    (norms,) = evaluation.concatenate_batches(step, len(model.train))
    return Estimate(float(norms.mean(dtype=np.float64)))


@lockstep.jit
def _jacobian_norms(apply: Any, params: PyTree, data: Dataset, indices: jax.Array) -> jax.Array:
    images, _ = data.take(indices)
    classes = jax.eval_shape(apply, params, images).shape[-1]

    def total(images: jax.Array, label: jax.Array) -> jax.Array:
        return jnp.sum(jax.nn.softmax(apply(params, images).astype(jnp.float32), axis=-1)[:, label])

    def square(label: jax.Array) -> jax.Array:  # one class at a time: K times less memory
        gradients = jax.grad(total)(images, label)
        return jnp.sum(jnp.square(gradients.reshape(indices.size, -1)), axis=-1)

    with jax.default_matmul_precision("highest"):
        return jnp.sqrt(jnp.sum(jax.lax.map(square, jnp.arange(classes)), axis=0))


MEASURES = {
    "input_gradient_norm": Measure(
        input_gradient_norm,
        +1,
        "beyond",
        21.0,
        "Novak et al. 2018",
        (),
        ("permutation", "neuron_scaling", "layer_scaling"),
    ),
}
