"""The backend that JAX is told to use, and which is not there."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

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
