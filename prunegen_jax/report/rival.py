"""The reference measure, prunability, compared with one other: how both order the networks, and both correlations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.stats
from bokeh.layouts import column, row
from bokeh.models import ColorBar, ColumnDataSource, CustomJS, Div, FactorRange, LinearColorMapper, Select
from bokeh.transform import transform
from markupsafe import Markup

from prunegen_jax.judging.statistics import RANKED_BY, STATISTICS, shown_statistics
from prunegen_jax.report import colours
from prunegen_jax.report.material import Material
from prunegen_jax.report.points import written
from prunegen_jax.report.ranking import believed
from prunegen_jax.report.views import FONT, View, hover, label, plot, text
from prunegen_jax.runs.schema import Json

_CHOOSE = """
const r = rival.value, t = target.value
points.data = {...points.data, y: ranks.data[`m${r}`], t: ranks.data[`t${t}`]}
mapper.low = ranges[t][0]; mapper.high = ranges[t][1]
bars.data = {...bars.data, ours: values[t][reference], theirs: values[t][r]}
words.text = sentences[t][r]
y_label.text = names[r]
"""


def is_there(material: Material) -> bool:
    """Whether the reference and a rival of it were judged."""
    return material.reference in material.measures and len(material.measures) > 1


def against(material: Material, target: Select) -> View:
    """Both measures' ranks of every judged network, coloured by the target; the correlations of both side by side.

    The rival is chosen, at first the best other measure; `target` is the page's own choice. Ranks and correlations are
    turned by the believed signs: networks that both predict to generalize worse are in the top right.
    """
    names, targets = material.measures, material.verdict.targets
    reference = names.index(material.reference)
    first = next(i for i in range(len(names)) if i != reference)
    options = [(str(i), text(name)) for i, name in enumerate(names) if i != reference]
    rival = Select(title="rival", value=str(first), options=options, width=300, name="rival")
    everything = ColumnDataSource(_columns(material))
    ranges = [_range(everything.data[f"t{i}"]) for i in range(len(targets))]
    mapper = LinearColorMapper(palette=colours.SEQUENTIAL, low=ranges[0][0], high=ranges[0][1])
    scatter, points, y_label = _scatter(material, everything, reference, first, mapper)
    values = [[compared(material, name, each)[2] for name in names] for each in targets]
    side_by_side, bars = _side_by_side(*compared(material, names[first], targets[0]), material.reference)
    sentences = [[str(_sentence(material, name, each)) for name in names] for each in targets]
    words = Div(text=sentences[0][first], name="difference", sizing_mode="stretch_width", styles={"font-size": "15px"})
    choose = CustomJS(
        args={"rival": rival, "target": target, "points": points, "ranks": everything, "mapper": mapper, "bars": bars}
        | {"ranges": ranges, "values": values, "reference": reference, "sentences": sentences, "words": words}
        | {"names": [_axis_name(name) for name in names], "y_label": y_label},
        code=_CHOOSE,
    )
    for control in (rival, target):
        control.js_on_change("value", choose)
    return View(
        column(rival, words, row(scatter, side_by_side, sizing_mode="stretch_width"), sizing_mode="stretch_width")
    )


def _scatter(
    material: Material, everything: ColumnDataSource, reference: int, first: int, mapper: LinearColorMapper
) -> tuple[Any, ColumnDataSource, Any]:
    """The figure of ranks, the source of its points and the label of the rival's axis."""
    columns = {"x": everything.data[f"m{reference}"], "y": everything.data[f"m{first}"]}
    columns |= {"t": everything.data["t0"], "name": [text(name) for name in material.table.names]}
    hyperparameters = material.table.hyperparameters
    columns |= {f"h{i}": written(each) for i, each in enumerate(hyperparameters.values())}
    points = ColumnDataSource(columns, name="ranks")
    shown = plot(height=400, name="rivals")
    y_label = label(_axis_name(material.measures[first]))
    shown.xaxis.axis_label, shown.yaxis.axis_label = label(_axis_name(material.reference)), y_label
    drawn = shown.scatter(
        "x", "y", source=points, size=9, fill_color=transform("t", mapper), line_color="#5d6875", line_width=0.5
    )
    words = [("network", "@name"), ("ranks", "@x{0.#}, @y{0.#}"), ("target", "@t{%.5g}")]
    words += [(axis, f"@h{i}") for i, axis in enumerate(hyperparameters)]
    shown.add_tools(hover(words, renderers=[drawn], formatters={"@t": "printf"}))
    bar = ColorBar(color_mapper=mapper, width=10, margin=4, padding=4, major_label_text_font=FONT, title="target")
    shown.add_layout(bar, "right")
    return shown, points, y_label


