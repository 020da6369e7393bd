"""Average sharpness of a linear network against its closed form, where few pairs of draws are taken."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunegen_jax.measures import neighbourhood
from prunegen_jax.types import Dataset, TrainedModel


def line(params, images):
    return images.reshape(images.shape[0], -1) @ params["kernel"]


def test_average_case_covers_a_dense_computation_when_the_budget_runs_out():
    """Where one direction makes up most of the rise, eight pairs seldom show its spread."""
    x, y = 2.0 * jnp.ones((6, 1, 1, 1)), jnp.asarray([0, 1, 0, 1, 0, 1])
    with jax.enable_x64():
        model = TrainedModel(line, {"kernel": jnp.asarray([[0.3, -0.2]])}, Dataset(x.astype(jnp.float64), y))
        logits = 2.0 * np.array([0.3, -0.2])
        p = np.exp(logits[0]) / np.exp(logits).sum()
        expected = 1e-6 / 2 * 2 * 4.0 * p * (1 - p)  # both weights have H_jj = x² p (1 − p)
        runs = [
            neighbourhood.average_sharpness(model, jax.random.key(s), rho=1e-3, relative_error=0.0, budget=16)
            for s in range(150)
        ]
    values, sems = np.array([r.value for r in runs]), np.array([r.sem for r in runs])
    assert values.mean() == pytest.approx(expected, rel=0.15)
    assert (np.abs(values - expected) <= 2 * sems).mean() > 0.83
    assert (np.abs(values - expected) <= 3 * sems).mean() > 0.88
