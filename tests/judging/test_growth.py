"""Slopes along one hyperparameter, against values known by construction."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from prunegen_jax.judging import Table
from prunegen_jax.judging.growth import growth_rows


def table(measure, gap, *, widths=(8, 16, 64), others=(0, 1, 2, 3), seeds=(0, 1)):
    points = np.array(list(itertools.product(widths, others, seeds)), float)
    names = ("model.width", "lr", "seed")
    return Table(
        names=tuple(map(str, range(len(points)))),
        hyperparameters={name: points[:, i] for i, name in enumerate(names)},
        measures={"m": measure(*points.T)},
        targets={"gap": gap(*points.T)},
    )


def test_slopes_within_cells_do_not_see_the_other_hyperparameters():
    """A measure that rises by 2 a doubling, whatever the learning rate adds; a gap that falls by 0.1."""
    rows = growth_rows(
        table(lambda w, r, s: 2 * np.log2(w) + 50 * r + s, lambda w, r, s: 0.3 * r - 0.1 * np.log2(w)), "model.width"
    )
    by_name = {row["name"]: row for row in rows}
    m = np.array([2 * x + 50 * r for x in (3, 4, 6) for r in range(4)])
    assert by_name["m"]["slope"] == pytest.approx(2 / m.std())
    assert by_name["gap"]["slope"] < 0 and by_name["gap"]["rises"] == 0 and by_name["m"]["rises"] == 1
    for row in rows:
        assert row["cells"] == 4
        assert row["low"] == pytest.approx(row["slope"]) == pytest.approx(row["high"])  # all cells agree


def test_unbalanced_cells_are_fitted_by_least_squares():
    rng = np.random.default_rng(0)
    whole = table(lambda w, r, s: rng.normal(size=len(w)), lambda w, r, s: rng.normal(size=len(w)), seeds=(0,))
    part = whole.take(np.array([0, 1, 2, 4, 5, 6, 7, 8, 11]))
    x, y, cells = np.log2(part.hyperparameters["model.width"]), part.measures["m"], part.hyperparameters["lr"]
    design = np.stack([x, *(cells == c for c in range(4))], axis=1).astype(float)
    slope = np.linalg.lstsq(design, y / y.std(), rcond=None)[0][0]
    (row,) = [row for row in growth_rows(part, "model.width") if row["name"] == "m"]
    assert row["slope"] == pytest.approx(slope)
    assert row["low"] < row["slope"] < row["high"]


def test_a_measure_without_growth_has_an_interval_about_zero():
    """Of 200 random measures about 5 % have an interval that misses zero."""
    missed = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        random = table(lambda w, r, s, rng=rng: rng.normal(size=len(w)), lambda w, r, s: w, others=range(12))
        row = growth_rows(random, "model.width", draws=300)[1]
        missed += not row["low"] < 0 < row["high"]
    assert 2 <= missed <= 22


def test_what_cannot_grow():
    given = table(lambda w, r, s: np.where(r == 1, np.nan, w), lambda w, r, s: w)
    assert growth_rows(given, "model.width")[1]["cells"] == 3
    constant = growth_rows(table(lambda w, r, s: 0 * w, lambda w, r, s: w), "model.width")[1]
    assert np.isnan(constant["slope"]) and constant["cells"] == 0
    for axis, reason in (("depth", "no hyperparameter 'depth'"), ("lr", "must have at least two values")):
        with pytest.raises(ValueError, match=reason):
            growth_rows(given, axis)
