"""The layers that models are made of: convolution for the backend, batch norm, dropout with a traced rate."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from prunegen_jax.networks.convolutions import CONVOLUTIONS

BATCH_NORM_EPSILON = 1e-5
BATCH_NORM_MOMENTUM = 0.9


def to_layout(images: jax.Array, conv: str) -> jax.Array:
    """Images `[n, H, W, C]` in the layout of the convolution `conv`: `[C, H, W, n]` for "planes", else unchanged."""
    return images.transpose(3, 1, 2, 0) if conv == "planes" else images


def from_layout(hidden: jax.Array, conv: str) -> jax.Array:
    """The inverse of `to_layout`: always `[n, H, W, C]`."""
    return hidden.transpose(3, 1, 2, 0) if conv == "planes" else hidden


class Conv(nn.Module):
    """A convolution with a square window: its linear part and its bias `[features]`, not yet added.

    They are separate because a batch norm that follows removes any bias. The kernel is `[w, w, C, features]`.
    """

    features: int
    window: int
    stride: int
    padding: int
    conv: str

    @nn.compact
    def __call__(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        channels = inputs.shape[_channel_axis(self.conv)]
        shape = (self.window, self.window, channels, self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        padding = ((self.padding, self.padding),) * 2
        return CONVOLUTIONS[self.conv](inputs, kernel, (self.stride, self.stride), padding), bias


class BatchNorm(nn.Module):
    """γ (y − μ) / √(v + ε) + β of y = linear + bias; in training by the batch's μ and (biased) v.

    In training the result does not depend on `bias`, whose gradient is exactly zero; the running mean does.
    """

    conv: str

    @nn.compact
    def __call__(self, linear: jax.Array, bias: jax.Array, train: bool) -> jax.Array:
        axis = _channel_axis(self.conv)
        size = (linear.shape[axis],)
        scale = self.param("scale", nn.initializers.ones, size)
        beta = self.param("bias", nn.initializers.zeros, size)
        mean = self.variable("batch_stats", "mean", jnp.zeros, size)
        var = self.variable("batch_stats", "var", jnp.ones, size)
        if not train:
            slope = scale * lax.rsqrt(var.value + BATCH_NORM_EPSILON)
            return linear * _broadcast_along(slope, linear, axis) + _broadcast_along(
                beta + slope * (bias - mean.value), linear, axis
            )
        normed, batch_mean, batch_var = batch_norm(linear, scale, beta, axis)
        if not self.is_initializing():
            keep = BATCH_NORM_MOMENTUM
            mean.value = keep * mean.value + (1 - keep) * (batch_mean + bias)
            var.value = keep * var.value + (1 - keep) * batch_var
        return normed


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def batch_norm(
    inputs: jax.Array, scale: jax.Array, beta: jax.Array, axis: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """γ (x − μ) / √(v + ε) + β per channel of `axis`, and the batch's μ and biased v, which carry no gradient.

    Its backward pass reads the inputs and the cotangent twice and stores only the inputs. It has no second derivative,
    which training does not need.
    """
    return _batch_norm_forward(inputs, scale, beta, axis)[0]


def _batch_norm_forward(inputs: jax.Array, scale: jax.Array, beta: jax.Array, axis: int) -> tuple[Any, Any]:
    others = tuple(i for i in range(inputs.ndim) if i != axis % inputs.ndim)
    mean = inputs.mean(axis=others)
    var = jnp.maximum((inputs * inputs).mean(axis=others) - mean * mean, 0.0)
    slope = scale * lax.rsqrt(var + BATCH_NORM_EPSILON)
    normed = inputs * _broadcast_along(slope, inputs, axis) + _broadcast_along(beta - mean * slope, inputs, axis)
    return (normed, mean, var), (inputs, scale, mean, var)


def _batch_norm_backward(axis: int, residuals: Any, cotangents: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    inputs, scale, mean, var = residuals
    cotangent = cotangents[0]
    others = tuple(i for i in range(inputs.ndim) if i != axis % inputs.ndim)
    count = inputs.size // inputs.shape[axis]
    inverse = lax.rsqrt(var + BATCH_NORM_EPSILON)
    to_beta = cotangent.sum(axis=others)
    to_scale = ((cotangent * inputs).sum(axis=others) - mean * to_beta) * inverse
    # ∂x = (γ / √(v + ε)) (g − Σg / M − x̂ Σ(g x̂) / M), as a g + b x + c with one a, b, c per channel.
    a = scale * inverse
    b = -a * inverse * to_scale / count
    c = -a * to_beta / count - b * mean
    to_inputs = (
        _broadcast_along(a, inputs, axis) * cotangent
        + _broadcast_along(b, inputs, axis) * inputs
        + _broadcast_along(c, inputs, axis)
    )
    return to_inputs, to_scale, to_beta


batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)


def add_bias(linear: jax.Array, bias: jax.Array, conv: str) -> jax.Array:
    """`linear` plus `bias` along the channels."""
    return linear + _broadcast_along(bias, linear, _channel_axis(conv))


def dropout(key: jax.Array, inputs: jax.Array, rate: jax.Array, conv: str) -> jax.Array:
    """Zeroes each entry with probability `rate` (traced) and scales the rest by 1 / (1 − rate).

    What is dropped depends on the position of the entry in `[n, H, W, C]`, not on the layout of `conv`. At a rate of
    zero no random bits are drawn, though the program is the same.
    """

    def drop(x: jax.Array) -> jax.Array:
        keep = to_layout(jax.random.bernoulli(key, 1.0 - rate, from_layout(x, conv).shape), conv)
        return jnp.where(keep, x / (1.0 - rate), jnp.zeros_like(x))

    return lax.cond(rate > 0.0, drop, lambda x: x, inputs)


def conv_output_size(size: int, *, window: int, stride: int, padding: int) -> int:
    """Length of a convolution's output along one axis."""
    return math.floor((size + 2 * padding - window) / stride) + 1


def _channel_axis(conv: str) -> int:
    """The axis of the channels in the layout of the convolution `conv`."""
    return 0 if conv == "planes" else -1


def _broadcast_along(vector: jax.Array, like: jax.Array, axis: int) -> jax.Array:
    """`vector [C]` with unit axes, so that it broadcasts along `axis` of `like`."""
    return jnp.expand_dims(vector, [i for i in range(like.ndim) if i != axis % like.ndim])
