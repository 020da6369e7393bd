"""The whole judgement, and the command line as its user meets it."""

import csv
import dataclasses
import itertools
import json
import math
import warnings

import numpy as np
import pytest

from prunegen_jax.cli.judge import main
from prunegen_jax.judging import format_table, grid, information, judge, kendall, write
from prunegen_jax.judging.table import Table
from prunegen_jax.runs.tables import write_csv

QUICK = {"draws": 100, "permutations": 19, "baseline_draws": 3}


def make_table(levels=(2, 3, 2), seeds=2, *, seed=0):
    """A sweep in which `prunability` follows the gap, `noise` nothing, and `against` the gap's negative."""
    rng = np.random.default_rng(seed)
    codes = np.array([(*p, s) for p in itertools.product(*map(range, levels)) for s in range(seeds)], dtype=float)
    n = len(codes)
    gap = 0.02 * codes[:, 1] + 0.1 * rng.random(n)
    names = [*(f"axis{i}" for i in range(len(levels))), "seed"]
    return Table(
        names=tuple(map(str, range(n))),
        hyperparameters={name: codes[:, i] for i, name in enumerate(names)},
        measures={
            "prunability": gap + 0.02 * rng.random(n),
            "noise": rng.random(n),
            "against": -gap + 0.01 * rng.random(n),
        },
        targets={"gap": gap, "test_error": gap + 0.001 * rng.random(n), "test_loss": 3 * gap + rng.random(n)},
        families={"prunability": "pruning", "against": "margin"},
        signs={"against": -1},
        test_size=10_000,
        confounders={"train_loss": rng.random(n), "batch_size": codes[:, 0]},
    )


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
    order = [line.split()[0] for line in lines[2:5]]
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
        found = information.from_counts(information.fixed(g, given, third=third).counts(m), given)
        for field in ("shared", "entropy_first", "entropy_second"):
            np.testing.assert_allclose(getattr(found, field), getattr(plain, field), atol=1e-12)


def test_same_seed_same_verdict():
    table = make_table()
    one, two = (judge(table, **QUICK, seed=3).to_json() for _ in range(2))
    assert one == two


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
    assert any("no axis but the repeats varies" in note for note in verdict.notes)


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
        ({"orders": {"axis1": ["0", "1"]}}, r"the order of axis 'axis1' lacks its value '2'"),
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


