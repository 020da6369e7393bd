"""The package as users have it: a copy of the checkout with its environment, or an installation outside of it."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

ROOT = pathlib.Path(__file__).parents[2]
_IGNORED = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "_build")
_IGNORED_AT_THE_ROOT = {"runs", "build", "dist"}  # prunegen_jax/runs is a package


# Of the sweeps of configs/sweep.py: 8 of the 48 networks, of the width of `smoke`, whose programs they share, and 4 of
# the 8 of `smoke`.
_FEWER = {
    '("model.width", (8, 16)),': '("model.width", (16,)),',
    '("train.learning_rate", (0.02, 0.05, 0.1)),': '("train.learning_rate", (0.05, 0.1)),',
    '("train.weight_decay", (0.0, 1e-4)),': '("train.weight_decay", (1e-4,)),',
    '("train.dropout", (0.0, 0.2)), ("seed", (0, 1)))': '("seed", (0, 1)))',
}


def checkout(folder: pathlib.Path, *, fewer: bool = False) -> pathlib.Path:
    """A copy of the checkout without what git ignores; `fewer`: its sweeps have fewer networks."""

    def ignored(parent: str, names: list[str]) -> set[str]:
        return _IGNORED(parent, names) | (_IGNORED_AT_THE_ROOT if pathlib.Path(parent) == ROOT else set())

    shutil.copytree(ROOT, folder, ignore=ignored)
    if fewer:
        config = folder / "configs" / "sweep.py"
        text = config.read_text()
        for many, few in _FEWER.items():
            assert text.count(many) == 1, many
            text = text.replace(many, few)
        config.write_text(text)
    return folder


def checkout_with_environment(folder: pathlib.Path) -> pathlib.Path:
    """A `checkout` of fewer networks with a `.venv` as `make` leaves it: in it is the copy, an editable install.

    The pinned packages are those of the environment that runs the tests, which itself stays as it is.
    """
    checkout(folder, fewer=True)
    variables = environment(folder / ".venv")
    (folder / ".venv" / ".pinned").touch()
    done = subprocess.run(
        ["make", "--quiet", "install"], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def environment(folder: pathlib.Path) -> dict[str, str]:
    """Makes a virtual environment in `folder` that sees the packages of this one too; the variables to run in it.

    `pip install` puts packages there, and `python` finds them there. The `.pth` files of this environment are not read,
    so its editable install of `prunegen_jax` is not seen. This environment stays as it is.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = folder / "bin" / "pip"
    pip.write_text(f'#!/bin/sh\nexec "{folder}/bin/python" -m pip "$@"\n')
    pip.chmod(0o755)
    unset = {"PYTHONPATH", "PYTHONHOME", "JAX_DISABLE_MOST_OPTIMIZATIONS"}  # sweeps compute more than they compile
    outer = {key: value for key, value in os.environ.items() if key not in unset}
    cache = {"JAX_COMPILATION_CACHE_DIR": outer.get("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))}
    paths = {"PATH": f"{folder}/bin{os.pathsep}{outer.get('PATH', '')}", "PYTHONUNBUFFERED": "1"}
    return outer | cache | paths | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def install(folder: pathlib.Path, *, fewer: bool = False) -> dict[str, str]:
    """Installs a `checkout` in `folder`/venv; the variables under which that copy is found and the checkout is not."""
    variables = environment(folder / "venv")
    source = checkout(folder / "source", fewer=fewer)
    done = subprocess.run(
        ["pip", "install", "--quiet", "."], cwd=source, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    shutil.rmtree(source)
    return variables
