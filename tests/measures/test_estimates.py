"""The transforms of the option `normalize`."""

from __future__ import annotations

import math

import pytest

from prunegen_jax.measures import estimates


def test_transforms_at_the_edges():
    def value(normalize, **given):
        return estimates.normalized_estimate(size=4, normalize=normalize, **given).value

    assert value("raw", log_value=1000.0) == math.inf
    assert value("sqrt_m", log_value=1000.0) == pytest.approx(math.exp(500.0) / 2)
    assert value("log", value=0.0) == -math.inf
    assert value("log_sqrt_m", value=0.0) == -math.inf
    assert value("sqrt_m", value=0.0) == 0.0
    assert value("raw", value=math.inf) == math.inf
    assert value("raw", value=1000003.0) == 1000003.0  # not by way of its logarithm, which is off by an ulp or more
    assert estimates.normalized_estimate(size=4, normalize="raw", value=math.nan).status == "failed"
