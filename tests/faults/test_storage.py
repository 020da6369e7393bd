"""Storage that fails: full, unwritable, damaged, changed. Nothing half is ever taken for whole, and nothing is lost."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import resource
import shutil
import subprocess

import numpy as np
import pytest
from etils import epath

from prunegen_jax import data, load_model
from prunegen_jax.data import cache
from prunegen_jax.runs import files, pipeline, record
from prunegen_jax.runs import points as sweeps
from prunegen_jax.runs.executors.base import RunContext, Unit, attempt
from tests.support import faults

STAGES = ("train", "measure")


def get_config():
    config = faults.get_config()
    config.run.workers = 1  # in the process of the test
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An undisturbed run."""
    workdir = tmp_path_factory.mktemp("finished") / "w"
    pipeline.run(get_config(), workdir, stages=STAGES)
    assert len(faults.records(workdir)) == 4
    return workdir


@contextlib.contextmanager
def quota(size):
    """No file of this process may grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [300, 2000, 6000])
def test_a_quota_stops_the_run_and_costs_nothing(finished, tmp_path, size):
    """What does not fit: anything at all; the config or a record; the arrays."""
    config = get_config()
    config.run.retries = 1
    with quota(size), pytest.raises(OSError, match=r"cannot be written|File too large"):
        pipeline.run(config, tmp_path / "w", stages=STAGES)
    whole = faults.records(finished)
    assert all(content == whole[name] for name, content in faults.records(tmp_path / "w").items())
    assert not list(tmp_path.rglob("*.tmp"))
    pipeline.run(config, tmp_path / "w", stages=STAGES)
    assert faults.records(tmp_path / "w") == whole


def test_a_folder_that_cannot_be_written(finished, tmp_path):
    """A file lies where the folder of the records should be; root, too, cannot write into it."""
    config = get_config()
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "records").write_text("in the way")
    with pytest.raises(OSError, match=r"width=4,seed=0: .*(exists|Not a directory)"):
        pipeline.run(config, tmp_path / "w", stages=STAGES)
    assert (tmp_path / "w" / "records").read_text() == "in the way"
    (tmp_path / "w" / "records").unlink()
    pipeline.run(config, tmp_path / "w", stages=STAGES)
    assert faults.records(tmp_path / "w") == faults.records(finished)


def spoil(path, how):
    content = bytearray(path.read_bytes())
    if how == "cut short":
        content = content[: len(content) // 2]
    elif how == "emptied":
        content = bytearray()
    else:
        content[len(content) // 2] ^= 4
    path.write_bytes(content)


FILES = ("records", "state", "arrays", "weights", "times", "config")


@pytest.mark.parametrize("how", ["cut short", "a bit flipped", "emptied"])
@pytest.mark.parametrize("what", FILES)
def test_damage_is_noticed_and_repaired(finished, tmp_path, what, how, capfd):
    workdir, name = pathlib.Path(shutil.copytree(finished, tmp_path / "w")), "width=4,seed=1"
    place = workdir / "checkpoints" / name
    found = {
        "records": [workdir / "records" / f"{name}.json"],
        "state": [place / "state.json"],
        "arrays": [f for f in place.rglob("*") if f.is_file() and f.name != "state.json" and f.stat().st_size],
        "weights": [workdir / "weights" / f"{name}.npz"],
        "times": [workdir / "times" / f"{name}.json"],
        "config": [workdir / "config.json"],
    }[what]
    assert found
    for path in found:
        spoil(path, how)
    if what in {"state", "arrays"}:  # a measure is missing, so that the checkpoint is needed
        content = files.read_json(workdir / "records" / f"{name}.json")
        del content["measures"]["parameter_norm"]
        files.write_json(workdir / "records" / f"{name}.json", content)
    pipeline.run(get_config(), workdir, stages=STAGES)
    assert faults.records(workdir) == faults.records(finished)
    told = capfd.readouterr().err
    assert ("is damaged" in told) == (what in {"records", "state", "arrays"})
    assert "Traceback" not in told
    load_model(workdir, name)


def test_damaged_weights_are_refused_by_numpy(finished, tmp_path):
    """Nothing of ours reads them; whoever does is told."""
    path = tmp_path / "x.npz"
    shutil.copy(finished / "weights" / "width=4,seed=1.npz", path)
    spoil(path, "a bit flipped")
    with pytest.raises(Exception, match="CRC|bad|Bad|header|magic|zip"), np.load(path, allow_pickle=False) as arrays:
        [arrays[name] for name in arrays]


def test_a_damaged_data_cache_is_never_taken_for_a_whole_one(tmp_path, capsys):
    rng = np.random.default_rng(0)
    raw = data.Raw(
        rng.integers(256, size=(20, 4, 4, 1), dtype=np.uint8), rng.integers(3, size=20, dtype=np.int32),
        rng.integers(256, size=(8, 4, 4, 1), dtype=np.uint8), rng.integers(3, size=8, dtype=np.int32), 3,
    )  # fmt: skip
    path = tmp_path / "cache.npz"
    cache.write(path, raw)
    content, refused = path.read_bytes(), 0
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        found = cache.read(path)
        refused += found is None
        assert found is None or all(np.array_equal(a, b) for a, b in zip(found, raw, strict=True))
        path.write_bytes(content[:place])
        assert cache.read(path) is None
    assert refused > 0.7 * len(content) / 7
    assert "is damaged" in capsys.readouterr().err


def test_a_network_whose_loss_is_not_a_number(tmp_path):
    config = get_config()
    config.sweep.axes = (("train.learning_rate", (0.05, 1e9)), ("model.width", (4,)))
    pipeline.run(config, tmp_path, stages=STAGES)
    known = {each.name: each for each in record.read_all(epath.Path(tmp_path))}
    bad = known.pop("learning_rate=1000000000.0,width=4")
    assert bad.status == "diverged"
    assert "nan" in bad.reason
    assert [each.status for each in known.values()] == ["not_converged"]
    before = faults.records(tmp_path)
    pipeline.run(config, tmp_path, stages=STAGES)
    assert faults.records(tmp_path) == before


def test_a_worker_that_reads_other_data_than_the_driver_does_nothing(tmp_path):
    config = get_config()
    point = sweeps.points(config)[0]
    unit = Unit((point,), tuple(config.measures.names), STAGES, "another")
    outcome = attempt(RunContext(str(tmp_path), config), unit)
    assert outcome.status == "failed"
    assert outcome.reason.startswith("the data set 'digits' is not the one that the run started with: its fingerprint")
    assert not list(tmp_path.iterdir())


CHANGING = """
import os, pathlib
import numpy as np
from prunegen_jax import MEASURES, Estimate, data
from prunegen_jax.types import Measure
from tests.faults import test_storage as test_faults_storage

