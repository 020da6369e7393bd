"""Convolutions as matrix products of patches, against XLA's own."""

from __future__ import annotations

import functools

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


def count_products(images, kernel, strides=(1, 1), padding="SAME"):
    jaxpr = jax.make_jaxpr(functools.partial(in_planes, strides=strides, padding=padding))(images, kernel)
    return [eqn.primitive.name for eqn in jaxpr.eqns].count("dot_general")


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


def test_large_ones_of_stride_one_take_fewer_products():
    """Value, gradient and second derivative are those of XLA in float64; errors in float32 are as small as its own."""
    keys = jax.random.split(jax.random.key(0), 3)
    images = jax.random.normal(keys[0], (64, 8, 12, 16))
    kernel = jax.random.normal(keys[1], (3, 3, 16, 72)) / 12

    assert count_products(images, kernel) == 4

    def derivatives(function, x, w):
        loss = lambda x, w: (function(x, w, (1, 1), "SAME") ** 3).mean()  # noqa: E731
        gradient = jax.grad(loss, (0, 1))
        return loss(x, w), gradient(x, w), jax.jvp(gradient, (x, w), (x, w))[1]

    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        exact = derivatives(by_xla, *(jax.numpy.asarray(np.asarray(a, np.float64)) for a in (images, kernel)))
        for precise, tolerance in ((np.float64, 1e-13), (np.float32, 3e-6)):
            got = derivatives(in_planes, *(jax.numpy.asarray(np.asarray(a, precise)) for a in (images, kernel)))
            for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(exact), strict=True):
                assert a.dtype == precise
                np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize(
    ("shape", "window", "strides", "padding"),
    [
        ((64, 7, 12, 16), (3, 3), (1, 1), "SAME"),  # an odd number of rows
        ((64, 8, 12, 16), (3, 3), (2, 2), "SAME"),
        ((64, 8, 12, 16), (3, 3), (1, 1), "VALID"),
        ((64, 8, 12, 16), (5, 5), (1, 1), [(1, 1), (1, 1)]),
        ((1, 8, 12, 16), (3, 3), (1, 1), "SAME"),  # a small one
    ],
    ids=str,
)
def test_others_are_one_product(shape, window, strides, padding):
    images, kernel = jax.numpy.ones(shape), jax.numpy.ones((*window, shape[3], 72))
    assert count_products(images, kernel, strides, padding) == 1


def test_a_kernel_of_zeros_gives_exact_zeros():
    images = jax.random.normal(jax.random.key(0), (64, 8, 12, 16))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 16, 72)).at[..., ::2].set(0.0)
    assert (in_planes(images, kernel, (1, 1), "SAME")[..., ::2] == 0).all()
    assert (in_planes(0 * images, kernel, (1, 1), "SAME") == 0).all()
