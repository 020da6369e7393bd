"""The verdict in a paragraph, the best pairs of measures, and fragility, against plain loops."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import scipy.stats

from prunegen_jax.judging import describe, judge, pairs, write
from prunegen_jax.judging.case import prepare
from prunegen_jax.judging.table import Table
from prunegen_jax.judging.verdict import Verdict
from prunegen_jax.runs.tables.verdict_files import read_verdict
from tests.support.sweeps import QUICK, make_table


def test_best_pairs_are_least_squares_on_held_out_folds():
    """Every pair by NumPy's least squares; the target needs two measures, neither of which is best alone."""
    rng = np.random.default_rng(0)
    a, b, noise = rng.normal(size=(3, 40))
    gap = a + b
    measures = {"a": a, "noise": noise, "b": b, "almost": gap + 1.2 * rng.normal(size=40), "like a": a**3}
    measures |= {"holes": np.where(np.arange(40) < 3, np.nan, a), "flat": np.ones(40)}
    table = Table(tuple(map(str, range(40))), {"x": np.arange(40.0)}, measures, {"gap": gap})
    found = pairs.best_pairs(prepare(table), "gap", list(measures), folds=5, seed=3)
    fold = np.random.default_rng([3, 7]).permutation(np.arange(40) % 5)
    ranks = {name: scipy.stats.rankdata(values) for name, values in measures.items()}
    goal = scipy.stats.rankdata(gap)

    def r2(names):
        design = np.stack([np.ones(40), *(ranks[name] for name in names)], axis=1)
        errors = spread = 0.0
        for k in range(5):
            rest, out = fold != k, fold == k
            fit = np.linalg.lstsq(design[rest], goal[rest], rcond=None)[0]
            errors += ((goal[out] - design[out] @ fit) ** 2).sum()
            spread += ((goal[out] - goal[rest].mean()) ** 2).sum()
        return 1 - errors / spread

    usable = [name for name in measures if name not in ("holes", "flat")]
    expected = sorted(((r2(names), names) for names in itertools.combinations(usable, 2)), reverse=True)
    assert {found[0]["first"], found[0]["second"]} == {"b", "a"} or found[0]["second"] == "like a"
    np.testing.assert_allclose([row["pair_r2"] for row in found], [value for value, _ in expected[:5]], rtol=1e-9)
    single, best = max((r2([name]), name) for name in usable)
    assert all(row["best_single"] == best and row["single_r2"] == pytest.approx(single) for row in found)
    assert found[0]["gain"] == pytest.approx(expected[0][0] - single) and found[0]["gain"] > 0.2


def test_pairs_need_measures_and_models():
    case = prepare(make_table(seeds=1))
    assert pairs.best_pairs(case, "gap", ["noise"], folds=3, seed=0) == []
    assert pairs.best_pairs(case, "gap", ["noise", "against"], folds=10, seed=0) == []


def test_fragility_is_the_loop():
    rng = np.random.default_rng(1)
    error = rng.integers(20, 40, size=30) / 100
    for measure in (error, rng.random(30), np.where(rng.random(30) < 0.1, np.nan, error + 0.02 * rng.random(30))):
        known = np.flatnonzero(~np.isnan(measure))
        ranks = dict(zip(known, scipy.stats.rankdata(measure[known]), strict=True))
        close, everything = [], []
        for i, j in itertools.combinations(known, 2):
            moved, mean = abs(ranks[i] - ranks[j]), (error[i] + error[j]) / 2
            everything.append(moved)
            if abs(error[i] - error[j]) <= 1.96 * math.sqrt(2 * mean * (1 - mean) / 400):
                close.append(moved)
        assert pairs.fragility(measure, error, error, 400) == pytest.approx(np.mean(close) / np.mean(everything))
    assert pairs.fragility(error, error, error, 10**9) == 0  # equal where the errors are
    assert math.isnan(pairs.fragility(error, error, error, None)) and math.isnan(pairs.fragility(error, error, None, 9))


