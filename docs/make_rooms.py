"""Draws docs/images/rooms.svg: the folders of the package and which imports which, read from the code.

    python docs/make_rooms.py

An arrow is left out where a longer way of arrows says the same; a dashed one leads upward, an exception that
tests/test_imports.py names.
"""

from __future__ import annotations

import ast
import dataclasses
import pathlib
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "images" / "rooms.svg"
NAME = "prunegen_jax"
# Each row imports from the rows below it.
ROWS = (
    ("cli",),
    ("report",),
    ("runs",),
    ("measures", "judging", "data"),
    ("pruning", "training"),
    ("compute", "networks"),
    ("types",),
)
NUMERICS = {"types", "compute", "networks", "training", "pruning", "measures", "judging"}
WHAT = {
    "cli": "run, measure, judge, report",
    "report": "the page, figures, tables",
    "runs": "points, records, driver, executors",
    "measures": "MEASURES: one file per family",
    "judging": "statistics, intervals, verdict",
    "pruning": "masks, scan, prunability",
    "training": "the jitted step, slots, recipe",
    "networks": "models; reading layers",
    "data": "data sets, TFDS, cache",
    "compute": "evaluation, lockstep, trees",
    "types": "Dataset, TrainedModel, Estimate",
}
WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 210, 46, 30, 34, 16


@dataclasses.dataclass(frozen=True)
class Import:
    """One import: the module with it, what it imports, whether inside a function, and the line."""

    importer: str
    imported: str
    lazy: bool
    line: int


def module_name(path: pathlib.Path, root: pathlib.Path) -> str:
    """`prunegen_jax.runs` for prunegen_jax/runs/__init__.py below `root`."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(root: pathlib.Path = ROOT) -> list[Import]:
    """Every import statement of the package below `root`, relative ones resolved, submodules by their own names."""
    paths = {module_name(path, root): path for path in sorted((root / NAME).rglob("*.py"))}
    return [one for name, path in paths.items() for one in _of_file(name, path, set(paths))]


def _of_file(name: str, path: pathlib.Path, modules: set[str]) -> Iterator[Import]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]

    def visit(node: ast.AST, lazy: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            inside = lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for imported in _names(child, package, modules):
                yield Import(name, imported, inside, child.lineno)
            yield from visit(child, inside)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), False)


def _names(node: ast.AST, package: str, modules: set[str]) -> list[str]:
    """The modules that an import statement names; none for any other node."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        parent = package.split(".")
        base = ".".join([*parent[: len(parent) - node.level + 1], *([base] if base else [])])
    return sorted({full if (full := f"{base}.{alias.name}") in modules else base for alias in node.names})


def room(module: str) -> str:
    """The folder of the package that a module lies in, or the name of a file of its root; "" for the package itself."""
    return ([*module.split("."), ""])[1]


def edges(root: pathlib.Path = ROOT) -> set[tuple[str, str]]:
    """(importing, imported) rooms, imports inside functions included; not those of a folder's `__main__`, a command."""
    ours = [i for i in imports(root) if i.imported.split(".")[0] == NAME and not i.importer.endswith(".__main__")]
    pairs = {(room(i.importer), room(i.imported)) for i in ours}
    return {(a, b) for a, b in pairs if a != b and a in WHAT and b in WHAT}


def upward(pair: tuple[str, str]) -> bool:
    """Whether the importing room stands below the imported one in `ROWS`."""
    row = {name: y for y, names in enumerate(ROWS) for name in names}
    return row[pair[0]] > row[pair[1]]


def essential(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The pairs without those that a longer way says too; all that lead upward."""
    down = {pair for pair in pairs if not upward(pair)}

    def reachable(a: str, b: str) -> bool:
        return (a, b) in down or any(reachable(y, b) for x, y in down if x == a)

    return {
        (a, b) for a, b in pairs if (a, b) not in down or not any(reachable(y, b) for x, y in down - {(a, b)} if x == a)
    }


def svg(pairs: set[tuple[str, str]]) -> str:
    """The picture of these (importing, imported) rooms."""
    width = 3 * WIDTH + 2 * GAP_X + 2 * MARGIN
    places = {}
    for y, row in enumerate(ROWS):
        left = (width - len(row) * WIDTH - (len(row) - 1) * GAP_X) // 2
        for x, name in enumerate(row):
            places[name] = (left + x * (WIDTH + GAP_X), MARGIN + y * (HEIGHT + GAP_Y))
    height = 2 * MARGIN + len(ROWS) * HEIGHT + (len(ROWS) - 1) * GAP_Y
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">',
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#555"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    lines += [_arrow(places[a], places[b]) for a, b in sorted(essential(pairs))]
    lines += [_box(name, *places[name]) for name in places]
    return "\n".join([*lines, "</svg>", ""])


def _arrow(a: tuple[int, int], b: tuple[int, int]) -> str:
    """From the lower edge of box `a` to the upper edge of `b`; between boxes of one row from side to side."""
    if a[1] == b[1]:
        right = a[0] < b[0]
        ends = (a[0] + WIDTH * right, a[1] + HEIGHT // 2, b[0] + WIDTH * (not right), b[1] + HEIGHT // 2)
    else:
        down = a[1] < b[1]
        shift = (b[0] - a[0]) // 6
        aside = WIDTH // 4 * (not down)  # upward arrows are exceptions, drawn dashed and to the right
        start, end = a[0] + WIDTH // 2 + shift + aside, b[0] + WIDTH // 2 - shift + aside
        ends = (start, a[1] + HEIGHT * down, end, b[1] + HEIGHT * (not down))
    dashes = ' stroke-dasharray="4 3"' if a[1] > b[1] else ""
    return '<line x1="{}" y1="{}" x2="{}" y2="{}" stroke="#555"{} marker-end="url(#arrow)"/>'.format(*ends, dashes)


def _box(name: str, x: int, y: int) -> str:
    colour = "#dcebf7" if name in NUMERICS else "#fbe9d0"
    return (
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="5" fill="{colour}" stroke="#555"/>'
        f'<text x="{x + 10}" y="{y + 19}" font-size="14" font-weight="bold">{name}</text>'
        f'<text x="{x + 10}" y="{y + 36}" font-size="10.5">{WHAT[name]}</text>'
    )


if __name__ == "__main__":
    PICTURE.write_text(svg(edges()), encoding="utf-8")
    print(f"wrote {PICTURE}")
