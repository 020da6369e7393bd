"""Proxies of prunability against SciPy and arithmetic."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from prunegen_jax.measures import proxies
from tests.support.kernel_cases import kernels_alone

KEY = jax.random.key(0)


def model(*kernels):
    return kernels_alone({f"layer{i}": np.asarray(w) for i, w in enumerate(kernels)}, bias=jnp.ones(3))


def test_kurtosis():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(7, 5)).astype(np.float32), rng.laplace(2.0, size=(3, 3, 2, 4)).astype(np.float32)
    both = np.concatenate([first.ravel(), second.ravel()]).astype(np.float64)
    estimate = proxies.weight_kurtosis(model(first, second), KEY)
    assert estimate.value == pytest.approx(stats.kurtosis(both, fisher=False))
    json.dumps(estimate.details)
    each = [stats.kurtosis(w.ravel().astype(np.float64), fisher=False) for w in (first, second)]
    assert proxies.weight_kurtosis(model(first, second), KEY, per_layer=True).value == pytest.approx(np.mean(each))
    with pytest.raises(ValueError, match="all entries are equal"):
        proxies.weight_kurtosis(model(np.ones((2, 2))), KEY)


def test_effective_weights():
    few = np.zeros((4, 5))
    few[0, :3] = (2.0, -2.0, 2.0)
    estimate = proxies.effective_weights(model(few), KEY)
    assert estimate.value == pytest.approx(3 / 20)
    assert estimate.details["effective_number"] == pytest.approx(3.0)
    assert proxies.effective_weights(model(np.ones((4, 5)), -np.ones((2, 2))), KEY).value == pytest.approx(1.0)
    assert proxies.effective_weights(model([[1.0, 3.0]]), KEY).value == pytest.approx(16 / 10 / 2)
    with pytest.raises(ValueError, match="all weights are zero"):
        proxies.effective_weights(model(np.zeros((2, 2))), KEY)


def test_signs_heavier_tails_can_be_pruned_further():
    rng = np.random.default_rng(1)
    light, heavy = model(rng.uniform(-1, 1, (40, 40))), model(rng.laplace(size=(40, 40)))
    for row in proxies.MEASURES.values():
        assert row.sign * row(heavy, KEY).value < row.sign * row(light, KEY).value
