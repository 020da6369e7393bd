"""Convolutions as explicit matrices, and kernels to try."""

from __future__ import annotations

import itertools

import numpy as np


def explicit(kernel, input_shape, *, stride, padding, circular):
    """The matrix of a convolution with `padding` pixels on each side, entry by entry from its definition."""
    rows, columns, channels = input_shape
    kh, kw, _, out = kernel.shape
    heights, widths = ((n + 2 * padding - k) // stride + 1 for n, k in ((rows, kh), (columns, kw)))
    matrix = np.zeros((heights, widths, out, rows, columns, channels))
    for y, x, i, j in itertools.product(range(heights), range(widths), range(kh), range(kw)):
        a, b = y * stride + i - padding, x * stride + j - padding
        if circular:
            a, b = a % rows, b % columns
        if 0 <= a < rows and 0 <= b < columns:
            matrix[y, x, :, a, b, :] += kernel[i, j].T
    return matrix.reshape(heights * widths * out, -1)


def random_kernel(shape=(3, 3, 3, 4), seed=0):
    return np.random.default_rng(seed).normal(size=shape)
