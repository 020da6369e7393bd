"""Networks of any set of kernels, each a layer of its own on the input, for the tests of measures of kernels alone."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from prunegen_jax.types import Dataset, TrainedModel


def parallel_layers(params, inputs):
    """Logits `[n, 2]`: sums of what each kernel (dense, or a convolution's) makes of the mean of its input."""
    total = jnp.zeros((inputs.shape[0], 1))
    for layer in params.values():
        kernel = layer["kernel"]
        mean = inputs.reshape(inputs.shape[0], -1).mean(axis=1)
        if kernel.ndim == 2:
            outputs = (mean[:, None] * jnp.ones((1, kernel.shape[0]))) @ kernel
        else:
            hidden = mean[:, None, None, None] * jnp.ones((1, *kernel.shape[:3]))
            outputs = lax.conv_general_dilated(
                hidden, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        total = total + outputs.reshape(inputs.shape[0], -1).sum(axis=1, keepdims=True)
    return jnp.concatenate([total, jnp.zeros_like(total)], axis=1)


def kernels_alone(kernels, **leaves):
    """A network of `kernels`, by name; `leaves` are put beside each of them and take no part."""
    params = {name: {"kernel": jnp.asarray(w, jnp.float32), **leaves} for name, w in kernels.items()}
    return TrainedModel(parallel_layers, params, Dataset(jnp.zeros((10, 2, 2, 1)), jnp.zeros(10, jnp.int32)))
