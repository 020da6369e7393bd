"""Convolutions as one matrix product of patches: with the channels innermost or outermost. See `planes`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Padding = str | Sequence[tuple[int, int]]


def patches_conv(
    inputs: jax.Array, kernel: jax.Array, window_strides: Sequence[int], padding: Padding, *, precision: Any = None
) -> jax.Array:
    """The convolution of NHWC inputs with an HWIO kernel, as strided slices and one matrix product."""
    rows, columns, channels, features = kernel.shape
    patches = _patches(inputs, (rows, columns), window_strides, padding, spatial=1)
    stacked = patches[0] if len(patches) == 1 else jnp.concatenate(patches, axis=-1)
    return jnp.dot(stacked, kernel.reshape(rows * columns * channels, features), precision=precision)


def planes_conv(
    inputs: jax.Array,
    kernel: jax.Array,
    window_strides: Sequence[int],
    padding: Padding,
    *,
    precision: Any = None,
) -> jax.Array:
    """The convolution of `[C, H, W, n]` with an HWIO kernel: `[F, H', W', n]`.

    With the examples innermost, cutting patches copies long rows whatever the stride, operations per channel (bias,
    batch norm) are contiguous in memory, and the matrix product has one long side.
    """
    rows, columns, channels, features = kernel.shape
    patches = _patches(inputs, (rows, columns), window_strides, padding, spatial=1)
    stacked = patches[0] if len(patches) == 1 else jnp.concatenate(patches, axis=0)
    flat = stacked.reshape(rows * columns * channels, -1)
    matrix = kernel.reshape(rows * columns * channels, features)
    product = lax.dot_general(matrix, flat, (((0,), (0,)), ((), ())), precision=precision)
    return product.reshape(features, *stacked.shape[1:])


def _patches(
    inputs: jax.Array, window: tuple[int, int], strides: Sequence[int], padding: Padding, *, spatial: int
) -> list[jax.Array]:
    """For each entry of the window, row by row, the inputs that it multiplies.

    The inputs are first split by their position modulo the stride, so that every patch is a slice of stride one: the
    gradient of a strided slice is slow on a CPU. The image's axes are `spatial` and the next.
    """
    size = inputs.shape[spatial : spatial + 2]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(size, window, strides, padding)
    count = [(n + sum(pad) - w) // s + 1 for n, pad, w, s in zip(size, padding, window, strides, strict=True)]
    rows = _split_by_stride(inputs, spatial, strides[0], tuple(padding[0]), count[0], window[0])
    grid = [_split_by_stride(row, spatial + 1, strides[1], tuple(padding[1]), count[1], window[1]) for row in rows]
    return [
        lax.slice_in_dim(
            lax.slice_in_dim(
                grid[i % strides[0]][j % strides[1]], i // strides[0], i // strides[0] + count[0], axis=spatial
            ),
            j // strides[1],
            j // strides[1] + count[1],
            axis=spatial + 1,
        )
        for i in range(window[0])
        for j in range(window[1])
    ]


def _split_by_stride(
    inputs: jax.Array, axis: int, stride: int, padding: tuple[int, int], count: int, window: int
) -> list[jax.Array]:
    """`inputs`, padded, split along `axis` into those at the positions 0, 1, … modulo the stride."""
    length = count + (window - 1) // stride  # of each part, as far as the window reaches
    low, high = padding[0], length * stride - inputs.shape[axis] - padding[0]
    config = [(0, 0, 0)] * inputs.ndim
    config[axis] = (low, high, 0)  # a negative `high` cuts off inputs that are in no window
    if (low, high) != (0, 0):
        inputs = lax.pad(inputs, jnp.zeros((), inputs.dtype), config)
    if stride == 1:
        return [inputs]
    shape = inputs.shape
    split = inputs.reshape(*shape[:axis], length, stride, *shape[axis + 1 :])
    return [
        part.reshape(*shape[:axis], length, *shape[axis + 1 :]) for part in lax.split(split, (1,) * stride, axis + 1)
    ]
