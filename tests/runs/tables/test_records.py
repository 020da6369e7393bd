"""Tables of records: what is taken as what, and what is left out."""

import math
from fractions import Fraction

import numpy as np
import pytest

from prunegen_jax.judging import grid
from prunegen_jax.runs.tables import from_records, read_csv, write_csv
from tests.support.tables import RECORDS, record


def test_records():
    table = from_records(RECORDS, families={"prunability": "pruning", "absent": "x"}, signs={"prunability": 1})
    assert len(table) == 6
    assert set(table.hyperparameters) == {"model.depth", "model.width", "seed"}
    assert table.left_out == (
        ("depth=2,width=16,seed=1", "not_converged: loss 0.2, after 9 updates"),
        ("depth=3,width=8,seed=1", "diverged: the loss is nan"),
    )
    np.testing.assert_allclose(table.targets["gap"][0], (2 + 8) / 797)
    np.testing.assert_allclose(table.targets["test_error"], table.targets["gap"], atol=1e-12)
    np.testing.assert_array_equal(table.targets["test_loss"], 0.7)
    assert np.isnan(table.measures["broken"]).all()
    assert table.test_size == 797 and table.families == {"prunability": "pruning"}
    np.testing.assert_array_equal(table.confounders["parameters"], table.measures["params"])
    np.testing.assert_array_equal(table.confounders["batch_size"], 32)
    whole = table.with_left_out()
    assert len(whole) == 8 and whole.measures["prunability"][-1] == math.inf and math.isnan(whole.targets["gap"][-1])


def test_a_converged_model_may_have_a_remark():
    assert len(from_records([record(2, 8, 0, reason="took long"), record(3, 8, 0)])) == 2


def test_networks_without_a_target_are_judged(tmp_path):
    """Their training has ended, whatever the loss; the CSV keeps the status."""
    table = from_records([record(2, 8, 0, status="ended"), record(3, 8, 0, status="diverged"), record(4, 8, 0)])
    assert len(table) == 2 and len(table.left_out) == 1
    write_csv(table, tmp_path / "results.csv")
    again = read_csv(tmp_path / "results.csv")
    assert again.statuses == table.statuses == ("ended", "converged") and len(again.left_out) == 1
    assert again.take(np.array([1])).statuses == ("converged",)


def test_records_of_a_field_beside_the_axes():
    """A field that the axes determine is no axis; one that they do not is, and both are said."""
    table = from_records([record(d, w, 0, lr=d / 10, data=w % 3 + d) for d in (2, 3) for w in (8, 16)])
    assert "lr" not in table.hyperparameters and any("lr is determined by the axes" in note for note in table.notes)
    other = from_records([record(2, 8, 0, lr=0.1), record(2, 8, 0, lr=0.2)])
    assert list(other.hyperparameters["lr"]) == [0.1, 0.2] and any("lr varies between" in note for note in other.notes)


@pytest.mark.parametrize("sizes", [(1000, 797), (1437, 797), (1437, None)])
@pytest.mark.parametrize("seeds", [1, 2, 3, 7])
def test_averaged_seeds_keep_the_ties_of_the_target(seeds, sizes):
    """Configurations whose seeds have the same mean gap tie, as their integers say, and others do not."""
    m, n = sizes[0], 797
    wrong = np.random.default_rng(seeds).integers(0, 6, size=(60, seeds)).tolist()
    records = [
        record(c, 8, s, accuracies=((m - w % 2) / m, (n - w) / n), sizes=sizes)
        for c, errors in enumerate(wrong)
        for s, w in enumerate(errors)
    ]
    table = from_records(records)
    short, _, _ = grid.average(table, grid.grid_of(table)[0])
    for target, counted in (("gap", 1), ("test_error", 0)):
        exact = [sum(Fraction(w, n) - counted * Fraction(w % 2, m) for w in errors) for errors in wrong]
        found = np.unique(short.targets[target], return_inverse=True)[1]
        np.testing.assert_array_equal(found, np.unique(np.array(exact), return_inverse=True)[1])


def test_one_large_value_ties_no_small_ones():
    """Norms span many decades: what is equal depends on the repeats of a configuration, not on the largest of all."""
    values = np.array([1e-8, 3e-8, 2e-8, 5e-8, 1e12, 1e12])
    table = from_records([record(c, 8, s, prunability=values[2 * c + s]) for c in range(3) for s in range(2)])
    short, _, _ = grid.average(table, grid.grid_of(table)[0])
    np.testing.assert_allclose(short.measures["prunability"], [2e-8, 3.5e-8, 1e12], rtol=1e-12)


def test_a_record_copied_under_another_name_counts_once():
    """Whatever else was changed in the copy: it says it is the same network."""
    one = record(2, 8, 0)
    copy = one | {"name": "copy", "test": {"loss": 9.0, "accuracy": 0.1, "size": 797}}
    table = from_records([one, record(3, 8, 0), copy])
    assert table.names == ("depth=2,width=8,seed=0", "depth=3,width=8,seed=0")
    assert "copy and depth=2,width=8,seed=0 are the same network; only the latter is judged" in table.notes
    np.testing.assert_allclose(table.targets["test_loss"], 0.7)
