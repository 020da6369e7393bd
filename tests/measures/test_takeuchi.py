"""Noise over curvature against dense matrices, and the information criterion where they agree."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunegen_jax.measures.takeuchi import takeuchi_trace_ratio
from prunegen_jax.types import Dataset, TrainedModel
from tests.support.curvature_cases import KEY, dense_problem


def test_ratio_of_dense_traces():
    model, (matrix, jacobian, p, onehot, *_) = dense_problem()
    gradients = np.einsum("nkp,nk->np", jacobian, p - onehot)
    expected = np.trace(np.cov(gradients.T, ddof=0)) / np.trace(matrix)
    with jax.enable_x64():
        found = takeuchi_trace_ratio(model, KEY, relative_error=1e-3, budget=2000)
    assert found.value == pytest.approx(expected, abs=4 * found.sem)
    assert found.sem < 0.01 * expected
    assert found.details["hessian_trace"] == pytest.approx(np.trace(matrix), rel=0.01)


def test_a_well_specified_model_has_ratio_one():
    """Labels drawn from the model itself: C is the Fisher matrix, which is H (Bartlett's identity), up to sampling."""
    random = np.random.default_rng(0)
    x, w = random.normal(size=(40_000, 3)), np.array([[0.5, -0.2], [0.1, 0.3], [-0.4, 0.2]])
    logits = x @ w
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = (random.random(len(x)) > p[:, 0]).astype(np.int32)
    model = TrainedModel(
        lambda params, inputs: inputs @ params["kernel"], {"kernel": jnp.asarray(w, jnp.float32)},
        Dataset(jnp.asarray(x, jnp.float32), jnp.asarray(y)),
    )  # fmt: skip
    assert takeuchi_trace_ratio(model, KEY).value == pytest.approx(1, abs=0.03)


def test_where_the_loss_bends_down_there_is_no_ratio():
    """Logits (cos w, 0) at w = 0 and label 0: ℓ = ln(1 + e^{−cos w}) has a minimum; label 1 makes it a maximum."""
    found = [
        takeuchi_trace_ratio(
            TrainedModel(
                lambda params, inputs: jnp.concatenate([jnp.cos(inputs @ params["kernel"]), 0 * inputs], axis=1),
                {"kernel": jnp.zeros((1, 1))},
                Dataset(jnp.ones((4, 1)), jnp.full(4, label, jnp.int32)),
            ),
            KEY,
            method="hutchinson",
        )
        for label in (0, 1)
    ]
    assert [f.status for f in found] == ["ok", "failed"]
    assert found[0].details["hessian_trace"] == pytest.approx(1 / (1 + np.e), rel=1e-4)
    assert found[1].reason.startswith("tr H is -0.731, and must be positive")
