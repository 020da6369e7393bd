"""What is said beside the numbers: edges of a range, the ceiling, measures that are one, intervals of few models."""

import csv
import dataclasses
import math

import numpy as np
import pytest

from prunegen_jax.judging import cautions, describe, format_table, judge, uncertainty, write
from prunegen_jax.judging.statistics import ranked, relations
from prunegen_jax.judging.table import Table
from prunegen_jax.runs.tables.verdict_files import read_verdict
from tests.support.sweeps import QUICK, make_table


def table_of(measures, gap, **options):
    n = len(gap)
    axes = {"a": np.arange(n) % 4.0, "b": np.arange(n) // 4 * 1.0}
    return Table(tuple(map(str, range(n))), axes, measures, {"gap": gap}, **options)


def said(verdict, measure, target="gap"):
    found = [row for row in verdict.warnings if (row["measure"], row["target"]) == (measure, target)]
    return {row["kind"]: row["text"] for row in found}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 1, 1, 0.5, 0.25], (0.6, 1)),
        ([0, 0, 0.5, 1], (0.5, 0)),
        ([1, np.inf, np.inf, np.nan], (2 / 3, np.inf)),
        ([0.2, 0.3, 0.3, 0.4], (0, np.nan)),
        ([np.nan], (0, np.nan)),
    ],
)
def test_the_edge_of_a_range(values, expected):
    np.testing.assert_array_equal(cautions.edge(np.array(values, dtype=float)), expected)


def test_networks_at_the_edge_are_counted_and_said():
    """Nine of twenty networks at a measure's largest value: a share of the single networks, a mark, a sentence."""
    gap = np.arange(20.0)
    floor = np.where(gap < 11, gap / 20, 1.0)
    verdict = judge(table_of({"floor": floor, "one": gap, "few": np.maximum(gap, 1)}, gap), reference="one", **QUICK)
    row = verdict.row("floor", "gap")
    assert (row["edge_share"], row["edge_value"]) == (9 / 20, 1)
    assert said(verdict, "floor")["edge"] == (
        "45% of the networks are tied at 1, an end of its range: it cannot tell them apart"
    )
    assert verdict.row("few", "gap")["edge_share"] == 2 / 20 and "edge" not in said(
        verdict, "few"
    )  # not more than EDGE
    lines = format_table(verdict).splitlines()
    assert not any("-0.000" in line for line in lines)
    assert any(line.startswith("floor* ") for line in lines) and any(line.startswith("few ") for line in lines)
    assert "* floor: 45% of the networks are tied at 1, an end of its range: it cannot tell them apart" in lines


def test_a_tau_above_the_ceiling_is_said(tmp_path):
    """Forty test images leave much to chance: whoever follows the observed error knows more than can be known."""
    error = np.round(np.linspace(0.3, 0.5, 20) * 40) / 40 + np.arange(20) * 1e-6
    measures = {"oracle": error, "against": -error, "noise": np.random.default_rng(0).random(20)}
    table = dataclasses.replace(table_of(measures, error, signs={"against": -1}), test_size=40)
    verdict = judge(table, reference="noise", **QUICK)
    ceiling = min(row["tau_b"] for row in verdict.ceilings)
    assert ceiling < 0.8
    for name in ("oracle", "against"):
        assert f"its tau-b 1.00 is above the ceiling {ceiling:.2f}" in said(verdict, name)["ceiling"]
    assert "ceiling" not in said(verdict, "noise")
    text = describe(verdict)
    assert "orders the 20 networks best: tau-b 1.00" in text
    assert f"Note that its tau-b 1.00 is above the ceiling {ceiling:.2f}" in text
    write(verdict, tmp_path)
    assert read_verdict(tmp_path / "verdict.json").warnings == verdict.warnings


def test_holm_counts_a_group_once():
    """By hand: three groups with p 0.01, 0.02 and 0.04, of which one has two members."""
    p = np.array([0.01, 0.02, 0.015, 0.04, np.nan])
    adjusted = uncertainty.holm(p, ["a", "b", "b", "c", "d"])
    np.testing.assert_allclose(adjusted, [0.03, 0.04, 0.04, 0.04, np.nan])
    np.testing.assert_array_equal(uncertainty.holm(p, list("abcde")), uncertainty.holm(p))


