"""The whole judgement of a sweep: rows, signs, comparisons, baselines, matrices."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from prunegen_jax.judging import format_table, grid, information, judge, kendall
from prunegen_jax.judging.prepared import prepare_order
from tests.support.sweeps import QUICK, make_table


@pytest.fixture(scope="module")
def verdict():
    return judge(make_table(), signatures={"both": ["prunability", "noise"]}, **QUICK)


def test_rows_are_the_statistics(verdict):
    """One row per measure and target, of the means over seeds."""
    table = make_table()
    assert len(verdict.rows) == 9 and verdict.targets == ("gap", "test_error", "test_loss")
    means = {k: v.reshape(-1, 2).mean(axis=1) for k, v in (table.measures | table.targets).items()}
    codes = np.array(list(itertools.product(range(2), range(3), range(2))))
    pairs = tuple(grid.pairs_along(grid.Grid(("a", "b", "c"), codes, np.arange(12), np.zeros(12, dtype=int))))
    for row in verdict.rows:
        m, g = means[row["measure"]], means[row["target"]]
        assert row["n"] == 12
        assert row["tau_b"] == pytest.approx(kendall.tau(m, g), abs=1e-12)
        psi = kendall.granulated(m, g, pairs)
        assert row["psi"] == pytest.approx(psi.value, abs=1e-12)
        assert row["psi.axis1"] == pytest.approx(psi.per_axis[1], abs=1e-12)
        assert row["k"] == pytest.approx(information.information(m, g, information.conditions(codes)).minimum[0])
        assert row["k_corrected"] == pytest.approx((row["k"] - row["k_null"]) / (1 - row["k_null"]))
        assert row["tau_p_holm"] >= row["tau_p"] and row["k_p_holm"] >= row["k_p"]
        for statistic in ("tau_b", "tau_a", "psi", "adjusted_r2"):
            assert row[f"{statistic}_low"] <= row[statistic] <= row[f"{statistic}_high"], statistic


def test_signs_are_not_flipped(verdict):
    row = verdict.row("against", "gap")
    assert row["tau_b"] < -0.5 and row["sign"] == -1 and row["k_sign"] == -1
    # turned by its believed sign it is better than noise, and stands above it in the table
    lines = format_table(verdict, target="gap").splitlines()
    order = [line.split()[0].rstrip("*") for line in lines[2:5]]  # a star marks a warning
    assert order.index("against") < order.index("noise")
    difference = next(
        r for r in verdict.differences if (r["measure"], r["target"], r["statistic"]) == ("against", "gap", "tau_b")
    )
    expected = verdict.row("prunability", "gap")["tau_b"] + row["tau_b"]
    assert difference["better_by"] == pytest.approx(expected)
    assert difference["low"] <= difference["better_by"] <= difference["high"]


def test_a_reference_that_falls_with_the_gap():
    verdict = judge(make_table(), reference="against", targets=["gap"], **QUICK)
    found = {(r["measure"], r["statistic"]): r["better_by"] for r in verdict.differences}
    rows = {row["measure"]: row for row in verdict.rows}
    assert found["noise", "tau_b"] == pytest.approx(-rows["against"]["tau_b"] - rows["noise"]["tau_b"])
    # R2 and the sign error have no sign; an error is better when it is smaller
    assert found["noise", "adjusted_r2"] == pytest.approx(rows["against"]["adjusted_r2"] - rows["noise"]["adjusted_r2"])


def test_what_stands_beside(verdict):
    kinds = {row["baseline"] for row in verdict.baselines}
    assert kinds == {"oracle 0.01", "oracle 0.02", "oracle 0.05", "random", *(f"order of axis{i}" for i in range(3))}
    taus = {row["baseline"]: row["tau_b"] for row in verdict.baselines if row["target"] == "gap"}
    assert taus["oracle 0.01"] > taus["oracle 0.05"] > taus["random"]
    own = next(row for row in verdict.baselines if row["baseline"] == "order of axis1" and row["target"] == "gap")
    assert own["psi.axis1"] > 0 and own["psi.axis0"] == 0
    assert {row["noise"] for row in verdict.ceilings if row["target"] == "gap"} == {"test set", "seeds", "both"}
    assert {row["noise"] for row in verdict.ceilings if row["target"] == "test_loss"} == {"seeds"}
    assert all(0 <= row["tau_b"] <= 1 for row in verdict.ceilings)
    levels = {row["noise"]: row["tau_b"] for row in verdict.ceilings if row["target"] == "gap"}
    assert levels["test set"] > levels["seeds"] >= levels["both"]
    assert {row["signature"] for row in verdict.signatures} == {"both"} and verdict.signatures[0]["features"] == 2
    assert verdict.sensitivity == ()


def test_matrices(verdict):
    """A measure shares everything with itself; added information is that of the definition."""
    shared, added = verdict.matrices["shared"], verdict.matrices["added_gap"]
    assert set(shared.rows) == set(shared.columns) == {"prunability", "noise", "against"}
    np.testing.assert_allclose(np.diag(shared.values), 1)
    assert set(added.columns) == {*shared.columns, "given train_loss", "given batch_size"}
    table = make_table()
    means = {k: v.reshape(-1, 2).mean(axis=1) for k, v in (table.measures | table.targets | table.confounders).items()}
    codes = np.array(list(itertools.product(range(2), range(3), range(2))))
    given = information.conditions(codes)
    for column in ("noise", "given batch_size"):
        third = means[column.removeprefix("given ")]
        expected = information.information(means["prunability"], means["gap"], given, third=third)
        place = added.rows.index("prunability"), added.columns.index(column)
        assert added.values[place] == pytest.approx(expected.normalised[0], abs=1e-12)
        assert verdict.matrices["added_least_gap"].values[place] == pytest.approx(expected.minimum[0], abs=1e-12)
    assert np.isnan(added.values[added.rows.index("noise"), added.columns.index("noise")])
    assert {row["family"] for row in verdict.families} == {"pruning", "margin", "no family"}


def test_prepared_comparison_is_the_plain_one():
    """What nulls and matrices share changes no number, with ties, with a third order and without."""
    rng = np.random.default_rng(0)
    codes = np.array(list(itertools.product(range(3), range(2), range(4))))
    given = information.conditions(codes)
    for digits, tied, third in itertools.product(
        (0, 9), (0, 9), (None, rng.normal(size=24), rng.integers(0, 3, 24) * 1.0)
    ):
        m, g = np.round(rng.normal(size=24), digits), np.round(rng.normal(size=24), tied)
        plain = information.information(m, g, given, third=third)
        found = information.from_counts(prepare_order(g, given, third=third).counts(m), given)
        for field in ("shared", "entropy_first", "entropy_second"):
            np.testing.assert_allclose(getattr(found, field), getattr(plain, field), atol=1e-12)


def test_same_seed_same_verdict():
    table = make_table()
    one, two = (judge(table, **QUICK, seed=3).to_json() for _ in range(2))
    assert one == two


def test_judging_reads_and_writes_no_files():
    """Numerics and types alone; `judging.write` is imported from the package of files on first use."""
    code = "import sys, prunegen_jax.judging as judging; from prunegen_jax.judging import format, statistics; "
    code += "assert not {'prunegen_jax.runs', 'etils', 'jax'} & set(sys.modules); judging.write"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