def test_the_paragraph_says_what_holds_and_where(tmp_path):
    table = make_table(levels=(3, 3, 3), seeds=1)
    verdict = judge(table, **(QUICK | {"draws": 400}))
    text = describe(verdict)
    row = verdict.row("prunability", "gap")
    interval = f"[{row['tau_b_low']:.2f}, {row['tau_b_high']:.2f}]"
    against = verdict.row("against", "gap")
    assert f"tau-b {-against['tau_b']:.2f} [{-against['tau_b_high']:.2f}" in text and text.isprintable()
    assert text.startswith("On gap, against orders the 27 networks best")  # turned by its sign
    without = judge(
        dataclasses.replace(table, measures={k: table.measures[k] for k in ("prunability", "noise")}), **QUICK
    )
    assert f"On gap, prunability orders the 27 networks best: tau-b {row['tau_b']:.2f} [" in describe(without)
    assert "Every other measure is significantly worse." in describe(without)
    assert "This holds for networks like these 27, which differ in axis0, axis1, axis2." in describe(without)
    assert "With the other hyperparameters fixed (Psi), it follows gap along" in describe(without)
    assert interval and "corrected for the number of measures" in describe(without)
    noise = judge(dataclasses.replace(table, measures={"noise": table.measures["noise"]}), **QUICK)
    assert "interval contains 0: it may not predict gap at all" in describe(noise)
    with pytest.raises(ValueError, match="target 'loss' was not judged"):
        describe(verdict, target="loss")
    write(verdict, tmp_path)
    assert describe(read_verdict(tmp_path / "verdict.json")) == text


def test_a_floor_is_not_called_the_best():
    gap = np.arange(24.0)
    measures = {"floor": np.minimum(gap, 18), "fair": gap + 8 * np.random.default_rng(0).random(24)}
    table = Table(
        tuple(map(str, range(24))), {"a": np.arange(24) % 4.0, "b": np.arange(24) // 4 * 1.0}, measures, {"gap": gap}
    )
    text = describe(judge(table, reference="fair", **QUICK))
    assert text.startswith("floor has the largest tau-b") and "but 25% of the networks are tied at 18" in text
    assert "On gap, fair orders the 24 networks best of the others" in text


def test_those_left_out_and_few_models_are_conditions():
    table = make_table(levels=(2, 2, 2), seeds=1)
    out = np.arange(8) == 7
    rest = dataclasses.replace(table.take(~out), left_out=(("7", "diverged"),), left_out_rows=table.take(out))
    text = describe(judge(rest, **QUICK))
    assert "without the network that was left out (with it, its tau-b is" in text
    assert "they are few: rely on the intervals" in text


@pytest.mark.parametrize(
    ("without_value", "expected"),
    [
        ((), "without the 3 networks that were left out (with them, its tau-b is 1.00)"),
        ((9, 11), "without the 3 networks that were left out (with the 1 that has values, its tau-b is 1.00)"),
        ((9, 10, 11), "without the 3 networks that were left out. It does"),
    ],
)
def test_the_tau_with_those_left_out_needs_their_values(without_value, expected):
    """Training that diverged leaves no measure, or no gap: then including the network changes nothing."""
    gap = np.arange(12.0)
    for name in ("measure", "gap"):
        values = {"measure": gap, "gap": gap} | {name: np.where(np.isin(np.arange(12), without_value), np.nan, gap)}
        table = Table(tuple(map(str, range(12))), {"x": gap}, {"m": values["measure"]}, {"gap": values["gap"]})
        out = gap > 8
        left = tuple((str(i), "diverged") for i in (9, 10, 11))
        judged = dataclasses.replace(table.take(~out), left_out=left, left_out_rows=table.take(out))
        text = describe(judge(judged, reference="m", **QUICK))
        assert expected in text.replace("; they are few: rely on the intervals, not on the order", "")


@pytest.mark.parametrize(
    ("psi", "expected"),
    [
        ({"a": 0.9, "b": 0.5}, "it follows gap along a (0.90), b (0.50)."),
        ({"a": 0.9, "b": 0.1}, "it follows gap along a (0.90), but not along b (0.10)."),
        ({"a": 0.1, "b": -0.5}, "it does not follow gap along a (0.10), b (-0.50)."),
    ],
)
def test_along_which_hyperparameters_it_follows_the_target(psi, expected):
    row = {"measure": "m", "target": "gap", "sign": 1, "n": 20, "tau_b": 0.5, "tau_b_low": 0.3, "tau_b_high": 0.7}
    row |= {f"psi.{axis}": value for axis, value in psi.items()}
    verdict = Verdict((row,), settings={"axes": list(psi), "models": 20, "judged": 20})
    assert f"With the other hyperparameters fixed (Psi), {expected}" in describe(verdict)


def test_nothing_is_said_about_hyperparameters_that_the_table_does_not_have():
    table = make_table()
    for axes in ({}, {"width": table.hyperparameters["axis1"]}):
        known = dataclasses.replace(table, hyperparameters=axes, measures={"m": table.targets["gap"]})
        text = describe(judge(known, reference="m", repeats="keep", **QUICK | {"permutations": 99}))
        beyond, differ = (
            (" beyond width", "differ in width") if axes else ("", "these 24 (the table has no hyperparameters)")
        )
        assert f"It has information about the order{beyond} (K, p = 0.01)." in text and differ in text
