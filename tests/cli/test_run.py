"""The command line: wrong input gives one clear sentence and an exit code, and writes nothing."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest
from etils import epath

from prunegen_jax.runs import points as sweeps
from prunegen_jax.runs import train
from tests.support import experiments

ROOT = pathlib.Path(__file__).parents[2]


def call(workdir, *arguments, config="tests/support/experiments.py"):
    command = [sys.executable, "run.py", f"--config={config}", f"--workdir={workdir}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config.model.widht=8"], 'override: widht. Did you mean "width" instead of "widht"?'),
        (["--config.train.learning_rate=0.1"], "the sweep varies 'train.learning_rate'"),
        (["--config.data.name=digitz"], "data.name='digitz' is unknown; choose 'digits', 'breast_cancer' or"),
        (
            ["--config.measures.names=('prunabilty',)"],
            "measure 'prunabilty' is unknown; did you mean 'prunability'?",
        ),
        (["--config.train.optimizer=sgd"], "train.optimizer='sgd' is unknown; choose among momentum, adam, rmsprop"),
        (["--config.train.batch_size=201"], "train.batch_size=201 is larger than the training set of 200 examples"),
        (["--config.train.batch_size=many"], "batch_size"),
        (
            ["--config.data.name=cifar10", "--config.data.dir=/no/such/folder"],
            "data.dir='/no/such/folder' is not a folder",
        ),
        (["--shard=4/4"], "--shard=4/4 must be i/n with i from 0 to n - 1"),
        (["--stage=trian"], "--stage='trian' is unknown; choose among train, measure, judge, report"),
        (["--wrokdir=x"], "wrokdir"),
        (["extra"], "unknown flag 'extra'"),
    ],
    ids=lambda x: "".join(x)[:40] if isinstance(x, list) else "",
)
def test_one_clear_sentence(arguments, sentence, tmp_path):
    done = call(tmp_path / "w", *arguments)
    assert done.returncode not in {0, 1}, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "w").exists()


def test_an_empty_axis(tmp_path):
    config = tmp_path / "empty.py"
    config.write_text(
        "from tests.support import experiments\n\ndef get_config():\n    config = experiments.get_config()\n"
        "    config.sweep.axes = (('seed', ()),)\n    return config\n"
    )
    done = call(tmp_path / "w", config=config)
    assert done.returncode == 2
    assert done.stderr.strip() == "the axis 'seed' of sweep.axes is empty; it needs at least one value"


def test_missing_config_and_workdir():
    for given, sentence in (([], "--config is missing"), (["--config=configs/default.py"], "--workdir is missing")):
        done = subprocess.run([sys.executable, "run.py", *given], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith(sentence)
    done = call("x", config="configs/nothing.py")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_workdir_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = call(tmp_path / "file" / "w")
    assert done.returncode == 2
    assert "cannot be written: Not a directory" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert (tmp_path / "file").read_text() == "in the way"


def test_nothing_is_written_over(tmp_path):
    """A config that does not fit leaves the workdir as it was, to the byte."""
    narrow = experiments.get_config()
    narrow.model.width, narrow.train.max_epochs = 4, 1
    train.train_missing(epath.Path(tmp_path), sweeps.points(narrow)[:1], narrow)
    before = {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}
    done = call(tmp_path)
    assert done.returncode == 2
    assert "model.width is 4 there and 8 here" in done.stderr
    assert {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()} == before
