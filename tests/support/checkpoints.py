"""A small checkpoint for tests, in a workdir: its content, and saving and loading it under one name."""

from __future__ import annotations

import os
import pathlib
import time

import numpy as np
from etils import epath

from prunegen_jax.runs import checkpoint, files

NAME = "m"
HISTORY = {
    "epoch_loss": [2.5, 2 / 3], "check_update": [7], "check_loss": [0.1], "updates": 7, "batch_size": 4, "target": 0.2,
}  # fmt: skip
META = {
    "hash": "a", "data": "b", "versions": {"threads": "1"}, "status": "training", "reason": "", "epochs": 2,
    "history": HISTORY, "check_running": [0.3], "has_first_epoch": False,
}  # fmt: skip
ARRAYS = {"params/a/kernel": np.arange(12, dtype=np.float32).reshape(3, 4), "stats/n": np.array(3, np.int32)}


def place(workdir) -> pathlib.Path:
    """The folder of the checkpoint."""
    return pathlib.Path(workdir) / "checkpoints" / NAME


def write(workdir, arrays_name, arrays, meta=META):
    """Saves a checkpoint."""
    checkpoint.save(epath.Path(workdir), NAME, arrays_name, arrays, meta)


def save(workdir, arrays_name, value):
    """Saves a checkpoint whose array and whose JSON file hold `value`."""
    write(workdir, arrays_name, {"x": np.full(3, value, np.float32)}, META | {"value": value})


def load(workdir, **options):
    """What the checkpoint holds."""
    return checkpoint.load(epath.Path(workdir), NAME, **options)


def write_state(workdir, name, **meta):
    """Writes the JSON file of the checkpoint of `name`, without arrays: what progress and reports read."""
    state = {"arrays": "final-01234567", "digest": "", "files": {}, "meta": META | meta}
    path = pathlib.Path(workdir) / "checkpoints" / name / "state.json"
    files.write_json(path, state)
    return path


def set_age(path, seconds):
    """Makes a file or folder `seconds` old."""
    os.utime(path, (time.time() - seconds,) * 2, follow_symlinks=False)
