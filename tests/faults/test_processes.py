"""Killed, told to stop, started twice: the same command ends with the records of an undisturbed run, byte for byte."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.support import faults

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """The records of an undisturbed run."""
    workdir = tmp_path_factory.mktemp("quiet")
    faults.run(workdir)
    found = faults.records(workdir)
    assert len(found) == 4
    return found


def test_a_worker_is_killed(quiet, tmp_path):
    driver = faults.start(tmp_path)
    faults.until(driver, lambda: faults.checkpoints(tmp_path))
    for worker in faults.workers(driver):
        faults.kill(worker)
    output = faults.finish(driver)
    assert "was killed by SIGKILL; trying width=" in output
    assert " again\n" in output
    assert faults.records(tmp_path) == quiet


DEADLY = """
import os, signal
from prunegen_jax import MEASURES, Estimate
from prunegen_jax.types import Measure
from tests.support import faults

def deadly(model, key):
    if model.init_params["head"]["kernel"].shape[-2] == 6 and faults.command(os.getppid()):
        os.kill(os.getpid(), signal.SIGKILL)
    return Estimate(1.0)

MEASURES["deadly"] = Measure(deadly, 1, "tests", 0.0, "this test", needs=("init_params",))

def get_config():
    config = faults.get_config()
    config.measures.names = ("parameter_norm", "deadly")
    config.run.retries = 1
    return config
