"""Convolutions as matrix products of patches: with the channels innermost or outermost. See `planes`.

The 3×3 convolutions of residual networks take Winograd's form F(2, 3) along the rows (Lavin and Gray, 2016): of two
neighbouring output rows, y = Aᵀ [(G g) ⊙ (Bᵀ d)], from the four input rows d around them and the kernel g. This is four
products of patches of one row where two products of patches of three rows were, two thirds of the multiplications and
of the patches, with rounding errors as large. In both directions at once a third fewer products are left again, but
whole networks are no faster and take twice the time to compile; tiles of four rows round two to three times as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Padding = str | Sequence[tuple[int, int]]
_WINOGRAD_FROM = 2 * 10**6  # multiplications of a convolution: below, more operations take longer than they save


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
    if _suits_winograd(inputs, kernel, window_strides, padding):
        return _winograd_conv(inputs, kernel, precision=precision)
    patches = _patches(inputs, (rows, columns), window_strides, padding, spatial=1)
    stacked = patches[0] if len(patches) == 1 else jnp.concatenate(patches, axis=0)
    flat = stacked.reshape(rows * columns * channels, -1)
    matrix = kernel.reshape(rows * columns * channels, features)
    product = lax.dot_general(matrix, flat, (((0,), (0,)), ((), ())), precision=precision)
    return product.reshape(features, *stacked.shape[1:])


def _suits_winograd(inputs: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Padding) -> bool:
    """Whether `_winograd_conv` applies, and saves time."""
    window, size = kernel.shape[:2], inputs.shape[1:3]
    if window != (3, 3) or tuple(strides) != (1, 1) or size[0] % 2 or inputs.dtype not in (jnp.float32, jnp.float64):
        return False
    padding = lax.padtype_to_pads(size, window, strides, padding) if isinstance(padding, str) else padding
    return all(tuple(pad) == (1, 1) for pad in padding) and 9 * kernel.shape[3] * inputs.size >= _WINOGRAD_FROM


def _winograd_conv(inputs: jax.Array, kernel: jax.Array, *, precision: Any) -> jax.Array:
    """`planes_conv` of stride 1 with a 3×3 kernel, padded by one, of an even number of rows."""
    channels, height, width, n = inputs.shape
    features = kernel.shape[3]
    padded = lax.pad(inputs, jnp.zeros((), inputs.dtype), [(0, 0, 0), (1, 1, 0), (1, 1, 0), (0, 0, 0)])
    pairs = padded.reshape(channels, height // 2 + 1, 2, width + 2, n)
    even, odd = (rows.squeeze(2) for rows in lax.split(pairs, (1, 1), 2))
    d0, d1, d2, d3 = even[:, :-1], odd[:, :-1], even[:, 1:], odd[:, 1:]
    transformed = d0 - d2, d1 + d2, d2 - d1, d1 - d3  # Bᵀ d
    g0, g1, g2 = kernel
    kernels = g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2  # G g, each [3, C, F]
    products = []
    for rows, one in zip(transformed, kernels, strict=True):
        patches = jnp.concatenate([lax.slice_in_dim(rows, j, j + width, axis=2) for j in range(3)])
        matrix = one.reshape(3 * channels, features)
        flat = patches.reshape(3 * channels, -1)
        products.append(lax.dot_general(matrix, flat, (((0,), (0,)), ((), ())), precision=precision))
    outputs = products[0] + products[1] + products[2], products[1] - products[2] - products[3]  # Aᵀ
    shape = (features, height // 2, width, n)
    return jnp.stack([rows.reshape(shape) for rows in outputs], axis=2).reshape(features, height, width, n)


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
