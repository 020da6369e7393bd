"""What the fault tests share: a sweep of seconds, drivers of it as processes of their own, and what is left of them."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
from ml_collections import ConfigDict

from configs import sweep
from prunegen_jax.runs import compilation, files, pipeline
from tests.support import experiments

ROOT = pathlib.Path(__file__).parents[2]
WORK = "--stage=train,measure"
PATIENCE = 300.0  # seconds, on a busy machine
LONG = 1800.0  # the same for the default sweep


def get_config(variant: str = "") -> ConfigDict:
    """Four networks of two shapes, each a group, checkpoints often, two measures.

    Args:
        variant: "judged": they reach the target. "smoke": eight networks of one shape, those of the sweep `smoke` but
            smaller. "resnet": four residual networks of width 8 that reach the target, two at a time in slots of one
            program.
    """
    config = experiments.get_config()
    config.train.target = {"judged": 2.29, "resnet": 1.0}.get(variant, 0.05)
    config.data.train_size = 100
    config.model.depth = 1
    config.train.max_epochs = 10
    config.measures.names = ("parameter_norm", "distance_from_initialization")
    config.sweep.axes = (("model.width", (4, 6)), ("seed", (0, 1)))
    config.run.checkpoint_seconds = 0.1
    config.run.group = 1
    config.run.workers = 2
    if variant == "smoke":
        config.model.width = 4
        config.sweep.axes = sweep.get_config("smoke").sweep.axes
        config.run.group = 2
    if variant == "resnet":
        config.model = ConfigDict({"name": "resnet", "width": 8, "preactivation": True})
        config.sweep.axes = (("train.learning_rate", (0.01, 0.02)), ("seed", (0, 1)))
        config.measures.names = ("prunability_prefix", "path_norm", "distance_from_initialization")
        config.run.group = config.run.slots = 2
        config.run.workers = 1
    return config


def work(variant, workdir, cache, begun):
    """Does the sweep in `workdir`, in this process: to be run in one of its own. Sets `begun` when it begins."""
    config = get_config(variant)
    config.run.workers = 1
    compilation.use_cache(cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # the smallest programs as well
    jax.devices()
    begun.set()
    pipeline.run(config, workdir, stages=("train", "measure"))


def start(workdir, *arguments, config="tests/support/faults.py", **options):
    """A driver of the sweep in `workdir`."""
    command = [sys.executable, "run.py", f"--config={config}", f"--workdir={workdir}", WORK, *arguments]
    # The tests' cache, for the smallest programs as well.
    variables = os.environ | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    variables.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=variables, **pipes, **options)


def finish(process, status=0, *, patience=PATIENCE):
    """What a driver wrote, once it has ended with `status`."""
    output, _ = process.communicate(timeout=patience)
    assert process.returncode == status, output
    return output


def run(workdir, *arguments, status=0, patience=PATIENCE, **options):
    """What a driver of the sweep in `workdir` wrote to its end."""
    return finish(start(workdir, *arguments, **options), status, patience=patience)


def until(process, condition, *, patience=PATIENCE):
    """Waits for `condition` while `process` runs."""
    end = time.monotonic() + patience
    while process.poll() is None and not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)
    assert process.poll() is None, process.communicate()[0]


def workers(process):
    """The processes that work for a driver, by id."""
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in command(int(child))]


def command(pid):
    """The command line of a process; nothing if there is none, or if it has ended."""
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def kill(pid, number=signal.SIGKILL):
    os.kill(pid, number)


def records(workdir):
    """The files of records by name."""
    return {file.name: file.read_bytes() for file in (pathlib.Path(workdir) / "records").glob("*.json")}


def epochs(workdir):
    """How far the networks that have a checkpoint have come."""
    states = (pathlib.Path(workdir) / "checkpoints").glob("*/state.json")
    return {file.parent.name: files.read_json(file)["meta"]["epochs"] for file in states}


def checkpoints(workdir):
    """The networks that have a checkpoint."""
    return {file.parent.name for file in (pathlib.Path(workdir) / "checkpoints").glob("*/state.json")}
