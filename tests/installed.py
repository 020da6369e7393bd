"""The package as a person has it: a copy of the checkout, and an installation of it outside of the checkout."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
_LEFT = (".*", "runs", "build", "dist", "*.egg-info", "__pycache__", "_build")


def checkout(folder: pathlib.Path) -> pathlib.Path:
    """A copy of the checkout without what git ignores; its `.venv` is the environment that runs the tests."""
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*_LEFT))
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def environment(target: pathlib.Path) -> dict[str, str]:
    """Variables under which `pip install` puts packages into `target`, without dependencies, and Python finds them."""
    outer = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTHONHOME"}}
    paths = (str(target / "bin"), str(pathlib.Path(sys.executable).parent), outer.get("PATH", ""))
    cache = {
        "JAX_COMPILATION_CACHE_DIR": outer.get("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }
    pip = {"PIP_TARGET": str(target), "PIP_NO_DEPS": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_UPGRADE": "1"}
    return outer | cache | pip | {"PATH": os.pathsep.join(paths), "PYTHONPATH": str(target), "PYTHONUNBUFFERED": "1"}


def install(folder: pathlib.Path) -> dict[str, str]:
    """Installs the package below `folder`; the variables under which it, and nothing of the checkout, is found."""
    variables = environment(folder / "site")
    source = checkout(folder / "source")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "."]
    done = subprocess.run(command, cwd=source, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(source)
    return variables
