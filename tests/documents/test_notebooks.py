"""The notebooks: committed with their outputs, and run top to bottom as on a machine that lacks the package."""

from __future__ import annotations

import importlib.metadata
import json
import pathlib
import runpy
import subprocess

import pytest

from docs import make_notebooks
from tests.support import installed

ROOT = pathlib.Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "colabs").glob("*.ipynb"))
# What a notebook leaves beside it, and words of its last printed output.
LEFT = {
    "bring_your_own_network": (("my_network.py", "measures.csv"), "inverse_margin"),
    "prunability_of_your_own_network": ((), "distance_from_initialization of plain: ok"),
    "judge_your_own_measure": (("runs/decidedness/report/index.html",), "added to prunability"),
    "the_paper_in_ten_minutes": ((), "mine: tau-b"),
    "from_sweep_to_paper_figure": (("runs/figure/figure.pdf", "runs/figure/figure.svg"), "bootstrap draws."),
}


def cells(path, kind):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def printed(path):
    outputs = [output for cell in cells(path, "code") for output in cell["outputs"]]
    return "".join("".join(output["text"]) for output in outputs if output.get("name") == "stdout")


def test_each_notebook_is_known():
    assert {path.stem for path in NOTEBOOKS} == set(LEFT)
    text = (ROOT / "docs" / "README.md").read_text()
    assert all(path.name in text for path in NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_with_the_outputs_of_one_run(path):
    """Written by `python docs/make_notebooks.py`; `make check` runs them anew each time."""
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert LEFT[path.stem][1] in printed(path)
    assert not any(output["output_type"] == "error" or output.get("name") == "stderr" for output in outputs)
    assert not any(name in printed(path) for name in ("/tmp/", "/home/", "/root/"))  # of the machine that ran it


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_badge_and_an_installation_that_keeps_jax(path):
    code = cells(path, "code")
    assert "".join(code[0]["source"]) == make_notebooks.INSTALL and code[0]["outputs"] == []
    assert not any("%pip" in "".join(cell["source"]) for cell in code[1:])
    assert "".join(cells(path, "markdown")[0]["source"]).startswith(f"{make_notebooks.badge(path.stem)}\n\n# ")


def test_what_to_replace_while_the_repository_has_no_address():
    """A person who runs the cell as it is sees pip fail; the cell says what to write instead."""
    source = runpy.run_path(str(ROOT / "docs" / "make_notebooks.py"))
    advice = "# Replace REPOSITORY_OWNER with the account that publishes it, or SOURCE with the folder"
    assert (advice in source["INSTALL"]) == ("REPOSITORY_OWNER" in source["REPOSITORY"])
    text = pathlib.Path(ROOT / "docs" / "make_notebooks.py").read_text()
    code = text.replace('"REPOSITORY_OWNER/prunegen_jax"', '"someone/prunegen_jax"')
    names: dict[str, str] = {"__file__": str(ROOT / "docs" / "make_notebooks.py"), "__name__": "changed"}
    exec(code, names)
    assert "REPOSITORY_OWNER" not in names["INSTALL"] and "github.com/someone/prunegen_jax" in names["INSTALL"]


def test_the_cell_of_the_installation_keeps_the_jax_that_is_there(monkeypatch):
    """The cell's own lines as Python, with pip's command put aside."""
    lines = make_notebooks.INSTALL.replace("%pip install --quiet {SOURCE} {keep}", "asked = SOURCE, keep")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    names: dict[str, tuple[str, str]] = {}
    exec(lines, names)
    source, keep = names["asked"]
    assert source.startswith("git+https://github.com/")
    assert set(keep.split()) == {f"{name}=={importlib.metadata.version(name)}" for name in ("jax", "jaxlib")}


@pytest.mark.notebook
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path):
    folder = installed.checkout(tmp_path / "checkout") / "colabs"
    variables = installed.environment(tmp_path / "venv")
    text = (folder / path.name).read_text()
    address = f"git+https://github.com/{make_notebooks.REPOSITORY}"
    (folder / path.name).write_text(text.replace(address, ".."))  # the checkout, without a network

    def call(code, *arguments):
        command = ["python", "-c", code, *arguments]
        return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)

    assert "No module named 'prunegen_jax'" in call("import prunegen_jax").stderr  # so the first cell has to install it
    done = call("from nbclient.cli import main; main()", "--inplace", "--timeout=1200", path.name)
    assert done.returncode == 0, done.stderr[-6000:]
    assert str(tmp_path / "venv") in call("import prunegen_jax; print(prunegen_jax.__file__)").stdout
    files, words = LEFT[path.stem]
    assert words in printed(folder / path.name)
    assert all((folder / name).stat().st_size > 100 for name in files)
    images = [
        o for cell in cells(folder / path.name, "code") for o in cell["outputs"] if "image/png" in o.get("data", {})
    ]
    assert images
