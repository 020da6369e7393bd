"""The notebooks: committed without output, and run top to bottom as on a machine that lacks the package."""

from __future__ import annotations

import json
import pathlib
import subprocess

import pytest

from tests.support import installed

ROOT = pathlib.Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "colabs").glob("*.ipynb"))
# What a notebook leaves beside it, and words of its last printed output.
LEFT = {
    "prunability_of_your_own_network": ((), "distance_from_initialization of plain: ok"),
    "judge_your_own_measure": (("runs/decidedness/report/index.html",), "added to prunability"),
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
def test_committed_without_output_and_installing_first(path):
    """Outputs go stale; `make check` makes them anew each time."""
    code = cells(path, "code")
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert "%pip install" in "".join(code[0]["source"])
    assert not any("%pip" in "".join(cell["source"]) for cell in code[1:])


@pytest.mark.notebook
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path):
    folder = installed.checkout(tmp_path / "checkout") / "colabs"
    variables = installed.environment(tmp_path / "venv")

    def call(code, *arguments):
        command = ["python", "-c", code, *arguments]
        return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)

    assert "No module named 'prunegen_jax'" in call("import prunegen_jax").stderr  # so the first cell has to install it
    done = call("from nbclient.cli import main; main()", "--inplace", "--timeout=1200", path.name)
    assert done.returncode == 0, done.stderr[-6000:]
    assert str(tmp_path / "venv") in call("import prunegen_jax; print(prunegen_jax.__file__)").stdout
    files, words = LEFT[path.stem]
    assert words in printed(folder / path.name)
    assert all((folder / name).stat().st_size > 5000 for name in files)
    images = [
        o for cell in cells(folder / path.name, "code") for o in cell["outputs"] if "image/png" in o.get("data", {})
    ]
    assert images
