"""Two matrices: the information that measures share, and the information that one adds to another about the target."""

from __future__ import annotations

import numpy as np
from bokeh.layouts import column
from bokeh.models import ColorBar, ColumnDataSource, CustomJS, FactorRange, LinearColorMapper, Select

from prunegen_jax.judging import Matrix
from prunegen_jax.report import colours
from prunegen_jax.report.material import Material
from prunegen_jax.report.views import FONT, View, hover, plot, text

SHARED = {
    "shared_symmetric": "whole, of the smaller entropy",
    "shared": "whole, of the column's entropy",
    "shared_least": "least given two hyperparameters",
}
ADDED = {
    "added": "added, less the null's mean",
    "added_least": "least given two hyperparameters, less the null's mean",
    "added_p": "permutation p-value",
}
_CELL = 17

_KIND = """
mapper.high = highs[cb_obj.value]
cells.glyph.fill_color = {field: `k${cb_obj.value}`, transform: mapper}
"""


def shared(material: Material) -> View:
    """The share of information that every two measures have in common, in one of three forms."""
    matrices = {
        words: material.verdict.matrices[key] for key, words in SHARED.items() if key in material.verdict.matrices
    }
    return _heatmap({"0": matrices}, "shared", high=1.0)


def added(material: Material) -> View:
    """What the row's measure adds to the column's about the chosen target."""
    views = {}
    for place, target in enumerate(material.verdict.targets):
        found = {words: _surplus(material.verdict.matrices, key, target) for key, words in ADDED.items()}
        views[str(place)] = {words: matrix for words, matrix in found.items() if matrix is not None}
    return _heatmap(views, "added", high=None)


def _surplus(matrices: dict[str, Matrix], key: str, target: str) -> Matrix | None:
    """A matrix of added information, minus what a permuted measure adds on average."""
    found, bias = matrices.get(f"{key}_{target}"), matrices.get(f"{key}_null_{target}")
    if found is None or bias is None:
        return found
    return Matrix(found.rows, found.columns, found.values - bias.values, found.meaning)


def _heatmap(views: dict[str, dict[str, Matrix]], name: str, *, high: float | None) -> View:
    """One heat map with a choice among the matrices of `views[target]`; the target is switched from outside."""
    kinds = list(views["0"])
    matrix = views["0"][kinds[0]]
    rows, columns = [text(r) for r in matrix.rows], [text(c) for c in matrix.columns]
    fixed = {"row": np.repeat(rows, len(columns)).tolist(), "column": np.tile(columns, len(rows)).tolist()}
    data = {place: {f"k{i}": each.values.ravel() for i, each in enumerate(of.values())} for place, of in views.items()}
    source = ColumnDataSource(fixed | data["0"], name=name)
    highs = [high or (1.0 if kind.endswith("p-value") else _largest(views, kind)) for kind in kinds]
    mapper = LinearColorMapper(palette=colours.SEQUENTIAL, low=0, high=highs[0], nan_color="#e6e9ee")
    shown = plot(
        x_range=FactorRange(*columns), y_range=FactorRange(*reversed(rows)), x_axis_location="above", name=name,
        sizing_mode="fixed", width=_CELL * len(columns) + 330, height=_CELL * len(rows) + 210,
    )  # fmt: skip
    shown.grid.grid_line_color = None
    shown.xaxis.major_label_orientation = 1.1
    for axis in shown.axis:
        axis.major_label_text_font_size, axis.major_tick_line_color = "11px", None
    cells = shown.rect(
        "column", "row", 0.95, 0.95, source=source, line_color=None, fill_color={"field": "k0", "transform": mapper}
    )
    words = [("row", "@row"), ("column", "@column"), *((kind, f"@k{i}{{0.000}}") for i, kind in enumerate(kinds))]
    shown.add_tools(hover(words, renderers=[cells]))
    shown.add_layout(ColorBar(color_mapper=mapper, width=10, margin=4, padding=4, major_label_text_font=FONT), "right")
    choice = Select(title="shows", value="0", options=[(str(i), kind) for i, kind in enumerate(kinds)], width=330)
    choice.js_on_change("value", CustomJS(args={"cells": cells, "mapper": mapper, "highs": highs}, code=_KIND))
    return View(column(choice, shown), [(source, data)])


def _largest(views: dict[str, dict[str, Matrix]], kind: str) -> float:
    """The top of the colour scale: the largest entry of any target, or one where there is none above zero."""
    values = np.concatenate([of[kind].values.ravel() for of in views.values()])
    largest = float(values[np.isfinite(values)].max(initial=0.0))
    return largest if largest > 0 else 1.0
