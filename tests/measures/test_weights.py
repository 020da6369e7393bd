"""The final transform, and what is remembered of a model."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest

from prunegen_jax.measures import margins, weights
from prunegen_jax.types import Dataset, TrainedModel


def model(scale=1.0):
    logits = jnp.asarray([[float(i + 1), 0.0] for i in range(10)])
    data = Dataset(logits[:, None, None, :], jnp.zeros(10, jnp.int32))
    return TrainedModel(lambda p, x: x[:, 0, 0, :] * p, jnp.float32(scale), data)


def test_a_changed_copy_of_a_model_remembers_nothing():
    first = model()
    assert margins.tenth_percentile(first) == pytest.approx(1.0)
    assert margins.tenth_percentile(dataclasses.replace(first, params=jnp.float32(3.0))) == pytest.approx(3.0)
    assert margins.tenth_percentile(first) == pytest.approx(1.0)


def test_a_result_is_computed_once():
    calls = []
    owner = model()
    for _ in range(2):
        assert weights.remembered(owner, "name", lambda: calls.append(0) or len(calls)) == 1
    assert weights.remembered(owner, "other", lambda: calls.append(0) or len(calls)) == 2


def test_transforms_at_the_edges():
    def value(normalize, **given):
        return weights.quantity(size=4, normalize=normalize, **given).value

    assert value("raw", log_value=1000.0) == math.inf
    assert value("sqrt_m", log_value=1000.0) == pytest.approx(math.exp(500.0) / 2)
    assert value("log", value=0.0) == -math.inf
    assert value("log_sqrt_m", value=0.0) == -math.inf
    assert value("sqrt_m", value=0.0) == 0.0
    assert value("raw", value=math.inf) == math.inf
    assert value("raw", value=1000003.0) == 1000003.0  # not by way of its logarithm, which is off by an ulp or more
    assert weights.quantity(size=4, normalize="raw", value=math.nan).status == "failed"


def test_folded_weights_are_a_choice():
    folded = model(2.0)
    whole = dataclasses.replace(model(), folded=folded)
    assert weights.measured(whole, True) is folded
    assert weights.measured(whole, False) is whole
    assert weights.measured(folded, True) is folded
    assert jax.tree.leaves(weights.measured(whole, True).params)[0] == 2.0
