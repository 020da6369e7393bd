"""The documentation: its code runs, its table is that of `MEASURES`, its pages build. Run by `make check`, partly."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import types

import pytest
from etils import epath

from docs import make_measures, make_pictures, make_readme
from prunegen_jax import MEASURES, get_config
from prunegen_jax.runs import curves, pipeline
from tests.support import documents, installed

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = str(ROOT / "tests" / "support" / "documents.py")
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
IN_A_CHECKOUT = {"README.md", "quickstart.md"}  # they run `pip install .` or `make`
LACKING = re.compile(r"needs (an? |the )?(NVIDIA GPU|GPU|TPU|PyTorch|Slurm|Kubernetes|cluster|cloud|network|hour)")


@pytest.fixture(scope="module")
def variables(tmp_path_factory):
    """Of an installation whose sweeps have fewer networks: the code of the pages stays as it is."""
    return installed.install(tmp_path_factory.mktemp("installed"), fewer=True)


def ids(page):
    return page.stem


@pytest.mark.document
@pytest.mark.parametrize("page", [page for page in PAGES if "\n```" in page.read_text()], ids=ids)
def test_the_code_of_a_page_runs(page, tmp_path, variables):
    folder = tmp_path / "work"
    installed.checkout_with_environment(folder) if page.name in IN_A_CHECKOUT else folder.mkdir()
    command = ["python", SCRIPT, str(page), str(folder)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    expected = [b for b in documents.blocks(page.read_text()) if b.language in documents.RUN and not b.reason]
    assert done.stdout.strip().endswith(f"{len(expected)} blocks ran")


@pytest.mark.document
def test_the_pages_build_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 'src="_images/prunability.svg"' in (tmp_path / "concepts.html").read_text()


@pytest.mark.document
def test_make_docs_installs_nothing_that_is_there(tmp_path):
    """In an environment that `make` did not make, and from which nothing can be downloaded."""
    folder = installed.checkout(tmp_path / "checkout")
    variables = installed.environment(folder / ".venv") | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    done = subprocess.run(["make", "docs"], cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pip" not in done.stdout and (folder / "docs" / "_build" / "index.html").exists()


def test_the_verdict_of_the_readme_can_be_rewritten(tmp_path, monkeypatch):
    table = "target: gap (larger is worse), 3 models\nmeasure  tau-b\n"
    monkeypatch.setattr(make_readme.material, "from_workdir", lambda folder: types.SimpleNamespace(verdict=None))
    monkeypatch.setattr(make_readme, "format_table", lambda verdict, target: table)
    monkeypatch.setattr(make_readme, "describe", lambda verdict, target: "In words.")
    text = (ROOT / "README.md").read_text()
    made = make_readme.with_verdict(text, tmp_path)
    assert f"```text\n{table}\nIn words.\nreport: runs/sweep/report/index.html\n```\n" in made
    assert make_readme.with_verdict(made, tmp_path) == made
    old = re.search(r"```text\n(target: .*?)```", text, re.DOTALL)[1]
    assert made.replace(f"{table}\nIn words.\n", old.partition("report:")[0]) == text  # nothing else is changed
    with pytest.raises(ValueError, match="one block of text"):
        make_readme.with_verdict("# nothing", tmp_path)


@pytest.mark.document
def test_the_picture_can_be_drawn_from_a_sweep(tmp_path):
    config = get_config("sweep:smoke")
    config.measures.names = ("prunability",)
    config.sweep.axes = (("train.learning_rate", (0.05, 0.1)), ("seed", (0, 1)))
    pipeline.run(config, tmp_path / "runs", stages=("train", "measure", "judge"))
    curves.make(epath.Path(tmp_path / "runs"))
    text = make_pictures.main(str(tmp_path / "runs"), tmp_path).read_text()
    rows = [line.split(",") for line in (tmp_path / "runs" / "results.csv").read_text().splitlines()]
    assert f"{sum('converged' in row for row in rows)} networks" in text


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_blocks_are_of_a_known_language_and_are_run_or_say_what_is_lacking(page):
    for block in documents.blocks(page.read_text()):
        assert not block.reason or LACKING.search(block.reason), f"{page.name}, line {block.line}: {block.reason}"


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_is_listed():
    listed = set(re.findall(r"^   ([\w-]+)$", (ROOT / "docs" / "index.rst").read_text(), re.MULTILINE))
    there = {page.stem for page in (ROOT / "docs").glob("*.md")} - {"README"}
    assert listed == there
    assert {f"{name}.md" for name in listed} <= set(
        re.findall(r"\]\(([\w-]+\.md)\)", (ROOT / "docs/README.md").read_text())
    )


def test_the_files_that_the_architecture_names_exist():
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`([\w/]+/(?:\w+\.(?:py|html))?)`", text)) | set(re.findall(r"`(\w+\.py)`", text))
    roots = (ROOT, ROOT / "prunegen_jax", ROOT / "prunegen_jax" / "runs" / "executors")
    assert {name for name in named if not any((root / name).exists() for root in roots)} == set()


def test_the_table_of_measures_is_what_the_table_in_the_code_says():
    """Run `python docs/make_measures.py` after a change to `MEASURES` or to a docstring of its functions."""
    text = make_measures.PAGE.read_text()
    assert text == make_measures.page()
    rows = re.findall(r"^\| `(\w+)` \| .+ \| ([+−]) \| +([\d.]+) \|", text, re.MULTILINE)
    assert {name: (sign, float(cost)) for name, sign, cost in rows} == {
        name: ("+" if row.sign > 0 else "−", row.cost) for name, row in MEASURES.items()
    }


def test_the_collector_of_blocks(tmp_path):
    text = """# Page
```python
# made.py
x = 1
```
<!-- not run: needs a GPU -->

```sh
false
```
* in a list

  ```python
  import made
  y = made.x + 1
  ```
```text
nothing
```
```sh
test "$(python -c 'import made; print(made.x)')" = 1 && touch there
```
"""
    found = documents.blocks(text)
    assert [(b.line, b.language, b.reason, b.file) for b in found] == [
        (2, "python", "", "made.py"), (8, "sh", "needs a GPU", ""), (13, "python", "", ""), (17, "text", "", ""),
        (20, "sh", "", ""),
    ]  # fmt: skip
    (tmp_path / "page.md").write_text(text)
    command = [
        sys.executable,
        SCRIPT,
        str(tmp_path / "page.md"),
        str(tmp_path),
    ]
    variables = os.environ | {"PATH": f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("3 blocks ran\n") and (tmp_path / "there").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [("```bash\nls\n```", "block of 'bash'"), ("```\nls\n```", "block of ''"), ("```sh\nls", "not closed")],
)
def test_blocks_that_would_escape_are_refused(text, told):
    with pytest.raises(ValueError, match=told):
        documents.blocks(text)


@pytest.mark.parametrize(("language", "code"), [("python", "1 / 0"), ("sh", "false\ntrue")])
def test_a_block_that_fails_fails_the_page(language, code, tmp_path):
    (tmp_path / "page.md").write_text(f"text\n```{language}\n{code}\n```\n")
    command = [
        sys.executable,
        SCRIPT,
        str(tmp_path / "page.md"),
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert language == "sh" or 'page.md", line 3' in done.stderr
