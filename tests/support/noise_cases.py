"""A ReLU network, its losses in NumPy, and the draws behind its noise, for the tests of noise in the weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.measures import objective, weight_noise
from prunegen_jax.types import Dataset, TrainedModel

KEY = jax.random.key(0)


def apply(params, images):
    hidden = jax.nn.relu(
        images.reshape(images.shape[0], -1) @ params["a"]["kernel"] + params["a"]["bias"].reshape(1, -1)
    )
    return hidden @ params["b"]["kernel"] + params["b"]["bias"].reshape(1, -1)


def network(*, seed=0, scale=1.0, examples=40):
    """A ReLU network whose answers are the labels, of loss about 0.1."""
    rng = np.random.default_rng(seed)

    def params(rng):
        shapes = {"a": (3, 5), "b": (5, 4)}
        return {
            name: {
                "kernel": jnp.asarray(1.5 * rng.normal(size=shape), jnp.float32),
                "bias": jnp.asarray(rng.normal(size=shape[1]), jnp.float32),
            }
            for name, shape in shapes.items()
        }

    trained, initial = params(rng), params(rng)
    images = jnp.asarray(2 * rng.normal(size=(examples, 1, 1, 3)), jnp.float32)
    labels = jnp.argmax(apply(trained, images), axis=-1).astype(jnp.int32)
    trained["b"] = jax.tree.map(lambda w: scale * w, trained["b"])
    return TrainedModel(apply, trained, Dataset(images, labels), init_params=initial)


def numpy_losses(model, weights):
    """Loss and error of every example in NumPy, float64, for weights by name."""
    w = {name: np.asarray(leaf, np.float64) for name, leaf in weights.items()}
    x = np.asarray(model.train.inputs, np.float64).reshape(len(model.train), -1)
    f = np.maximum(x @ w["a/kernel"] + w["a/bias"], 0) @ w["b/kernel"] + w["b/bias"]
    y = np.asarray(model.train.labels)
    shifted = f - f.max(axis=1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(y)), y], f.argmax(axis=1) != y


def normals(model, draw, key=KEY):
    """The standard normal vectors behind a draw, from the noise itself at scale one."""
    moved = objective.weight_function(model)
    zero = {name: jnp.zeros_like(leaf) for name, leaf in moved.weights.items()}
    noise = weight_noise.add_gaussian(
        zero, jax.random.fold_in(key, draw), jnp.float32(1.0), magnitude=False, floor=jnp.float32(0.0)
    )
    return {name: np.asarray(leaf, np.float64) for name, leaf in noise.items()}
