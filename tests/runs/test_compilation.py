"""The cache of compiled programs: damaged or swapped entries are removed, and their programs compiled again."""

from __future__ import annotations

import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src import compilation_cache

from prunegen_jax.runs import compilation

CONFIG = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache of its own for this process, for every program, until the test ends."""
    before = {name: getattr(jax.config, name) for name in CONFIG}
    monkeypatch.setattr(compilation_cache, "get_file_cache", compilation_cache.get_file_cache)
    jax.config.update("jax_compilation_cache_dir", None)
    compilation.use_cache(str(tmp_path / "cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    yield tmp_path / "cache"
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


X = np.arange(3, dtype=np.float32)
DOUBLES, SQUARES = 2 * X, (X**2, np.float32(5.0))


def run_both():
    """Two programs, traced anew, so that they come from the cache; one has two results."""

    def doubles(x):
        return x + x

    def squares(x):
        return x * x, jnp.sum(x * x)

    np.testing.assert_array_equal(jax.jit(doubles)(X), DOUBLES)
    for found, right in zip(jax.jit(squares)(X), SQUARES, strict=True):
        np.testing.assert_array_equal(found, right)


def entries(folder):
    return {name: next(folder.glob(f"jit_{name}-*-cache")) for name in ("doubles", "squares")}


def flip(path):
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)


def swap(path, other):
    first, second = path.read_bytes(), other.read_bytes()
    path.write_bytes(second)
    other.write_bytes(first)


@pytest.mark.parametrize("how", ["a bit flipped", "swapped", "cut short", "of another version"])
def test_entries_that_are_not_those_written_are_made_again(folder, how, capfd):
    run_both()
    paths = entries(folder)
    stamps = {path: path.stat().st_ino for path in paths.values()}
    run_both()
    assert {path: path.stat().st_ino for path in paths.values()} == stamps  # read, not written
    if how == "swapped":
        swap(*paths.values())
    for path in paths.values() if how != "swapped" else ():
        content = path.read_bytes()
        if how == "a bit flipped":
            flip(path)
        else:
            path.write_bytes(content[: len(content) // 2] if how == "cut short" else content[40:])
    broken = {path: path.read_bytes() for path in paths.values()}
    run_both()
    told = capfd.readouterr().err
    assert told.count("is removed; its program is compiled again") == (0 if how == "of another version" else 2)
    assert all(path.read_bytes() != broken[path] for path in paths.values())
    run_both()
    assert not capfd.readouterr().err


def test_a_cache_that_cannot_be_written_is_told_once(folder, capfd):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        run_both()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    told = capfd.readouterr().err
    assert told.count("compiled programs are not kept in") == 1
    assert "File too large" in told
    assert not list(folder.glob("*"))


def test_other_caches_stay_as_they_are(folder, tmp_path):
    """Those of a process that has set up its own: other programs may read it."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "other"))
    compilation_cache.reset_cache()
    compilation.use_cache(str(folder))
    run_both()
    assert not any(path.read_bytes().startswith(compilation._MAGIC) for path in entries(tmp_path / "other").values())
