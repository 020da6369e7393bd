"""Every benchmark runs in its short form; peers that are not installed are left out and named."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from benchmarks import peers

ROOT = pathlib.Path(__file__).parents[2]
HELPERS = {"curvature_peers", "ensemble", "peers", "training_peers"}  # imported by others
SCRIPTS = sorted({path.stem for path in (ROOT / "benchmarks").glob("*.py")} - HELPERS)


@pytest.mark.benchmark
@pytest.mark.parametrize("name", SCRIPTS)
def test_smoke(name, tmp_path):
    variables = {"PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--smoke"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-6000:]
    last = json.loads(done.stdout.splitlines()[-1])
    assert last
    for absent in {"torch", "curvlinops", "pyhessian", "ray", "libtpu"} & set(last.get("left_out", [])):
        assert importlib.util.find_spec(absent) is None


def test_every_benchmark_is_run_by_make_bench():
    lines = (ROOT / "Makefile").read_text().splitlines()
    named = [name for line in lines if line.startswith("BENCHMARKS") for name in line.partition(":=")[2].split()]
    assert sorted(named) == SCRIPTS


def test_peers_are_left_out_of_a_smoke_run_alone():
    assert peers.missing("json", "no_such_peer", smoke=True) == ["no_such_peer"]
    assert peers.missing("json", smoke=False) == []
    with pytest.raises(SystemExit, match=r"not installed: no_such_peer; install requirements-bench\.txt, or run with"):
        peers.missing("no_such_peer", smoke=False)
