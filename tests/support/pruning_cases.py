"""Networks for the tests of pruning: a logistic regression, a two-layer network, trained digit networks."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax import data, training
from prunegen_jax.networks import build
from prunegen_jax.types import Dataset, Partial

X = np.array(
    [
        [1, 0, 0.5, -1],
        [0, 1, 0.2, 0.3],
        [1, 1, -0.4, 0],
        [-1, 0.5, 0.1, 0.7],
        [-0.5, -1, 0.9, 0.2],
        [0.3, -0.8, -0.6, 1],
    ]
)
G1 = Dataset(X.astype(np.float32), np.array([1, 1, 1, 0, 0, 0], np.int32))
G1_WEIGHTS = {"kernel": np.array([[2.0], [1.0], [-0.05], [-0.3]], np.float32)}


def logistic(params, images):
    score = images @ params["kernel"]
    return jnp.concatenate([jnp.zeros_like(score), score], axis=1)


@functools.cache
def trained(seed, *, width=8, depth=2, rate=0.03, weight_decay=0.0):
    """A small network trained to the target on 300 digits, and the set."""
    train = data.split(data.load("digits"), train_size=300, seed=seed).train
    network = build("nin", input_shape=(8, 8, 1), classes=10, depth=depth, width=width)
    h = training.hyper(learning_rate=rate, weight_decay=weight_decay, dropout=0.0, seed=seed)
    *_, last = training.train(network, train, h, training.Recipe())
    assert last.status == "converged"
    return Partial(network.apply, last.state.stats), last.state.params, train


def two_layers(key, *, hidden=12):
    """A two-layer ReLU network and a set it fits rather well."""
    first, second, third = jax.random.split(key, 3)
    params = {
        "one": {"kernel": jax.random.normal(first, (6, hidden)), "bias": 0.1 * jnp.ones(hidden)},
        "two": {"kernel": jax.random.normal(second, (hidden, 3)), "bias": jnp.zeros(3)},
    }
    images = jax.random.normal(third, (40, 6))
    return params, Dataset(images, jnp.argmax(mlp(params, images), axis=-1).astype(jnp.int32))


def mlp(params, images):
    hidden = jax.nn.relu(images @ params["one"]["kernel"] + params["one"]["bias"][None])
    return hidden @ params["two"]["kernel"] + params["two"]["bias"][None]