def test_measures_that_are_one_count_once_and_stand_together():
    """The traces of H and G differ by their errors; `turned` orders as `m` does, the other way round."""
    rng = np.random.default_rng(1)
    gap, m = rng.random((2, 24))
    trace = np.exp(rng.normal(size=24))
    measures = {"hessian_trace": trace, "m": m, "turned": np.exp(-3 * m), "other": rng.random(24)}
    measures["gauss_newton_trace"] = trace * (1 + 0.02 * rng.normal(size=24))
    measures |= {"flat": np.ones(24), "flat too": np.zeros(24)}  # these order nothing
    verdict = judge(table_of(measures, gap), reference="other", **QUICK)
    rows = {row["measure"]: row for row in verdict.rows}
    assert {name: row["same_as"] for name, row in rows.items() if row["same_as"]} == {
        "turned": "m", "gauss_newton_trace": "hessian_trace"
    }  # fmt: skip
    p = {name: row["tau_p"] for name, row in rows.items()}
    groups = [max(p["hessian_trace"], p["gauss_newton_trace"]), p["m"], p["other"]]
    expected = uncertainty.holm(np.array(groups))
    assert [rows[name]["tau_p_holm"] for name in ("gauss_newton_trace", "turned", "other")] == expected.tolist()
    assert "piecewise linear" in said(verdict, "gauss_newton_trace")["same"]
    assert said(verdict, "turned")["same"] == ("gives the reverse order of m: corrected p-values count the two once")
    assert {name: row["same_order"] for name, row in rows.items() if row["same_order"]} == {
        "turned": -1, "gauss_newton_trace": 1
    }  # fmt: skip
    order = [row["measure"] for row in ranked(verdict.rows)]
    for one, two in (("hessian_trace", "gauss_newton_trace"), ("m", "turned")):
        assert abs(order.index(one) - order.index(two)) == 1
    # of networks for which the identity does not hold they are two measures
    measures["gauss_newton_trace"] = trace * np.exp(rng.normal(size=24))
    assert not judge(table_of(measures, gap), **QUICK).row("gauss_newton_trace", "gap")["same_as"]


def test_a_measure_and_its_reverse_are_shown_as_one(tmp_path):
    """`down` comes first in the table of numbers and last by its tau: it is shown below `up`, as its reverse."""
    gap = np.random.default_rng(2).permutation(np.arange(24.0))
    measures = {"down": -gap, "other": np.random.default_rng(3).random(24), "up": gap, "twice": 2 * gap}
    verdict = judge(table_of(measures, gap), reference="other", **QUICK)
    names = [line[:18].rstrip() for line in format_table(verdict).splitlines()[2:6]]
    assert names[0] in {"up*", "twice*"} and names[3] == "other"
    below = {"  down (reverse)", "  down (reverse)*", "  twice (same)*", "  up (same)*"}
    assert set(names[1:3]) <= below and sum("(reverse)" in name for name in names) == 1
    rows = {row["measure"]: (row["same_as"], row["same_order"]) for row in verdict.rows}
    assert rows == {"down": ("", 0), "other": ("", 0), "up": ("down", -1), "twice": ("down", -1)}
    write(verdict, tmp_path)
    assert relations(ranked(read_verdict(tmp_path / "verdict.json").rows)) == [
        ("", ""), ("same", "up"), ("reverse", "up"), ("", "")
    ]  # fmt: skip
    with (tmp_path / "verdict.csv").open() as file:
        lines = {line["measure"]: (line["same_as"], line["same_order"]) for line in csv.DictReader(file)}
    assert lines["up"] == ("down", "-1") and lines["other"] == ("", "0")


@pytest.mark.parametrize("n", [4, 8, 24])
def test_the_interval_of_full_agreement(n):
    """All pairs are ordered alike: no draw of a bootstrap says otherwise, but few models do not make it certain."""
    gap = np.arange(float(n))
    verdict = judge(table_of({"up": gap, "down": -gap}, gap), reference="up", **(QUICK | {"level": 0.9}))
    row = verdict.row("up", "gap")
    limit = 2 * 0.05 ** (2 / n) - 1  # with n / 2 disjoint pairs
    assert row["tau_b_low"] == pytest.approx(limit) and row["tau_b_high"] == 1
    other = verdict.row("down", "gap")
    assert (other["tau_b_low"], other["tau_b_high"]) == (-1, pytest.approx(-limit))
    assert not any(row["psi_high"] - row["psi_low"] < 1e-9 for row in verdict.rows)
    difference = next(d for d in verdict.differences if d["statistic"] == "tau_b")
    assert (
        difference["better_by"] == pytest.approx(2)
        and math.isnan(difference["low"])
        and math.isnan(difference["p_holm"])
    )


@pytest.mark.parametrize("n", [4, 10, 100])
def test_the_limit_of_full_agreement_is_that_of_the_worst_population(n):
    """A share q of the configurations follows the target, the rest is in discord with all: tau is 2 q^2 - 1.

    All of n follow with probability q^n: where that is 2.5 %, tau is the limit, and nowhere above.
    """
    q = 0.025 ** (1 / n)
    assert uncertainty.of_agreement(n // 2, 0.95) == pytest.approx(2 * q**2 - 1)


def test_no_interval_without_width():
    table = make_table()
    verdict = judge(table.take(np.arange(8)), **QUICK)
    for row in verdict.rows:
        for name in ("tau_b", "tau_a", "psi", "adjusted_r2"):
            assert not row[f"{name}_high"] - row[f"{name}_low"] < 1e-9
