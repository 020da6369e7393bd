"""Noise over curvature against dense matrices, and the information criterion where they agree."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunegen_jax.measures.takeuchi import takeuchi_information_criterion, takeuchi_trace_ratio
from prunegen_jax.types import Dataset, NotApplicableError, TrainedModel
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


def test_criterion_of_dense_matrices():
    """By a matrix inverse in NumPy; the network of random labels is not at a minimum, so that H has both signs."""
    model, (matrix, jacobian, p, onehot, *_) = dense_problem()
    gradients = np.einsum("nkp,nk->np", jacobian, p - onehot)
    values, vectors = np.linalg.eigh(matrix)
    positive = (vectors * np.maximum(values, 0)) @ vectors.T
    for damping, batch_size in ((1e-3, None), (0.1, 7)):
        damped = positive + damping * values[-1] * np.eye(len(matrix))
        expected = np.trace(np.linalg.inv(damped) @ np.cov(gradients.T, ddof=0)) / len(gradients)
        with jax.enable_x64():
            found = takeuchi_information_criterion(model, KEY, damping=damping, batch_size=batch_size)
        assert found.value == pytest.approx(expected, rel=1e-8)
        assert found.details["smallest_eigenvalue"] == pytest.approx(values[0], rel=1e-8)
        assert found.details["smallest_eigenvalue"] < 0
        assert found.details["effective_parameters"] == pytest.approx(np.trace(np.linalg.inv(damped) @ positive))
    few = len(matrix) - 1
    with pytest.raises(NotApplicableError, match=f"{few + 1} weights are more than max_parameters={few}"):
        takeuchi_information_criterion(model, KEY, max_parameters=few)


def test_criterion_of_a_well_specified_model_counts_its_parameters():
    """A softmax of two classes and three features has three parameters that matter: the gap is 3 / m (Akaike 1974)."""
    random = np.random.default_rng(1)
    x, w = random.normal(size=(20_000, 3)), np.array([[0.5, -0.2], [0.1, 0.3], [-0.4, 0.2]])
    p = 1 / (1 + np.exp(-x @ (w[:, 1] - w[:, 0])))
    y = (random.random(len(x)) < p).astype(np.int32)
    model = TrainedModel(
        lambda params, inputs: inputs @ params["kernel"], {"kernel": jnp.asarray(w, jnp.float32)},
        Dataset(jnp.asarray(x, jnp.float32), jnp.asarray(y)),
    )  # fmt: skip
    found = takeuchi_information_criterion(model, KEY)
    assert found.value * len(x) == pytest.approx(3, abs=0.1)
    assert found.details["effective_parameters"] == pytest.approx(3, abs=0.01)
