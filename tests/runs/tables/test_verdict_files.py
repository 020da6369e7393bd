"""The files of a verdict: what they hold, and where they are put."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from etils import epath

from prunegen_jax.judging import judge, write
from prunegen_jax.runs.tables.verdict_files import read_verdict
from tests.support.sweeps import QUICK, make_table


@pytest.fixture(scope="module")
def verdict():
    return judge(make_table(), **QUICK)


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


def test_one_targets_name_may_end_with_that_of_another(tmp_path):
    table = make_table()
    gap = table.targets["gap"]
    verdict = judge(dataclasses.replace(table, targets={"gap": gap, "loss_gap": gap[::-1]}), **QUICK)
    assert {"added_gap", "added_loss_gap"} <= set(verdict.matrices)
    write(verdict, tmp_path)
    assert read_verdict(epath.Path(tmp_path) / "verdict.json").matrices.keys() == verdict.matrices.keys()
