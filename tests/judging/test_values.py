"""Golden values, official scores, and the statistics against direct loops written from their definitions."""

import itertools
import math
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from prunegen_jax.judging import grid, information, kendall, nulls, pgdl, regression, robustness
from prunegen_jax.judging.table import Table
from prunegen_jax.runs.tables import read_csv, read_pgdl

CODES = np.array(list(itertools.product(range(2), range(3), range(2))))
MEASURE = np.array([3, 1, 4, 1.5, 5, 9, 2, 6, 5.5, 3.5, 8, 7])
TARGET = np.array([2, 7, 1, 8, 2.5, 8.5, 1.8, 2.8, 4.5, 9.5, 4.2, 3.3])


def make_grid(codes, repeats=None):
    axes = tuple(f"a{i}" for i in range(codes.shape[1]))
    repeats = np.zeros(len(codes), dtype=np.int64) if repeats is None else repeats
    return grid.Grid(axes, codes, grid.combine(codes), repeats)


def pairs_of(codes, repeats=None):
    return tuple(grid.pairs_along(make_grid(codes, repeats)))


@pytest.fixture
def fixtures():
    shared = os.environ.get("PRUNEGEN_SHARED")
    if not shared:
        pytest.skip("PRUNEGEN_SHARED is not set: the PGDL fixtures are not here")
    return Path(shared) / "fixtures"


# golden values


def test_tau_with_ties():
    m, g = np.array([1.0, 2, 2, 3, 5]), np.array([1.0, 3, 2, 2, 4])
    assert kendall.tau(m, g, kind="a") == pytest.approx(0.6, abs=1e-12)
    assert kendall.tau(m, g) == pytest.approx(2 / 3, abs=1e-12)
    assert kendall.tau(np.ones(5), g, kind="a") == 0
    assert math.isnan(kendall.tau(np.ones(5), g))


def test_granulated():
    found = kendall.granulated(MEASURE, TARGET, pairs_of(CODES))
    assert kendall.tau(MEASURE, TARGET, kind="a") == pytest.approx(0.1515152, abs=1e-7)
    np.testing.assert_allclose(found.per_axis, [0.6666667, 0.3333333, 0], atol=1e-7)
    assert found.value == pytest.approx(1 / 3, abs=1e-12)


def test_conditional_information():
    given_sets = information.conditions(CODES)
    found = information.information(MEASURE, TARGET, given_sets)
    expected = {(): 0.016624, (0,): 0.020328, (1,): 0.166294, (2,): 0.087686}
    expected |= {(0, 1): 0.353192, (0, 2): 0.219710, (1, 2): 0.365262}
    for place, axes in enumerate(given_sets.sets):
        assert found.normalised[place] == pytest.approx(expected[axes], abs=5e-7), axes
    assert found.minimum == (pytest.approx(0.016624, abs=5e-7), 0)
    assert found.pairs == 12 * 11
    assert pgdl.pgdl_score(MEASURE, TARGET, CODES)[0] == pytest.approx(0.244629, abs=5e-7)


def test_information_does_not_see_the_sign():
    assert information.information(-TARGET, TARGET, information.conditions(CODES)).minimum[0] == pytest.approx(1)


def test_shared_and_added_information():
    other, given_sets = np.arange(1, 13.0), information.conditions(CODES)
    assert information.information(MEASURE, other, given_sets).shared[0] == pytest.approx(0.154649, abs=5e-7)
    added = information.information(MEASURE, TARGET, given_sets, third=other)
    assert added.shared[0] == pytest.approx(0.002867, abs=5e-7)
    assert added.normalised[0] == pytest.approx(0.002964, abs=5e-7)


def test_noise_weight():
    n = 10_000
    for difference, weight in ((0.015, 0.123), (0.02, 0.532), (0.03, 0.956)):
        expected = max(0.0, weight - 0.5)
        assert robustness.noise_weight(difference, n) == pytest.approx(expected, abs=6e-4)
    assert robustness.noise_weight(0.0195, n) == 0 < robustness.noise_weight(0.0197, n)


# official scores


def test_pgdl_toy(fixtures):
    table = read_pgdl(fixtures / "pgdl_toy" / "model_configs.json", [fixtures / "pgdl_toy" / "toy_data.predict"])
    codes, gap, m = grid.grid_of(table)[0].codes, table.targets["gap"], table.measures["toy_data"]
    score, by_pair = pgdl.pgdl_score(m, gap, codes)
    assert score == pytest.approx(0.084688660797506, abs=1e-10)
    assert by_pair[0, 1] == pytest.approx(0.4045890611, abs=1e-10)
    assert by_pair[0, 2] == pytest.approx(0.1403961007, abs=1e-10)
    assert by_pair[1, 2] == pytest.approx(0.0846886608, abs=1e-10)
    assert pgdl.pgdl_score(-m, gap, codes)[0] == pytest.approx(0.0699163876782591, abs=1e-10)
    assert pgdl.pgdl_score(np.ones(18), gap, codes)[0] == 0
    assert pgdl.pgdl_score(gap, gap, codes)[0] == pytest.approx(1.000000000003, abs=1e-12)


