"""The statistics against direct loops written from their definitions."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunegen_jax.judging import information, kendall, robustness
from tests.support.grids import make_grid, pairs_of


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
