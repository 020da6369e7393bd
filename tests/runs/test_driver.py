"""The driver: what it makes of groups that fail, of workers that see another folder, and what it shows meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from etils import epath

from prunegen_jax.runs import driver, measure, pipeline, progress, record, train, workdir
from prunegen_jax.runs import points as sweeps
from prunegen_jax.runs.driver import FailedError
from prunegen_jax.runs.executors import local, process
from prunegen_jax.runs.executors.base import Outcome, RunContext, attempt
from tests.runs.executors.test_local import small, units_of
from tests.support import checkpoints


def _ending(*outcomes):
    """An executor whose units end as told, and leave nothing in the workdir."""

    def execute(context, units, on_tick):
        yield from zip(units, (Outcome(status, "gone") for status in outcomes), strict=False)

    return execute


def test_one_group_whose_files_cannot_be_reached(tmp_path):
    begun = []

    def execute(context, units, on_tick):
        for unit in units:
            begun.append(unit)
            yield unit, Outcome("unreachable", "gone") if len(begun) == 2 else attempt(context, unit)

    config = small()
    units = units_of(config)
    with pytest.raises(OSError, match=f"^{units[1].points[0].name}: gone$"):
        driver.drive(RunContext(str(tmp_path), config), units, execute)
    assert begun == units
    assert len(record.read_all(epath.Path(tmp_path))) == 3


def test_two_groups_in_a_row_are_the_workdir(tmp_path):
    begun = []

    def execute(context, units, on_tick):
        for unit in units:
            begun.append(unit)
            yield unit, Outcome("unreachable", "gone")

    with pytest.raises(OSError, match="gone"):
        driver.drive(RunContext(str(tmp_path), small()), units_of(small()), execute)
    assert len(begun) == 2


def test_workers_that_see_another_folder(tmp_path):
    names = ", ".join(unit.points[0].name for unit in units_of(small()))
    with pytest.raises(FailedError, match=f"{names} wrote no records to .*same folder"):
        driver.drive(RunContext(str(tmp_path), small()), units_of(small()), _ending(*["done"] * 4))


def test_spare_is_called_once_while_the_last_unit_is_done(tmp_path):
    config, called = small(), []
    units = units_of(config)

    def execute(context, units, on_tick):
        for number, unit in enumerate(units):
            on_tick("")
            on_tick("")
            assert len(called) == (number == len(units) - 1)
            yield unit, attempt(context, unit)

    driver.drive(RunContext(str(tmp_path), config), units, execute, spare=lambda: called.append(1))
    assert len(called) == 1


def test_workers_are_given_absolute_folders(tmp_path, monkeypatch):
    contexts = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(driver, "drive", lambda context, *_, **__: contexts.append(context))
    config = small()
    config.data.cache_dir = "cache"
    config.run.compilation_cache = "programs"
    pipeline.run(config, "w", stages=["train"])
    (context,) = contexts
    given = context.folder, context.config.data.cache_dir, context.config.run.compilation_cache
    assert given == tuple(str(tmp_path / name) for name in ("w", "cache", "programs"))
    assert (config.data.cache_dir, config.data.dir) == ("cache", None)
    assert workdir.absolute("gs://bucket/sweep") == "gs://bucket/sweep"


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("gs://bucket/sweep", "cannot be reached: Please install gcsfs"),
        ("s3://bucket/sweep", "cannot be reached: Install s3fs"),
        ("hdfs://bucket/sweep", "is neither a folder nor in a bucket of gs:// or s3://"),
    ],
)
def test_a_bucket_that_nothing_here_can_read(place, sentence):
    code = f"from prunegen_jax.runs import workdir; workdir.locate({place!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip().splitlines()[-1].startswith(f"ValueError: --workdir={place} {sentence}")


def test_a_record_of_another_config_is_neither_taken_nor_replaced(tmp_path):
    """As when two drivers with different configs begin in one workdir at the same moment."""
    theirs = small()
    theirs.train.max_epochs = 2
    folder, point = epath.Path(tmp_path), sweeps.points(theirs)[0]
    train.train_missing(folder, [point], theirs)
    before = workdir.path(folder, "records", point.name).read_bytes()
    units = units_of(small())
    with pytest.raises(FailedError, match="made meanwhile by another driver with a different config"):
        driver.drive(RunContext(str(tmp_path), small()), units, local.run)
    assert workdir.path(folder, "records", point.name).read_bytes() == before
    assert len(record.read_all(folder)) == 4


def test_a_worker_that_dies_while_it_has_nothing_to_do(tmp_path, monkeypatch):
    context, (unit, *_) = RunContext(str(tmp_path), small()), units_of(small())
    worker = process._start(context)
    try:
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.join()
        time.sleep(0.5)  # until the pool knows
        process._give(worker, unit, context)
        outcome = process._outcome(worker)
    finally:
        worker.unit = None
        process._end([worker])
    assert (outcome.status, "was killed by SIGKILL" in outcome.reason) == ("dead", True)


def test_how_far_a_network_has_come_is_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_QUIET_SECONDS", 0.0)
    monkeypatch.setattr(progress, "_PEEK_SECONDS", 0.0)
    folder, units = epath.Path(tmp_path), units_of(small())
    for number, unit in enumerate(units[:2]):
        state = checkpoints.write_state(tmp_path, unit.points[0].name, epochs=7 + number)
        os.utime(state, (number, number))
    for expected in (f"trained 0/4, measured 0/4; {units[1].points[0].name}: epoch 8\n", ""):
        with driver._progress_bar(units, units) as bar:
            shown = driver._progress(bar, folder, units, {}, None)
            shown._due = 0.0
            shown.update()
        assert capsys.readouterr().err == expected
        state.write_text("{")


def test_trained_networks_are_counted_before_they_are_measured(tmp_path, monkeypatch, capsys):
    """Of four networks one is trained before the run, one while it is watched; then the first is measured."""
    monkeypatch.setattr(progress, "_QUIET_SECONDS", 0.0)
    config, folder = small(), epath.Path(tmp_path)
    units = units_of(config)
    names, points = units[0].names, [point for unit in units for point in unit.points]
    shown = []

    def look():
        watcher._due = 0.0
        watcher.update()
        shown.extend(line.partition(";")[0].partition(", ")[::2] for line in capsys.readouterr().err.splitlines())

    train.train_missing(folder, points[:1], config)
    known = {each.name: each for each in record.read_all(folder)}
    with driver._progress_bar(units, units) as bar:
        watcher = driver._progress(bar, folder, units, known, None)
        look()
        train.train_missing(folder, points[1:2], config)
        look()
        measure.measure_missing(folder, points[:1], names, config)
        look()
    counts = [(first, rest.split(",")[0]) for first, rest in shown]
    assert counts[0] == ("trained 1/4", "measured 0/4") and counts[-1] == ("trained 2/4", "measured 1/4")
    assert ("trained 2/4", "measured 0/4") in counts


def test_one_stage_is_called_by_its_name(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_QUIET_SECONDS", 0.0)
    units = [unit._replace(stages=("train",)) for unit in units_of(small())]
    with driver._progress_bar(units, units) as bar:
        driver._progress(bar, epath.Path(tmp_path), units, {}, None).update("epoch 3")
    assert capsys.readouterr().err == "training: 0/4; epoch 3\n"
