"""Tables in CSV files: what is taken as what, and that they read back as they were written."""

import csv
import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest

from prunegen_jax.judging import Table
from prunegen_jax.runs.tables import from_records, read_csv, write_csv
from tests.support.tables import RECORDS, assert_equal, write


def test_csv_reads_back(tmp_path):
    table = from_records(RECORDS)
    measures = dict(sorted(table.measures.items()))
    table = dataclasses.replace(table, measures=measures)
    write_csv(table, tmp_path / "results.csv")
    back = read_csv(tmp_path / "results.csv")
    assert_equal(table, back)
    assert_equal(table.left_out_rows, back.left_out_rows)
    assert back.left_out == table.left_out and back.test_size == table.test_size
    assert [p.name for p in tmp_path.iterdir()] == ["results.csv"]
    header = (tmp_path / "results.csv").read_text().splitlines()[0].split(",")
    assert header[:5] == ["name", "status", "hp.model.depth", "hp.model.width", "hp.seed"]
    assert header[5:11] == ["measure.broken", "params", "prunability", "gap", "test_error", "test_loss"]


def test_csv_of_awkward_names_and_values(tmp_path):
    """Measures that are called like something else, numbers with all their digits, text axes."""
    rng = np.random.default_rng(0)
    names = (
        "complexity.x",
        "gen_gap",
        "hp.y",
        "index",
        "status",
        "train_acc",
        "train_loss",
        "val_f1",
        "with,comma",
        "zeta",
    )
    table = Table(
        names=("a", "b,c", 'd"e'),
        hyperparameters={"optimizer": np.array(["sgd", "adam", "sgd"]), "lr": np.array([1e-3, 0.1 + 0.2, 1e300])},
        measures={name: rng.normal(size=3) * 10.0 ** rng.integers(-300, 300) for name in names},
        targets={"gap": np.array([0.1, np.nan, np.inf])},
    )
    write_csv(table, tmp_path / "t.csv")
    assert_equal(
        dataclasses.replace(table, confounders={"train_loss": table.measures["train_loss"]}),
        read_csv(tmp_path / "t.csv"),
    )


def test_csv_finds_its_columns(tmp_path):
    path = write(
        tmp_path / "rgm.csv",
        "id,hp.lr,hp.depth,seed,is.converged,complexity.l2,complexity.params,gen.gap,test_accuracy\n"
        "0,0.1,2,0,True,1.5,10,0.2,0.8\n1,0.2,2,0,False,1.5,10,0.2,0.8\n2,0.2,3,0,True,,10,0.3,0.7\n",
    )
    table = read_csv(path)
    assert list(table.hyperparameters) == ["lr", "depth", "seed"]
    assert list(table.measures) == ["l2", "params"] and list(table.targets) == ["gap", "test_error"]
    assert table.names == ("0", "2") and table.left_out == (("1", "False"),)
    assert math.isnan(table.measures["l2"][1])
    assert "taken as targets: gen.gap (gap), 1 - test_accuracy (test_error)" in table.notes


