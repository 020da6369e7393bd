"""What importing costs, and what the linter says."""

from __future__ import annotations

import configparser
import pathlib
import re
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
    modules = imported(
        f"from prunegen_jax import {names}; from prunegen_jax.cli import run; from prunegen_jax import pipeline"
    )
    assert "jax" in modules
    assert not {"tensorflow", "torch"} & modules


def test_importing_the_package_costs_nothing():
    assert not {"jax", "numpy", "scipy"} & imported("import prunegen_jax")


def test_judging_needs_no_jax():
    assert not {"jax", "flax"} & imported(
        "from prunegen_jax import judge; import prunegen_jax.judging, prunegen_jax.runs.tables"
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


@pytest.mark.parametrize(
    ("files", "extras"),
    [(["requirements.txt"], ["test"]), (["requirements.txt", "requirements-check.txt"], ["docs", "notebooks", "ray"])],
    ids=["make test", "make check"],
)
def test_every_requirement_is_pinned(files, extras):
    """`make` installs these files alone: what setup.cfg names must be in them, once."""
    config = setup()
    named = [config["options"]["install_requires"], *(config["options.extras_require"][extra] for extra in extras)]
    wanted = {_plain(re.match(r"[\w-]+", line)[0]) for lines in named for line in lines.split("\n") if line.strip()}
    lines = [line for file in files for line in (ROOT / file).read_text().splitlines() if not line.startswith("#")]
    assert all("==" in line for line in lines)
    pinned = [_plain(line.partition("==")[0]) for line in lines]
    assert wanted <= set(pinned)
    assert len(set(pinned)) == len(pinned)


def setup():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def _plain(name):
    return name.lower().replace("_", "-")


def test_every_folder_of_the_package_has_an_init():
    """setup.py finds packages, and finds only those."""
    folders = {path.parent for path in (ROOT / "prunegen_jax").rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders)


def test_the_version_is_one():
    version = prunegen_jax.__version__
    assert f"\n## {version}\n" in (ROOT / "CHANGELOG.md").read_text()
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
