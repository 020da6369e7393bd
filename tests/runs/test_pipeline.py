"""The whole way: records, resuming after a kill, extending a workdir, refusing to change it, damage repaired."""

from __future__ import annotations

import csv
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from prunegen_jax import load_model, measures
from prunegen_jax.compute.evaluation import loss_and_accuracy
from prunegen_jax.runs import checkpoints, files, pipeline, records, work
from prunegen_jax.runs import points as sweeps
from tests.support import experiments

ROOT = pathlib.Path(__file__).parents[2]


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
    """A copy of the finished sweep to spoil."""
    return pathlib.Path(shutil.copytree(finished, tmp_path / "sweep"))


def test_records_hold_what_happened(finished):
    known = records.read_all(finished)
    assert len(known) == 4
    for record in known:
        model = load_model(finished, record["name"])
        loss, accuracy = loss_and_accuracy(model.apply, model.params, model.train)
        assert record["status"] == "converged"
        assert record["train"] == {"loss": loss, "accuracy": accuracy, "size": 200}
        assert loss < 0.05
        assert record["test"]["size"] == 797
        assert 0.3 < record["test"]["accuracy"] < accuracy
        assert record["measures"]["parameter_norm"]["value"] == pytest.approx(
            sum(
                float((np.asarray(w, np.float64) ** 2).sum())
                for w in jax.tree.leaves(model.folded.params)
                if w.ndim == 4
            )
        )
        assert record["measures"]["prunability_random"]["options"] == {"masks": 3}
        assert record["measures"]["prunability_random"]["status"] == "ok"
        assert record["measures"]["sum_of_training_losses"]["value"] == pytest.approx(sum(model.history.epoch_loss))
        assert record["versions"]["backend"] == jax.default_backend()


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
    record = records.read(finished, "learning_rate=0.05,seed=0")
    row = by_name["learning_rate=0.05,seed=0"]
    assert float(row["gap"]) == pytest.approx(record["train"]["accuracy"] - record["test"]["accuracy"])
    assert float(row["prunability_prefix"]) == record["measures"]["prunability_prefix"]["value"]
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
        ("measures.options", {"prunability_random": {"masks": 4}}, r"options \{'masks': 3\}, not \{'masks': 4\}"),
        ("measures.options", {}, r"options \{'masks': 3\}, not \{\}"),
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


@pytest.mark.parametrize("damage", ["record", "checkpoint", "both"])
def test_damage_is_reported_and_redone(workdir, finished, damage, capsys):
    name = "learning_rate=0.05,seed=1"
    record = workdir / "records" / f"{name}.json"
    if damage in {"record", "both"}:
        record.write_bytes(record.read_bytes()[:300])
    else:  # a measure is missing, so that the checkpoint is needed
        content = files.read_json(record)
        del content["measures"]["parameter_norm"]
        files.write_json(record, content)
    if damage in {"checkpoint", "both"}:
        data = [f for f in (workdir / "checkpoints" / name).rglob("*") if f.is_file() and f.name != "state.json"]
        largest = max(data, key=lambda f: f.stat().st_size)
        largest.write_bytes(largest.read_bytes()[:50])
    pipeline.run(experiments.get_config(), workdir, stages=NUMBERS)
    assert "is damaged" in capsys.readouterr().err
    assert contents(workdir) == contents(finished)


def test_a_checkpoint_of_the_middle_of_training_is_not_measured(workdir, finished, capsys):
    """Another driver, that is behind, has just written it over that of the end."""
    name = "learning_rate=0.05,seed=1"
    record = records.read(workdir, name)
    del record["measures"]["parameter_norm"]
    files.write_json(records.path(workdir, name), record)
    arrays, meta = checkpoints.load(workdir / "checkpoints" / name)
    shutil.rmtree(workdir / "checkpoints" / name)
    arrays["final/params/head/kernel"] += 1.0
    checkpoints.save(workdir / "checkpoints" / name, "epoch-3", arrays, meta | {"status": "training", "epochs": 3})
    pipeline.run(experiments.get_config(), workdir, stages=NUMBERS)
    assert "is not that of its end" in capsys.readouterr().err
    assert contents(workdir) == contents(finished)


def test_networks_that_fail_stay_in_the_records_with_their_reason(tmp_path, capsys):
    config = experiments.get_config()
    config.sweep.axes = (("train.learning_rate", (1e-6, 0.1, 1e38)), ("seed", (0,)))
    pipeline.run(config, tmp_path / "w", stages=NUMBERS)
    known = {record["name"]: record for record in records.read_all(tmp_path / "w")}
    assert known["learning_rate=1e-06,seed=0"]["status"] == "not_converged"
    assert "target 0.05" in known["learning_rate=1e-06,seed=0"]["reason"]
    assert known["learning_rate=1e-06,seed=0"]["measures"]
    diverged = known["learning_rate=1e+38,seed=0"]
    assert (diverged["status"], diverged["train"], diverged["measures"]) == ("diverged", None, {})
    printed = capsys.readouterr().out
    assert "left out: 2 models" in printed
    assert "not_converged" in printed
    assert "diverged" in printed


