"""What importing costs, what is installed, what became of old names, and what the linter says."""

from __future__ import annotations

import configparser
import importlib
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


def test_a_sweep_starts_without_what_judging_and_reporting_need():
    assert not {"matplotlib", "bokeh", "orbax", "scipy", "sklearn"} & imported("from prunegen_jax.runs import pipeline")


def test_unknown_names_say_what_there_is():
    with pytest.raises(AttributeError, match="has no 'prunabilty'; it has .*prunability"):
        prunegen_jax.prunabilty  # noqa: B018
    assert "judge" in dir(prunegen_jax)


@pytest.mark.parametrize("old", prunegen_jax._MOVED)
def test_modules_of_version_0_1_say_where_they_are(old):
    new = f"prunegen_jax.{prunegen_jax._MOVED[old]}"
    with pytest.raises(ModuleNotFoundError, match=rf"^prunegen_jax\.{old} is now {re.escape(new)}$"):
        importlib.import_module(f"prunegen_jax.{old}")
    importlib.import_module(new)


def test_the_sentence_is_given_for_every_form_of_import():
    for statement in ("import prunegen_jax.records", "from prunegen_jax import records",
                      "from prunegen_jax.records import load_model"):  # fmt: skip
        with pytest.raises(ModuleNotFoundError, match=r"^prunegen_jax\.records is now prunegen_jax\.runs\."):
            exec(statement, {})
    with pytest.raises(ImportError, match="cannot import name 'recods'"):
        exec("from prunegen_jax import recods", {})


def test_imports_of_the_readme_of_version_0_1():
    from prunegen_jax import (  # noqa: PLC0415
        MEASURES,
        Dataset,
        TrainedModel,
        get_config,
        judge,
        judging,
        load_model,
        measure,
        pipeline,
        prunability,
        read_csv,
    )  # fmt: skip

    assert all(map(callable, (get_config, judge, load_model, measure, pipeline.run, prunability, read_csv)))
    assert Dataset and TrainedModel and MEASURES
    assert callable(judging.write) and callable(judging.format_table) and judging.judge is judge


def test_the_environment_of_the_checkout_has_the_checkout_in_it(tmp_path):
    """`make` installs it editable, with its command."""
    if pathlib.Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("the tests run in another environment than the checkout's .venv")
    code = "import prunegen_jax; print(prunegen_jax.__file__)"
    for command, expected in (
        ([sys.executable, "-c", code], str(ROOT / "prunegen_jax" / "__init__.py")),
        ([ROOT / ".venv" / "bin" / "prunegen", "--version"], prunegen_jax.__version__),
    ):
        done = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


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


def test_every_folder_of_the_package_has_an_init_that_git_has():
    """setup.py finds packages, and finds only those."""
    folders = {path.parent for path in (ROOT / "prunegen_jax").rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders)
    command = ["git", "status", "--porcelain", "--ignored", "--", "*.py"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()
    assert not [line for line in listed if line.startswith(("!! prunegen_jax/", "!! tests/", "!! configs/"))]


def test_the_version_is_one():
    version = prunegen_jax.__version__
    assert f"\n## {version}\n" in (ROOT / "CHANGELOG.md").read_text()
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