PLACE = pathlib.Path(__file__).with_name("data.npz")

def mine():
    with np.load(PLACE, allow_pickle=False) as arrays:
        return data.Raw(*(arrays[name] for name in data.Raw._fields[:-1]), 10)

def spoil(model, key):
    raw = mine()
    arrays = raw._asdict() | {"train_labels": np.sort(raw.train_labels)}
    np.savez(PLACE.with_name("new.npz"), **arrays)
    os.replace(PLACE.with_name("new.npz"), PLACE)
    return Estimate(1.0)

data.LOADERS["mine"] = mine
MEASURES["spoil"] = Measure(spoil, 1, "tests", 0.0, "this test")

def get_config():
    config = test_faults_storage.get_config()
    config.data.name = "mine"
    config.measures.names = ("spoil",)
    return config
"""


@pytest.mark.faults
def test_a_data_set_changes_under_a_running_sweep(tmp_path):
    """The networks are all of the old data, or not there; afterwards the same command is refused, in one sentence."""
    np.savez(tmp_path / "data.npz", **data.load("digits")._asdict())
    (tmp_path / "changing.py").write_text(CHANGING)
    faults.run(tmp_path / "w", config=tmp_path / "changing.py")
    before = faults.records(tmp_path / "w")
    assert len({each.data for each in record.read_all(epath.Path(tmp_path / "w"))}) == 1
    output = faults.run(tmp_path / "w", status=2, config=tmp_path / "changing.py")
    assert output.startswith("the data set is not the one that 'width=4,seed=0' was trained on: its fingerprint is")
    assert len(output.splitlines()) == 1
    assert faults.records(tmp_path / "w") == before


@contextlib.contextmanager
def disk(folder, size):
    """A file system of `size` bytes at `folder`, if this machine lets us; and a way to change it."""
    folder.mkdir()

    def mount(*options):
        return subprocess.run(["mount", *options, str(folder)], capture_output=True, check=False).returncode == 0

    if not mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
        yield None
        return
    try:
        yield lambda options: mount("-o", f"remount,{options}")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.faults
def test_a_disk_that_is_full_and_then_larger(finished, tmp_path):
    with disk(tmp_path / "d", "300k") as change:  # the whole takes 470k
        limit = {} if change else {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (6000,) * 2)}
        output = faults.run(tmp_path / "d" / "w", status=2, **limit)
        last = output.strip().splitlines()[-1]
        assert "No space left on device" in last or "File too large" in last
        assert "Traceback" not in output
        whole = faults.records(finished)
        assert faults.records(tmp_path / "d" / "w") != whole
        known = {each.name: each for each in record.read_all(epath.Path(finished))}
        for each in record.read_all(epath.Path(tmp_path / "d" / "w")):  # measures may be missing
            full = known[each.name]
            measures = {name: full.measures[name] for name in each.measures}
            assert each == dataclasses.replace(full, measures=measures)
        if change:
            assert change("size=50m")
        faults.run(tmp_path / "d" / "w")
        assert faults.records(tmp_path / "d" / "w") == whole


@pytest.mark.faults
def test_a_workdir_that_becomes_unwritable(finished, tmp_path):
    with disk(tmp_path / "d", "50m") as change:
        workdir = tmp_path / "d" / "w"
        driver = faults.start(workdir)
        faults.until(driver, lambda: faults.checkpoints(workdir))
        if change:
            faults.until(driver, lambda: change("ro"))  # refused while a file is open for writing
        else:
            os.chmod(workdir, 0o500)
        last = faults.finish(driver, status=2).strip().splitlines()[-1]  # TensorStore, cut off, has its say before
        assert last.startswith("width=")
        assert "Read-only file system" in last or "Permission denied" in last
        if change:
            assert change("rw")
        else:
            os.chmod(workdir, 0o700)
        faults.run(workdir)
        assert faults.records(workdir) == faults.records(finished)
