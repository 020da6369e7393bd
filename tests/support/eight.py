"""A process with eight devices, for the tests of what is dealt out over several."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import jax

ROOT = pathlib.Path(__file__).parents[2]
_BEGIN = """
import sys, jax
sys.path[:0] = ["tests", "."]
devices = jax.devices()
assert len(devices) == 8, devices
"""


def run(code: str) -> str:
    """What `code` prints where `devices` are eight of the host's."""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    flags["JAX_COMPILATION_CACHE_DIR"] = jax.config.jax_compilation_cache_dir
    command = [sys.executable, "-c", _BEGIN + code]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | flags, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
