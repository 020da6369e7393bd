"""Results kept with a model."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import pytest

from prunegen_jax.measures import cache, margins
from tests.support.margin_cases import model


def test_a_changed_copy_of_a_model_has_nothing_cached():
    first = model()
    assert margins.tenth_percentile(first) == pytest.approx(1.0)
    assert margins.tenth_percentile(dataclasses.replace(first, params=jnp.float32(3.0))) == pytest.approx(3.0)
    assert margins.tenth_percentile(first) == pytest.approx(1.0)


def test_a_result_is_computed_once():
    calls = []
    owner = model()
    for _ in range(2):
        assert cache.cached(owner, "name", lambda: calls.append(0) or len(calls)) == 1
    assert cache.cached(owner, "other", lambda: calls.append(0) or len(calls)) == 2
