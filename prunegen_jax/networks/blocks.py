"""Layers of this package's models: convolution and batch norm that train fast together, dropout with a traced rate."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from prunegen_jax.compute.layouts import Stored, Value
from prunegen_jax.compute.planes import NAMED_RULES

BATCH_NORM_EPSILON = 1e-5
BATCH_NORM_MOMENTUM = 0.9


class Conv(nn.Module):
    """A convolution with a square window: its linear part and its bias `[features]`, not yet added.

    They are separate because a batch norm after the convolution removes any bias. The kernel is `[w, w, C, features]`.
    """

    features: int
    window: int
    stride: int = 1
    padding: int = 0

    @nn.compact
    def __call__(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        shape = (self.window, self.window, inputs.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        strides, padding = (self.stride, self.stride), ((self.padding, self.padding),) * 2
        linear = lax.conv_general_dilated(inputs, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return linear, bias


class BatchNorm(nn.Module):
    """γ (y − μ) / √(v + ε) + β of y = linear + bias; in training with the batch's μ and (biased) v.

    In training the result does not depend on `bias`, whose gradient is exactly zero; the running mean does.
    """

    @nn.compact
    def __call__(self, linear: jax.Array, bias: jax.Array | None = None, *, train: bool) -> jax.Array:
        size = (linear.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, size)
        beta = self.param("bias", nn.initializers.zeros, size)
        mean = self.variable("batch_stats", "mean", jnp.zeros, size)
        var = self.variable("batch_stats", "var", jnp.ones, size)
        center = mean.value if bias is None else mean.value - bias
        if not train:
            slope = scale * lax.rsqrt(var.value + BATCH_NORM_EPSILON)
            return linear * along(slope, linear) + along(beta - slope * center, linear)
        normed, batch_mean, batch_var = batch_norm_over_channels(linear, scale, beta)
        if not self.is_initializing():
            keep = BATCH_NORM_MOMENTUM
            batch_mean = batch_mean if bias is None else batch_mean + bias
            mean.value = keep * mean.value + (1 - keep) * batch_mean
            var.value = keep * var.value + (1 - keep) * batch_var
        return normed


def along(vector: jax.Array, like: jax.Array, axis: int = -1) -> jax.Array:
    """`vector [C]` with unit axes added, so that it broadcasts along `axis` of `like`."""
    return jnp.expand_dims(vector, [i for i in range(like.ndim) if i != axis % like.ndim])


def dropout(key: jax.Array, inputs: jax.Array, rate: jax.Array) -> jax.Array:
    """Zeroes each entry with probability `rate` (traced) and scales the others by 1 / (1 − rate).

    At a rate of zero the program is the same, but no random bits are drawn.
    """

    def drop(x: jax.Array) -> jax.Array:
        keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
        return jnp.where(keep, x / (1.0 - rate), jnp.zeros_like(x))

    return lax.cond(rate > 0.0, drop, lambda x: x, inputs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def batch_norm(
    inputs: jax.Array, scale: jax.Array, beta: jax.Array, axis: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """γ (x − μ) / √(v + ε) + β per channel of `axis`, and the batch's μ and biased v, which have no gradient.

    Its backward pass reads the inputs and the cotangent twice and stores only the inputs. It has no second derivative;
    training does not need one.
    """
    return _batch_norm_forward(inputs, scale, beta, axis)[0]


def _batch_norm_forward(inputs: jax.Array, scale: jax.Array, beta: jax.Array, axis: int) -> tuple[Any, Any]:
    others = tuple(i for i in range(inputs.ndim) if i != axis % inputs.ndim)
    mean = inputs.mean(axis=others)
    var = jnp.maximum((inputs * inputs).mean(axis=others) - mean * mean, 0.0)
    slope = scale * lax.rsqrt(var + BATCH_NORM_EPSILON)
    normed = inputs * along(slope, inputs, axis) + along(beta - mean * slope, inputs, axis)
    return (normed, mean, var), (inputs, scale, mean, var)


def _batch_norm_backward(axis: int, kept: Any, cotangents: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    inputs, scale, mean, var = kept
    given = cotangents[0]
    others = tuple(i for i in range(inputs.ndim) if i != axis % inputs.ndim)
    count = inputs.size // inputs.shape[axis]
    inverse = lax.rsqrt(var + BATCH_NORM_EPSILON)
    to_beta = given.sum(axis=others)
    to_scale = ((given * inputs).sum(axis=others) - mean * to_beta) * inverse
    # ∂x = (γ / √(v + ε)) (g − Σg / M − x̂ Σ(g x̂) / M), as a g + b x + c with one a, b, c per channel.
    a = scale * inverse
    b = -a * inverse * to_scale / count
    c = -a * to_beta / count - b * mean
    to_inputs = along(a, inputs, axis) * given + along(b, inputs, axis) * inputs + along(c, inputs, axis)
    return to_inputs, to_scale, to_beta


batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)


@jax.jit
def batch_norm_over_channels(
    inputs: jax.Array, scale: jax.Array, beta: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`batch_norm` along the last axis. `planes` recognises this function by its name and uses another axis."""
    return batch_norm(inputs, scale, beta, -1)


def _stored_batch_norm(inputs: Stored, scale: jax.Array, beta: jax.Array) -> list[Value]:
    normed, mean, var = batch_norm(inputs.array, scale, beta, inputs.order.index(len(inputs.order) - 1))
    return [Stored(normed, inputs.order), mean, var]


NAMED_RULES["batch_norm_over_channels"] = _stored_batch_norm
