"""Standard errors against the spread over repetitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from prunegen_jax.compute import sampling


@pytest.mark.parametrize(
    ("law", "count", "before", "after"),
    [("normal", 32, 0.95, 0.95), ("chi2", 32, 0.90, 0.93), ("lognormal", 32, 0.86, 0.89), ("normal", 4, 0.85, 0.95)],
)
def test_the_widened_standard_error_covers_more_often(law, count, before, after):
    """Within 1.96 standard errors in 95 % of repetitions; less often for skewed samples, but more than unwidened."""
    random = np.random.default_rng(1)
    draws = {
        "normal": lambda: random.normal(size=count),
        "chi2": lambda: random.normal(size=count) ** 2 - 1,
        "lognormal": lambda: np.exp(random.normal(size=count)) - math.exp(0.5),
    }
    samples = [draws[law]() for _ in range(600)]
    plain, wide = (
        np.mean([abs(x.mean()) <= 1.96 * error(x) for x in samples])
        for error in (sampling.standard_error, sampling.skewed_standard_error)
    )
    assert plain < 0.96
    assert plain == pytest.approx(before, abs=0.03)
    assert after - 0.02 < wide < 0.985


def test_few_and_equal_samples():
    """Two samples differ in half of the resamples: Student's t decides."""
    assert sampling.skewed_standard_error(np.array([1.0])) is None
    assert sampling.skewed_standard_error(np.array([2.0, 2.0])) == 0.0
    widened = sampling.skewed_standard_error(np.array([0.0, 1.0]))
    assert widened == pytest.approx(0.5 * scipy.stats.t.ppf(0.975, 1) / 1.96)
