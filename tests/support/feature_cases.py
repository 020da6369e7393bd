"""A small network whose first layer is known for the tests of mixup, clustering and input gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prunegen_jax.types import Dataset, TrainedModel

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def apply(params, images):
    """A 1×1 convolution that makes 2 x + 1 of the images x, then two dense layers."""
    stem = lax.conv_general_dilated(
        images, params["stem"]["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    stem = stem + params["stem"]["bias"].reshape(1, 1, 1, -1)
    hidden = jnp.tanh(stem.reshape(images.shape[0], -1) @ params["first"])
    return hidden @ params["second"]


def trained(m=30, classes=3, seed=0, **fields):
    rng = np.random.default_rng(seed)
    labels = np.arange(m) % classes
    images = rng.normal(size=(m, 6, 5, 2)) + labels[:, None, None, None]
    params = {
        "stem": {"kernel": 2.0 * jnp.eye(2)[None, None], "bias": jnp.ones(2)},
        "first": jnp.asarray(0.5 * rng.normal(size=(60, 4)), jnp.float32),
        "second": jnp.asarray(rng.normal(size=(4, classes)), jnp.float32),
    }
    data = Dataset(jnp.asarray(images, jnp.float32), jnp.asarray(labels, jnp.int32))
    return TrainedModel(apply, params, data, **fields)
