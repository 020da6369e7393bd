"""Runs the notebooks of colabs/ and keeps their outputs, so that they can be read on the web.

    python docs/make_notebooks.py [NAME ...]

Needs the package and the extra "notebooks". Also writes the badge and the cell that installs the package, which are the
same in all notebooks, with the address of the repository.
"""

from __future__ import annotations

import os
import pathlib
import sys
import tempfile
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
FOLDER = ROOT / "colabs"
# Where the repository is published: a placeholder, to be replaced here alone. The badges and the cells that install the
# package are made from it. An underscore cannot be part of a GitHub account: nobody else can own this one.
REPOSITORY = "REPOSITORY_OWNER/prunegen_jax"
_BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
_ADVICE = "# Replace REPOSITORY_OWNER with the account that publishes it, or SOURCE with the folder of a checkout.\n"
INSTALL = f"""# Installs the package unless it is there. JAX stays as it is: Colab's own runs on the GPU.
{_ADVICE if "REPOSITORY_OWNER" in REPOSITORY else ""}import importlib.metadata
import importlib.util

SOURCE = "git+https://github.com/{REPOSITORY}"
if importlib.util.find_spec("prunegen_jax") is None:
    found = {{d.name: d.version for d in importlib.metadata.distributions() if d.name in ("jax", "jaxlib")}}
    keep = " ".join(f"{{name}}=={{version}}" for name, version in found.items())
    %pip install --quiet {{SOURCE}} {{keep}}"""


def badge(name: str) -> str:
    """The Markdown of the badge that opens the notebook `name` on Colab."""
    link = f"https://colab.research.google.com/github/{REPOSITORY}/blob/main/colabs/{name}.ipynb"
    return f"[![Open in Colab]({_BADGE})]({link})"


def with_frame(notebook: Any, name: str) -> Any:
    """The notebook with the badge above its title, and the cell that installs the package, the first of its code."""
    import nbformat  # noqa: PLC0415 - an extra

    title = next(cell for cell in notebook.cells if cell.cell_type == "markdown")
    lines = [line for line in title.source.splitlines() if _BADGE not in line]
    title.source = "\n".join([badge(name), "", *lines[next(i for i, line in enumerate(lines) if line) :]])
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if "%pip" in code[0].source:
        code[0].source = INSTALL
    else:
        notebook.cells.insert(notebook.cells.index(title) + 1, nbformat.v4.new_code_cell(INSTALL))
    return notebook


def run(notebook: Any) -> Any:
    """The notebook with the outputs of a run in an empty folder; what cells write to stderr is left out."""
    from nbclient import NotebookClient  # noqa: PLC0415 - an extra

    commands = str(pathlib.Path(sys.executable).parent)  # where `prunegen` is
    os.environ["PATH"] = f"{commands}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # the times of this run
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata.pop("language_info", None)
    return notebook


def main(names: list[str]) -> None:
    """Rewrites the notebooks called `names`, all if there are none."""
    import nbformat  # noqa: PLC0415 - an extra

    for path in sorted(FOLDER.glob("*.ipynb")):
        if not names or path.stem in names:
            notebook = run(with_frame(nbformat.read(path, as_version=4), path.stem))
            path.write_text(nbformat.writes(notebook, indent=1) + "\n", encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
