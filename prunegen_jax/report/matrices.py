"""Two matrices: the information that measures share, and the information that one adds to another about the target."""

from __future__ import annotations

import numpy as np
from bokeh.models import ColorBar, ColumnDataSource, CustomJS, FactorRange, LinearColorMapper, Select

from prunegen_jax.judging import Matrix
from prunegen_jax.report import colours
from prunegen_jax.report.labels import axis_names, target_name
from prunegen_jax.report.material import Material
from prunegen_jax.report.views import FONT, View, choice, hover, plot

SHARED = {
    "shared_symmetric": "share of the smaller entropy",
    "shared": "share of the column's entropy",
    "shared_least": "least given two hyperparameters",
}
ADDED = {
    "added": "added, minus the mean of the null",
    "added_least": "least given two hyperparameters, minus the null",
    "added_p": "permutation p-value",
}
_CELL = 17

_SHOW = """
const k = kind.value
cells.data = {...cells.data, value: values[target.value][k]}
mapper.high = highs[k]
shown.html_attributes = {role: 'img', 'aria-label': descriptions[target.value][k]}
"""


def shared(material: Material, target: Select) -> dict[str, View]:
    """The share of information that every two measures have in common, in one of three forms."""
    matrices = material.verdict.matrices
    found = {words: matrices[key] for key, words in SHARED.items() if key in matrices}
    return _heatmap([found] * len(material.verdict.targets), material.verdict.targets, "shared", target, high=1.0)


def added(material: Material, target: Select) -> dict[str, View]:
    """What the row's measure adds to the column's about the chosen target."""
    views = []
    for each in material.verdict.targets:
        found = {words: surplus(material.verdict.matrices, key, each) for key, words in ADDED.items()}
        views.append({words: matrix for words, matrix in found.items() if matrix is not None})
    return _heatmap(views, material.verdict.targets, "added", target, high=None)


def surplus(matrices: dict[str, Matrix], key: str, target: str) -> Matrix | None:
    """A matrix of added information, minus what a permuted measure adds on average."""
    found, bias = matrices.get(f"{key}_{target}"), matrices.get(f"{key}_null_{target}")
    if found is None or bias is None:
        return found
    return Matrix(found.rows, found.columns, found.values - bias.values, found.meaning)


def filled(matrices: list[Matrix]) -> tuple[np.ndarray, np.ndarray]:
    """The rows and the columns, by index, that have a value in any of the matrices of equal shape."""
    there = np.any([np.isfinite(matrix.values) for matrix in matrices], axis=0)
    return np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))


def _heatmap(
    views: list[dict[str, Matrix]], targets: tuple[str, ...], name: str, target: Select, *, high: float | None
) -> dict[str, View]:
    """A heat map and the choice among the matrices `views[target]`; rows and columns without any value are left out."""
    kinds = list(views[0])
    matrix = views[0][kinds[0]]
    rows, columns = filled([each for of in views for each in of.values()])
    row_names, column_names = (
        [axis_names(labels)[i] for i in kept] for labels, kept in ((matrix.rows, rows), (matrix.columns, columns))
    )
    values = [[of[kind].values[np.ix_(rows, columns)].ravel() for kind in kinds] for of in views]
    grid = {"row": np.repeat(row_names, len(columns)).tolist(), "column": np.tile(column_names, len(rows)).tolist()}
    cells = ColumnDataSource(grid | {"value": values[0][0]}, name=name)
    highs = [high or (1.0 if kind.endswith("p-value") else _largest(values, i)) for i, kind in enumerate(kinds)]
    mapper = LinearColorMapper(palette=colours.SEQUENTIAL, low=0, high=highs[0], nan_color="#e6e9ee")
    size = f"matrix of {len(rows)} by {len(columns)} measures"
    descriptions = [
        [f"{name} information, {kind}, on {target_name(each)}: {size}" for kind in kinds] for each in targets
    ]
    shown = plot(
        descriptions[0][0], x_range=FactorRange(*column_names), y_range=FactorRange(*reversed(row_names)),
        x_axis_location="above", name=name, sizing_mode="fixed", width=_CELL * len(columns) + 330,
        height=_CELL * len(rows) + 210,
    )  # fmt: skip
    shown.grid.grid_line_color = None
    shown.xaxis.major_label_orientation = 1.1
    for axis in shown.axis:
        axis.major_label_text_font_size, axis.major_tick_line_color = "11px", None
    fill = {"field": "value", "transform": mapper}
    drawn = shown.rect("column", "row", 0.95, 0.95, source=cells, line_color=None, fill_color=fill)
    shown.add_tools(hover([("row", "@row"), ("column", "@column"), ("value", "@value{0.000}")], renderers=[drawn]))
    shown.add_layout(ColorBar(color_mapper=mapper, width=10, margin=4, padding=4, major_label_text_font=FONT), "right")
    kind = choice("shown", kinds, f"{name}_kind", width=330)
    arguments = {"cells": cells, "mapper": mapper, "highs": highs, "kind": kind, "target": target, "values": values}
    show = CustomJS(args=arguments | {"shown": shown, "descriptions": descriptions}, code=_SHOW)
    for control in (kind, target):
        control.js_on_change("value", show)
    return {f"{name}_kind": View(kind), name: View(shown)}


def _largest(values: list[list[np.ndarray]], kind: int) -> float:
    """The top of the colour scale: the largest entry of any target, or one where there is none above zero."""
    found = np.concatenate([of[kind] for of in values])
    largest = float(found[np.isfinite(found)].max(initial=0.0))
    return largest if largest > 0 else 1.0
