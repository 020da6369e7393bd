"""Tables of records: what is taken as what, and what is left out."""

import math

import numpy as np

from prunegen_jax.runs.tables import from_records
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


def test_records_of_a_field_beside_the_axes():
    """A field that the axes determine is no axis; one that they do not is, and both are said."""
    table = from_records([record(d, w, 0, lr=d / 10, data=w % 3 + d) for d in (2, 3) for w in (8, 16)])
    assert "lr" not in table.hyperparameters and any("lr varies with the axes" in note for note in table.notes)
    other = from_records([record(2, 8, 0, lr=0.1), record(2, 8, 0, lr=0.2)])
    assert list(other.hyperparameters["lr"]) == [0.1, 0.2] and any("lr varies between" in note for note in other.notes)