def test_written_verdict(verdict, tmp_path):
    paths = write(verdict, tmp_path / "out")
    assert {p.name for p in paths} == {p.name for p in (tmp_path / "out").iterdir()}
    with (tmp_path / "out" / "verdict.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    content = json.loads((tmp_path / "out" / "verdict.json").read_text())
    assert len(rows) == len(verdict.rows) == len(content["rows"])
    for line, row, stored in zip(rows, verdict.rows, content["rows"], strict=True):
        assert line["measure"] == row["measure"] == stored["measure"]
        assert float(line["tau_b"]) == row["tau_b"] == stored["tau_b"]  # full precision
    with (tmp_path / "out" / "shared.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    assert tuple(lines[0][1:]) == verdict.matrices["shared"].columns
    np.testing.assert_array_equal(
        np.array([line[1:] for line in lines[1:]], dtype=float), verdict.matrices["shared"].values
    )


@pytest.mark.parametrize("target", ["/../../victim", "a/b", "..", "../../victim", "x" * 190, "gap\x1b[2J"])
def test_no_name_leaves_the_folder(tmp_path, target):
    """A target is named by its column, which anyone may write; files are named after it."""
    (tmp_path / "victim.csv").write_text("precious")
    table = make_table()
    table = dataclasses.replace(table, targets={target: table.targets["gap"], f"{target}/": table.targets["gap"]})
    found = judge(table, draws=0, permutations=0, added_permutations=0, baseline_draws=0)
    paths = write(found, tmp_path / "in" / "out")
    assert (tmp_path / "victim.csv").read_text() == "precious"
    assert sorted(tmp_path.rglob("*.csv")) == sorted([tmp_path / "victim.csv", *(p for p in paths if "csv" in p.name)])
    assert {p.parent for p in paths} == {tmp_path / "in" / "out"} and len({p.name for p in paths}) == len(paths)
    assert sum(p.name.startswith("added") for p in paths) == 4  # two of each target


FAST = ["--draws=50", "--permutations=9", "--added-permutations=0", "--baseline-draws=0"]


def test_command_line(tmp_path, capsys):
    write_csv(make_table(), tmp_path / "results.csv")
    out = tmp_path / "verdict"
    arguments = [str(tmp_path / "results.csv"), "--target=gap", "--hyperparameters=hp*", f"--out={out}", *FAST]
    assert main([*arguments, "--family=pruning=prun*", "--negative=against", "--signature=all=*"]) == 0
    printed = capsys.readouterr().out
    assert "taken as targets: gap" in printed and "prunability" in printed and "target: gap" in printed
    content = json.loads((out / "verdict.json").read_text())
    assert [row["sign"] for row in content["rows"] if row["measure"] == "against"] == [-1]
    assert content["signatures"][0]["features"] == 3 and (out / "verdict.csv").is_file()


def test_command_line_of_pgdl(tmp_path, capsys):
    configs = {
        str(i): {
            "hparams": {
                "a": {"current_value": i % 2},
                "b": {"current_value": i // 2 % 2},
                "c": {"current_value": i // 4},
            },
            "metrics": {"train_acc": 1.0, "test_acc": 0.9 - i**2 / 1000},
        }
        for i in range(8)
    }
    (tmp_path / "model_configs.json").write_text(json.dumps(configs))
    (tmp_path / "size.predict").write_text(json.dumps({f"model_{i}": i for i in range(8)}))
    arguments = [
        f"--pgdl={tmp_path / 'model_configs.json'}",
        f"--predictions={tmp_path / 'size.predict'}",
        "--target=gap",
    ]
    assert main([*arguments, f"--out={tmp_path / 'out'}", *FAST]) == 0
    row = json.loads((tmp_path / "out" / "verdict.json").read_text())["rows"][0]
    assert row["measure"] == "size" and row["tau_b"] == pytest.approx(1) and row["pgdl"] == pytest.approx(1)
    (tmp_path / "size.predict").write_text(json.dumps({"model_0": 1}))
    assert main(arguments) == 2
    assert "lacks 7 of 8 models, the first is 'model_1'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either a CSV or --pgdl"),
        (["nothing.csv"], "there is no file 'nothing.csv'"),
        (
            ["TABLE", "--target=accuracy"],
            "--target: no column matches 'accuracy'; the columns are name, status, hp.axis0",
        ),
        (["TABLE", "--hyperparameters=x*"], "--hyperparameters: no column matches 'x*'"),
        (["TABLE", "--measures=x*"], "--measures: no column matches 'x*'"),
        (["TABLE", "--measures=status"], "column 'status' has to hold numbers, but model '0' (line 2) has 'converged'"),
        (["TABLE", "--repeats=median"], "repeats is 'median'"),
        (["TABLE", "--draws=many"], "argument --draws: invalid int value: 'many'"),
        (["TABLE", "--unknown=1"], "unrecognized arguments: --unknown=1"),
        (["TABLE", "--family=x"], "--family is 'x'; it has to look like NAME=VALUES"),
        (["TABLE", "--signature=x=zz*"], "--signature x: no measure matches 'zz*'"),
        (["TABLE", "--predictions=a.predict"], "--predictions belong to --pgdl"),
        (["TABLE", "--out=TABLE"], "which is a file; give a directory"),
        (["TABLE", "--test-size=0"], "test_size is 0; it has to be a positive finite number"),
        (["TABLE", "--test-size=-5"], "test_size is -5; it has to be a positive finite number"),
        (["TABLE", "--test-size=1" + "0" * 400], "it has to be a positive finite number"),
        (["TABLE", "--target=\x1b]0;t\x07"], "--target: no column matches"),
        (["TABLE", "--reference=rival"], "there is no reference 'rival' in the table"),
    ],
)
def test_wrong_command_line(tmp_path, capsys, arguments, message):
    """One sentence on stderr, nothing on stdout, a status that is not zero."""
    path = tmp_path / "results.csv"
    write_csv(make_table(), path)
    try:
        status = main([a.replace("TABLE", str(path)) for a in arguments])
    except SystemExit as stop:
        status = stop.code
    printed = capsys.readouterr()
    assert status == 2 and printed.out == ""
    assert message in printed.err and printed.err.count("\n") == 1 and printed.err.strip().isprintable()


def test_infinite_targets_are_judged_without_a_warning(tmp_path, capsys):
    lines = [f"n{i},{i % 3},{i * 7 % 5},{'inf' if i % 4 else i}" for i in range(12)]
    (tmp_path / "t.csv").write_text("\n".join(["name,hp.a,m,gap", *lines]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main([str(tmp_path / "t.csv"), "--test-size=100", *FAST]) == 0
    assert capsys.readouterr().err == ""


def test_a_terminal_obeys_no_name(tmp_path, capsys):
    """Names in a file may hold commands for a terminal; what is printed holds none, whoever read the file."""
    lines = [f"n{i}\x1b[2J,{i % 3},{i % 2 or 'bad' + chr(7)},{i * 7 % 5},{i}" for i in range(12)]
    (tmp_path / "t.csv").write_text("\n".join(["name,hp.\x1b[2J,status,\x1b]0;t\x07m,gap", *lines]))
    assert main([str(tmp_path / "t.csv"), *FAST]) == 0
    printed = capsys.readouterr().out
    assert all(line.isprintable() for line in printed.split("\n")) and "\ufffd]0;t\ufffdm" in printed
