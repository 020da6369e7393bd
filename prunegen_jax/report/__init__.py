"""The report: one page that opens offline, figures as PNG and SVG, tables as Markdown and LaTeX.

The page is made with Bokeh: of the maintained plotting libraries, it is the only one with tooltips and linked
controls in one bundle of 2 MB that is embedded in the page, so that this code needs few lines of JavaScript.

    workdir/report/index.html    the page
    workdir/report/figures/      PNG and SVG
    workdir/report/tables/       Markdown and LaTeX
    workdir/curves/NAME.json     pruning curves, made once from the checkpoints
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable
from contextlib import AbstractContextManager

from etils import epath

from prunegen_jax.judging import Verdict
from prunegen_jax.judging.table import Table
from prunegen_jax.report import drawing, material, page, paper_tables
from prunegen_jax.report.drawing import Second, second_process
from prunegen_jax.report.material import Material
from prunegen_jax.report.running import Refresher
from prunegen_jax.runs import curves, files
from prunegen_jax.runs import workdir as layout

Span = Callable[[str], AbstractContextManager[object]]

__all__ = ["Refresher", "second_process", "write", "write_for_table"]


def write(
    workdir: str | os.PathLike[str],
    *,
    make_curves: bool = True,
    data_dir: str | None = None,
    cache_dir: str | None = None,
    span: Span = contextlib.nullcontext,
    second: Second | None = None,
) -> epath.Path:
    """Writes `workdir/report/` from the files of the workdir, and returns the path of the page.

    Args:
        workdir: a judged workdir.
        make_curves: compute missing pruning curves, which needs the checkpoints, the data set, and about fifty passes
            over it per network. A network without a curve is named, with the reason.
        data_dir: where TFDS finds its prepared sets, for the curves; None for its own default.
        cache_dir: where decoded images are kept; None for the user's cache folder.
        span: called with "curves", returns the context in which missing curves are made; it may measure time.
        second: a process that `second_process` gave, to draw half of the figures; None for one of its own.

    Raises:
        ValueError: if the workdir was never judged, or a file would be written outside of it through a link.
    """
    folder = layout.locate(workdir)
    layout.check_report_links(folder)
    material.require_verdict(folder)  # before the work starts
    reasons: dict[str, str] = {}
    if make_curves:
        with span("curves"):
            reasons = curves.make(folder, data_dir=data_dir, cache_dir=cache_dir)
    content = material.from_workdir(folder)
    if reasons:
        name, reason = next(iter(reasons.items()))
        words = f"{len(reasons)} networks have none; the first is {name}: {reason}"
        content = dataclasses.replace(content, missing=content.missing | {"pruning curves": words})
    return write_material(content, layout.report_path(folder), second)


def write_for_table(
    table: Table, verdict: Verdict, directory: str | os.PathLike[str], *, title: str = "table"
) -> epath.Path:
    """Writes `directory/report/` from a table and its verdict only; the report lists the sections without data."""
    return write_material(material.from_table(table, verdict, title=title), epath.Path(directory) / "report")


def write_material(content: Material, folder: epath.Path, second: Second | None = None) -> epath.Path:
    """Writes the page, the tables and the figures into `folder`, each file atomically; returns the page's path."""
    with drawing.begin(content, second) as images:
        _put(folder / "index.html", page.html(content).encode())
        for name, text in paper_tables.paper_tables(content).items():
            _put(folder / "tables" / name, text.encode())
        for name, image in images():
            _put(folder / "figures" / name, image)
    return folder / "index.html"


def _put(path: epath.Path, content: bytes) -> None:
    with files.atomic(path) as file:
        file.write(content)