def test_pgdl_task(fixtures):
    table = read_csv(fixtures / "pgdl_task1.csv")
    g, _ = grid.grid_of(table)
    gap, pairs = table.targets["gap"], tuple(grid.pairs_along(g))
    expected = {  # official score, tau-b, adjusted R2, Psi
        "VR": (0.093162888051, 0.544298, 0.4811, 0.4792),
        "WCV": (0.277451042877, 0.785526, 0.8022, 0.5451),
        "VPM_1": (0.060700993773, 0.500439, 0.4258, 0.3958),
        "VPM_80": (0.056105256539, 0.503509, 0.4569, 0.4097),
    }
    assert set(table.measures) == set(expected)
    for name, (score, tau, r2, psi) in expected.items():
        m = table.measures[name]
        assert pgdl.pgdl_score(m, gap, g.codes)[0] == pytest.approx(score, abs=1e-10)
        assert kendall.tau(m, gap) == pytest.approx(tau, abs=5e-7)
        assert regression.adjusted_r2(m, gap) == pytest.approx(r2, abs=5e-5)
        assert kendall.granulated(m, gap, pairs).value == pytest.approx(psi, abs=5e-5)


def test_pgdl_random(fixtures):
    table = read_csv(fixtures / "pgdl_task1.csv")
    g, _ = grid.grid_of(table)
    given_sets, scored = information.conditions(g.codes), pgdl.pgdl_conditions(g.codes)
    m, gap = table.measures["VR"], table.targets["gap"]
    null = nulls.nulls_of_k_and_pgdl(m, gap, given_sets, permutations=300, seed=0, pgdl=scored)["pgdl"]
    assert null.bias == pytest.approx(0.0039, abs=1e-3)
    assert null.limit == pytest.approx(0.0087, abs=3e-3)


# against loops


@st.composite
def tables(draw):
    """Random sweeps with ties, missing cells, missing values, infinities and repeats."""
    levels = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    points = list(itertools.product(*map(range, levels)))
    rows = draw(st.lists(st.sampled_from(points), min_size=2, max_size=14))
    value = st.one_of(st.integers(0, 4).map(float), st.sampled_from([math.nan, math.inf, -math.inf]))
    m = draw(st.lists(value, min_size=len(rows), max_size=len(rows)))
    g = draw(st.lists(st.integers(0, 5).map(float), min_size=len(rows), max_size=len(rows)))
    third = draw(st.lists(st.integers(0, 3).map(float), min_size=len(rows), max_size=len(rows)))
    return np.array(rows), np.array(m), np.array(g), np.array(third)


def number_repeats(rows):
    seen, numbers = {}, []
    for row in map(tuple, rows.tolist()):
        seen[row] = seen.get(row, -1) + 1
        numbers.append(seen[row])
    return np.array(numbers)


def sgn(a, b):
    return int(a > b) - int(a < b)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(tables())
def test_tau_is_the_loop(data):
    _, m, g, _ = data
    known = [i for i in range(len(m)) if not math.isnan(m[i])]
    total = both = left = right = 0
    for i, j in itertools.permutations(known, 2):
        total += 1
        both += sgn(m[i], m[j]) * sgn(g[i], g[j])
        left += m[i] != m[j]
        right += g[i] != g[j]
    expected = (both / total if total else math.nan, both / math.sqrt(left * right) if left and right else math.nan)
    weighted = kendall.weighted_tau(m, g, np.ones((1, len(m)))) if total else ([math.nan], [math.nan])
    for kind, value, draws in zip("ab", expected, weighted, strict=True):
        assert kendall.tau(m, g, kind=kind) == pytest.approx(value, abs=1e-12, nan_ok=True)
        assert draws[0] == pytest.approx(value, abs=1e-12, nan_ok=True)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(tables())
