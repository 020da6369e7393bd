"""The backend that JAX is told to use, and which is not there."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

CODE = """
from prunegen_jax.compute.backend import check_backend
try:
    check_backend()
except ValueError as error:
    print(error)
"""


def test_a_platform_that_is_not_installed():
    environment = os.environ | {"JAX_PLATFORMS": "nosuch"}
    root = pathlib.Path(__file__).parents[2]
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("JAX_PLATFORMS=nosuch cannot be used here: Unable to initialize backend 'nosuch'")
    assert done.stdout.strip().endswith("or unset JAX_PLATFORMS")


@pytest.mark.parametrize("command", [["measure", "network.py"], ["report", "."], ["findings", "."]])
def test_commands_say_so_in_one_line(command, tmp_path):
    environment = os.environ | {"JAX_PLATFORMS": "nosuch", "PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    words = [sys.executable, "-m", "prunegen_jax", *command]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("JAX_PLATFORMS=nosuch cannot be used here")
    assert done.stderr.count("\n") == 1 and not done.stdout
