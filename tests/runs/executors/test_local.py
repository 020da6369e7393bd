"""Executors: the same records in other processes, what each process is given, and what is made of its failures."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import threading
import time

import jax
import pytest
from etils import epath

from prunegen_jax import measures
from prunegen_jax.runs import driver, files, pipeline, processes, record, train
from prunegen_jax.runs import points as sweeps
from prunegen_jax.runs.executors import base, local, process
from prunegen_jax.runs.executors.base import Outcome, Retries, RunContext, Unit
from tests.support import experiments

NAMES = ("parameter_norm", "prunability_random")


def small():
    """Two shapes, two networks of each, two measures."""
    config = experiments.get_config()
    config.measures.names = NAMES
    config.train.max_epochs = 3
    config.sweep.axes = (("model.width", (4, 8)), ("seed", (0, 1)))
    config.run.group = 1
    return config


def units_of(config, stages=("train", "measure")):
    groups = sweeps.groups(sweeps.points(config), size=config.run.group)
    return [Unit(tuple(group), NAMES, stages) for group in groups]


def contents(workdir):
    return {file.name: file.read_bytes() for file in (workdir / "records").glob("*.json")}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The records of `small`, made in this process."""
    workdir = tmp_path_factory.mktemp("alone")
    pipeline.run(small(), workdir, stages=["train", "measure"])
    assert len(contents(workdir)) == 4
    return workdir


def test_two_processes_make_the_same_records(alone, tmp_path, monkeypatch):
    config = small()
    config.run.workers = 2
    begun = []
    real = base._do
    monkeypatch.setattr(base, "_do", lambda *a: begun.append(a) or real(*a))
    pipeline.run(config, tmp_path, stages=["train", "measure"])
    assert contents(tmp_path) == contents(alone)
    assert not begun, "the work was done in this process"
    assert not multiprocessing.active_children()
    assert all(known.versions["threads"] == "1" for known in record.read_all(epath.Path(tmp_path)))


def test_this_process_computes_as_a_worker_does():
    """Or the tests would start one at every turn."""
    assert processes.environment(1).items() <= dict(os.environ).items()


def test_nothing_is_started_when_nothing_is_missing(alone, monkeypatch):
    monkeypatch.setattr(process, "run", lambda *_, **__: pytest.fail("a pool was started"))
    config = small()
    config.run.workers = 2
    before = contents(alone)
    pipeline.run(config, alone, stages=["train", "measure"])
    assert contents(alone) == before


def test_a_worker_keeps_to_its_shapes_and_leaves_others_theirs():
    config = small()
    narrow, narrow_too, wide, wide_too = units_of(config)
    assert narrow.shape == narrow_too.shape != wide.shape == wide_too.shape
    one, two = process._Worker(None, None), process._Worker(None, None)
    waiting = [narrow, narrow_too, wide, wide_too]

    def choose(worker):
        unit = worker.unit = process._choose(waiting, worker, [one, two], process._Durations())
        worker.shapes.add(unit.shape)
        return unit

    assert [choose(one), choose(two), choose(two), choose(two)] == [narrow, wide, wide_too, narrow_too]


def test_a_worker_leaves_the_last_units_to_those_that_have_the_programs():
    """Loading them would take it longer, here 30 seconds, than all that is left takes the others."""
    narrow, narrow_too, wide, wide_too = units_of(small())
    idle, owner = process._Worker(None, None, {narrow.shape}), process._Worker(None, None, {wide.shape})
    owner.unit, owner.begin = wide, time.monotonic() - 4.0  # 6 of its 10 seconds are left
    durations = process._Durations({wide.shape: 30.0}, {wide.shape: 10.0})
    few, many = [wide_too] * 2, [wide_too] * 3
    assert process._choose(few, idle, [idle, owner], durations) is None and len(few) == 2
    assert process._choose(many, idle, [idle, owner], durations) is wide_too and len(many) == 2
    assert process._choose([narrow_too], idle, [idle, owner], durations) is narrow_too
    assert process._choose([wide_too], idle, [idle, owner], process._Durations()) is wide_too  # nothing is known
    owner.begin -= 31.0  # it takes 25 seconds longer than expected so far: two more units may take 45
    assert process._choose([wide_too] * 2, idle, [idle, owner], durations) is wide_too
    owner.unit = None  # it was told to stop, say, and has nothing left
    assert process._choose(few, idle, [idle, owner], durations) is wide_too


def test_an_accelerator_is_not_kept_waiting_for_the_next_shape(tmp_path, monkeypatch):
    config = small()
    wide, wide_too, narrow, _ = units_of(config)
    context, compiled = RunContext(str(tmp_path), config), []
    monkeypatch.setattr(train, "compile_ahead", lambda folder, points, config: compiled.append(points))
    assert local._compile_ahead(context, wide, narrow) is None  # a CPU has nothing to spare
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert local._compile_ahead(context, wide, wide_too) is None
    assert local._compile_ahead(context, wide, None) is None
    assert local._compile_ahead(context, wide, narrow._replace(stages=("measure",))) is None
    local._compile_ahead(context, wide, narrow).join()
    assert compiled == [narrow.points]


def test_nothing_compiles_on_when_the_work_has_ended(tmp_path, monkeypatch):
    going = threading.Thread(target=time.sleep, args=(0.5,))
    going.start()
    monkeypatch.setattr(local, "_compile_ahead", lambda *_: going)
    monkeypatch.setattr(local, "attempt", lambda *_: Outcome("done"))
    rounds = local._run_here(RunContext(str(tmp_path), small()), units_of(small())[:1], str)
    next(rounds)
    assert going.is_alive()
    rounds.close()
    assert not going.is_alive()