def test_psi_is_the_loop(data):
    rows, m, g, _ = data
    repeats = number_repeats(rows)
    psis = []
    for axis in range(rows.shape[1]):
        cells = {}
        for i, row in enumerate(rows.tolist()):
            if not math.isnan(m[i]):
                cells.setdefault((tuple(row[:axis] + row[axis + 1 :]), repeats[i]), []).append(i)
        taus = []
        for cell in cells.values():
            if len(cell) > 1:
                signs = [sgn(m[i], m[j]) * sgn(g[i], g[j]) for i, j in itertools.combinations(cell, 2)]
                taus.append(sum(signs) / len(signs))
        psis.append(sum(taus) / len(taus) if taus else math.nan)
    pairs = pairs_of(rows, repeats)
    found = kendall.granulated(m, g, pairs)
    np.testing.assert_allclose(found.per_axis, psis, atol=1e-12)
    defined = [p for p in psis if not math.isnan(p)]
    expected = sum(defined) / len(defined) if defined else math.nan
    assert found.value == pytest.approx(expected, abs=1e-12, nan_ok=True)
    draws = kendall.weighted_granulated(m, g, pairs, np.ones((1, len(m))))
    assert draws[0] == pytest.approx(expected, abs=1e-12, nan_ok=True)


def information_by_loop(rows, axes, first, second, third):
    """I(V_1; V_2 | V_3, U_S), H(V_1 | ...), H(V_2 | ...) in bits, pair by pair; pairs with any tie are dropped."""
    cells = {}
    for i, j in itertools.permutations(range(len(first)), 2):
        values = (first, second) if third is None else (first, second, third)
        if any(math.isnan(v[i]) or math.isnan(v[j]) or v[i] == v[j] for v in values):
            continue
        key = tuple(rows[i][a] for a in axes), tuple(rows[j][a] for a in axes)
        key += () if third is None else (third[i] > third[j],)
        cells.setdefault(key, []).append((first[i] > first[j], second[i] > second[j]))
    n = sum(map(len, cells.values()))
    totals = np.zeros(3)
    for cell in cells.values():
        joint = {ab: cell.count(ab) / len(cell) for ab in set(cell)}
        one = {a: sum(p for ab, p in joint.items() if ab[0] == a) for a in (True, False)}
        two = {b: sum(p for ab, p in joint.items() if ab[1] == b) for b in (True, False)}
        shared = sum(p * math.log2(p / (one[a] * two[b])) for (a, b), p in joint.items())
        entropies = [-sum(p * math.log2(p) for p in q.values() if p) for q in (one, two)]
        totals += len(cell) / n * np.array([shared, *entropies])
    return totals if n else np.full(3, math.nan)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(tables(), st.booleans(), st.booleans())
def test_information_is_the_loop(data, with_third, untied):
    rows, m, g, third = data
    if untied:  # where nothing is tied fewer pairs are counted
        m, g = np.where(np.isfinite(m), m, 0.5) + np.arange(len(m)) / 100, g + np.arange(len(g))[::-1] / 100
    third = third if with_third else None
    given_sets = information.conditions(rows)
    found = information.information(m, g, given_sets, third=third)
    for place, axes in enumerate(given_sets.sets):
        expected = information_by_loop(rows.tolist(), axes, m, g, third)
        got = [found.shared[place], found.entropy_first[place], found.entropy_second[place]]
        np.testing.assert_allclose(got, expected, atol=1e-12)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(tables(), st.sampled_from(["configurations", "values"]), st.sampled_from([None, 50]))
def test_sign_error_is_the_loop(data, kind, test_size):
    rows, m, g, _ = data
    g = g / 5
    losses = {}
    for (i, a), (j, b) in itertools.permutations(enumerate(rows.tolist()), 2):
        differ = [x for x in range(len(a)) if a[x] != b[x]]
        if len(differ) != 1 or math.isnan(m[i]) or math.isnan(m[j]):
            continue
        key = (tuple(a), tuple(b)) if kind == "configurations" else (differ[0], a[differ[0]], b[differ[0]])
        phi = 0.0 if test_size is None else 2 * math.exp(-2 * test_size * (abs(g[i] - g[j]) / 2) ** 2)
        weight = 1.0 if test_size is None else max(0.0, max(0.0, 1 - phi) ** 2 - 0.5)
        losses.setdefault(key, []).append((weight, (1 - sgn(m[i], m[j]) * sgn(g[i], g[j])) / 2))
    kept = []
    for pairs in losses.values():
        total, squares = sum(w for w, _ in pairs), sum(w * w for w, _ in pairs)
        if total > 0 and total**2 / squares >= 2 * (1 - 1e-12):
            kept.append(sum(w * e for w, e in pairs) / total)
    plan = robustness.design(make_grid(rows, number_repeats(rows)), environments=kind)
    found = robustness.sign_error(m, g, plan, axes=rows.shape[1], test_size=test_size, minimum=2)
    assert 2 * found.kept == len(kept)
    if kept:
        expected = (np.mean(kept), np.quantile(kept, 0.9), max(kept))
        np.testing.assert_allclose((found.mean, found.percentile, found.worst), expected, atol=1e-12)


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


def test_scipy_agrees_on_many_models():
    rng = np.random.default_rng(3)
    m, g = rng.integers(0, 50, size=(2, 500)).astype(float)
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
