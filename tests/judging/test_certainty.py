"""Do intervals cover, do nulls hold their rate: simulations with a known population value."""

import itertools
import math

import numpy as np
import pytest

from prunegen_jax.judging import baselines, grid, information, kendall, nulls, robustness, uncertainty

DRAWS = 200


def grid_codes(*levels):
    return np.array(list(itertools.product(*map(range, levels))))


def correlated(rng, n, rho):
    m = rng.normal(size=n)
    return m, rho * m + math.sqrt(1 - rho**2) * rng.normal(size=n)


@pytest.mark.parametrize(("n", "rho"), [(20, 0.5), (30, 0.5), (96, 0.0), (96, 0.8)])
def test_intervals_of_tau_cover(n, rho):
    """Of bivariate normal pairs tau is (2 / pi) arcsin rho."""
    rng, truth, covered = np.random.default_rng(0), 2 / math.pi * math.asin(rho), np.zeros(2)
    for draw in range(DRAWS):
        m, g = correlated(rng, n, rho)
        weights = uncertainty.bootstrap_weights(np.arange(n), draws=300, seed=draw)
        for kind, values in enumerate(kendall.weighted_tau(m, g, weights)):
            low, high = uncertainty.interval(values, level=0.95, count=n)
            covered[kind] += low <= truth <= high
    assert (covered >= 0.9 * DRAWS).all(), covered
    assert (covered <= 0.99 * DRAWS).all(), covered


@pytest.mark.parametrize(
    ("levels", "rho"), [((3, 3, 4), 0.5), ((2, 2, 2, 3, 2, 2), 0.5), ((4, 5, 2), 0.0), ((3, 3, 3), 0.8)]
)
def test_intervals_of_psi_cover(levels, rho):
    """Whatever the axes' own effects on neither: in every cell tau is (2 / pi) arcsin rho on average."""
    codes = grid_codes(*levels)
    n, axes = len(codes), tuple(map(str, range(len(levels))))
    pairs = tuple(grid.pairs_along(grid.Grid(axes, codes, np.arange(n), np.zeros(n, dtype=int))))
    rng, truth, covered = np.random.default_rng(1), 2 / math.pi * math.asin(rho), 0
    for draw in range(DRAWS):
        m, g = correlated(rng, n, rho)
        low, high = psi_interval(m, g, pairs, n, draw)
        covered += low <= truth <= high
    assert 0.9 * DRAWS <= covered <= 0.99 * DRAWS, covered


def psi_interval(m, g, pairs, n, seed):
    weights = uncertainty.bootstrap_weights(np.arange(n), draws=300, seed=seed)
    terms = kendall.granulated_terms(m, g, pairs)
    variance = uncertainty.pair_variance(terms.first, terms.second, terms.residual, np.arange(n))
    draws = kendall.weighted_granulated(m, g, pairs, weights)
    value = kendall.granulated(m, g, pairs).value
    return uncertainty.interval(uncertainty.rescaled(draws, value, variance), level=0.95, count=n)


def test_a_random_measure_is_called_significant_at_the_stated_rate():
    """And its bias-corrected K is zero on average. The null of a target serves every measure without ties."""
    codes = grid_codes(3, 3, 3)
    given, rng = information.conditions(codes), np.random.default_rng(2)
    calls, corrected = [], []
    for _ in range(4):
        target = codes @ [1, 0.5, 0] + rng.normal(size=27)
        null = nulls.nulls_of_k_and_pgdl(np.arange(27.0), target, given, permutations=399, seed=1)["k"]
        for _ in range(250):
            k = information.information(rng.normal(size=27), target, given).minimum[0]
            calls.append(null.p_value(k) <= 0.05)
            corrected.append(null.corrected(k))
    assert 0.03 <= np.mean(calls) <= 0.07
    error = np.std(corrected) / math.sqrt(len(corrected)) * math.sqrt(1 + 1000 / (4 * 399))
    assert abs(np.mean(corrected)) <= 3 * error
    # what the correction removes is not small
    assert null.bias > 10 * error


def test_the_null_is_that_of_permuting_the_measure_itself():
    """Measures with one pattern of ties share the distribution, whatever their values."""
    rng, codes = np.random.default_rng(3), grid_codes(3, 2, 2)
    given, m = information.conditions(codes), np.round(rng.normal(size=12))
    g = rng.normal(size=12)
    null = nulls.nulls_of_k_and_pgdl(m, g, given, permutations=600, seed=0)["k"]
    own = [information.information(rng.permutation(m), g, given).minimum[0] for _ in range(600)]
    error = math.hypot(np.std(own), np.std(null.draws)) / math.sqrt(600)
    assert abs(null.bias - np.mean(own)) <= 4 * error
    assert nulls.tie_pattern(np.array([3.0, 1, 1, 2])) == nulls.tie_pattern(np.array([5.0, 9, 7, 5]))
    assert nulls.tie_pattern(np.array([3.0, 1, 1, 2])) != nulls.tie_pattern(np.array([3.0, 1, 4, 2]))


