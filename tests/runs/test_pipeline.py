"""The whole way: records, the table and the verdict; extending a workdir, refusing to change it."""

from __future__ import annotations

import csv
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from etils import epath

from prunegen_jax import load_model, measures
from prunegen_jax.compute.evaluation import loss_and_accuracy
from prunegen_jax.measures.structure import folded_network
from prunegen_jax.runs import driver, files, pipeline, processes, record
from prunegen_jax.types import Measure
from tests.support import experiments

NUMBERS = ("train", "measure", "judge")  # all but the report, which has tests of its own


def contents(workdir, folder="records"):
    return {file.name: file.read_bytes() for file in (workdir / folder).glob("*.json")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The sweep of `experiments`, uninterrupted."""
    workdir = tmp_path_factory.mktemp("finished") / "sweep"
    pipeline.run(experiments.get_config(), workdir)
    return workdir


@pytest.fixture
def workdir(finished, tmp_path):
    """A copy of the finished sweep to damage."""
    return pathlib.Path(shutil.copytree(finished, tmp_path / "sweep"))


def test_records_hold_what_happened(finished):
    records = record.read_all(finished)
    assert len(records) == 4
    for known in records:
        model = load_model(finished, known.name)
        loss, accuracy = loss_and_accuracy(model.apply, model.params, model.train)
        assert known.status == "converged"
        assert known.train == {"loss": loss, "accuracy": accuracy, "size": 200}
        assert loss < 0.05
        assert known.test["size"] == 797
        assert 0.3 < known.test["accuracy"] < accuracy
        assert known.measures["parameter_norm"]["value"] == pytest.approx(
            sum(
                float((np.asarray(w, np.float64) ** 2).sum())
                for w in jax.tree.leaves(folded_network(model).params)
                if w.ndim == 4
            )
        )
        assert known.measures["prunability_random"]["options"] == {"masks": 3, "drops": 30}
        assert known.measures["prunability_random"]["status"] == "ok"
        assert known.measures["sum_of_training_losses"]["value"] == pytest.approx(sum(model.history.epoch_loss))
        assert known.versions["backend"] == jax.default_backend()
        assert known.versions["processor"] == processes.processor()


def test_saved_weights_are_the_network(finished):
    name = "learning_rate=0.1,seed=1"
    model = load_model(finished, name)
    with np.load(finished / "weights" / f"{name}.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["final/params/head/kernel"], model.params["head"]["kernel"])
        np.testing.assert_array_equal(arrays["init/params/head/kernel"], model.init_params["head"]["kernel"])
        first = model.first_epoch.params["head"]["kernel"]
        np.testing.assert_array_equal(arrays["first_epoch/params/head/kernel"], first)
    assert not np.array_equal(first, model.params["head"]["kernel"])
    assert all(
        e.status == "ok" for e in measures.measure(model, ["parameter_norm", "distance_from_initialization"]).values()
    )


def test_results_and_verdict_are_written(finished):
    with open(finished / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert {"hp.train.learning_rate", "hp.seed", "prunability_prefix", "gap", "test_error", "test_loss"} <= set(rows[0])
    by_name = {row["name"]: row for row in rows}
    known = record.read(finished, "learning_rate=0.05,seed=0")
    row = by_name["learning_rate=0.05,seed=0"]
    assert float(row["gap"]) == pytest.approx(known.train["accuracy"] - known.test["accuracy"])
    assert float(row["prunability_prefix"]) == known.measures["prunability_prefix"]["value"]
    assert (finished / "verdict.csv").exists()
    assert (finished / "report" / "index.html").exists()


def test_a_second_run_changes_nothing(workdir):
    before, stamps = contents(workdir), {f: f.stat().st_mtime_ns for f in (workdir / "records").iterdir()}
    pipeline.run(experiments.get_config(), workdir, stages=NUMBERS)
    assert contents(workdir) == before
    assert {f: f.stat().st_mtime_ns for f in (workdir / "records").iterdir()} == stamps


def test_shards_make_the_same_records(finished, tmp_path):
    config = experiments.get_config()
    config.run.group = 1
    for shard in ("1/2", "0/2"):
        pipeline.run(config, tmp_path / "w", stages=["train", "measure"], shard=shard)
    assert contents(tmp_path / "w") == contents(finished)


def test_points_and_measures_extend_a_workdir(workdir):
    config = experiments.get_config()
    config.sweep.axes = (("train.learning_rate", (0.1, 0.2)), ("seed", (0,)))
    config.measures.names = ("num_parameters",)
    before = contents(workdir)
    pipeline.run(config, workdir, stages=NUMBERS)
    after = contents(workdir)
    assert set(after) - set(before) == {"learning_rate=0.2,seed=0.json"}
    old, new = (json.loads(c["learning_rate=0.1,seed=0.json"]) for c in (before, after))
    assert set(new["measures"]) - set(old["measures"]) == {"num_parameters"}
    assert all(new["measures"][name] == old["measures"][name] for name in old["measures"])


def test_measures_of_an_older_definition_are_not_mixed_with_new_ones(workdir):
    """Records of older versions say no version; what does not have the measure is extended as before."""
    config = experiments.get_config()
    first = epath.Path(sorted((workdir / "records").glob("*.json"))[0])
    content = files.read_json(first)
    assert content["measures"]["prunability_random"].pop("version") == 2
    files.write_json(first, content)
    with pytest.raises(ValueError, match="by version 1 of that measure, not 2: a table must not mix versions"):
        pipeline.run(config, workdir, stages=["measure"])
    del content["measures"]["prunability_random"]
    files.write_json(first, content)
    pipeline.run(config, workdir, stages=["measure"])
    assert files.read_json(first)["measures"]["prunability_random"]["version"] == 2


def test_a_new_axis_reuses_the_networks_that_are_there(workdir):
    config = experiments.get_config()
    config.sweep.axes = (*config.sweep.axes, ("train.weight_decay", (0.0, 1e-3)))
    pipeline.run(config, workdir, stages=["train"])
    names = {path.removesuffix(".json") for path in contents(workdir)}
    assert len(names) == 8
    assert "learning_rate=0.1,seed=0" in names
    assert "learning_rate=0.1,seed=0,weight_decay=0.001" in names
    assert "learning_rate=0.1,seed=0,weight_decay=0.0" not in names


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model.width", 9, "model.width is 8 there and 9 here"),
        ("train.target", 0.02, "train.target is 0.05 there and 0.02 here"),
        ("data.seed", 3, "data.seed is 0 there and 3 here"),
        ("measures.options", {"prunability_random": {"masks": 4}}, r"options \{.*'masks': 3.*\}, not \{'masks': 4\}"),
        ("measures.options", {}, r"options \{.*'masks': 3.*\}, not \{\}"),
    ],
)
def test_what_is_there_is_not_changed(workdir, field, value, message):
    config = experiments.get_config()
    section, key = field.split(".")
    config[section][key] = value
    before = contents(workdir)
    with pytest.raises(ValueError, match=message):
        pipeline.run(config, workdir, stages=NUMBERS)
    assert contents(workdir) == before


def test_new_points_that_differ_elsewhere_are_refused_too(workdir):
    config = experiments.get_config()
    config.model.width = 9
    config.sweep.axes = (("train.learning_rate", (0.3,)),)
    with pytest.raises(ValueError, match="model.width is 8 there and 9 here"):
        pipeline.run(config, workdir, stages=NUMBERS)


def test_networks_that_fail_stay_in_the_records_with_their_reason(tmp_path, capsys):
    config = experiments.get_config()
    config.sweep.axes = (("train.learning_rate", (1e-6, 0.1, 1e38)), ("seed", (0,)))
    pipeline.run(config, tmp_path / "w", stages=NUMBERS)
    known = {each.name: each for each in record.read_all(tmp_path / "w")}
    assert known["learning_rate=1e-06,seed=0"].status == "not_converged"
    assert "target 0.05" in known["learning_rate=1e-06,seed=0"].reason
    assert known["learning_rate=1e-06,seed=0"].measures
    diverged = known["learning_rate=1e+38,seed=0"]
    assert (diverged.status, diverged.train, diverged.measures) == ("diverged", None, {})
    printed = capsys.readouterr().out
    assert "left out: 2 models" in printed
    assert "not_converged" in printed
    assert "diverged" in printed


def test_the_last_shard_judges(tmp_path, capsys):
    config = experiments.get_config()
    config.run.group = 2
    assert pipeline.run(config, tmp_path, shard="1/2", stages=NUMBERS) is None
    assert "2 of 4 networks of the sweep have no record yet" in capsys.readouterr().err
    assert pipeline.run(config, tmp_path, shard="0/2", stages=NUMBERS) is not None


def test_measures_that_fail_are_told_when_all_is_done(workdir, monkeypatch):
    """The table is judged without them, and the run does not count as a success."""
    monkeypatch.setitem(measures.MEASURES, "breaks", Measure(lambda model, key: 1 / 0, 1, "size", 0.0, "this test"))
    config = experiments.get_config()
    config.measures.names = ("parameter_norm", "breaks")
    (workdir / "verdict.csv").unlink()
    sentence = "measures failed: breaks of 4 of 4 networks, such as .*seed=0: ZeroDivisionError: division by zero"
    for stages in (NUMBERS, ("measure",)):
        with pytest.raises(driver.FailedError, match=sentence):
            pipeline.run(config, workdir, stages=stages)
    assert (workdir / "verdict.csv").exists()


def test_weights_that_were_deleted_come_back(finished, workdir, capsys):
    """From the checkpoints, byte for byte; a network without either is named."""
    for file in (workdir / "weights").iterdir():
        file.unlink()
    shutil.rmtree(workdir / "checkpoints" / "learning_rate=0.1,seed=1")
    before = {file.name: file.read_bytes() for file in (finished / "weights").iterdir()}
    del before["learning_rate=0.1,seed=1.npz"]
    pipeline.run(experiments.get_config(), workdir, stages=["train"])
    assert {file.name: file.read_bytes() for file in (workdir / "weights").iterdir()} == before
    told = capsys.readouterr().err
    assert "missing weights of 3 networks were restored from their checkpoints" in told
    assert (
        "checkpoints of 1 networks, such as learning_rate=0.1,seed=1, are missing or damaged; to train them again"
        in told
    )


def test_when_no_network_reaches_the_target(tmp_path):
    config = experiments.get_config()
    config.train.max_epochs = 1
    with pytest.raises(ValueError, match=r"none of the 4 networks .* reached the target \(4 not_converged\)"):
        pipeline.run(config, tmp_path / "w", stages=NUMBERS)
    assert len(record.read_all(tmp_path / "w")) == 4


def test_load_model_says_what_there_is(finished):
    with pytest.raises(ValueError, match="has no network 'nobody'; it has learning_rate=0.05,seed=0, "):
        load_model(finished, "nobody")


def test_a_changed_data_set_is_noticed(workdir):
    path = workdir / "records" / "learning_rate=0.05,seed=0.json"
    files.write_json(path, files.read_json(path) | {"data": "0" * 16})
    with pytest.raises(ValueError, match="the data set is not the one"):
        load_model(workdir, "learning_rate=0.05,seed=0")
    config = experiments.get_config()
    config.measures.names = ("num_parameters",)
    with pytest.raises(ValueError, match="the data set is not the one"):
        pipeline.run(config, workdir, stages=NUMBERS)
