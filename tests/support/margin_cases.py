"""A model whose margins are known, for the tests of what is kept with a model."""

from __future__ import annotations

import jax.numpy as jnp

from prunegen_jax.types import Dataset, TrainedModel


def model(scale=1.0):
    logits = jnp.asarray([[float(i + 1), 0.0] for i in range(10)])
    data = Dataset(logits[:, None, None, :], jnp.zeros(10, jnp.int32))
    return TrainedModel(lambda p, x: x[:, 0, 0, :] * p, jnp.float32(scale), data)
