"""Noise in the weights has the distribution that its function states."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunegen_jax.measures import objective, structure, weight_noise
from prunegen_jax.networks import as_trained_model, build
from prunegen_jax.types import Dataset, TrainedModel
from tests.support.noise_cases import KEY


def test_noise_has_the_distribution_it_says():
    w = {"x": jnp.concatenate([jnp.full(20000, 2.0), jnp.full(20000, -0.5), jnp.zeros(20000)])}
    plain, floored = (
        np.asarray(weight_noise.add_gaussian(w, KEY, jnp.float32(0.1), magnitude=m, floor=jnp.float32(f))["x"] - w["x"])
        for m, f in ((False, 0.0), (True, 0.3))
    )
    np.testing.assert_allclose(plain.reshape(3, -1).std(axis=1), 0.1, rtol=0.03)
    expected = np.sqrt(0.01 * np.array([4.0, 0.25, 0.0]) + 0.09)
    np.testing.assert_allclose(floored.reshape(3, -1).std(axis=1), expected, rtol=0.03)
    plain_rgm, magnitude_rgm = (
        np.asarray(weight_noise.add_rgm_noise(w, KEY, jnp.float32(0.5), magnitude=m, normalized=())["x"] - w["x"])
        for m in (False, True)
    )
    np.testing.assert_allclose(plain_rgm.reshape(3, -1).std(axis=1), 0.25, rtol=0.03)  # σ² as standard deviation
    expected = 0.25 * np.array([4.0, 0.25, 0.0]) + 1e-6  # σ² w² + ε² as standard deviation
    np.testing.assert_allclose(magnitude_rgm.reshape(3, -1).std(axis=1), expected, rtol=0.03)


def test_rgm_noise_in_the_neutral_batch_norm():
    """γ = 1 and β = 0 get noise too: W (1 + n) and b (1 + n) + n' per output channel."""
    w = {"l/kernel": jnp.zeros((2, 50000)), "l/bias": jnp.full(50000, 3.0)}
    noisy = weight_noise.add_rgm_noise(w, KEY, jnp.float32(0.5), magnitude=False, normalized=("l/kernel",))
    s = 0.25
    kernel = np.asarray(noisy["l/kernel"])
    assert kernel.std() == pytest.approx(s * math.sqrt(1 + s**2), rel=0.03)
    assert np.corrcoef(kernel[0] ** 2, kernel[1] ** 2)[0, 1] > 0.02  # they share γ
    bias = np.asarray(noisy["l/bias"])
    assert bias.mean() == pytest.approx(3.0, abs=0.02)
    assert bias.std() == pytest.approx(math.sqrt((9 + s**2) * (1 + s**2) - 9 + s**2), rel=0.03)


def test_only_kernels_with_a_norm_have_noise_in_it():
    net = build("nin", input_shape=(8, 8, 3), classes=4, depth=1, width=4)
    data = Dataset(jnp.ones((5, 8, 8, 3)), jnp.zeros(5, jnp.int32))
    model = as_trained_model(net, *net.init(KEY), data)
    convs = tuple(f"block0_conv{i}/kernel" for i in range(3))
    assert structure.normalized_kernels(model) == convs  # not the head
    assert structure.normalized_kernels(structure.folded_network(model)) == ()
    rgm = build("nin", input_shape=(8, 8, 3), classes=4, depth=1, width=4, head="rgm")
    params, stats = rgm.init(KEY)
    assert structure.normalized_kernels(as_trained_model(rgm, params, stats, data)) == (*convs, "head/kernel")
    other = {"a": {"kernel": jnp.ones((192, 2)), "bias": jnp.ones(2)}, "bn": {"scale": jnp.ones(2)}}

    def by_hand(params, images):
        hidden = images.reshape(images.shape[0], -1) @ params["a"]["kernel"] + params["a"]["bias"][None]
        return jax.nn.relu(hidden * params["bn"]["scale"][None])

    assert structure.normalized_kernels(TrainedModel(by_hand, other, data)) == ("a/kernel",)
    weights = objective.weight_function(model).weights
    plain, noisy = (
        weight_noise.add_rgm_noise(weights, KEY, jnp.float32(0.5), magnitude=False, normalized=names)
        for names in ((), convs)
    )
    changed = {name for name in weights if not np.array_equal(plain[name], noisy[name])}
    assert changed == {name for name in weights if name.startswith("block0")}
