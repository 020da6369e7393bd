"""Which part of the package may import which, and how large files may be; read from the code, nothing is imported."""

from __future__ import annotations

import collections

import pytest

from docs import make_rooms
from docs.make_rooms import NUMERICS, ROOT, Import, room

EVERYTHING = {*make_rooms.WHAT, "", "__main__"}
# Rooms that a room may import beside itself. The root's own modules are rooms too.
ALLOWED = dict.fromkeys(NUMERICS, NUMERICS) | {
    "data": {"types", "compute"},
    "runs": NUMERICS | {"data"},
    "report": {"types", "judging", "runs", "data"},
    "cli": EVERYTHING,
    "": set(),  # prunegen_jax/__init__.py: its public names are imported on first use, by name
    "__main__": {"cli"},
}
# (importer, imported): why it is allowed all the same. One that is no longer needed fails the test.
EXCEPTIONS = {
    ("prunegen_jax.judging.__main__", "prunegen_jax.cli.judge"): "`python -m prunegen_jax.judging` is a command",
    ("prunegen_jax.judging", "prunegen_jax.runs.tables.verdict_files"): "`judging.write`, a public name; lazy",
    ("prunegen_jax.runs.pipeline", "prunegen_jax.report"): "the last stage of a run; lazy",
}
# What may be imported inside functions: packages that are optional or slow to import, and modules for the same reason.
LAZY_PACKAGES = {
    "equinox": "only networks written with it need it",
    "orbax": "slow to import, and the report does without",
    "pyarrow": "optional, and only Parquet files need it",
    "ray": "an extra",
    "scipy": "seconds of imports that training and most measures do not need",
    "sklearn": "a second of imports that only the digits need",
    "tensorflow_datasets": "slow, and only sets of TFDS need it",
}
LAZY = {
    ("prunegen_jax.cli.judge", "prunegen_jax.report"): "plotting takes seconds to import",
    ("prunegen_jax.cli.main", "prunegen_jax"): "the version alone",
    ("prunegen_jax.cli.main", "prunegen_jax.cli.findings"): "imports JAX",
    ("prunegen_jax.cli.main", "prunegen_jax.cli.judge"): "SciPy takes a second",
    ("prunegen_jax.cli.main", "prunegen_jax.cli.run"): "its import defines flags",
    ("prunegen_jax.cli.main", "prunegen_jax.compute.backend"): "imports JAX",
    ("prunegen_jax.cli.main", "prunegen_jax.report"): "plotting takes seconds to import",
    ("prunegen_jax.cli.main", "prunegen_jax.runs.tables.text_files"): "NumPy, which --help does not need",
    ("prunegen_jax.cli.main", "prunegen_jax.cli.measure"): "imports JAX",
    ("prunegen_jax.cli.run", "jax"): "wrong flags are reported before JAX is imported",
    ("prunegen_jax.cli.run", "prunegen_jax.runs.driver"): "imports JAX",
    ("prunegen_jax.cli.run", "prunegen_jax.runs.pipeline"): "imports JAX",
    ("prunegen_jax.cli.run", "prunegen_jax.runs.points"): "imports JAX",
    ("prunegen_jax.cli.run", "prunegen_jax.runs.timing"): "JAX is imported first, so that its time is known",
    ("prunegen_jax.cli.run", "prunegen_jax.runs.tables.text_files"): "needed for an error message alone",
    ("prunegen_jax.judging", "prunegen_jax.runs.tables.verdict_files"): "numerics import nothing that has files",
    ("prunegen_jax.runs.curves", "prunegen_jax.pruning"): "the rest of the report needs no JAX",
    ("prunegen_jax.runs.curves", "prunegen_jax.measures.structure"): "the rest of the report needs no JAX",
    ("prunegen_jax.runs.curves", "prunegen_jax.runs.restore"): "the rest of the report needs no JAX",
    ("prunegen_jax.runs.curves", "prunegen_jax.runs.task"): "the rest of the report needs no JAX",
    ("prunegen_jax.runs.pipeline", "prunegen_jax.report"): "plotting takes seconds to import",
    ("prunegen_jax.types", "prunegen_jax.networks.adapters"): "imports Flax, and this module",
}
BY_NAME = {"prunegen_jax", "prunegen_jax.judging"}  # whose public names are imported on first use
LINES = 300
# Files that are longer, to be split. This list only gets shorter.
LONG: set[str] = set()


def misdirected(imports: list[Import]) -> set[tuple[str, str]]:
    """(importer, imported) of the imports that `ALLOWED` does not allow."""
    ours = [(i.importer, i.imported) for i in imports if i.imported.split(".")[0] == make_rooms.NAME]
    return {(a, b) for a, b in ours if room(a) != room(b) and room(b) not in ALLOWED[room(a)]}