def start(workdir):
    command = [sys.executable, "run.py", "--config=tests/experiments.py", f"--workdir={workdir}"]
    command.append(f"--stage={','.join(NUMBERS)}")
    cache = jax.config.jax_compilation_cache_dir
    variables = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return subprocess.Popen(
        command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for(process, condition):
    while process.poll() is None and not condition():
        time.sleep(0.002)
    assert process.poll() is None, process.stdout.read()


def test_killed_at_any_moment_it_goes_on_to_the_same_records(tmp_path):
    """SIGKILL in the first network's training, between networks, in the middle of measuring; against a quiet run."""
    quiet = start(tmp_path / "quiet")
    output, _ = quiet.communicate()
    assert quiet.returncode == 0, output

    folder = tmp_path / "killed"
    moments = [
        (folder / "checkpoints" / "learning_rate=0.05,seed=0" / "state.json").exists,
        lambda: len(list((folder / "records").glob("*.json"))) >= 2,
        lambda: len(list((folder / "checkpoints").glob("*/epoch-*"))) >= 1,
        lambda: any(b'"prunability_random"' in c and b'"sum_of' not in c for c in contents(folder).values()),
    ]
    for moment in moments:
        process = start(folder)
        wait_for(process, moment)
        time.sleep(0.05 * np.random.default_rng().random())
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    last = start(folder)
    output, _ = last.communicate()
    assert last.returncode == 0, output
    assert contents(folder) == contents(tmp_path / "quiet")
    assert (folder / "results.csv").read_bytes() == (tmp_path / "quiet" / "results.csv").read_bytes()


def test_a_finished_network_without_a_record_is_not_trained_again(workdir, finished):
    """As after a kill between the last checkpoint and the record."""
    name = "learning_rate=0.1,seed=0"
    (workdir / "records" / f"{name}.json").unlink()
    stamp = records.read(finished, name)
    begin = time.monotonic()
    point = next(p for p in sweeps.points(experiments.get_config()) if p.name == name)
    work.train(workdir, [point], experiments.get_config())
    assert time.monotonic() - begin < 60
    assert records.read(workdir, name) == stamp | {"measures": {}}


def test_a_checkpoint_of_another_network_is_not_continued(tmp_path, capsys):
    """The field that changed is not swept, so the names are the same and there is no record to compare with."""
    first, second = experiments.get_config(), experiments.get_config()
    second.train.weight_decay = 0.1
    first.run.checkpoint_seconds = 0.0
    (one, *_), (other, *_) = sweeps.points(first), sweeps.points(second)
    assert one.name == other.name

    def stop(text):
        if "epoch 3" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work.train(tmp_path / "w", [one], first, note=stop)
    assert (tmp_path / "w" / "checkpoints" / one.name / "state.json").exists()
    work.train(tmp_path / "w", [other], second)
    assert "is of another network" in capsys.readouterr().err
    work.train(tmp_path / "fresh", [other], second)
    assert records.read(tmp_path / "w", other.name) == records.read(tmp_path / "fresh", other.name)


def test_the_last_shard_judges(tmp_path, capsys):
    config = experiments.get_config()
    config.run.group = 2
    assert pipeline.run(config, tmp_path, shard="1/2", stages=NUMBERS) is None
    assert "2 of 4 networks of the sweep have no record yet" in capsys.readouterr().err
    assert pipeline.run(config, tmp_path, shard="0/2", stages=NUMBERS) is not None


def test_when_no_network_reaches_the_target(tmp_path):
    config = experiments.get_config()
    config.train.max_epochs = 1
    with pytest.raises(ValueError, match=r"none of the 4 networks .* reached the target \(4 not_converged\)"):
        pipeline.run(config, tmp_path / "w", stages=NUMBERS)
    assert len(records.read_all(tmp_path / "w")) == 4


def test_load_model_says_what_there_is(finished):
    with pytest.raises(ValueError, match="has no network 'nobody'; it has learning_rate=0.05,seed=0, "):
        load_model(finished, "nobody")


def test_a_changed_data_set_is_noticed(workdir):
    path = workdir / "records" / "learning_rate=0.05,seed=0.json"
    record = files.read_json(path)
    files.write_json(path, record | {"data": "0" * 16})
    with pytest.raises(ValueError, match="the data set is not the one"):
        load_model(workdir, "learning_rate=0.05,seed=0")
    config = experiments.get_config()
    config.measures.names = ("num_parameters",)
    with pytest.raises(ValueError, match="the data set is not the one"):
        pipeline.run(config, workdir, stages=NUMBERS)
