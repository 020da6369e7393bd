"""Every network as a point: a chosen measure against the target, coloured by a chosen axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.stats
from bokeh.layouts import column, row
from bokeh.models import ColumnDataSource, CustomJS, Legend, Select

from prunegen_jax.report.colours import Colouring
from prunegen_jax.report.material import Material
from prunegen_jax.report.views import View, hover, label, legend_items, plot, target_name, text

SCALES = {"value": "", "logarithm": " (log10)", "rank": " (rank)"}

# The columns shown are chosen among those of `all`.
_CHOOSE = """
const m = measure.value, t = target.value, s = scale.value
points.data = {...points.data, x: all.data[`m${m}s${s}`], y: all.data[`t${t}`], value: all.data[`m${m}s0`],
               colour: all.data[`c${colour.value}`]}
x_label.text = names[m] + suffixes[s]
y_label.text = targets[t]
legend.items = items[colour.value]
"""


def scatter(material: Material, colourings: Mapping[str, Colouring], target: Select, colour: Select) -> View:
    """The scatter plot of a chosen measure, at first prunability; `target` and `colour` are controls of the page."""
    everything = ColumnDataSource(_columns(material, colourings), name="all")
    names = material.measures
    first = names.index(material.reference) if material.reference in names else 0
    options = [(str(i), text(name)) for i, name in enumerate(names)]
    measure = Select(title="measure", value=str(first), options=options, width=300, name="measure")
    scales = [(str(i), name) for i, name in enumerate(SCALES)]
    scale = Select(title="horizontal axis", value="0", options=scales, width=140, name="scale")
    points = ColumnDataSource(_first(material, everything, first), name="points")
    shown = plot(height=440, name="scatter")
    x_label, y_label = label(text(names[first])), label(target_name(material.verdict.targets[0]))
    shown.xaxis.axis_label, shown.yaxis.axis_label = x_label, y_label
    drawn = shown.scatter(
        "x", "y", source=points, size=9, marker="marker", fill_color="colour", line_color="colour", fill_alpha=0.75
    )
    words = [("network", "@name"), ("measure", "@value{%.5g}"), ("target", "@y{%.5g}")]
    words += [(axis, f"@h{i}") for i, axis in enumerate(material.everyone.hyperparameters)]
    shown.add_tools(hover(words, renderers=[drawn], formatters={"@value": "printf", "@y": "printf"}))
    items = [legend_items(each, drawn, range(len(material.everyone))) for each in colourings.values()]
    legend = Legend(items=items[0], border_line_color=None, label_text_font_size="12px", name="legend")
    shown.add_layout(legend, "right")
    choose = CustomJS(
        args={"measure": measure, "scale": scale, "target": target, "colour": colour, "all": everything}
        | {"points": points, "x_label": x_label, "y_label": y_label, "names": [text(n) for n in names]}
        | {"targets": [target_name(t) for t in material.verdict.targets], "suffixes": list(SCALES.values())}
        | {"legend": legend, "items": items},
        code=_CHOOSE,
    )
    for control in (measure, scale, target, colour):
        control.js_on_change("value", choose)
    return View(column(row(measure, scale), shown, sizing_mode="stretch_width"))


def _columns(material: Material, colourings: Mapping[str, Colouring]) -> dict[str, Any]:
    """Measures on every scale, targets and colours of all models, by index: names from files are not column names."""
    columns: dict[str, Any] = {}
    for i, name in enumerate(material.measures):
        for j, values in enumerate(_scaled(material.everyone.measures[name])):
            columns[f"m{i}s{j}"] = values
    for i, name in enumerate(material.verdict.targets):
        columns[f"t{i}"] = material.everyone.targets[name]
    return columns | {f"c{i}": list(each.colours) for i, each in enumerate(colourings.values())}


def _first(material: Material, everything: ColumnDataSource, measure: int) -> dict[str, Any]:
    everyone = material.everyone
    shown = {
        "x": everything.data[f"m{measure}s0"],
        "y": everything.data["t0"],
        "value": everything.data[f"m{measure}s0"],
        "colour": everything.data["c0"],
        "name": [text(name) for name in everyone.names],
        "marker": ["circle" if judged else "x" for judged in material.judged],
    }
    return shown | {f"h{i}": written(values) for i, values in enumerate(everyone.hyperparameters.values())}


def written(values: np.ndarray) -> list[str]:
    """A hyperparameter's values as short text."""
    return [f"{v:.6g}" if values.dtype.kind == "f" else text(str(v)) for v in values]


def _scaled(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A measure's finite values, the logarithms of the positive ones, and the ranks of all that are there."""
    finite = np.where(np.isfinite(values), values, np.nan)
    logarithms = np.log10(finite, where=finite > 0, out=np.full(len(values), np.nan))
    ranks = scipy.stats.rankdata(values, nan_policy="omit")
    return finite, logarithms, ranks
