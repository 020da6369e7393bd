"""The verdict in sentences: what they say about the order of measures is what ties and intervals allow."""

from __future__ import annotations

import dataclasses
import math

import pytest

from prunegen_jax import judging
from prunegen_jax.judging.table import Table
from prunegen_jax.report import material, sentences
from tests.support import report_cases

QUICK = {"draws": 60, "permutations": 0, "added_permutations": 0, "baseline_draws": 0}


@pytest.fixture(scope="module")
def judged() -> tuple[Table, judging.Verdict]:
    table = report_cases.table(24, 5)
    return table, judging.judge(table, **QUICK)


def test_sentences_count_measures_and_places():
    table = report_cases.table(40, 6)
    verdict = judging.judge(table, **QUICK)
    words = sentences.summary(material.from_table(table, verdict, title="t"), "gap")
    rows = sorted((r for r in verdict.rows if r["target"] == "gap"), key=lambda r: -r["sign"] * r["tau_b"])
    sure = sum(r["tau_p_holm"] < 0.05 and r["sign"] * r["tau_b"] > 0 for r in rows)
    assert f"<b>{rows[0]['measure']}</b> orders the networks best of 6 measures" in words
    assert f"{sure} of 6 measures point in the expected direction" in words


@pytest.mark.parametrize(
    ("better_by", "low", "high", "expected"),
    [
        (-0.19, -0.3, -0.08, "<b>measure_01</b> is better by 0.19 [0.08, 0.30]"),
        (0.19, 0.08, 0.3, "<b>prunability</b> is better by 0.19 [0.08, 0.30]"),
        (-0.19, -0.5, 0.12, "the two cannot be told apart (difference −0.19 [−0.50, 0.12])"),
        (0.0, 0.0, 0.0, "the two cannot be told apart (difference 0.00 [0.00, 0.00])"),
        (0.1, math.nan, math.nan, "the verdict has no paired intervals"),
    ],
)
def test_a_difference_is_worded_by_its_sign_and_interval(judged, better_by, low, high, expected):
    table, verdict = judged
    row = {"measure": "measure_01", "target": "gap", "reference": "prunability", "statistic": "tau_b"}
    changed = dataclasses.replace(verdict, differences=(row | {"better_by": better_by, "low": low, "high": high},))
    content = material.from_table(table, changed, title="t")
    words = sentences.comparison(content, "measure_01", "gap")
    assert expected in words and "ahead" not in words


def _summary(taus: dict[str, tuple[float, float, float]], warnings: dict[str, str], **same: str) -> str:
    """The summary of a verdict made by hand: tau-b with its interval, the kind of warning, which measures are one."""
    rows = tuple(
        {"measure": name, "target": "gap", "family": "", "sign": 1, "n": 20, "same_as": same.get(name, "")}
        | {"tau_b": value, "tau_b_low": low, "tau_b_high": high}
        for name, (value, low, high) in taus.items()
    )
    said = tuple({"measure": m, "target": "gap", "kind": kind, "text": f"<{kind}>"} for m, kind in warnings.items())
    verdict = judging.Verdict(rows, warnings=said)
    return sentences.summary(material.from_table(report_cases.table(20, 2), verdict, title="t"), "gap")


def test_a_measure_at_its_edge_is_not_called_the_best():
    taus = {"first": (0.73, 0.6, 0.8), "second": (0.5, 0.3, 0.7)}
    words = _summary(taus, {"first": "edge"})
    assert (
        "<b>first</b> has the highest τ-b of 2 measures, 0.73 [0.60, 0.80], but is not called the best: &lt;edge&gt;"
        in words
    )
    assert "<b>second</b> orders the networks best" in words and "<b>first</b> orders" not in words
    assert "none is called the best" in _summary(taus, dict.fromkeys(taus, "edge"))
    assert "<b>first</b> orders the networks best" in _summary(taus, {"first": "same"})


def test_the_negative_of_the_first_is_not_second():
    """The table shows measures that are one next to each other; the sentences go by the values."""
    taus = {"first": (0.73, 0.6, 0.8), "turned": (-0.73, -0.8, -0.6), "second": (0.5, 0.3, 0.7)}
    assert "<b>second</b> orders the networks best" in _summary(taus, {"first": "edge"}, turned="first")


def test_of_the_best_it_is_said_that_its_tau_is_above_the_ceiling():
    words = _summary({"first": (0.73, 0.6, 0.8), "second": (0.5, 0.3, 0.7)}, {"first": "ceiling"})
    assert "<b>first</b> orders the networks best" in words and "Note that &lt;ceiling&gt;." in words


def test_no_measure_is_best_if_the_interval_of_the_highest_holds_zero():
    words = _summary({"first": (0.2, -0.1, 0.5), "second": (0.1, -0.2, 0.4)}, {})
    assert "no measure can be told apart from chance" in words and "orders the networks best" not in words


@pytest.mark.parametrize(
    ("place", "word"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (22, "22nd")]
)
def test_ordinals(place, word):
    assert sentences.ordinal(place) == word
