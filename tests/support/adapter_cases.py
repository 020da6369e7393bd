"""Small networks with batch norm and dropout, each written as its library's users write them."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx

from prunegen_jax import Dataset


def randomize(tree, seed, positive=False):
    """Normal random numbers, or positive ones, in place of every leaf."""
    rng = np.random.default_rng(seed)
    change = (lambda value: abs(value) + 0.2) if positive else (lambda value: value)
    return jax.tree.map(lambda leaf: jnp.asarray(change(rng.normal(0, 0.5, leaf.shape)), leaf.dtype), tree)


def dataset(n=12, dtype=jnp.float32):
    rng = np.random.default_rng(4)
    return Dataset(jnp.asarray(rng.normal(size=(n, 6, 6, 2)), dtype), jnp.asarray(rng.integers(0, 3, n), jnp.int32))


class ConvNet(nn.Module):
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(4, (3, 3), use_bias=False, dtype=self.dtype, param_dtype=self.dtype)(x)
        x = nn.BatchNorm(use_running_average=not train, dtype=self.dtype, param_dtype=self.dtype)(x)
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(x)).mean(axis=(1, 2))
        return nn.Dense(3, dtype=self.dtype, param_dtype=self.dtype)(x)


def linen_variables(seed):
    variables = ConvNet().init(jax.random.key(0), jnp.zeros((1, 6, 6, 2)), train=False)
    statistics = randomize(variables["batch_stats"], seed + 1, positive=True)
    return {"params": randomize(variables["params"], seed), "batch_stats": statistics}


class NnxNet(nnx.Module):
    def __init__(self, rngs, width=4, dtype=jnp.float32):
        types = {"dtype": dtype, "param_dtype": dtype, "rngs": rngs}
        self.conv = nnx.Conv(2, width, (3, 3), use_bias=False, **types)
        self.norm = nnx.BatchNorm(width, **types)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.heads = nnx.List([nnx.Linear(width, 3, **types)])

    def __call__(self, x):
        return self.heads[0](self.dropout(nnx.relu(self.norm(self.conv(x)))).mean((1, 2)))


def nnx_net(seed, dtype=jnp.float32):
    net = NnxNet(nnx.Rngs(seed), dtype=dtype)
    net.norm.mean[...] = randomize(net.norm.mean[...], seed)
    net.norm.var[...] = randomize(net.norm.var[...], seed, positive=True)
    return net


class EquinoxNet(eqx.Module):
    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout
    head: eqx.nn.Linear

    def __init__(self, key):
        first, second = jax.random.split(key)
        self.conv = eqx.nn.Conv2d(2, 4, 3, padding=1, key=first)
        self.norm = eqx.nn.BatchNorm(4, axis_name="batch", mode="batch")
        self.dropout = eqx.nn.Dropout(0.5)
        self.head = eqx.nn.Linear(4, 3, key=second)

    def __call__(self, x, state):
        x, state = self.norm(self.conv(jnp.transpose(x, (2, 0, 1))), state)
        return self.head(self.dropout(jax.nn.relu(x)).mean((1, 2))), state


def equinox_net(seed):
    """(model, state) with random statistics."""
    model, state = eqx.nn.make_with_state(EquinoxNet)(jax.random.key(seed))
    leaves, tree = jax.tree.flatten(state)
    return model, jax.tree.unflatten(tree, [randomize(leaf, seed, True) if leaf.ndim else leaf for leaf in leaves])


class EquinoxDropout(eqx.Module):
    dropout: eqx.nn.Dropout
    head: eqx.nn.Linear

    def __init__(self, key, classes=3):
        self.dropout, self.head = eqx.nn.Dropout(0.5), eqx.nn.Linear(72, classes, key=key)

    def __call__(self, x, key):
        return self.head(self.dropout(x.reshape(-1), key=key))
