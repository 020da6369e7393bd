"""Convolutions as matrix products of patches, against XLA's own."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax import lax

from prunegen_jax.compute.convolutions import patches_conv, planes_conv

NHWC = ("NHWC", "HWIO", "NHWC")


def in_planes(images, kernel, strides, padding):
    return planes_conv(images.transpose(3, 1, 2, 0), kernel, strides, padding).transpose(3, 1, 2, 0)


def by_xla(images, kernel, strides, padding):
    return lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=NHWC)


@pytest.mark.parametrize("convolve", [patches_conv, in_planes])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [[(1, 1), (1, 1)], [(0, 0), (2, 1)], "SAME"], ids=str)
@pytest.mark.parametrize("window", [(1, 1), (3, 2)], ids=str)
def test_ours_convolve_as_xla_does(convolve, stride, padding, window):
    keys = jax.random.split(jax.random.key(0), 3)
    images, kernel = jax.random.normal(keys[0], (3, 9, 8, 5)), jax.random.normal(keys[1], (*window, 5, 7))
    with jax.default_matmul_precision("highest"):
        expected, pull = jax.vjp(lambda x, w: by_xla(x, w, (stride, stride), padding), images, kernel)
        got, pull_ours = jax.vjp(lambda x, w: convolve(x, w, (stride, stride), padding), images, kernel)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
        cotangent = jax.random.normal(keys[2], expected.shape)
        for a, b in zip(pull_ours(cotangent), pull(cotangent), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
