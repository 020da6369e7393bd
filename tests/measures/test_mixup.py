"""Label-wise mixup against enumeration."""

from __future__ import annotations

import itertools
import json

import jax
import numpy as np
import pytest

from prunegen_jax.measures import mixup
from tests.support.feature_cases import KEY, trained


def test_mixup_counts_midpoints():
    model = trained()
    estimate = mixup.label_wise_mixup(model, KEY, draws=2, per_class=10)  # every draw is the whole set
    images, labels = np.asarray(model.train.inputs, np.float64), np.asarray(model.train.labels)
    accuracy = []
    for label in range(3):
        members = np.flatnonzero(labels == label)
        middles = np.stack([(images[i] + images[j]) / 2 for i, j in itertools.combinations(members, 2)])
        hidden = np.tanh((2 * middles.reshape(len(middles), -1) + 1) @ np.asarray(model.params["first"], np.float64))
        logits = hidden @ np.asarray(model.params["second"], np.float64)
        accuracy.append((logits.argmax(axis=1) == label).mean())
    assert 0.0 < np.mean(accuracy) < 1.0
    assert estimate.value == pytest.approx(1 - np.mean(accuracy), abs=1e-9)
    assert estimate.details["pairs"] == 2 * 3 * 45
    assert estimate.sem == pytest.approx(0.0)
    json.dumps(estimate.details)


def test_mixup_of_a_sample_agrees_with_the_whole():
    model = trained(m=300)
    whole = mixup.label_wise_mixup(model, KEY, draws=1, per_class=100).value
    found = [mixup.label_wise_mixup(model, jax.random.key(i)) for i in range(20)]
    errors = np.array([(e.value - whole) / e.sem for e in found])
    assert np.abs(errors).max() < 5
    assert abs(errors.mean()) < 1.5


def test_mixup_without_pairs():
    model = trained(m=3)
    with pytest.raises(ValueError, match="no two examples of one class"):
        mixup.label_wise_mixup(model, KEY)
