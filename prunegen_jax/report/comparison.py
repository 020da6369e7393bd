"""The reference measure, prunability, compared with another: how both order the networks, and both correlations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.stats
from bokeh.models import (
    ColorBar,
    ColumnDataSource,
    CustomJS,
    Div,
    FactorRange,
    InlineStyleSheet,
    LinearColorMapper,
    Select,
)
from bokeh.transform import transform

from prunegen_jax.judging.statistics import shown_statistics
from prunegen_jax.report import colours, sentences
from prunegen_jax.report.labels import axis_names, label, target_name, text
from prunegen_jax.report.material import Material
from prunegen_jax.report.points import levels, varied
from prunegen_jax.report.ranking import number
from prunegen_jax.report.views import FONT, View, choice, drawable, hover, plot

REFERENCE_COLOUR, OTHER_COLOUR = colours.OKABE_ITO[0], colours.OKABE_ITO[1]
_STYLE = "ul { margin: 4px 0 8px; padding-left: 20px; }"

_CHOOSE = """
const m = other.value, t = target.value
points.data = {...points.data, y: ranks.data[`m${m}`], t: ranks.data[`t${t}`]}
mapper.low = ranges[t][0]; mapper.high = ranges[t][1]
bars.data = {...bars.data, reference: values[t][reference], other: values[t][m]}
words.text = sentences[t][m]
y_label.text = names[m]
scatter.html_attributes = {role: 'img', 'aria-label': scatter_descriptions[t][m]}
correlations.html_attributes = {role: 'img', 'aria-label': correlation_descriptions[t][m]}
for (const part of document.querySelectorAll('.other-measure')) part.textContent = plain_names[m]
"""


def is_there(material: Material) -> bool:
    """Whether the reference and another measure were judged."""
    return material.reference in material.measures and len(material.measures) > 1


def first_other(material: Material) -> int:
    """The index of the measure that is compared first: the best one besides the reference."""
    return next(i for i, name in enumerate(material.measures) if name != material.reference)


def against(material: Material, target: Select) -> dict[str, View]:
    """Both measures' ranks of every judged network, coloured by the target; the correlations of both side by side.

    The other measure is chosen, at first the best one; `target` is the page's own control. Ranks and correlations are
    multiplied by the expected signs: networks that both predict to generalize worse are in the top right.
    """
    names, targets = material.measures, material.verdict.targets
    reference, first = names.index(material.reference), first_other(material)
    other = choice("compare with", names, "other", width=300, value=first)
    other.options = [option for i, option in enumerate(other.options) if i != reference]
    everything = ColumnDataSource(_columns(material))
    ranges = [_range(everything.data[f"t{i}"]) for i in range(len(targets))]
    mapper = LinearColorMapper(palette=colours.SEQUENTIAL, low=ranges[0][0], high=ranges[0][1])
    found = [[correlations(material, name, each) for name in names] for each in targets]
    described = [[_described(material, name, each) for name in names] for each in targets]
    listed = [[_listed(material, name, *of) for name, of in zip(names, row, strict=True)] for row in found]
    scatter, points, y_label = _scatter(material, everything, reference, first, mapper, described[0][first])
    side_by_side, bars = _side_by_side(*found[0][first], material.reference, listed[0][first])
    words = [[str(sentences.comparison(material, name, each)) for name in names] for each in targets]
    style = InlineStyleSheet(css=f":host {{ font-family: {FONT}; font-size: 15px; color: var(--ink); }} {_STYLE}")
    shown = Div(text=words[0][first], name="difference", sizing_mode="stretch_width", stylesheets=[style])
    choose = CustomJS(
        args={"other": other, "target": target, "points": points, "ranks": everything, "mapper": mapper, "bars": bars}
        | {"ranges": ranges, "values": [[of[2] for of in row] for row in found], "reference": reference}
        | {"sentences": words, "words": shown, "names": [_axis_name(name) for name in names], "y_label": y_label}
        | {"plain_names": list(names), "scatter": scatter, "scatter_descriptions": described}
        | {"correlations": side_by_side, "correlation_descriptions": listed},
        code=_CHOOSE,
    )
    for control in (other, target):
        control.js_on_change("value", choose)
    parts = {"other": other, "difference": shown, "ranks": scatter, "correlations": side_by_side}
    return {name: View(part) for name, part in parts.items()}


def ranks(material: Material) -> dict[str, np.ndarray]:
    """Ranks `[n]` of the judged networks by every measure, the largest for what it predicts to generalize worst."""
    signs = {each["measure"]: each["sign"] for each in material.verdict.rows}
    directed = {name: signs[name] * material.table.measures[name] for name in material.measures}
    return {name: scipy.stats.rankdata(values, nan_policy="omit") for name, values in directed.items()}


def correlations(material: Material, measure: str, target: str) -> tuple[list[str], list[float], list[float]]:
    """Correlations of the reference and of `measure`, multiplied by the expected signs.

    Returns:
        Labels of every signed statistic that is shown, and of psi along each axis; the values of the reference; those
        of `measure`.
    """
    axes = [str(axis) for axis in material.verdict.settings.get("axes", ())]
    columns = [*shown_statistics(signed=True), *(f"psi.{axis}" for axis in axes)]
    labels = [statistic.label for statistic in shown_statistics(signed=True).values()]
    rows = [material.verdict.row(name, target) for name in (material.reference, measure)]
    ours, theirs = ([each["sign"] * each.get(key, math.nan) for key in columns] for each in rows)
    return axis_names([*labels, *(f"ψ, {axis}" for axis in axes)]), ours, theirs


def _scatter(
    material: Material, everything: ColumnDataSource, reference: int, first: int, mapper: Any, description: str
) -> tuple[Any, ColumnDataSource, Any]:
    """The figure of ranks, the source of its points and the label of the other measure's axis."""
    columns = {"x": everything.data[f"m{reference}"], "y": everything.data[f"m{first}"]}
    columns |= {"t": everything.data["t0"], "name": [text(name) for name in material.table.names]}
    points = ColumnDataSource(columns | levels(material, material.table.hyperparameters), name="ranks")
    shown = plot(description, height=400, name="rank_scatter")
    y_label = label(_axis_name(material.measures[first]))
    shown.xaxis.axis_label, shown.yaxis.axis_label = label(_axis_name(material.reference)), y_label
    drawn = shown.scatter(
        "x", "y", source=points, size=9, fill_color=transform("t", mapper), line_color="#5d6875", line_width=0.5
    )
    words = [("network", "@name"), ("ranks", "@x{0.#}, @y{0.#}"), ("target", "@t{%.5g}"), *varied(material)]
    shown.add_tools(hover(words, renderers=[drawn], formatters={"@t": "printf"}))
    bar = ColorBar(color_mapper=mapper, width=10, margin=4, padding=4, major_label_text_font=FONT, title="target")
    shown.add_layout(bar, "right")
    return shown, points, y_label


