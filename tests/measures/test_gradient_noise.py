"""Gradient noise against a dense Jacobian, by hand, and over random subsets."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunegen_jax.measures import gradient_noise as noise
from prunegen_jax.types import Dataset, TrainedModel

KEY = jax.random.key(0)


def apply(params, images):
    return images.reshape(images.shape[0], -1) @ params["kernel"] + params["bias"].reshape(1, -1)


def softmax_regression(examples=60, seed=0):
    rng = np.random.default_rng(seed)
    params = {"kernel": jnp.asarray(rng.normal(size=(4, 3))), "bias": jnp.asarray(rng.normal(size=3))}
    data = Dataset(jnp.asarray(rng.normal(size=(examples, 1, 1, 4))), jnp.asarray(rng.integers(0, 3, examples)))
    return TrainedModel(apply, params, data)


def gradients(model):
    """∇ℓ_i = (x_i, 1) ⊗ (p_i − y_i) of softmax regression, `[n, 15]`, in NumPy."""
    x = np.asarray(model.train.inputs).reshape(len(model.train), -1)
    f = x @ np.asarray(model.params["kernel"]) + np.asarray(model.params["bias"])
    p = np.exp(f) / np.exp(f).sum(axis=1, keepdims=True)
    residual = p - np.eye(3)[np.asarray(model.train.labels)]
    return np.einsum("nd,nk->ndk", np.c_[x, np.ones(len(x))], residual).reshape(len(x), -1)


def test_trace_of_the_covariance():
    with jax.enable_x64():
        model = softmax_regression()
        g = gradients(model)
        for batch_size in (7, 60, None):
            found = noise.gradient_noise(model, KEY, batch_size=batch_size)
            assert found.value == pytest.approx(np.mean(np.sum((g - g.mean(0)) ** 2, axis=1)), rel=1e-10)
            assert found.sem is None
        assert noise.gradient_noise(model, KEY, unbiased=False).value == pytest.approx(found.value, rel=1e-10)
        unbiased = noise.gradient_noise(model, KEY, unbiased=True).value
        assert unbiased == pytest.approx(np.trace(np.cov(g.T)), rel=1e-10)  # NumPy's divides by n − 1
        some = [noise.gradient_noise(model, KEY, examples=40, unbiased=u).value for u in (None, True, False)]
        assert some[0] == some[1] == pytest.approx(some[2] * 40 / 39, rel=1e-10)
        assert found.details["squared_gradient_norm"] == pytest.approx(np.sum(g.mean(0) ** 2))
        assert found.details["parameters"] == 15


def test_two_examples_by_hand():
    """Zero weights: p = 1/3 each; x = ±1 and equal labels give gradients that differ in the kernel alone."""
    params = {"kernel": jnp.zeros((1, 3)), "bias": jnp.zeros(3)}
    data = Dataset(jnp.array([1.0, -1.0]).reshape(2, 1, 1, 1), jnp.zeros(2, jnp.int32))
    found = noise.gradient_noise(TrainedModel(apply, params, data), KEY)
    assert found.value == pytest.approx((4 + 1 + 1) / 9, rel=1e-6)  # 2 ‖(−2/3, 1/3, 1/3)‖² / 2


def test_subsets_are_unbiased_with_the_right_standard_error():
    with jax.enable_x64():
        model = softmax_regression(examples=200)
        whole = noise.gradient_noise(model, KEY).value
        runs = [noise.gradient_noise(model, jax.random.key(seed), examples=50) for seed in range(200)]
    values, sems = np.array([r.value for r in runs]), np.array([r.sem for r in runs])
    assert np.all(np.abs(values[:50] - whole) < 4 * sems[:50])
    assert np.sqrt(np.mean(sems**2)) == pytest.approx(values.std(), rel=0.2)
    assert abs(values.mean() - whole) < 4 * values.std() / np.sqrt(200)


def test_after_the_first_epoch_and_sign():
    model, early = softmax_regression(), softmax_regression(seed=0)
    early = dataclasses.replace(early, params=jax.tree.map(lambda w: 0 * w, early.params))
    both = dataclasses.replace(model, first_epoch=early)
    row = noise.MEASURES["gradient_noise_first_epoch"]
    assert row(both, KEY).value == noise.gradient_noise(early, KEY).value
    assert row(model, KEY).status == "not_applicable"
    # the same network on examples twice as large disagrees with itself more
    larger = dataclasses.replace(early, train=Dataset(2 * early.train.inputs, early.train.labels))
    assert noise.gradient_noise(early, KEY).value < noise.gradient_noise(larger, KEY).value
    assert all(r.sign == +1 for r in noise.MEASURES.values())


def test_refuses_impossible_subsets():
    with pytest.raises(ValueError, match="examples=61 must lie between 2 and 60"):
        noise.gradient_noise(softmax_regression(), KEY, examples=61)
