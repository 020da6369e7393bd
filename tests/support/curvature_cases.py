"""A small network with its dense Hessian and Jacobian for the tests of curvature."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from prunegen_jax.types import Dataset, TrainedModel

KEY = jax.random.key(0)
SIZES = (5, 7, 6, 3)


def apply(params, images):
    hidden = images.reshape(images.shape[0], -1)
    for name in sorted(params, key=lambda name: (name == "head", name)):
        layer = params[name]
        hidden = hidden @ layer["kernel"] + layer.get("bias", jnp.zeros(layer["kernel"].shape[1:])).reshape(1, -1)
        hidden = hidden if name == "head" else jax.nn.relu(hidden)
    return hidden


def network(*, bias=True, seed=0, scale=1.0, sizes=SIZES):
    """A ReLU network of double precision if that is on."""
    rng = np.random.default_rng(seed)
    names = [*(f"layer{i}" for i in range(len(sizes) - 2)), "head"]
    params = {}
    for name, shape in zip(names, itertools.pairwise(sizes), strict=True):
        params[name] = {"kernel": jnp.asarray(scale * rng.normal(size=shape))}
        if bias:
            params[name]["bias"] = jnp.asarray(scale * rng.normal(size=shape[1]))
    data = Dataset(jnp.asarray(rng.normal(size=(23, 1, 1, sizes[0]))), jnp.asarray(rng.integers(0, sizes[-1], 23)))
    return TrainedModel(apply, params, data)


def parts(model):
    """Dense Hessian, Jacobian of logits [n, K, p], probabilities [n, K], one-hot labels [n, K], weights [p], logits."""
    flat, unravel = ravel_pytree(model.params)
    images, labels = model.train.inputs, np.asarray(model.train.labels)

    def logits(w):
        return apply(unravel(w), images)

    def loss(w):
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits(w)), model.train.labels[:, None], axis=1))

    f = np.asarray(logits(flat))
    p = np.exp(f - f.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    hess, jac = jax.jit(lambda w: (jax.hessian(loss)(w), jax.jacobian(logits)(w)))(flat)
    return np.asarray(hess), np.asarray(jac), p, np.eye(f.shape[1])[labels], np.asarray(flat), f


@functools.cache
def dense_problem():
    """A network in double precision with what `parts` computes of it."""
    with jax.enable_x64():
        model = network()
        return model, parts(model)
