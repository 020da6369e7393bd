"""The package as a person has it: a copy of the checkout, and an installation of it outside of the checkout."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

ROOT = pathlib.Path(__file__).parents[2]
_LEFT = (".*", "runs", "build", "dist", "*.egg-info", "__pycache__", "_build")


def checkout(folder: pathlib.Path) -> pathlib.Path:
    """A copy of the checkout without what git ignores; its `.venv` is the environment that runs the tests."""
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*_LEFT))
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def environment(folder: pathlib.Path) -> dict[str, str]:
    """Makes a virtual environment in `folder` that sees the packages of this one too; the variables to run in it.

    `pip install` puts packages there, where `python` and their commands find them; this environment stays as it is.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = folder / "bin" / "pip"
    pip.write_text(f'#!/bin/sh\nexec "{folder}/bin/python" -m pip "$@"\n')
    pip.chmod(0o755)
    outer = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTHONHOME"}}
    cache = {
        "JAX_COMPILATION_CACHE_DIR": outer.get("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }
    paths = {"PATH": f"{folder}/bin{os.pathsep}{outer.get('PATH', '')}", "PYTHONUNBUFFERED": "1"}
    return outer | cache | paths | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def install(folder: pathlib.Path) -> dict[str, str]:
    """Installs the package below `folder`; the variables under which it, and nothing of the checkout, is found."""
    variables = environment(folder / "venv")
    source = checkout(folder / "source")
    done = subprocess.run(
        ["pip", "install", "--quiet", "."], cwd=source, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    shutil.rmtree(source)
    return variables
