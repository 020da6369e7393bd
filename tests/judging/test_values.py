"""Linear fits against SciPy's, invariances, and what makes two values equal."""

import itertools
import math
import warnings

import numpy as np
import pytest
import scipy.stats

from prunegen_jax.judging import Table, grid, information, kendall, pgdl, regression
from tests.support.grids import pairs_of


def test_adjusted_r2_is_least_squares():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)), rng.normal(size=30)
    y += x @ [1, 0.5, 0, 0]
    design = np.column_stack([np.ones(30), x])
    residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    r2 = 1 - (residual @ residual) / ((y - y.mean()) @ (y - y.mean()))
    assert regression.adjusted_r2(x, y) == pytest.approx(1 - (1 - r2) * 29 / 25, abs=1e-12)
    single = scipy.stats.linregress(x[:, 0], y).rvalue ** 2
    assert regression.adjusted_r2(x[:, 0], y) == pytest.approx(1 - (1 - single) * 29 / 28, abs=1e-12)
    # integer weights are repeated rows, up to the n of the adjustment
    w = rng.integers(1, 4, size=30)
    repeated = scipy.stats.linregress(np.repeat(x[:, 0], w), np.repeat(y, w)).rvalue ** 2
    found = regression.weighted_adjusted_r2(x[:, 0], y, w[None].astype(float))[0]
    assert found == pytest.approx(1 - (1 - repeated) * 29 / 28, abs=1e-12)


def test_r2_of_extremes():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=20), rng.normal(size=20)
    for scale, shift in ((1e-200, 0), (1e200, 0), (1, 1e6)):
        assert regression.adjusted_r2(x * scale + shift, y) == pytest.approx(regression.adjusted_r2(x, y), abs=1e-8)
    assert math.isnan(regression.adjusted_r2(x[:2], y[:2]))
    assert math.isnan(regression.adjusted_r2(x, np.ones(20)))
    assert math.isnan(regression.adjusted_r2(regression.logarithm(-np.abs(x)), y))


def test_k_fold_r2_is_the_loop():
    rng = np.random.default_rng(2)
    x = rng.normal(size=25)
    y = x + rng.normal(size=25)
    # one model per fold needs no knowledge of the split
    residual = spread = 0.0
    for i in range(25):
        rest = np.arange(25) != i
        fit = scipy.stats.linregress(x[rest], y[rest])
        residual += (y[i] - fit.intercept - fit.slope * x[i]) ** 2
        spread += (y[i] - y[rest].mean()) ** 2
    assert regression.k_fold_r2(x, y, folds=25) == pytest.approx(1 - residual / spread, abs=1e-12)
    assert regression.k_fold_r2(x, 3 * x + 1) == pytest.approx(1)
    assert math.isnan(regression.k_fold_r2(x[:5], y[:5]))


@pytest.mark.parametrize("n", [2, 3, 20, 100, 101, 500])  # all pairs are compared up to 100
def test_scipy_agrees(n):
    rng = np.random.default_rng(3)
    m, g = rng.integers(0, max(n // 10, 5), size=(2, n)).astype(float)
    assert kendall.tau(m, g) == pytest.approx(scipy.stats.kendalltau(m, g).statistic, abs=1e-12)
    assert kendall.spearman(m, g) == pytest.approx(scipy.stats.spearmanr(m, g).statistic, abs=1e-12)
    assert kendall.p_value(m, g) == pytest.approx(scipy.stats.kendalltau(m, g).pvalue, rel=1e-9)


def test_invariance():
    """Ranks do not change under increasing maps, nor any statistic under a permutation of the models."""
    rng = np.random.default_rng(4)
    codes = np.array(list(itertools.product(range(3), range(3), range(2))))
    m, g = rng.normal(size=(2, 18))
    shuffle = rng.permutation(18)

    def everything(codes, m, g):
        found = information.information(m, g, information.conditions(codes))
        psi = kendall.granulated(m, g, pairs_of(codes))
        return [kendall.tau(m, g), psi.value, *psi.per_axis, *found.normalised, pgdl.pgdl_score(m, g, codes)[0]]

    base = everything(codes, m, g)
    np.testing.assert_allclose(everything(codes, np.exp(m), g**3), base, atol=1e-12)
    np.testing.assert_allclose(everything(codes[shuffle], m[shuffle], g[shuffle]), base, atol=1e-12)


def test_floats_of_one_level_are_equal():
    values = np.array([0.1 + 0.2, 0.3, 0.30000001, -0.0, 0.0, np.inf])
    np.testing.assert_array_equal(grid.encode(values), [1, 1, 2, 0, 0, 3])


def test_means_break_no_ties():
    """The same three values in another order are the same mean."""
    table = Table(
        names=tuple("abcdef"),
        hyperparameters={"w": np.array([1.0, 1, 1, 2, 2, 2]), "seed": np.array([0.0, 1, 2, 0, 1, 2])},
        measures={"m": np.array([0.1, 0.7, 0.3, 0.7, 0.3, 0.1])},
        targets={"gap": np.array([1.0, 2, np.nan, 3, 4, 5])},
    )
    g, _ = grid.grid_of(table)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        short, _, notes = grid.average(table, g)
    assert short.measures["m"][0] == short.measures["m"][1] == pytest.approx(1.1 / 3)
    np.testing.assert_allclose(short.targets["gap"], [1.5, 4])
    assert any("gap is averaged over the repeats that have it in 1" in note for note in notes)


def test_the_mean_of_numbers_near_the_largest_is_finite():
    huge = np.array([1.5e308, 1.7e308, -1.6e308, -1.4e308, 1.0, 3.0])
    mean, partial = grid._mean(huge, np.array([0, 0, 1, 1, 2, 2]), 3)
    np.testing.assert_allclose(mean[:2], [1.6e308, -1.5e308], rtol=1e-12)
    assert partial == 0
