"""Interrupted and damaged runs: killed at any moment, they end with the same records, and nothing is done twice."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import pytest
from etils import epath

from prunegen_jax import training
from prunegen_jax.runs import checkpoint, files, pipeline, record, train
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
    pipeline.run(experiments.get_config(), workdir, stages=NUMBERS)
    return workdir


@pytest.fixture
def workdir(finished, tmp_path):
    """A copy of the finished sweep to damage."""
    return pathlib.Path(shutil.copytree(finished, tmp_path / "sweep"))


@pytest.mark.parametrize("damage", ["record", "checkpoint", "both"])
def test_damage_is_reported_and_redone(workdir, finished, damage, capsys):
    name = "learning_rate=0.05,seed=1"
    path = workdir / "records" / f"{name}.json"
    if damage in {"record", "both"}:
        path.write_bytes(path.read_bytes()[:300])
    else:  # a measure is missing, so that the checkpoint is needed
        content = files.read_json(path)
        del content["measures"]["parameter_norm"]
        files.write_json(path, content)
    if damage in {"checkpoint", "both"}:
        data = [f for f in (workdir / "checkpoints" / name).rglob("*") if f.is_file() and f.name != "state.json"]
        largest = max(data, key=lambda f: f.stat().st_size)
        largest.write_bytes(largest.read_bytes()[:50])
    pipeline.run(experiments.get_config(), workdir, stages=NUMBERS)
    assert "is damaged" in capsys.readouterr().err
    assert contents(workdir) == contents(finished)


def test_a_checkpoint_of_the_middle_of_training_is_not_measured(workdir, finished, capsys):
    """Another driver, that is behind, has just written it over that of the end."""
    name, folder = "learning_rate=0.05,seed=1", epath.Path(workdir)
    path = workdir / "records" / f"{name}.json"
    content = files.read_json(path)
    del content["measures"]["parameter_norm"]
    files.write_json(path, content)
    arrays, meta = checkpoint.load(folder, name)
    shutil.rmtree(workdir / "checkpoints" / name)
    arrays["final/params/head/kernel"] += 1.0
    checkpoint.save(folder, name, "epoch-3", arrays, meta | {"status": "training", "epochs": 3})
    pipeline.run(experiments.get_config(), workdir, stages=NUMBERS)
    assert "is not from the end of its training" in capsys.readouterr().err
    assert contents(workdir) == contents(finished)


def start(workdir):
    command = [sys.executable, "run.py", "--config=tests/support/experiments.py", f"--workdir={workdir}"]
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


def test_killed_it_goes_on_to_the_same_records(tmp_path, finished):
    """SIGKILL in the first network's training, and in the middle of measuring; `make faults` kills at fifty moments."""
    folder = tmp_path / "killed"
    moments = [
        (folder / "checkpoints" / "learning_rate=0.05,seed=0" / "state.json").exists,
        lambda: any(b'"prunability_random"' in c and b'"sum_of' not in c for c in contents(folder).values()),
    ]
    for moment in moments:
        process = start(folder)
        wait_for(process, moment)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    last = start(folder)
    output, _ = last.communicate()
    assert last.returncode == 0, output
    assert contents(folder) == contents(finished)


def test_a_finished_network_without_a_record_is_not_trained_again(workdir, finished, monkeypatch):
    """As after a kill between the last checkpoint and the record."""
    name, epochs, real = "learning_rate=0.1,seed=0", [], training.train_many

    def train_many(*arguments, **options):
        for trained in real(*arguments, **options):
            epochs.append(trained)
            yield trained

    (workdir / "records" / f"{name}.json").unlink()
    before, _ = checkpoint.load(epath.Path(workdir), name)
    monkeypatch.setattr(training, "train_many", train_many)
    point = next(p for p in sweeps.points(experiments.get_config()) if p.name == name)
    train.train(workdir, [point], experiments.get_config())
    assert not epochs, "it was trained"
    after, _ = checkpoint.load(epath.Path(workdir), name)
    assert files.digest(after) == files.digest(before)
    assert record.read(workdir, name) == dataclasses.replace(record.read(finished, name), measures={}, targets={})


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
        train.train(tmp_path / "w", [one], first, note=stop)
    assert (tmp_path / "w" / "checkpoints" / one.name / "state.json").exists()
    train.train(tmp_path / "w", [other], second)
    assert "was written for another network" in capsys.readouterr().err
    train.train(tmp_path / "fresh", [other], second)
    assert record.read(tmp_path / "w", other.name) == record.read(tmp_path / "fresh", other.name)
