"""A small network with activations for the tests of mixup, clustering and input gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.types import Dataset, TrainedModel

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def apply(params, images):
    hidden = jnp.tanh(images.reshape(images.shape[0], -1) @ params["first"])
    return hidden @ params["second"]


def features(params, images, offsets=None):
    return apply(params, images), {"input": images, "block0": 2.0 * images + 1.0}


def trained(m=30, classes=3, seed=0, **fields):
    rng = np.random.default_rng(seed)
    labels = np.arange(m) % classes
    images = rng.normal(size=(m, 6, 5, 2)) + labels[:, None, None, None]
    params = {
        "first": jnp.asarray(rng.normal(size=(60, 4)), jnp.float32),
        "second": jnp.asarray(rng.normal(size=(4, classes)), jnp.float32),
    }
    data = Dataset(jnp.asarray(images, jnp.float32), jnp.asarray(labels, jnp.int32))
    return TrainedModel(apply, params, data, features=features, **fields)
