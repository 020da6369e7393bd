"""What importing costs, and what the linter says."""

from __future__ import annotations

import configparser
import pathlib
import re
import subprocess
import sys

import numpy as np
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


def test_the_code_of_the_readme_runs(tmp_path):
    """Each block as it stands, in a folder that holds the results of some sweep."""
    generator = np.random.default_rng(0)
    (tmp_path / "runs" / "sweep").mkdir(parents=True)
    lines = ["hp.depth,hp.rate,seed,prunability,gap"]
    lines += [
        f"{d},{r},{s},{generator.random()},{generator.random()}" for d in (1, 2) for r in (0.1, 0.2) for s in (0, 1)
    ]
    (tmp_path / "runs" / "sweep" / "results.csv").write_text("\n".join(lines) + "\n")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{block}"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "prunability" in done.stdout
    assert (tmp_path / "verdict" / "verdict.csv").exists()


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff(command):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_every_requirement_is_pinned():
    """`make test` installs requirements.txt alone: what setup.cfg names must be in it."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    named = config["options"]["install_requires"] + config["options.extras_require"]["test"]
    wanted = {re.match(r"[\w-]+", line)[0].lower().replace("_", "-") for line in named.split("\n") if line.strip()}
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    assert wanted <= pinned