"""


def test_a_group_that_kills_every_worker_is_told_and_the_rest_goes_on(tmp_path):
    (tmp_path / "deadly.py").write_text(DEADLY)
    output = faults.run(tmp_path / "w", status=1, config=tmp_path / "deadly.py")
    last = output.strip().splitlines()[-1]
    assert last.startswith("2 of 4 groups failed: width=6,seed=0: worker process ")
    assert "was killed by SIGKILL; width=6,seed=1: worker process " in last
    assert output.count("trying") == 2
    found = faults.records(tmp_path / "w")
    assert len(found) == 4
    assert {name: b'"deadly"' in content for name, content in found.items()} == {
        f"width={width},seed={seed}.json": width == 4 for width in (4, 6) for seed in (0, 1)
    }


def test_the_driver_is_killed(quiet, tmp_path):
    driver = faults.start(tmp_path)
    faults.until(driver, lambda: faults.checkpoints(tmp_path))
    orphans = faults.workers(driver)
    assert orphans
    faults.kill(driver.pid)
    driver.communicate()
    faults.run(tmp_path)
    assert faults.records(tmp_path) == quiet
    end = time.monotonic() + faults.PATIENCE
    while any(faults.command(orphan) for orphan in orphans):
        assert time.monotonic() < end, "a worker outlives its driver"
        time.sleep(0.1)


def test_a_sweep_of_residual_networks_is_killed(tmp_path):
    """In training, and once some are measured; two networks at a time, vmapped. It is judged in the end."""
    resnet = {"config": "tests/support/faults.py:resnet"}
    stages = "--stage=train,measure,judge"
    faults.run(tmp_path / "quiet", stages, **resnet)
    moments = [lambda: faults.checkpoints(tmp_path / "killed"), lambda: faults.records(tmp_path / "killed")]
    for moment in moments:
        driver = faults.start(tmp_path / "killed", stages, **resnet)
        faults.until(driver, moment)
        faults.kill(driver.pid)
        driver.communicate()
    faults.run(tmp_path / "killed", stages, **resnet)
    quiet = faults.records(tmp_path / "quiet")
    assert len(quiet) == 4
    for content in map(json.loads, quiet.values()):
        assert content["status"] == "converged"
        assert {estimate["status"] for estimate in content["measures"].values()} == {"ok"}
    assert faults.records(tmp_path / "killed") == quiet
    for name in ("results.csv", "verdict.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "quiet" / name).read_bytes()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_driver_told_to_stop_leaves_a_checkpoint(tmp_path, workers):
    """The networks train for ever, and save every five seconds; the last checkpoint is that of the signal."""
    endless = ["--config.train.target=1e-30", "--config.train.max_epochs=1000000", "--config.run.checkpoint_seconds=5"]
    driver = faults.start(tmp_path, *endless, f"--config.run.workers={workers}")
    faults.until(driver, lambda: len(faults.checkpoints(tmp_path)) == workers)
    before = faults.epochs(tmp_path)
    faults.kill(driver.pid, signal.SIGTERM)
    output = faults.finish(driver, status=143)
    assert output.strip().splitlines()[-1] == (
        "stopped with 0 of 4 networks done; run the same command again to continue"
    )
    assert "Traceback" not in output
    after = faults.epochs(tmp_path)
    assert all(after[name] > before[name] for name in before)
    assert not faults.records(tmp_path)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_was_told_to_stop_goes_on(quiet, tmp_path, workers):
    driver = faults.start(tmp_path, f"--config.run.workers={workers}")
    faults.until(driver, lambda: faults.checkpoints(tmp_path))
    faults.kill(driver.pid, signal.SIGTERM)
    faults.finish(driver, status=143)
    assert len(faults.records(tmp_path)) < 4
    faults.run(tmp_path)
    assert faults.records(tmp_path) == quiet


def test_ctrl_c(tmp_path):
    """The terminal sends it to the driver and its workers."""
    ours = signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it, and so their children
    driver = faults.start(tmp_path, process_group=0)
    signal.signal(signal.SIGINT, ours)
    faults.until(driver, lambda: faults.checkpoints(tmp_path))
    os.killpg(driver.pid, signal.SIGINT)
    output = faults.finish(driver, status=130)
    assert output.strip().splitlines()[-1] == "interrupted; run the same command again to continue"
    assert "Traceback" not in output


def test_two_drivers_at_once(quiet, tmp_path):
    drivers = [faults.start(tmp_path), faults.start(tmp_path)]
    for driver in drivers:
        faults.finish(driver)
    assert faults.records(tmp_path) == quiet


def test_the_same_shards_twice_at_once_and_merged(quiet, tmp_path):
    drivers = [faults.start(tmp_path, f"--shard={i}/2", "--config.run.workers=1") for i in (0, 1, 0, 1)]
    for driver in drivers:
        faults.finish(driver)
    assert faults.records(tmp_path) == quiet


LONG = """
import hashlib, signal, os, threading, time
from prunegen_jax.runs import processes
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
with processes.handle_signals(0.5):
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # minutes in C, where Python runs no signal handler
"""


def test_a_process_in_the_middle_of_a_long_step_ends_all_the_same():
    done = subprocess.run([sys.executable, "-c", LONG], cwd=faults.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 143
    assert done.stderr.strip() == ("stopped after 0 s in the middle of a step; run the same command again to continue")


STUCK = """
import hashlib
from prunegen_jax import MEASURES
from prunegen_jax.types import Measure
from tests.support import faults

def stuck(model, key):
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # minutes in C, where Python runs no signal handler

MEASURES["stuck"] = Measure(stuck, 1, "tests", 0.0, "this test")

def get_config():
    config = faults.get_config()
    config.measures.names = ("stuck",)
    return config
"""


def test_a_driver_waits_for_workers_in_the_middle_of_a_long_step(tmp_path):
    """One worker computes, one cannot even see the signal: the driver ends both, says so once, and leaves nothing."""
    (tmp_path / "stuck.py").write_text(STUCK)
    driver = faults.start(tmp_path / "w", config=tmp_path / "stuck.py")
    faults.until(driver, lambda: len(faults.records(tmp_path / "w")) == 2)
    workers = faults.workers(driver)
    faults.kill(workers[0], signal.SIGSTOP)
    for process in (driver.pid, workers[1]):  # as a scheduler does
        faults.kill(process, signal.SIGTERM)
    driver.wait(timeout=faults.PATIENCE)
    left = [worker for worker in workers if b"spawn_main" in faults.command(worker)]
    for worker in left:
        faults.kill(worker)
    output = faults.finish(driver, status=143)
    assert not left and "leaked" not in output and "Traceback" not in output
    assert [line for line in output.splitlines() if "stopped" in line] == [
        "stopped with 0 of 4 networks done; run the same command again to continue"
    ]