def test_a_failure_is_told_and_the_rest_goes_on(tmp_path, monkeypatch, capsys):
    config = small()
    units = units_of(config)
    bad = units[1].points[0].name

    def do(folder, unit, *rest):
        if unit.points[0].name == bad:
            raise ZeroDivisionError("nobody foresaw this")
        return real(folder, unit, *rest)

    real = base._do
    monkeypatch.setattr(base, "_do", do)
    with pytest.raises(driver.FailedError, match=rf"1 of 4 groups failed: {bad}: ZeroDivisionError: nobody foresaw"):
        driver.drive(RunContext(str(tmp_path), config), units, local.run)
    assert len(contents(tmp_path)) == 3
    assert "Traceback" in capsys.readouterr().err


def test_files_that_cannot_be_reached_are_tried_again_and_then_end_the_run(tmp_path, monkeypatch):
    attempts = []

    def do(*_):
        attempts.append(1)
        raise OSError("the share is gone")

    monkeypatch.setattr(base, "_do", do)
    config = small()
    config.run.retries = 1
    with pytest.raises(OSError, match="the share is gone"):
        driver.drive(RunContext(str(tmp_path), config), units_of(config), local.run)
    assert len(attempts) == 4  # two of each of two groups in a row


def test_what_another_driver_undid_is_done_again(tmp_path, alone):
    """As when two drivers write one record at the same moment, and the one without a measure comes last."""
    config = small()
    units = units_of(config)
    rounds = []

    def forgetful(context, units, on_tick):
        rounds.append([unit.points[0].name for unit in units])
        yield from local.run(context, units, on_tick)
        if len(rounds) == 1:
            path = tmp_path / "records" / f"{units[2].points[0].name}.json"
            content = files.read_json(path)
            del content["measures"]["parameter_norm"]
            files.write_json(path, content)

    driver.drive(RunContext(str(tmp_path), config), units, forgetful)
    assert [len(names) for names in rounds] == [4, 1]
    assert contents(tmp_path) == contents(alone)


def test_a_worker_inherits_threads_and_no_script(monkeypatch):
    monkeypatch.setenv("PJRT_NPROC", "7")
    script = sys.modules["__main__"]
    with process._environment(3):
        assert processes.threads() == 3
        assert not hasattr(sys.modules["__main__"], "__file__")
    assert processes.threads() == 7
    assert sys.modules["__main__"] is script


ADDITION = """
from prunegen_jax import MEASURES, Estimate
from prunegen_jax.types import Measure
from tests.runs.executors import test_local as test_executors

MEASURES["seven"] = Measure(lambda model, key: Estimate(7.0), 1, "tests", 0.0, "this test")

def get_config():
    config = test_executors.small()
    config.run.workers = 2
    config.measures.names = ("seven",)
    return config
"""


def test_what_a_config_file_adds_reaches_the_workers(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(ADDITION)
    config = runpy.run_path(str(path))["get_config"]()
    try:
        pipeline.run(config, tmp_path / "w", stages=["train", "measure"], source=str(path))
        assert "alone" not in capsys.readouterr().err
        pipeline.run(config, tmp_path / "v", stages=["train", "measure"])
        assert "seven: added in this process only" in capsys.readouterr().err
    finally:
        del measures.MEASURES["seven"]
    found = record.read_all(epath.Path(tmp_path / "w"))
    assert [known.measures["seven"]["value"] for known in found] == [7.0] * 4
    assert local._added() == []


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [("workers", -1, "run.workers=-1 must be at least 0"), ("threads", 0, "run.threads=0 must be at least 1")],
)
def test_what_does_not_fit_is_told_first(field, value, sentence, tmp_path):
    config = small()
    config.run[field] = value
    with pytest.raises(ValueError, match=sentence):
        pipeline.run(config, tmp_path / "w")
    assert not (tmp_path / "w").exists()


def test_unknown_executors(tmp_path):
    with pytest.raises(ValueError, match="--executor='slurm' is unknown; choose among local, ray"):
        pipeline.run(small(), tmp_path / "w", executor="slurm")
    with pytest.raises(ValueError, match="--ray_address='auto' is given, but --executor=local"):
        pipeline.run(small(), tmp_path / "w", address="auto")


def test_what_happened_to_a_process_or_its_files_is_tried_again(capsys):
    config = small()
    config.run.retries = 2
    unit, other, *_ = units_of(config)
    retries = Retries(config)
    assert not any(retries.again(unit, Outcome(status, "wrong")) for status in ("done", "failed"))
    assert [retries.again(unit, Outcome(status, "gone")) for status in ("unreachable", "dead", "stopped")] == [
        True, True, False,
    ]  # fmt: skip
    assert retries.again(other, Outcome("dead", "gone"))  # each unit has its own
    assert capsys.readouterr().err.splitlines()[0] == f"gone; trying {unit.points[0].name} again"


@pytest.mark.parametrize(("quota", "most"), [("max 100000", 64), ("150000 100000", 2), ("20000 100000", 1)])
def test_a_container_has_the_cores_of_its_quota(quota, most, tmp_path, monkeypatch):
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(processes, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(processes.os, "sched_getaffinity", lambda _: range(64))
    assert processes.cores() == most
