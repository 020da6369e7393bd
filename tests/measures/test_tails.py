"""The power-law fit on samples of known exponents, and alpha-hat against its definition."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from scipy import stats

from prunegen_jax.measures import tails
from prunegen_jax.types import NotApplicableError
from tests.support.kernel_cases import kernels_alone

KEY = jax.random.key(0)


def model(**kernels):
    return kernels_alone(kernels)


def pareto(alpha, size, seed=None):
    """A sample of p(x) ∝ x^{−alpha}, x ≥ 1; without a seed its quantiles, evenly spread."""
    u = (np.arange(size) + 0.5) / size if seed is None else np.random.default_rng(seed).uniform(size=size)
    return (1 - u) ** (-1 / (alpha - 1))


@pytest.mark.parametrize("alpha", [2.0, 2.5, 4.0])
def test_the_exponent_of_a_pareto_law(alpha):
    fit = tails.power_law(pareto(alpha, 400))
    assert fit["alpha"] == pytest.approx(alpha, rel=0.02)
    assert fit["alpha_sem"] == pytest.approx((alpha - 1) / np.sqrt(fit["tail"]), rel=0.02)


def test_the_standard_error_of_the_exponent():
    fits = [tails.power_law(pareto(2.5, 400, seed)) for seed in range(40)]
    errors = np.array([(fit["alpha"] - 2.5) / fit["alpha_sem"] for fit in fits])
    assert np.abs(errors).max() < 5.0
    assert abs(errors.mean()) < 1.0


def test_the_fit_finds_where_the_tail_begins():
    body = np.linspace(0.01, 1.0, 300)
    values = np.concatenate([body, 1.5 * pareto(3.0, 200)])
    fit = tails.power_law(values)
    assert 1.0 <= fit["smallest"] <= 2.5
    assert fit["alpha"] == pytest.approx(3.0, rel=0.1)


def test_the_fit_is_the_definition():
    values = np.random.default_rng(3).lognormal(size=30)
    fit = tails.power_law(values)
    candidates = []
    for x_min in np.sort(values)[:-1]:
        tail = np.sort(values[values >= x_min])
        alpha = 1 + len(tail) / np.log(tail / x_min).sum()
        empirical = np.arange(len(tail)) / len(tail)
        candidates.append((np.abs(1 - (tail / x_min) ** (1 - alpha) - empirical).max(), alpha, x_min))
    distance, alpha, x_min = min(candidates)
    assert fit["distance"] == pytest.approx(distance)
    assert fit["alpha"] == pytest.approx(alpha)
    assert fit["smallest"] == pytest.approx(x_min)
    with pytest.raises(ValueError, match="distinct positive"):
        tails.power_law(np.ones(5))


def diagonal(eigenvalues):
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.normal(size=(len(eigenvalues),) * 2))
    r, _ = np.linalg.qr(rng.normal(size=(len(eigenvalues),) * 2))
    return q @ np.diag(np.sqrt(eigenvalues)) @ r


def test_alpha_hat():
    first, second = 3.0 * pareto(2.5, 200), 0.7 * pareto(4.0, 120)
    estimate = tails.alpha_hat(model(a=diagonal(first), b=diagonal(second), narrow=np.eye(5)), KEY)
    expected = np.mean([tails.power_law(e)["alpha"] * np.log10(e.max()) for e in (first, second)])
    assert estimate.value == pytest.approx(expected, rel=1e-2)
    assert estimate.details["skipped"] == ["narrow/kernel"]
    assert estimate.details["layers"]["a/kernel"]["valid"] is True
    assert estimate.details["valid_share"] == 1.0
    json.dumps(estimate.details)


def test_the_spectrum_of_a_convolution():
    kernel = np.random.default_rng(1).normal(size=(3, 3, 4, 6))
    values = [np.linalg.svd(kernel[i, j], compute_uv=False) ** 2 for i in range(3) for j in range(3)]
    expected = np.sort(np.concatenate(values))
    assert tails.spectrum(kernel, "none") == pytest.approx(expected)
    assert tails.spectrum(kernel, "half") == pytest.approx(expected / 2)
    assert tails.spectrum(kernel, "receptive_field") == pytest.approx(expected * 9 / 2)
    assert tails.spectrum(kernel[0, 0], "receptive_field") == pytest.approx(np.sort(values[0]))


def test_three_ways_to_rescale_a_convolution():
    kernel = np.random.default_rng(2).normal(size=(3, 3, 8, 12))
    alpha = tails.power_law(tails.spectrum(kernel, "none"))["alpha"]
    largest = max(np.linalg.norm(kernel[i, j], 2) ** 2 for i in range(3) for j in range(3))
    expected = {"receptive_field": 4.5, "half": 0.5, "none": 1.0}
    expected = {way: alpha * np.log10(factor * largest) for way, factor in expected.items()}
    for way, value in expected.items():
        estimate = tails.alpha_hat(model(conv=kernel), KEY, rescale=way)
        assert estimate.value == pytest.approx(value, rel=1e-4)
        assert estimate.details["alpha_hat"] == pytest.approx(expected, rel=1e-4)
    assert tails.alpha_hat(model(conv=kernel), KEY).value == pytest.approx(expected["receptive_field"], rel=1e-4)
    with pytest.raises(ValueError, match=r"rescale=True.*half"):
        tails.alpha_hat(model(conv=kernel), KEY, rescale=True)


def test_small_eigenvalues_count_for_the_size_of_a_layer():
    few = diagonal(np.concatenate([np.full(4, 1e-9), pareto(2.0, 8)]))
    estimate = tails.alpha_hat(model(few=few, zero=np.zeros((12, 12)), conv=np.ones((3, 3, 1, 5))), KEY)
    assert list(estimate.details["layers"]) == ["few/kernel"]  # 12 of them, 8 above the threshold
    assert estimate.details["layers"]["few/kernel"]["tail"] <= 8
    assert estimate.details["skipped"] == ["conv/kernel", "zero/kernel"]


def test_a_fit_out_of_range_is_called_invalid():
    estimate = tails.alpha_hat(model(steep=diagonal(pareto(9.0, 200))), KEY)
    assert estimate.details["layers"]["steep/kernel"]["valid"] is False
    assert estimate.details["valid_share"] == 0.0


def test_a_network_of_narrow_layers_alone():
    estimate = tails.MEASURES["alpha_hat"](model(narrow=np.eye(5)), KEY)
    assert estimate.status == "not_applicable"
    assert "needs a kernel with 10 non-zero eigenvalues; narrow/kernel are too narrow" in estimate.reason


def test_sign():
    assert tails.MEASURES["alpha_hat"].sign == 1
    heavy, light = model(w=diagonal(3 * pareto(2.5, 100))), model(w=diagonal(3 * pareto(2.5, 100)) * 2)
    assert tails.alpha_hat(heavy, KEY).value < tails.alpha_hat(light, KEY).value


def test_hill_is_the_maximum_likelihood_of_the_upper_half():
    """Against SciPy's fit of a Pareto law whose scale is the eigenvalue below the upper half; layers averaged."""
    rng = np.random.default_rng(5)
    spectra = [pareto(2.5, 40, seed=1), rng.lognormal(size=31)]
    kernels = []
    for values in spectra:
        basis = [np.linalg.qr(rng.normal(size=(values.size, values.size)))[0] for _ in range(2)]
        kernels.append((basis[0] * np.sqrt(values)) @ basis[1])
    estimate = tails.pl_alpha_hill(model(first=kernels[0], second=kernels[1], narrow=np.ones((3, 3))), KEY)
    expected = []
    for values in map(np.sort, spectra):
        k = values.size // 2
        shape, _, _ = stats.pareto.fit(values[-k:], floc=0, fscale=values[-k - 1])
        expected.append(1 + shape)
    assert estimate.value == pytest.approx(np.mean(expected), rel=1e-3)
    assert len(estimate.details["layers"]) == 2
    exact = np.diag(np.sqrt(pareto(3.0, 400)))
    assert tails.pl_alpha_hill(model(only=exact), KEY).value == pytest.approx(3.0, rel=0.02)
    scaled = tails.pl_alpha_hill(model(only=7 * exact), KEY).value
    assert scaled == pytest.approx(tails.pl_alpha_hill(model(only=exact), KEY).value, rel=1e-4)
    with pytest.raises(NotApplicableError, match="needs a kernel with 10 non-zero eigenvalues"):
        tails.pl_alpha_hill(model(narrow=np.ones((3, 3))), KEY)
