"""The network of |w|^p, with effective scales and shifts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunegen_jax.networks.reading import read
from tests.support.reading_cases import ResNet, images, linen, mlp


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_of_a_foldable_network_it_is_the_folded_network_of_powers(power):
    x = jnp.ones((1, 8, 8, 3))
    apply, params = linen(ResNet(4, (1, 1)), x)
    program = read(apply, params, x)
    folded = jax.tree.map(lambda w: jnp.abs(w) ** power, program.fold(params))
    np.testing.assert_allclose(program.powered(params, x, power), program.folded(folded, x), rtol=1e-4)


def test_of_a_perceptron():
    x = jnp.ones((1, 6))
    apply, params = mlp()
    squares = jax.tree.map(jnp.square, params)
    np.testing.assert_allclose(read(apply, params, x).powered(params, x), apply(squares, x), rtol=1e-5)


def test_of_a_pre_activation_network_norms_count_with_their_effective_scale_and_shift():
    x = jnp.ones((1, 8, 8, 3))
    apply, params = linen(ResNet(2, (1,), first=True), x)
    found = read(apply, params, x).powered(params, x)
    statistics = apply.args[0]

    def norm(path, x):
        p, s = params, statistics
        for key in (*path, "BatchNorm_0"):
            p, s = p[key], s[key]
        scale = np.asarray(p["scale"]) / np.sqrt(np.asarray(s["var"]) + 1e-5)
        return x * scale**2 + (np.asarray(p["bias"]) - scale * np.asarray(s["mean"])) ** 2

    def conv(x, kernel):
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        return np.einsum("nhwcij,ijcf->nhwf", windows, np.asarray(kernel) ** 2)

    block = params["Block_0"]
    h = conv(np.ones((1, 8, 8, 3)), params["Conv_0"]["kernel"])
    inner = conv(norm(("Block_0", "Norm_0"), h), block["Conv_0"]["kernel"])
    h = h + conv(norm(("Block_0", "Norm_1"), inner), block["Conv_1"]["kernel"])
    h = norm(("Norm_0",), h).mean((1, 2))
    expected = h @ np.asarray(params["Dense_0"]["kernel"]) ** 2 + np.asarray(params["Dense_0"]["bias"]) ** 2
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_it_is_positive_where_relu_would_cut():
    x = images(1)
    apply, params = linen(ResNet(2, (1,), first=True), x)
    assert (read(apply, params, x).powered(params, jnp.ones_like(x)) > 0).all()
