"""What importing costs, and what the linter says."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

import prunegen_jax

ROOT = pathlib.Path(__file__).parent.parent


def imported(statement):
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_everything_public_pulls_in_neither_tensorflow_nor_torch():
    names = ", ".join(sorted(prunegen_jax._HOME))
    modules = imported(f"from prunegen_jax import {names}; from prunegen_jax import pipeline, main")
    assert "jax" in modules
    assert not {"tensorflow", "torch"} & modules


def test_importing_the_package_costs_nothing():
    assert not {"jax", "numpy", "scipy"} & imported("import prunegen_jax")


def test_judging_needs_no_jax():
    assert not {"jax", "flax"} & imported(
        "from prunegen_jax import judge; import prunegen_jax.judging, prunegen_jax.tables"
    )


def test_unknown_names_say_what_there_is():
    with pytest.raises(AttributeError, match="has no 'prunabilty'; it has .*prunability"):
        prunegen_jax.prunabilty  # noqa: B018
    assert "judge" in dir(prunegen_jax)


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff(command):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
