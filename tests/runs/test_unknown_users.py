"""Users that the machine does not know, as in containers: files of such a user, and a process without a home."""

from __future__ import annotations

import pathlib
import pwd
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
from etils import epath

from prunegen_jax.data import cache, tfds
from prunegen_jax.runs import checkpoint, compilation, record
from prunegen_jax.runs.progress import Progress, SweepProgress
from tests.support.checkpoints import META

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def unknown(monkeypatch):
    def nobody(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)


def test_files_of_an_unknown_user(unknown, tmp_path):
    """The driver looks at records and checkpoints; a checkpoint is saved, replaced, and read."""
    folder = epath.Path(tmp_path)
    (folder / "records").mkdir()
    (folder / "records" / "a.json").write_text("123")
    assert record.stamps(folder, ["a"])["a"][1] == 3
    for value in (1.0, 2.0):
        checkpoint.save(folder, "b", "epoch-000001", {"x": np.full(3, value)}, META)
    assert checkpoint.load(folder, "b")[0]["x"].tolist() == [2.0] * 3
    assert checkpoint.written(folder, "b") == (tmp_path / "checkpoints" / "b" / "state.json").stat().st_mtime
    SweepProgress(Progress(1, "test"), folder, {"b": lambda existing: True})._peek()


def test_no_home(unknown, monkeypatch, tmp_path):
    assert cache.folder() is None
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        compilation.use_cache("auto")
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    info = types.SimpleNamespace(features=("image", "label"), splits=("train", "test"))
    monkeypatch.setattr(tfds, "_builder", lambda *arguments, **options: types.SimpleNamespace(info=info))
    monkeypatch.setattr(tfds, "_decode", lambda name, builder, test_only: "decoded")
    assert tfds.load("mnist", None, None, download=False, others=()) == "decoded"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "prunegen_jax"


def test_imports_without_a_home():
    code = (
        "import os, pwd\nos.environ.pop('HOME', None)\nos.environ.pop('XDG_CACHE_HOME', None)\n"
        "pwd.getpwuid = {}.__getitem__\nimport prunegen_jax.data.cache"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