def _side_by_side(
    rows: list[str], ours: list[float], theirs: list[float], reference: str
) -> tuple[Any, ColumnDataSource]:
    """The correlations of both, a row each, joined by a line; and their source."""
    bars = ColumnDataSource({"row": rows, "ours": ours, "theirs": theirs}, name="compared")
    shown = plot(y_range=FactorRange(*reversed(rows)), x_range=(-1.04, 1.04), height=400, name="side_by_side")
    shown.xaxis.axis_label = label("correlation with the target, in the believed direction")
    shown.segment("ours", "row", "theirs", "row", source=bars, line_color="#b9c0ca", line_width=2)
    kinds = (("ours", reference, colours.OKABE_ITO[0]), ("theirs", "the rival", colours.OKABE_ITO[1]))
    drawn = [
        shown.scatter(field, "row", source=bars, size=10, color=colour, legend_label=text(words))
        for field, words, colour in kinds
    ]
    rows_told = [("", "@row"), (text(reference), "@ours{0.00}"), ("the rival", "@theirs{0.00}")]
    shown.add_tools(hover(rows_told, renderers=drawn))
    shown.add_layout(shown.legend[0], "above")
    shown.legend.orientation, shown.legend.border_line_color = "horizontal", None
    return shown, bars


def ranks(material: Material) -> dict[str, np.ndarray]:
    """Ranks `[n]` of the judged networks by every measure, the largest for what it predicts to generalize worst."""
    signs = {each["measure"]: each["sign"] for each in material.verdict.rows}
    turned = {name: signs[name] * material.table.measures[name] for name in material.measures}
    return {name: scipy.stats.rankdata(values, nan_policy="omit") for name, values in turned.items()}


def compared(material: Material, measure: str, target: str) -> tuple[list[str], list[float], list[float]]:
    """Correlations of the reference and of `measure`, turned by the believed signs.

    Returns:
        Labels of every signed statistic that is shown, and of psi along each axis; the values of the reference; those
        of `measure`.
    """
    axes = [str(axis) for axis in material.verdict.settings.get("axes", ())]
    labels = {name: statistic.label for name, statistic in shown_statistics(signed=True).items()}
    labels |= {f"psi.{axis}": f"ψ, {text(axis)}" for axis in axes}
    rows = [_row(material, name, target) for name in (material.reference, measure)]
    ours, theirs = ([each["sign"] * each.get(key, math.nan) for key in labels] for each in rows)
    return list(labels.values()), ours, theirs


def _columns(material: Material) -> dict[str, np.ndarray]:
    """Ranks and targets, by index: names from files are not column names."""
    columns = {f"m{i}": values for i, values in enumerate(ranks(material).values())}
    columns |= {f"t{i}": material.table.targets[name] for i, name in enumerate(material.verdict.targets)}
    return {name: values.astype(np.float32) for name, values in columns.items()}


def _range(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)


def _row(material: Material, measure: str, target: str) -> Json:
    return next(r for r in material.verdict.rows if r["measure"] == measure and r["target"] == target)


def _axis_name(name: str) -> str:
    return f"{text(name)} (rank, highest predicted worst)"


def _sentence(material: Material, rival: str, target: str) -> Markup:
    """By how much the reference is better than `rival`, paired over configurations; without draws, both values."""
    labels = {name: statistic.label for name, statistic in shown_statistics().items() if statistic.shows_interval}
    parts = []
    for each in material.verdict.differences:
        is_asked = each["measure"] == rival and each["target"] == target and each["statistic"] in labels
        if is_asked and not math.isnan(each["better_by"]):
            value, low, high = (_signed(each[key]) for key in ("better_by", "low", "high"))
            parts.append(f"{labels[each['statistic']]} {value} [{low}, {high}]")
    if parts:
        lead = Markup("Paired over configurations, <b>{}</b> is ahead of <b>{}</b> by: ")
        return lead.format(material.reference, rival) + ", ".join(parts) + ". An interval that holds 0 decides nothing."
    ours, theirs = (believed(_row(material, name, target), RANKED_BY)[0] for name in (material.reference, rival))
    lead = Markup("{} of <b>{}</b> is {:.2f}, of <b>{}</b> {:.2f}; the verdict has no paired intervals.")
    return lead.format(STATISTICS[RANKED_BY].label, material.reference, ours, rival, theirs)


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
