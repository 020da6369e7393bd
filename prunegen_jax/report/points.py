"""Every network as a point: a chosen measure against the target, coloured by a chosen axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.stats
from bokeh.models import ColumnDataSource, CustomJS, Select

from prunegen_jax.judging.statistics import RANKED_BY, STATISTICS
from prunegen_jax.report.colours import Colouring
from prunegen_jax.report.labels import label, target_name, text
from prunegen_jax.report.material import Material
from prunegen_jax.report.ranking import directed, number
from prunegen_jax.report.views import View, choice, drawable, hover, plot

SCALES = {"value": "", "logarithm": " (log10)", "rank": " (rank)"}
_MOST = 6  # hyperparameters in a tooltip

# The columns shown are chosen among those of `all`.
_CHOOSE = """
const m = measure.value, t = target.value, s = scale.value
points.data = {...points.data, x: all.data[`m${m}s${s}`], y: all.data[`t${t}`], value: all.data[`m${m}s0`],
               colour: all.data[`c${colour.value}`]}
x_label.text = names[m] + suffixes[s]
y_label.text = targets[t]
shown.html_attributes = {role: 'img', 'aria-label': descriptions[t][m]}
"""


def scatter(material: Material, colourings: Mapping[str, Colouring], target: Select, colour: Select) -> dict[str, View]:
    """The scatter plot of a chosen measure and its controls; `target` and `colour` are controls of the page.

    The reference is shown first, or the best measure if the reference was not judged.
    """
    everything = ColumnDataSource(_columns(material, colourings), name="all")
    names, targets = material.measures, material.verdict.targets
    first = names.index(material.reference) if material.reference in names else 0
    measure = choice("measure", names, "measure", width=300, value=first)
    scale = choice("horizontal axis", list(SCALES), "scale", width=140)
    points = ColumnDataSource(_first(material, everything, first), name="points")
    descriptions = [[_description(material, name, each) for name in names] for each in targets]
    shown = plot(descriptions[0][first], height=440, name="scatter")
    x_label, y_label = label(text(names[first])), label(target_name(targets[0]))
    shown.xaxis.axis_label, shown.yaxis.axis_label = x_label, y_label
    drawn = shown.scatter(
        "x", "y", source=points, size=9, marker="marker", fill_color="colour", line_color="colour", fill_alpha=0.75
    )
    shown.add_tools(
        hover(
            [("network", "@name"), ("measure", "@value{%.5g}"), ("target", "@y{%.5g}"), *varied(material)],
            renderers=[drawn],
            formatters={"@value": "printf", "@y": "printf"},
        )
    )
    choose = CustomJS(
        args={"measure": measure, "scale": scale, "target": target, "colour": colour, "all": everything}
        | {"points": points, "x_label": x_label, "y_label": y_label, "names": [text(n) for n in names]}
        | {"targets": [target_name(t) for t in targets], "suffixes": list(SCALES.values())}
        | {"shown": shown, "descriptions": descriptions},
        code=_CHOOSE,
    )
    for control in (measure, scale, target, colour):
        control.js_on_change("value", choose)
    return {"measure": View(measure), "scale": View(scale), "scatter": View(shown)}


def varied(material: Material) -> list[tuple[str, str]]:
    """The lines of a tooltip for the hyperparameters that vary, the first few."""
    return [(axis, f"@h{i}") for i, axis in enumerate(material.axes[:_MOST])]


def levels(material: Material, columns: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    """The columns that `varied` shows: values of the hyperparameters as short text."""
    return {f"h{i}": _written(columns[axis]) for i, axis in enumerate(material.axes[:_MOST])}


def _columns(material: Material, colourings: Mapping[str, Colouring]) -> dict[str, Any]:
    """Measures on every scale, targets and colours of all models, by index: names from files are not column names."""
    columns: dict[str, Any] = {}
    for i, name in enumerate(material.measures):
        for j, values in enumerate(_scaled(material.everyone.measures[name])):
            columns[f"m{i}s{j}"] = values
    for i, name in enumerate(material.verdict.targets):
        columns[f"t{i}"] = drawable(material.everyone.targets[name])
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
    return shown | levels(material, everyone.hyperparameters)


def _description(material: Material, measure: str, target: str) -> str:
    value = number(directed(material.verdict.row(measure, target), RANKED_BY)[0], 2).text
    words = f"{len(material.everyone)} networks, {text(measure)} against {target_name(target)}"
    return f"{words}; {STATISTICS[RANKED_BY].label} in the expected direction {value}"


def _written(values: np.ndarray) -> list[str]:
    return [f"{v:.6g}" if values.dtype.kind == "f" else text(str(v)) for v in values]


def _scaled(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A measure's values that can be drawn, the logarithms of the positive ones, and the ranks of all but `nan`."""
    finite = np.where(np.isfinite(values), values, np.nan)
    logarithms = np.log10(finite, where=finite > 0, out=np.full(len(values), np.nan))
    return drawable(values), logarithms, scipy.stats.rankdata(values, nan_policy="omit")