def _side_by_side(
    rows: list[str], ours: list[float], theirs: list[float], reference: str, description: str
) -> tuple[Any, ColumnDataSource]:
    """The correlations of both, a row each, joined by a line; and their source."""
    bars = ColumnDataSource({"row": rows, "reference": ours, "other": theirs}, name="compared")
    ranges = {"y_range": FactorRange(*reversed(rows)), "x_range": (-1.1, 1.1)}
    shown = plot(description, height=400, name="side_by_side", **ranges)
    shown.xaxis.axis_label = label("correlation × expected sign")
    shown.segment("reference", "row", "other", "row", source=bars, line_color="#b9c0ca", line_width=2)
    kinds = (("reference", REFERENCE_COLOUR), ("other", OTHER_COLOUR))
    drawn = [shown.scatter(field, "row", source=bars, size=10, color=colour) for field, colour in kinds]
    rows_of_tooltip = [("", "@row"), (text(reference), "@reference{0.00}"), ("other", "@other{0.00}")]
    shown.add_tools(hover(rows_of_tooltip, renderers=drawn))
    return shown, bars


def _columns(material: Material) -> dict[str, np.ndarray]:
    """Ranks and targets, by index: names from files are not column names."""
    columns = {f"m{i}": values.astype(np.float32) for i, values in enumerate(ranks(material).values())}
    return columns | {
        f"t{i}": drawable(material.table.targets[name]) for i, name in enumerate(material.verdict.targets)
    }


def _range(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)


def _axis_name(name: str) -> str:
    return f"{axis_names([name])[0]} (rank)"


def _described(material: Material, other: str, target: str) -> str:
    words = f"Ranks of {len(material.table)} networks by {text(material.reference)} and {text(other)}"
    return f"{words}, coloured by {target_name(target)}"


def _listed(material: Material, other: str, labels: list[str], ours: list[float], theirs: list[float]) -> str:
    pairs = zip(labels, ours, theirs, strict=True)
    values = "; ".join(f"{name} {number(a, 2).text} and {number(b, 2).text}" for name, a, b in pairs)
    return f"Correlations of {text(material.reference)} and {text(other)} with the target: {values}"
