"""Golden values, and the official scores of the PGDL competition."""

import itertools
import math
import os
from pathlib import Path

import numpy as np
import pytest

from prunegen_jax.judging import grid, information, kendall, nulls, pgdl, regression, robustness
from prunegen_jax.runs.tables import read_csv, read_pgdl
from tests.support.grids import pairs_of

CODES = np.array(list(itertools.product(range(2), range(3), range(2))))

MEASURE = np.array([3, 1, 4, 1.5, 5, 9, 2, 6, 5.5, 3.5, 8, 7])

TARGET = np.array([2, 7, 1, 8, 2.5, 8.5, 1.8, 2.8, 4.5, 9.5, 4.2, 3.3])


@pytest.fixture
def fixtures():
    shared = os.environ.get("PRUNEGEN_SHARED")
    if not shared:
        pytest.skip("PRUNEGEN_SHARED is not set: the PGDL fixtures are not here")
    return Path(shared) / "fixtures"


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
