"""Standard errors against the spread over repetitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.signal
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


def autoregressive(random, chains, steps, slope):
    """Chains of x' = φ x + ξ from their stationary law, of mean 0 and variance 1 / (1 − φ²)."""
    noise = random.normal(size=(chains, steps))
    noise[:, 0] /= math.sqrt(1 - slope**2)
    return scipy.signal.lfilter([1], [1, -slope], noise, axis=1)


@pytest.mark.parametrize(("slope", "steps"), [(0.0, 200), (0.9, 500), (0.98, 500), (-0.5, 200)])
def test_standard_errors_of_chains(slope, steps):
    """Of x' = φ x + ξ: (1 + φ) / (1 − φ) steps count as one, and 1.96 standard errors cover the mean."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(300):
        chains = autoregressive(random, 4, steps, slope)
        found.append((chains.mean(), *sampling.chains_standard_error(chains)))
    means, errors, effective = np.array(found).T
    assert np.mean(np.abs(means) <= 1.96 * errors) > 0.92
    assert 0.95 < np.mean(errors) / means.std() < 1.8  # 1.7 where steps alternate, which counts for nothing
    expected = 4 * steps * min(1.0, (1 - slope) / (1 + slope))
    assert np.median(effective) == pytest.approx(expected, rel=0.3)


def test_chains_that_do_not_agree():
    """R̂ by hand, near 1 for one law, and large for chains about other means and for chains that drift."""
    four = np.array([[1.0, 2.0, 3.0, 5.0], [0.0, 4.0, 2.0, 2.0]])
    within = np.mean([0.5, 2.0, 8.0, 0.0])
    assert sampling.split_r_hat(four) == pytest.approx(math.sqrt(0.5 + np.var([1.5, 4, 2, 2], ddof=1) / within))
    noise = np.random.default_rng(0).normal(size=(4, 500))
    assert sampling.split_r_hat(noise) == pytest.approx(1, abs=0.01)
    apart, drifting = noise + np.array([[0.0], [0.0], [0.0], [2.0]]), noise + np.linspace(0, 3, 500)
    assert min(map(sampling.split_r_hat, (apart, drifting))) > 1.2
    assert sampling.chains_standard_error(apart)[0] > 0.4  # that of four means of which one is 2
    assert sampling.split_r_hat(np.zeros((2, 8))) == math.inf
    assert sampling.chains_standard_error(np.zeros((2, 8))) == (0.0, 16.0)
