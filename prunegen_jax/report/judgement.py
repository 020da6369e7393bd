"""Figures of the statistics that take hyperparameters into account: Psi per axis, K with its null band."""

from __future__ import annotations

import math

from bokeh.core.properties import value
from bokeh.models import ColumnDataSource, FactorRange, LinearColorMapper
from bokeh.transform import transform

from prunegen_jax.judging.statistics import RANKED_BY, STATISTICS
from prunegen_jax.report import colours
from prunegen_jax.report.material import Material
from prunegen_jax.report.views import FONT, Data, View, hover, plot, text
from prunegen_jax.runs.schema import Json

_ROW = 21
_PSI, _K = STATISTICS["psi"].label, STATISTICS["k"].label


def psi(material: Material) -> View:
    """One row per measure, one column per axis: psi multiplied by the expected sign."""
    axes = [str(axis) for axis in material.verdict.settings.get("axes", ())]
    names = [text(name) for name in material.measures]
    views = {str(i): _psi_cells(material, target, axes) for i, target in enumerate(material.verdict.targets)}
    source = ColumnDataSource(views["0"], name="psi")
    columns = FactorRange(*dict.fromkeys([text(axis) for axis in axes] + [_PSI]))
    shown = plot(
        x_range=columns, y_range=FactorRange(*reversed(names)), x_axis_location="above", name="psi",
        height=_ROW * len(names) + 60,
    )  # fmt: skip
    shown.grid.grid_line_color = None
    mapper = LinearColorMapper(palette=colours.DIVERGING, low=-1, high=1, nan_color="#f1f3f6")
    cells = shown.rect(
        "axis", "measure", 0.97, 0.92, source=source, line_color=None, fill_color=transform("psi", mapper)
    )
    shown.text(
        "axis", "measure", text="words", text_color="ink", source=source, text_align="center", text_baseline="middle",
        text_font=value(FONT), text_font_size="11.5px",
    )  # fmt: skip
    shown.add_tools(hover([("measure", "@measure"), ("axis", "@axis"), ("ψ", "@words")], renderers=[cells]))
    return View(shown, [(source, views)])


def information(material: Material) -> View:
    """K of every measure, and the K of a measure without information: from the mean of the null to its 95 % limit."""
    names = [text(name) for name in material.measures]
    views = {str(i): _k_columns(material, target) for i, target in enumerate(material.verdict.targets)}
    source = ColumnDataSource(views["0"], name="k")
    shown = plot(y_range=FactorRange(*reversed(names)), height=_ROW * len(names) + 90, name="k")
    shown.ygrid.grid_line_color = "#f1f3f6"
    shown.xaxis.axis_label = f"{_K}, share of the target's information (0 to 1)"
    band = {"fill_color": "#d9dee6", "line_color": None}
    shown.hbar(
        "measure", left="low", right="high", height=0.7, source=source, legend_label="null: mean to 95 %", **band
    )
    for colour, words, there in (
        ("believed", "points the believed way", "along"),
        ("against", "points against", "back"),
    ):
        fill = "#0072B2" if colour == "believed" else "white"
        dots = shown.scatter(
            there, "measure", size=9, source=source, fill_color=fill, line_color="#0072B2", line_width=1.5,
            legend_label=words,
        )  # fmt: skip
        rows = [("measure", "@measure"), (_K, "@k{0.0000}"), ("given", "@given"), ("null, mean", "@low{0.0000}"),
                ("null, 95 %", "@high{0.0000}"), ("p, Holm", "@p{0.000}")]  # fmt: skip
        shown.add_tools(hover(rows, renderers=[dots]))
    shown.add_layout(shown.legend[0], "above")
    shown.legend.orientation, shown.legend.border_line_color = "horizontal", None
    shown.legend.label_text_font_size = "12px"
    return View(shown, [(source, views)])


def _psi_cells(material: Material, target: str, axes: list[str]) -> Data:
    rows = _by_measure(material, target)
    cells = []
    for name in material.measures:
        row = rows[name]
        for axis in [*axes, None]:
            turned = row["sign"] * row.get("psi" if axis is None else f"psi.{axis}", math.nan)
            words = "–" if math.isnan(turned) else f"{round(turned, 2) + 0.0:.2f}"
            # adding zero makes of "-0.00" a "0.00"
            ink = "white" if abs(turned) > 0.62 else colours.INK
            cells.append((text(name), _PSI if axis is None else text(axis), turned, words, ink))
    columns = zip(*cells, strict=True) if cells else ([],) * 5
    return {key: list(c) for key, c in zip(("measure", "axis", "psi", "words", "ink"), columns, strict=True)}


def _k_columns(material: Material, target: str) -> Data:
    rows = _by_measure(material, target)
    ordered = [rows[name] for name in material.measures]
    # K ignores the sign: tau-b gives the direction of the measure
    along = [row["sign"] * row[RANKED_BY] >= 0 for row in ordered]
    k = [row.get("k", math.nan) for row in ordered]
    return {
        "measure": [text(name) for name in material.measures],
        "k": k,
        "along": [each if yes else math.nan for each, yes in zip(k, along, strict=True)],
        "back": [math.nan if yes else each for each, yes in zip(k, along, strict=True)],
        "given": [text(str(row.get("k_set", ""))) for row in ordered],
        "low": [row.get("k_null", math.nan) for row in ordered],
        "high": [row.get("k_null_95", math.nan) for row in ordered],
        "p": [row.get("k_p_holm", math.nan) for row in ordered],
    }


def _by_measure(material: Material, target: str) -> dict[str, Json]:
    return {row["measure"]: row for row in material.verdict.rows if row["target"] == target}
