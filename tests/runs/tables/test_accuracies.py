"""Accuracies in tables of others, and the status of their runs."""

import numpy as np
import pytest

from prunegen_jax.judging import format_table, judge
from prunegen_jax.runs.tables import read_csv
from tests.support.sweeps import QUICK
from tests.support.tables import write


@pytest.mark.parametrize(
    ("train", "test"),
    [("train_accuracy", "test_accuracy"), ("train_acc", "val_acc"), ("train/acc", "val/acc"), ("acc_train", "acc_test"),
     ("summary.train_top1", "summary.valid_top1")],
)  # fmt: skip
def test_accuracies_are_errors_and_gaps(tmp_path, train, test):
    """By name: the test error is one minus the accuracy, the gap the difference; and neither column is a measure."""
    text = f"name,m,{train},{test}\na,1,1.0,0.75\nb,2,0.5,0.25\nc,3,0.75,0.125\n"
    table = read_csv(write(tmp_path / "t.csv", text))
    assert list(table.targets) == ["gap", "test_error"] and list(table.measures) == ["m"]
    np.testing.assert_array_equal(table.targets["gap"], [0.25, 0.25, 0.625])
    np.testing.assert_array_equal(table.targets["test_error"], [0.25, 0.75, 0.875])
    assert f"taken as targets: {train} - {test} (gap), 1 - {test} (test_error)" in table.notes
    for name in (test, "test_error"):
        named = read_csv(tmp_path / "t.csv", target=name)
        assert list(named.targets) == ["test_error"] and list(named.measures) == ["m"]
        np.testing.assert_array_equal(named.targets["test_error"], [0.25, 0.75, 0.875])
    assert list(read_csv(tmp_path / "t.csv", target="gap").targets) == ["gap"]


def test_two_accuracies_are_two_targets(tmp_path):
    path = write(tmp_path / "t.csv", "m,test_acc,val_acc\n1,0.75,0.5\n2,0.5,0.25\n")
    table = read_csv(path, target="*_acc")
    assert list(table.targets) == ["test_error", "1 - val_acc"]
    np.testing.assert_array_equal(table.targets["1 - val_acc"], [0.5, 0.75])
    assert "taken as targets: 1 - test_acc (test_error), 1 - val_acc" in table.notes


def test_per_cent_and_single_precision(tmp_path):
    """Accuracies of a test set of known size are quotients, however they were rounded: equal errors tie."""
    right = np.array([700, 701, 703, 700, 703])
    rounded = [f"{c},{c % 2},{float(np.float32(100 * x / 797))!r},100" for c, x in enumerate(right)]
    text = "m,hp.a,test_accuracy,train_accuracy\n" + "\n".join(rounded) + "\n"
    table = read_csv(write(tmp_path / "t.csv", text), test_size=797)
    np.testing.assert_allclose(table.targets["test_error"], 1 - right / 797, rtol=1e-14)
    np.testing.assert_allclose(table.targets["gap"], 1 - right / 797, rtol=1e-14)


def test_rounding_breaks_no_tie_of_a_gap(tmp_path):
    """0.9 - 0.6 is not 0.8 - 0.5 in floats."""
    table = read_csv(write(tmp_path / "t.csv", "m,train_acc,test_acc\n1,0.9,0.6\n2,0.8,0.5\n3,0.7,0.4\n4,0.7,0.5\n"))
    assert len(np.unique(table.targets["gap"])) == 2


def test_higher_is_better(tmp_path):
    path = write(tmp_path / "t.csv", "m,score,reward\n1,0.25,10\n2,0.5,-3\n")
    table = read_csv(path, target="score,reward", higher_is_better=True)
    np.testing.assert_array_equal(table.targets["1 - score"], [0.75, 0.5])
    np.testing.assert_array_equal(table.targets["minus reward"], [-10, 3])
    assert "taken as targets: score (larger is better), reward (larger is better)" in table.notes
    with pytest.raises(ValueError, match="--higher-is-better applies to the columns of --target"):
        read_csv(path, higher_is_better=True)


@pytest.mark.parametrize("column", ["val_acc", "test/loss", "best_val_accuracy", "ood_error", "test_nll", "val_f1"])
def test_results_on_held_out_data_are_no_measures(tmp_path, column):
    path = write(tmp_path / "t.csv", f"norm,gap,{column}\n1,2,3\n2,3,4\n")
    table = read_csv(path)
    assert list(table.measures) == ["norm"]
    assert list(read_csv(path, measures="*").measures) == ["norm"]
    with pytest.raises(ValueError, match=rf"--measures: '{column}' is a result on held-out data.*measure.{column}"):
        read_csv(path, measures=column)
    named = read_csv(write(tmp_path / "u.csv", f"norm,gap,measure.{column}\n1,2,3\n2,3,4\n"), measures="measure.*")
    assert list(named.measures) == [column]


@pytest.mark.parametrize(
    ("column", "good", "bad"),
    [
        ("State", "finished", ("crashed", "failed", "running")),
        ("state", "COMPLETE", ("PRUNED", "FAIL", "RUNNING")),
        ("state", "TrialState.COMPLETE", ("TrialState.PRUNED",)),
        ("status", "FINISHED", ("KILLED",)),
    ],
)
def test_runs_that_did_not_finish_are_left_out(tmp_path, column, good, bad):
    """As W&B, Optuna and MLflow write them: counted, and said."""
    states = [good] * 4 + [word for word in bad for _ in range(2)]
    lines = [f"r{i},{state},{i},{i * i % 7},{i / 20}" for i, state in enumerate(states)]
    table = read_csv(write(tmp_path / "t.csv", "\n".join([f"Name,{column},hp.a,norm,test_loss", *lines])))
    assert table.names == ("r0", "r1", "r2", "r3") and len(table.left_out) == 2 * len(bad)
    counts = ", ".join(f"2 {word}" for word in bad)
    assert f"left out: {2 * len(bad)} models ({counts})" in format_table(judge(table, reference="norm", **QUICK))


def test_a_state_of_numbers_is_a_measure(tmp_path):
    assert list(read_csv(write(tmp_path / "t.csv", "state,gap\n0.5,2\n0.25,3\n")).measures) == ["state"]


def test_a_column_that_is_no_status(tmp_path):
    text = "state,hp.a,norm,gap\non,0,1,2\noff,1,2,3\n"
    with pytest.raises(
        ValueError, match="column 'state' has 'on', 'off', and a model is judged only .* give it another name"
    ):
        read_csv(write(tmp_path / "t.csv", text))
