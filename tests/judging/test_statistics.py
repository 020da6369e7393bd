"""The table of statistics: its rows are what they declare, and a new row appears wherever the others do."""

import csv
import dataclasses

import numpy as np
import pytest
import scipy.stats

from prunegen_jax.judging import STATISTICS, Statistic, format_table, judge, write
from prunegen_jax.judging.case import prepare
from prunegen_jax.judging.comparison import Comparison, Resample
from prunegen_jax.report import material, page, paper_tables
from prunegen_jax.runs.tables.verdict_files import read_verdict
from tests.support.pages import model, source, table
from tests.support.sweeps import QUICK, make_table


@pytest.fixture(scope="module")
def compare():
    """A comparison of a perfect measure, or of another form of it, with the gap."""
    table = make_table(levels=(4, 4, 3), seeds=1)
    gap = table.targets["gap"]
    measures = {"perfect": gap, "reversed": -gap, "noise": table.measures["noise"]}
    case = prepare(dataclasses.replace(table, measures=measures, signs={}, families={}), environments="values")
    return lambda name: Comparison(case, name, "gap")


@pytest.mark.parametrize("name", STATISTICS)
def test_signs_and_directions_are_as_declared(compare, name):
    """A signed statistic changes its sign with the measure; better values belong to better measures."""
    statistic = STATISTICS[name]
    perfect, opposite, noise = (statistic.value(compare(each)) for each in ("perfect", "reversed", "noise"))
    if statistic.is_signed:
        assert perfect == pytest.approx(1) and opposite == pytest.approx(-1)
    elif not statistic.smaller_is_better and name != "adjusted_r2_log":  # no logarithm of a negative measure
        assert opposite == pytest.approx(perfect, rel=0.1)  # the PGDL score counts a tie as "smaller"
    direction = statistic.direction(1)
    assert direction == (-1 if statistic.smaller_is_better else 1)
    assert direction * perfect > direction * noise
    assert statistic.direction(-1) == (-1 if statistic.is_signed or statistic.smaller_is_better else 1)


@pytest.mark.parametrize("name", [name for name, statistic in STATISTICS.items() if statistic.bootstrap])
def test_equal_weights_give_the_statistic_itself(compare, name):
    data = compare("noise")
    sample = Resample(data, np.ones((3, len(data.measure))))
    np.testing.assert_allclose(STATISTICS[name].bootstrap(sample), STATISTICS[name].value(data), rtol=1e-10)


def test_every_statistic_explains_itself():
    for name, statistic in STATISTICS.items():
        assert name.isidentifier() and statistic.label and statistic.explanation.isprintable()
        assert (statistic.plain or statistic.label).isascii() or not statistic.is_shown, name


def weighted_rho(data, weights):
    """Spearman's rho: the correlation of ranks, under each of some weights."""
    ranks = np.stack([scipy.stats.rankdata(data.measure), scipy.stats.rankdata(data.target)])
    return np.array([np.cov(ranks, aweights=w) for w in weights])


@pytest.fixture(scope="module")
def verdict():
    """A verdict with a statistic of one's own."""

    def bootstrap(sample):
        covariance = weighted_rho(sample.data, sample.weights)
        return covariance[:, 0, 1] / np.sqrt(covariance[:, 0, 0] * covariance[:, 1, 1])

    rho = Statistic(
        value=lambda data: float(scipy.stats.spearmanr(data.measure, data.target).statistic),
        label="rho",
        explanation="linear correlation of ranks, from SciPy",
        bootstrap=bootstrap,
        is_signed=True,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(STATISTICS, "rho", rho)
        yield judge(make_table(), **QUICK)


def test_a_new_statistic_is_in_the_verdict_with_an_interval(verdict):
    for row in verdict.rows:
        assert row["rho"] == pytest.approx(row["spearman"])
        assert -1.01 <= row["rho_low"] <= row["rho"] <= row["rho_high"] <= 1.01
    differences = {(d["measure"], d["target"]): d for d in verdict.differences if d["statistic"] == "rho"}
    ours, theirs = (verdict.row(name, "gap") for name in ("prunability", "against"))
    assert differences["against", "gap"]["better_by"] == pytest.approx(ours["rho"] + theirs["rho"])  # turned by signs
    assert all("rho" in row for row in verdict.baselines)


def test_a_new_statistic_is_in_the_printed_table(verdict):
    lines = format_table(verdict).splitlines()
    assert lines[1].split()[-1] == "rho"
    row = verdict.row("against", "gap")
    line = next(line for line in lines if line.startswith("against"))
    assert line.endswith(f"{row['rho']:.3f} [{row['rho_low']:.2f}, {row['rho_high']:.2f}]")


def test_a_new_statistic_is_in_the_files(verdict, tmp_path):
    write(verdict, tmp_path)
    with (tmp_path / "verdict.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    for line, row in zip(lines, verdict.rows, strict=True):
        assert [float(line[key]) for key in ("rho", "rho_low", "rho_high")] == [
            row["rho"],
            row["rho_low"],
            row["rho_high"],
        ]
    assert read_verdict(tmp_path / "verdict.json").to_json() == verdict.to_json()


def test_a_new_statistic_is_in_the_report(verdict):
    shown = material.from_table(make_table(), verdict, title="t")
    text = page.html(shown)
    for cells in table(text, "The verdict, gap"):
        row = verdict.row(cells["measure"].partition(" ")[0], "gap")
        value, _, interval = cells["rho, interval"].replace("−", "-").partition(" ")
        assert float(value) == pytest.approx(row["sign"] * row["rho"], abs=5.1e-3)
        ends = sorted(row["sign"] * row[end] for end in ("rho_low", "rho_high"))
        assert [float(end) for end in interval.split(" … ")] == pytest.approx(ends, abs=5.1e-3)
    assert "<dt>rho</dt><dd>linear correlation of ranks, from SciPy</dd>" in text
    assert "rho" in source(text, "compared")["row"] and "<li>rho: " in model(text, "Div", "difference")["text"]
    tables = paper_tables.paper_tables(shown)
    assert "| rho |" in tables["verdict_gap.md"].splitlines()[0] and "& rho" in tables["verdict_gap.tex"]
