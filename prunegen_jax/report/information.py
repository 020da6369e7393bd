"""K of every measure beside its null band: the information that hyperparameters do not explain."""

from __future__ import annotations

import math

from bokeh.models import ColumnDataSource, FactorRange

from prunegen_jax.judging.statistics import RANKED_BY, STATISTICS
from prunegen_jax.report.colours import OKABE_ITO
from prunegen_jax.report.labels import axis_names, target_name, text
from prunegen_jax.report.material import Material
from prunegen_jax.report.ranking import number
from prunegen_jax.report.views import Data, View, alternatives, hover, plot

BAND = "#d9dee6"
_ROW = 21
_K = STATISTICS["k"].label


def information(material: Material) -> View:
    """K of every measure, and the K of a measure without information: from the mean of the null to its 95 % limit."""
    names = axis_names(material.measures)
    targets = material.verdict.targets
    views = {str(i): _columns(material, target, names) for i, target in enumerate(targets)}
    source = ColumnDataSource(views["0"], name="k")
    descriptions = [_description(views[str(i)], target) for i, target in enumerate(targets)]
    shown = plot(
        descriptions[0], y_range=FactorRange(*reversed(names)), height=_ROW * len(names) + 60, min_width=330, name="k"
    )
    shown.ygrid.grid_line_color = "#f1f3f6"
    shown.xaxis.axis_label = f"{_K} (share of information)"
    shown.hbar("measure", left="low", right="high", height=0.7, source=source, fill_color=BAND, line_color=None)
    for column, fill in (("expected", OKABE_ITO[1]), ("opposite", "white")):
        dots = shown.scatter(
            column, "measure", size=9, source=source, fill_color=fill, line_color=OKABE_ITO[1], line_width=1.5
        )
        null = "@low{0.0000} to @high{0.0000}"
        rows = [("measure", "@name"), (_K, "@k{0.0000}"), ("given", "@given"), ("null", null),
                ("p, Holm", "@p{0.000}")]  # fmt: skip
        shown.add_tools(hover(rows, renderers=[dots]))
    return View(shown, [(source, views)], [alternatives(shown, descriptions)])


def _columns(material: Material, target: str, names: list[str]) -> Data:
    rows = [material.verdict.row(name, target) for name in material.measures]
    # K has no sign: tau-b gives the direction of the measure
    expected = [row["sign"] * row[RANKED_BY] >= 0 for row in rows]
    k = [row.get("k", math.nan) for row in rows]
    return {
        "measure": names,
        "name": [text(name) for name in material.measures],
        "k": k,
        "expected": [each if yes else math.nan for each, yes in zip(k, expected, strict=True)],
        "opposite": [math.nan if yes else each for each, yes in zip(k, expected, strict=True)],
        "given": [text(str(row.get("k_set", ""))) for row in rows],
        "low": [row.get("k_null", math.nan) for row in rows],
        "high": [row.get("k_null_95", math.nan) for row in rows],
        "p": [row.get("k_p_holm", math.nan) for row in rows],
    }


def _description(columns: Data, target: str) -> str:
    pairs = sorted(
        zip(columns["name"], columns["k"], strict=True), key=lambda pair: math.inf if math.isnan(pair[1]) else -pair[1]
    )
    values = "; ".join(f"{name} {number(k, 4).text}" for name, k in pairs)
    above = sum(k > high for k, high in zip(columns["k"], columns["high"], strict=True))
    return f"{_K} of every measure on {target_name(target)}, {above} above the 95 % limit of the null: {values}"
