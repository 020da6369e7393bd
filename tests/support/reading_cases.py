"""Networks that the tests of reading share: plain modules, written as if reading did not exist."""

from __future__ import annotations

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx
from jax.tree_util import Partial

IMAGES = (8, 8, 3)


def randomize(tree, seed=0, positive=False):
    """Normal random numbers (or positive ones) in place of every leaf."""
    rng = np.random.default_rng(seed)
    change = (lambda value: abs(value) + 0.2) if positive else (lambda value: value)
    return jax.tree.map(lambda leaf: jnp.asarray(change(rng.normal(0, 0.5, leaf.shape)), leaf.dtype), tree)


def images(n=5, shape=IMAGES, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(9).normal(size=(n, *shape)), dtype)


class Norm(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=True, param_dtype=x.dtype, dtype=x.dtype)(x)


class Block(nn.Module):
    """A residual block; batch norms nested and named by default."""

    width: int
    stride: int = 1
    bias: bool = False
    first: bool = False  # batch norm and ReLU before the convolutions

    @nn.compact
    def __call__(self, x):
        conv = functools.partial(nn.Conv, use_bias=self.bias, param_dtype=x.dtype)
        strides = (self.stride, self.stride)
        if self.first:
            hidden = nn.relu(Norm()(x))
            if self.stride > 1 or x.shape[-1] != self.width:
                x = conv(self.width, (1, 1), strides)(hidden)
            hidden = conv(self.width, (3, 3), strides)(hidden)
            return x + conv(self.width, (3, 3))(nn.relu(Norm()(hidden)))
        hidden = nn.relu(Norm()(conv(self.width, (3, 3), strides)(x)))
        hidden = Norm()(conv(self.width, (3, 3))(hidden))
        if self.stride > 1 or x.shape[-1] != self.width:
            x = Norm()(conv(self.width, (1, 1), strides)(x))
        return nn.relu(hidden + x)


class ResNet(nn.Module):
    """ResNet-18 of Nakkiran et al. for two blocks in each stage."""

    width: int = 2
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    bias: bool = False
    first: bool = False
    classes: int = 4

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(self.width, (3, 3), use_bias=self.bias, param_dtype=x.dtype)(x)
        if not self.first:
            x = nn.relu(Norm()(x))
        for stage, count in enumerate(self.blocks):
            for i in range(count):
                x = Block(self.width * 2**stage, 2 if stage and not i else 1, self.bias, self.first)(x)
        if self.first:
            x = nn.relu(Norm()(x))
        return nn.Dense(self.classes, param_dtype=x.dtype)(x.mean(axis=(1, 2)))


def linen(module, inputs, seed=0):
    """(apply with its statistics bound, params) of random numbers."""
    with jax.numpy_dtype_promotion("standard"):  # new statistics are float32 whatever the inputs
        variables = jax.eval_shape(module.init, jax.random.key(0), inputs)
    statistics = randomize(variables.get("batch_stats", {}), seed + 1, positive=True)
    if jnp.issubdtype(inputs.dtype, jnp.floating):
        statistics = jax.tree.map(lambda leaf: leaf.astype(inputs.dtype), statistics)
    return Partial(linen_apply(module), statistics), randomize(variables["params"], seed)


@functools.cache
def linen_apply(module):
    def apply(statistics, params, inputs):
        return module.apply({"params": params, "batch_stats": statistics}, inputs)

    return apply


class NnxCNN(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.norm(self.conv(x))).mean((1, 2)))


def nnx_cnn(seed=0):
    """(apply with the statistics in its closure, params)."""
    graph, params, other = nnx.split(NnxCNN(nnx.Rngs(0)), nnx.Param, ...)
    params, other = randomize(params, seed), randomize(other, seed + 1, positive=True)
    return lambda params, x: nnx.merge(graph, params, other)(x), params


class EquinoxCNN(eqx.Module):
    conv1: eqx.nn.Conv2d
    conv2: eqx.nn.Conv2d
    hidden: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key, 4)
        self.conv1 = eqx.nn.Conv2d(3, 4, 3, padding=1, key=keys[0])
        self.conv2 = eqx.nn.Conv2d(4, 8, 3, stride=2, use_bias=False, groups=2, key=keys[1])
        self.hidden = eqx.nn.Linear(72, 6, key=keys[2])
        self.head = eqx.nn.Linear(6, 3, key=keys[3])

    def __call__(self, x):
        x = jax.nn.relu(self.conv1(jnp.transpose(x, (2, 0, 1))))
        x = jax.nn.relu(self.conv2(x)).reshape(-1)
        return self.head(jax.nn.gelu(self.hidden(x)))


def equinox_cnn(seed=0):
    params, static = eqx.partition(EquinoxCNN(jax.random.key(seed)), eqx.is_array)
    return lambda params, x: jax.vmap(eqx.combine(params, static))(x), params


def mlp(seed=0, dtype=None):
    """A multi-layer perceptron on tables of 6 columns, written by hand."""
    shapes = {"w1": (6, 7), "b1": (7,), "w2": (7, 3)}
    params = randomize({name: jax.ShapeDtypeStruct(s, dtype or jnp.float32) for name, s in shapes.items()}, seed)
    return mlp_apply, params


def mlp_apply(params, x):
    hidden = x.reshape(x.shape[0], -1) @ params["w1"] + params["b1"][None]
    return jax.nn.relu(hidden) @ params["w2"]


class TransformerBlock(nn.Module):
    @nn.compact
    def __call__(self, h, _=None):
        h = h + nn.MultiHeadDotProductAttention(2, name="attention")(nn.LayerNorm(name="norm1")(h))
        hidden = nn.gelu(nn.Dense(16, name="up")(nn.LayerNorm(name="norm2")(h)))
        return h + nn.Dense(8, name="down")(hidden), None


class Transformer(nn.Module):
    """On token ids `[n, T]`; the blocks in a scan or not, the embedding tied to the output or not."""

    depth: int = 1
    scanned: bool = False
    tied: bool = False

    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(11, 8, name="embed")
        h = embed(tokens) + self.param("position", nn.initializers.normal(), (1, tokens.shape[1], 8))
        if self.scanned:
            block = nn.scan(
                TransformerBlock, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.depth
            )
            h, _ = block(name="blocks")(h, None)
        else:
            for i in range(self.depth):
                h, _ = TransformerBlock(name=f"block{i}")(h)
        h = nn.LayerNorm(name="norm")(h).mean(axis=1)
        return embed.attend(h) if self.tied else nn.Dense(3, name="head")(h)


def tokens(n=5):
    return jnp.asarray(np.random.default_rng(3).integers(0, 11, (n, 6)), jnp.int32)