def test_csv_by_pattern(tmp_path):
    path = write(tmp_path / "t.csv", "width,depth,sharpness,norm,drop\n1,2,3,4,5\n2,2,5,4,6\n")
    table = read_csv(path, target="drop", hyperparameters="*th", measures="sharp*,norm")
    assert list(table.hyperparameters) == ["width", "depth"]
    assert list(table.measures) == ["sharpness", "norm"] and list(table.targets) == ["drop"]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,gap\n1,2\n", {"target": "nope"}, r"--target: no column matches 'nope'; the columns are a, gap"),
        (
            "a,train_acc,val_acc\n1,0.9,0.8\n",
            {"target": "gapp"},
            r"no column matches 'gapp'; .*val_acc; gap and test_error are computed from train_acc and val_acc$",
        ),
        (
            "a,test_acc\n1,0.8\n",
            {"target": "gap"},
            r"no column matches 'gap'; .*test_acc; test_error is computed from test_acc$",
        ),
        ("a,gap\n1,2\n", {"measures": "z*"}, r"--measures: no column matches 'z\*'"),
        ("a,gap\n1,2\n", {"hyperparameters": "hp*"}, r"--hyperparameters: no column matches 'hp\*'"),
        ("name,a,b\nx,1,2\n", {}, r"no target column found among name, a, b; name one with --target"),
        (
            "name|a|gap\nx|1|2\n",
            {},
            r"no target column found among name\|a\|gap.*separated by commas, semicolons or tabs",
        ),
        ("name,gap\nx,1\n", {}, r"no measure column found"),
        ("name,a,gap\nx,1,2\ny,large,3\n", {"measures": "a"}, r"column 'a' .* model 'y' \(line 3\) has 'large'"),
        ("name,a,gap\nx,1,2\ny,large,3\n", {}, r"column 'a' .* model 'y' \(line 3\) has 'large'"),
        ("name,a,gap\nx,1,2\ny,3,bad\n", {}, r"column 'gap' must hold numbers"),
        ("a,gap\n", {}, r"has no models"),
        ("a,a,gap\n1,2,3\n", {}, r"two columns 'a'"),
        ("a,gap\n1,2,3\n", {}, r"line 2 of .* has 3 cells; the header has 2"),
    ],
)
def test_wrong_csv(tmp_path, text, options, message):
    with pytest.raises(ValueError, match=message):
        read_csv(write(tmp_path / "t.csv", text), **options)


def test_missing_files(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file .*nothing\.csv"):
        read_csv(tmp_path / "nothing.csv")
    with pytest.raises(ValueError, match="no records"):
        from_records([])


def test_missing_hyperparameter(tmp_path):
    table = read_csv(write(tmp_path / "t.csv", "hp.a,m,gap\n1,2,3\n,2,3\n2,4,5\n"))
    assert len(table) == 2 and table.left_out == (("1", "no value of hyperparameter a"),)


def test_wrong_columns():
    with pytest.raises(ValueError, match=r"column 'm' of measures has shape \(2,\)"):
        Table(("a",), {}, {"m": np.zeros(2)}, {"gap": np.zeros(1)})
    with pytest.raises(ValueError, match=r"sign of measure 'm' is 0; choose 1 or -1"):
        Table(("a",), {}, {"m": np.zeros(1)}, {"gap": np.zeros(1)}, signs={"m": 0})


def test_no_jax():
    """Judging a table needs no JAX."""
    code = "import sys, prunegen_jax.judging, prunegen_jax.runs.tables; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_cell_is_a_formula(tmp_path):
    """A spreadsheet runs cells that begin with = + - @: names are written so that it does not, and read back equal."""
    names = ("=1+1", "+x", "-x", "@x", "'=x", "'x", "-1", "+inf", "x")
    values = np.arange(9.0) - 4
    table = Table(names, {"=hp": np.array(list(names))}, {"@m": values, "-m": values}, {"gap": -values})
    write_csv(table, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    for cell in (cell for line in lines for cell in line):
        assert cell[:1] not in ("=", "@") and (
            cell[:1] not in ("+", "-") or math.isfinite(float(cell)) or cell == "+inf"
        )
    assert_equal(
        dataclasses.replace(table, measures=dict(sorted(table.measures.items()))), read_csv(tmp_path / "t.csv")
    )


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators(tmp_path, separator):
    """The separator is found, and with it the decimal comma of spreadsheets."""
    text = 'name;hp.a;"m, the measure";gap\nx;1,5;2;0,25\ny;-2;3,5e-1;1e-3\n'
    table = read_csv(write(tmp_path / "t.csv", text.replace(";", separator)))
    assert list(table.measures) == ["m, the measure"]
    np.testing.assert_array_equal(table.hyperparameters["a"], [1.5, -2])
    np.testing.assert_array_equal(table.measures["m, the measure"], [2, 0.35])
    np.testing.assert_array_equal(table.targets["gap"], [0.25, 0.001])
