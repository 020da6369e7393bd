"""Calibration error and Brier score against values computed by hand."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from prunegen_jax.compute.calibration import brier_score, expected_calibration_error, predictions
from prunegen_jax.types import Dataset

# Confidence 0.9 (right), 0.9 (wrong), 0.4 (right), 0.62 (wrong); of 15 bins 0.9 lies in (13/15, 14/15], 0.62 in
# (9/15, 10/15] and 0.4 = 6/15 in (5/15, 6/15].
PROBABILITIES = np.array([[0.9, 0.1, 0.0], [0.05, 0.9, 0.05], [0.3, 0.4, 0.3], [0.62, 0.3, 0.08]])
LABELS = np.array([0, 2, 1, 1])


def test_calibration_error_by_hand():
    by_hand = 2 / 4 * abs(1 / 2 - 0.9) + 1 / 4 * abs(1 - 0.4) + 1 / 4 * abs(0 - 0.62)
    assert expected_calibration_error(PROBABILITIES, LABELS) == pytest.approx(by_hand)
    one_bin = abs(2 / 4 - (0.9 + 0.9 + 0.4 + 0.62) / 4)
    assert expected_calibration_error(PROBABILITIES, LABELS, bins=1) == pytest.approx(one_bin)


def test_calibration_error_of_sure_and_of_calibrated_networks():
    sure = np.eye(3)[[0, 1, 2, 0]]
    assert expected_calibration_error(sure, np.array([0, 1, 2, 0])) == 0.0
    assert expected_calibration_error(sure, np.array([1, 1, 2, 0])) == 0.25
    assert expected_calibration_error(np.full((4, 2), 0.5), np.array([0, 0, 1, 1])) == 0.0


def test_the_bins_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(500, 4)) * 2
    p, labels = np.exp(logits) / np.exp(logits).sum(1, keepdims=True), rng.integers(4, size=500)
    confidence, correct, total = p.max(1), p.argmax(1) == labels, 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(p, labels) == pytest.approx(total)


def test_brier_score_by_hand():
    terms = (0.1**2 + 0.1**2, 0.05**2 + 0.9**2 + 0.95**2, 0.3**2 + 0.6**2 + 0.3**2, 0.62**2 + 0.7**2 + 0.08**2)
    assert brier_score(PROBABILITIES, LABELS) == pytest.approx(sum(terms) / 4)
    assert brier_score(np.eye(2), np.array([1, 0])) == 2.0
    assert PROBABILITIES[0, 0] == 0.9  # the argument is not changed


def test_predictions_are_the_softmax_of_all_examples():
    rng = np.random.default_rng(1)
    inputs, weights = rng.normal(size=(1003, 2, 2, 1)).astype(np.float32), rng.normal(size=(4, 3)).astype(np.float32)
    data = Dataset(jnp.asarray(inputs), jnp.zeros(1003, jnp.int32))
    found = predictions(lambda w, x: x.reshape(x.shape[0], -1) @ w, jnp.asarray(weights), data)
    logits = inputs.reshape(1003, 4) @ weights
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
