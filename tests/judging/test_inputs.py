"""Tables and options that need a treatment or a refusal: few models, repeats, missing values, wrong names."""

import json
import math

import numpy as np
import pytest

from prunegen_jax.judging import Table, format_table, grid, judge, kendall
from tests.support.sweeps import QUICK, make_table


def test_hostile_table():
    """Constants, missing values, infinities, duplicated rows, one level: each has its treatment, and it is said."""
    base = make_table(seeds=1)
    n = len(base)
    with_missing, infinite = base.measures["noise"].copy(), base.measures["noise"].copy()
    with_missing[:3], infinite[:2] = np.nan, np.inf
    measures = base.measures | {"constant": np.ones(n), "missing": with_missing, "infinite": infinite}
    measures |= {"absent": np.full(n, np.nan), "tied": np.round(base.measures["noise"], 1)}
    axes = base.hyperparameters | {"fixed": np.full(n, "adam")}
    table = Table(base.names, axes, measures, base.targets).take(np.r_[0, 0 : n - 1])
    verdict = judge(table, **QUICK)
    said = "\n".join(verdict.notes)
    assert "1 duplicated rows are judged once: 0" in said
    assert "axis fixed has one level" in said and "the grid is incomplete" in said
    assert "missing has no value for 3 of 11" in said and "infinite is infinite for 2 models" in said
    assert "constant is constant" in said and "tied has ties" in said
    rows = {row["measure"]: row for row in verdict.rows if row["target"] == "gap"}
    assert rows["absent"]["n"] == 0 and math.isnan(rows["absent"]["tau_b"]) and math.isnan(rows["absent"]["k"])
    assert rows["constant"]["tau_a"] == 0 and math.isnan(rows["constant"]["tau_b"])
    assert rows["missing"]["n"] == 8 and rows["missing"]["missing"] == 3
    assert rows["infinite"]["n"] == 11 and rows["infinite"]["infinite"] == 2
    assert all(math.isnan(row["pgdl"]) for row in rows.values())
    json.loads(verdict.to_json())
    format_table(verdict)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_too_few_models(n):
    verdict = judge(make_table(seeds=1).take(np.arange(n)), **QUICK)
    assert any("too few" in note for note in verdict.notes)
    assert verdict.row("noise", "gap")["n"] == n
    format_table(verdict)


def test_repeats_kept():
    """Kept, each seed is a model of its own, and Psi compares models of one seed."""
    table = make_table()
    verdict = judge(table, repeats="keep", **QUICK)
    row = verdict.row("prunability", "gap")
    assert row["n"] == 24
    assert row["tau_b"] == pytest.approx(kendall.tau(table.measures["prunability"], table.targets["gap"]))
    per_seed = []
    for s in (0, 1):
        rows = table.hyperparameters["seed"] == s
        codes = np.stack([table.hyperparameters[f"axis{i}"][rows] for i in range(3)], axis=1).astype(int)
        pairs = tuple(grid.pairs_along(grid.Grid(("a", "b", "c"), codes, np.arange(12), np.zeros(12, dtype=int))))
        per_seed.append(
            kendall.granulated(table.measures["prunability"][rows], table.targets["gap"][rows], pairs).value
        )
    assert row["psi"] == pytest.approx(np.mean(per_seed))


def test_only_seeds_vary():
    verdict = judge(make_table(levels=(1, 1, 1), seeds=12), **QUICK)
    assert verdict.row("prunability", "gap")["n"] == 12
    assert any("no hyperparameter varies, only the repeats" in note for note in verdict.notes)


def test_models_left_out():
    """They are counted, named, and the verdict is also given with them."""
    table = make_table(seeds=1)
    out = np.arange(len(table)) >= 10
    rest = table.take(~out)
    rest = Table(
        **{**vars(rest), "left_out": (("10", "diverged: nan"), ("11", "slow")), "left_out_rows": table.take(out)}
    )
    verdict = judge(rest, **QUICK)
    row = next(r for r in verdict.sensitivity if (r["measure"], r["target"]) == ("noise", "gap"))
    assert (row["n"], row["n_with_left_out"]) == (10, 12)
    assert row["tau_b_with_left_out"] == pytest.approx(kendall.tau(table.measures["noise"], table.targets["gap"]))
    assert "left out: 2 models (1 diverged, 1 slow); the first is 10: diverged: nan" in format_table(verdict)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"targets": ["accuracy"]},
            r"there is no target 'accuracy' in the table; its targets are gap, test_error, test_loss",
        ),
        ({"measures": ["x"]}, r"there is no measure 'x'"),
        ({"repeats": "median"}, r"repeats is 'median'; choose 'mean' or 'keep'"),
        ({"draws": -1}, r"draws is -1"),
        ({"level": 95.0}, r"level is 95"),
        ({"folds": 1}, r"folds is 1"),
        ({"environments": "x"}, r"environments is 'x'"),
        ({"orders": {"depth": [1]}}, r"order is given for axis 'depth'; the axes that vary are axis0, axis1, axis2"),
        ({"orders": {"axis1": ["0", "1"]}}, r"the order of axis 'axis1' does not include value '2'"),
        ({"reference": "nothing"}, r"there is no reference 'nothing'"),
        ({"signatures": {"s": ["x"]}}, r"there is no measure 'x'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        judge(make_table(), **(QUICK | options))


def test_nothing_to_judge():
    empty = make_table().take(np.zeros(24, dtype=bool))
    with pytest.raises(ValueError, match="no model to judge"):
        judge(empty)