def test_a_perfect_measure_stays_perfect():
    codes, g = grid_codes(3, 3), np.random.default_rng(4).normal(size=9)
    null = nulls.nulls_of_k_and_pgdl(g, g, information.conditions(codes), permutations=99, seed=0)["k"]
    assert null.corrected(1.0) == 1
    assert null.p_value(1.0) == pytest.approx(0.01)


def test_pair_variance_is_unbiased():
    """Against the variance over many samples, where cells are as small as they get: two models."""
    codes = grid_codes(2, 2, 2, 2, 2)
    n = len(codes)
    pairs = tuple(grid.pairs_along(grid.Grid(tuple("abcde"), codes, np.arange(n), np.zeros(n, dtype=int))))
    rng, values, variances = np.random.default_rng(5), [], []
    for _ in range(1500):
        m, g = correlated(rng, n, 0.5)
        values.append(kendall.granulated(m, g, pairs).value)
        variances.append(uncertainty.pair_variance(*vars(kendall.granulated_terms(m, g, pairs)).values(), np.arange(n)))
    assert np.mean(variances) == pytest.approx(np.var(values), rel=0.12)


def test_weights():
    configurations = np.array([0, 0, 2, 1, 2])
    w = uncertainty.bootstrap_weights(configurations, draws=4000, seed=0)
    np.testing.assert_array_equal(w[:, 0], w[:, 1])
    np.testing.assert_array_equal(w[:, 2], w[:, 4])
    np.testing.assert_allclose(w[:, [0, 2, 3]].mean(axis=1), 1)
    assert (w > 0).all()
    # Dirichlet(1, 1, 1) times 3 has variance (3 - 1) / (3 + 1)
    assert w[:, 0].var() == pytest.approx(0.5, rel=0.1)
    np.testing.assert_array_equal(w, uncertainty.bootstrap_weights(configurations, draws=4000, seed=0))
    assert not np.array_equal(w, uncertainty.bootstrap_weights(configurations, draws=4000, seed=1))


def test_holm():
    """The textbook example: 0.01, 0.04, 0.03, 0.005 become 0.03, 0.06, 0.06, 0.02."""
    np.testing.assert_allclose(uncertainty.holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(uncertainty.holm(np.array([0.5, np.nan, 0.9])), [1.0, np.nan, 1.0])


def test_bad_options():
    with pytest.raises(ValueError, match=r"level is 95"):
        uncertainty.interval(np.arange(5.0), level=95)
    with pytest.raises(ValueError, match="draws is 0"):
        uncertainty.bootstrap_weights(np.arange(3), draws=0, seed=0)
    with pytest.raises(ValueError, match="choose 'auto', 'configurations' or 'values'"):
        robustness.design(grid.Grid((), np.zeros((2, 0), int), np.zeros(2, int), np.arange(2)), environments="axes")


def test_ceiling():
    """Without noise everything can be known, drowned in noise nothing; in between tau of a normal pair."""
    rng = np.random.default_rng(6)
    truth = rng.normal(size=2000)
    observed = truth + 0.75 * rng.normal(size=2000)
    assert baselines.ceiling(observed, 0.0, draws=2, seed=0).mean() == pytest.approx(1)
    assert baselines.ceiling(observed, 100.0, draws=2, seed=0).mean() == 0
    expected = 2 / math.pi * math.asin(1 / math.hypot(1, 0.75))
    assert baselines.ceiling(observed, 0.75, draws=20, seed=0).mean() == pytest.approx(expected, abs=0.02)


def test_noise_levels():
    """Repeats of known spread, and a binomial test set."""
    rng = np.random.default_rng(7)
    configurations = np.repeat(np.arange(2000), 4)
    error = np.full(8000, 0.2)
    target = np.repeat(rng.normal(size=2000), 4) + 0.03 * rng.normal(size=8000)
    found = baselines.noise_levels(target, error, configurations, test_size=1000)
    sampling = 0.2 * 0.8 / 1000
    assert found["seeds"] == pytest.approx(0.03 / 2, rel=0.03)
    assert found["test set"] == pytest.approx(math.sqrt(sampling))
    assert found["both"] == pytest.approx(math.sqrt(sampling + (0.03**2 - sampling) / 4), rel=0.03)
    assert baselines.noise_levels(target, None, np.arange(8000), test_size=1000) == {}
