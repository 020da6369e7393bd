"""The layers that models are made of: convolution as the backend likes it, dropout with a traced rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def patches_conv(
    inputs: jax.Array,
    kernel: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
    **_: Any,
) -> jax.Array:
    """`lax.conv_general_dilated` for NHWC inputs and HWIO kernels, as strided slices and one matrix product.

    On a CPU, XLA's own convolution is several times slower than the matrix product, most of all inside loops.

    Raises:
        ValueError: for dilation or groups, which it does not do.
    """
    if any(d != 1 for d in (*(lhs_dilation or ()), *(rhs_dilation or ()))) or feature_group_count != 1:
        raise ValueError("patches_conv has neither dilation nor groups: use conv='xla'")
    rows, columns, channels, features = kernel.shape
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(inputs.shape[1:3], (rows, columns), window_strides, padding)
    if any(pad != (0, 0) for pad in map(tuple, padding)):
        inputs = jnp.pad(inputs, ((0, 0), *padding, (0, 0)))
    heights, widths = (
        (size - window) // stride + 1
        for size, window, stride in zip(inputs.shape[1:3], (rows, columns), window_strides, strict=True)
    )
    down, right = window_strides
    patches = [
        inputs[:, i : i + (heights - 1) * down + 1 : down, j : j + (widths - 1) * right + 1 : right, :]
        for i in range(rows)
        for j in range(columns)
    ]
    stacked = patches[0] if len(patches) == 1 else jnp.concatenate(patches, axis=-1)
    return jnp.dot(stacked, kernel.reshape(rows * columns * channels, features), precision=precision)


CONVOLUTIONS: dict[str, Callable[..., jax.Array]] = {"xla": lax.conv_general_dilated, "patches": patches_conv}


def convolution(name: str) -> Callable[..., jax.Array]:
    """The convolution called `name`; "auto" is patches on a CPU and XLA's own elsewhere."""
    if name == "auto":
        name = "patches" if jax.default_backend() == "cpu" else "xla"
    if name not in CONVOLUTIONS:
        raise ValueError(f"model.conv={name!r} is not known; choose among auto, {', '.join(CONVOLUTIONS)}")
    return CONVOLUTIONS[name]


def dropout(key: jax.Array, inputs: jax.Array, rate: jax.Array) -> jax.Array:
    """Zeroes each entry with probability `rate` (traced) and scales the rest by 1 / (1 − rate).

    At a rate of zero no random bits are drawn, though the program is the same.
    """

    def drop(x: jax.Array) -> jax.Array:
        keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
        return jnp.where(keep, x / (1.0 - rate), jnp.zeros_like(x))

    return lax.cond(rate > 0.0, drop, lambda x: x, inputs)


def conv_output_size(size: int, *, window: int, stride: int, padding: int) -> int:
    """Length of a convolution's output along one axis."""
    return math.floor((size + 2 * padding - window) / stride) + 1