def circles(imports: list[Import]) -> list[list[str]]:
    """The groups of modules that import each other when they are imported."""
    graph = collections.defaultdict(set)
    for one in imports:
        if not one.lazy:
            graph[one.importer].add(one.imported)

    def reachable(start: str) -> set[str]:
        seen, stack = set(), [start]
        while stack:
            new = graph.get(stack.pop(), set()) - seen
            seen |= new
            stack += new
        return seen

    found = {name: reachable(name) for name in list(graph)}
    groups = {frozenset({a, *(b for b in found[a] if a in found.get(b, ()))}) for a in found if a in found[a]}
    return sorted(sorted(group) for group in groups)


def lazy(imports: list[Import]) -> set[tuple[str, str]]:
    """(importer, imported) of the imports inside functions, but for those of `LAZY_PACKAGES`."""
    return {(i.importer, i.imported) for i in imports if i.lazy and i.imported.split(".")[0] not in LAZY_PACKAGES}


@pytest.fixture(scope="module")
def imports():
    return make_rooms.imports()


def test_imports_lead_from_runs_to_numerics(imports):
    assert misdirected(imports) == set(EXCEPTIONS)


def test_the_last_stage_of_a_run_is_imported_when_it_runs(imports):
    assert all(i.lazy for i in imports if room(i.importer) == "runs" and room(i.imported) == "report")


def test_no_circles(imports):
    assert circles(imports) == []


def test_lazy_imports_are_of_optional_or_slow_packages(imports):
    assert lazy(imports) == set(LAZY)
    used = {i.imported.split(".")[0] for i in imports if i.lazy}
    assert set(LAZY_PACKAGES) <= used


def test_imports_by_name_are_of_public_names_alone(imports):
    assert {i.importer for i in imports if i.imported in {"importlib", "importlib.util"}} <= BY_NAME
    assert not [path for path in _files("prunegen_jax") if "__import__(" in path.read_text(encoding="utf-8")]


def test_the_root_of_the_package_holds_few_files():
    assert len(list((ROOT / "prunegen_jax").glob("*.py"))) <= 5


def test_every_folder_is_drawn_and_has_a_rule():
    folders = {path.parent.name for path in (ROOT / "prunegen_jax").glob("*/__init__.py")}
    assert folders | {"types"} == set(make_rooms.WHAT) == {name for row in make_rooms.ROWS for name in row}
    assert set(ALLOWED) == EVERYTHING


def test_the_picture_is_that_of_the_code():
    """Run `python docs/make_rooms.py` after a change of which folder imports which."""
    assert make_rooms.PICTURE.read_text(encoding="utf-8") == make_rooms.svg(make_rooms.edges())


def test_no_file_is_long():
    files = [*_files("prunegen_jax"), *_files("tests")]
    long = {str(path.relative_to(ROOT)) for path in files if path.read_text(encoding="utf-8").count("\n") > LINES}
    assert long == LONG


def _files(folder):
    return sorted((ROOT / folder).rglob("*.py"))


def test_what_is_read(tmp_path):
    """Relative imports, imports inside functions and of names, on a package made here; and what the rules say of it."""
    files = {
        "__init__.py": "",
        "compute/__init__.py": "from . import trees\nfrom ..runs.files import write\nimport numpy as np\n",
        "compute/trees.py": "from prunegen_jax.compute import flat\nfrom .. import compute\n",
        "runs/__init__.py": "from prunegen_jax.runs import files\n",
        "runs/files.py": "class A:\n    async def f():\n        def g():\n            from ..report import page, x\n",
        "report/__init__.py": "",
        "report/page.py": "if True:\n    from prunegen_jax import cli\n",
    }
    for name, text in files.items():
        path = tmp_path / "prunegen_jax" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = make_rooms.imports(tmp_path)
    assert {(i.importer.removeprefix("prunegen_jax."), i.imported, i.lazy, i.line) for i in found} == {
        ("compute", "prunegen_jax.compute.trees", False, 1),
        ("compute", "prunegen_jax.runs.files", False, 2),
        ("compute", "numpy", False, 3),
        ("compute.trees", "prunegen_jax.compute", False, 1),
        ("compute.trees", "prunegen_jax.compute", False, 2),
        ("runs", "prunegen_jax.runs.files", False, 1),
        ("runs.files", "prunegen_jax.report", True, 4),
        ("runs.files", "prunegen_jax.report.page", True, 4),
        ("report.page", "prunegen_jax", False, 2),
    }
    assert misdirected(found) == {
        ("prunegen_jax.compute", "prunegen_jax.runs.files"),
        ("prunegen_jax.report.page", "prunegen_jax"),
        ("prunegen_jax.runs.files", "prunegen_jax.report"),
        ("prunegen_jax.runs.files", "prunegen_jax.report.page"),
    }
    assert circles(found) == [["prunegen_jax.compute", "prunegen_jax.compute.trees"]]
    assert {imported for _, imported in lazy(found)} == {"prunegen_jax.report", "prunegen_jax.report.page"}
    assert make_rooms.edges(tmp_path) == {("compute", "runs"), ("runs", "report")}
