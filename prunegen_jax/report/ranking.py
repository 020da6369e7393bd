"""The verdict as a table to be sorted, and what it says in a few sentences."""

from __future__ import annotations

import math

from bokeh.models import ColumnDataSource, DataTable, Div, HTMLTemplateFormatter, InlineStyleSheet, TableColumn
from markupsafe import Markup

from prunegen_jax.report import colours
from prunegen_jax.report.material import Material, best_first
from prunegen_jax.report.stored import Json
from prunegen_jax.report.views import FONT, Data, View, target_name

_ROW = 30
_WIDTH = 1274  # pixels, of all columns
_SHOWN = 60  # rows before the table scrolls

# `<%-` escapes. A number that is not there is a dash, adding zero makes of -0.00 a 0.00; a whisker spans -1 to 1.
_NUMBER = '<%= value == null || isNaN(value) ? "–" : (+value.toFixed({digits}) + 0).toFixed({digits}) %>'
_P_VALUE = '<%= value == null || isNaN(value) ? "–" : value < 0.001 ? "<0.001" : value.toFixed(3) %>'
_MEASURE = (
    '<span class="chip" style="background:<%- colour %>"></span>'
    '<span class="<%- marked ? "marked" : "" %>" title="<%- value %>"><%- value %><%- marked ? " ◆" : "" %></span>'
)
_INTERVAL = (
    '<span class="value"><%= value == null || isNaN(value) ? "–" : (+value.toFixed(2) + 0).toFixed(2) %></span>'
    "<% if (!(value == null || isNaN(value))) {{ const x = v => 56 + 54 * Math.max(-1, Math.min(1, v)) %>"
    '<svg width="112" height="16"><title>'
    "<%= isNaN({low}) ? 'no interval' : '[' + {low}.toFixed(2) + ', ' + {high}.toFixed(2) + ']' %></title>"
    '<line x1="56" x2="56" y1="0" y2="16" stroke="#c5ccd6"/>'
    "<% if (!isNaN({low})) {{ %>"
    '<line x1="<%= x({low}) %>" x2="<%= x({high}) %>" y1="8" y2="8" stroke="<%- colour %>" stroke-width="2"/><% }} %>'
    '<circle cx="<%= x(value) %>" cy="8" r="4" fill="<%- colour %>"/></svg>'
    '<span class="range"><%= isNaN({low}) ? "" : {low}.toFixed(2) + " … " + {high}.toFixed(2) %></span><% }} %>'
)
_STYLE = (
    f":host, .slick-header-column {{ font-family: {FONT}; }}"
    + """
:host { font-size: 13px; border: 1px solid #dfe3e9; border-radius: 6px; }
.slick-header-column { font-weight: 600; background: #f4f6f9 !important; color: #1c2430; }
.slick-cell { border-color: #eef1f5 !important; line-height: 22px; font-variant-numeric: tabular-nums; color: #1c2430; }
.slick-cell svg { vertical-align: middle; margin: 0 6px; }
.value { display: inline-block; width: 36px; text-align: right; }
.range { color: #68727f; font-size: 11.5px; }
.chip { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 7px; }
.marked { font-weight: 700; }
"""
)
_COLUMNS = (  # field, heading, width, format
    ("place", "#", 30, "0"),
    ("measure", "measure", 216, "measure"),
    ("family", "family", 74, "text"),
    ("sign", "belief", 52, "text"),
    ("tau_b", "τ-b, interval", 254, "interval"),
    ("tau_p_holm", "p", 60, "p"),
    ("psi", "Ψ, interval", 254, "interval"),
    ("k_corrected", "K − bias", 66, "3"),
    ("k_p_holm", "p", 60, "p"),
    ("pgdl", "PGDL", 50, "3"),
    ("adjusted_r2", "adj. R²", 54, "2"),
    ("sign_error", "sign err.", 64, "2"),
    ("sign_error_worst", "worst", 50, "2"),
)


def table(material: Material) -> View:
    """The verdict's rows, best first; a click on a heading sorts."""
    targets = material.verdict.targets
    views = {str(place): _data(material, target) for place, target in enumerate(targets)}
    source = ColumnDataSource(views["0"], name="verdict")
    there = [entry for entry in _COLUMNS if any(_says(value) for data in views.values() for value in data[entry[0]])]
    columns = [
        TableColumn(field=field, title=title, width=width, formatter=_formatter(field, kind))
        for field, title, width, kind in _widened(there)
    ]
    count = max(len(data["measure"]) for data in views.values())
    shown = DataTable(
        source=source, columns=columns, index_position=None, row_height=_ROW, autosize_mode="none", selectable=False,
        height=min(count, _SHOWN) * _ROW + 30, sizing_mode="stretch_width", reorderable=False, name="verdict_table",
        stylesheets=[InlineStyleSheet(css=_STYLE)],
    )  # fmt: skip
    return View(shown, [(source, views)])


def summary(material: Material) -> View:
    """What the verdict says about each target, in sentences."""
    words = {str(place): str(sentences(material, target)) for place, target in enumerate(material.verdict.targets)}
    style = InlineStyleSheet(
        css=f":host {{ font-family: {FONT}; }}"
        ":host { font-size: 17px; line-height: 1.55; color: #1c2430; } p { margin: 0 0 8px; }"
    )
    div = Div(text=words["0"], sizing_mode="stretch_width", stylesheets=[style], name="summary")
    return View(div, texts=[(div, "text", words)])


def sentences(material: Material, target: str) -> Markup:
    """The verdict on `target` as HTML; names are escaped."""
    rows = sorted((row for row in material.verdict.rows if row["target"] == target), key=best_first)
    judged = [row for row in rows if not math.isnan(row["tau_b"])]
    if not judged:
        return Markup("<p>No measure could be judged on {}.</p>").format(target_name(target))
    lines = [
        Markup("On <b>{}</b>, <b>{}</b> orders the networks best of {} measures: {}.").format(
            target_name(target), judged[0]["measure"], len(judged), _tau(judged[0])
        )
    ]
    place = next((i for i, row in enumerate(judged) if row["measure"] == material.reference), None)
    if place:
        row = judged[place]
        lines.append(Markup("<b>{}</b> comes {}: {}.").format(row["measure"], _ordinal(place + 1), _tau(row)))
    sure = [row for row in judged if row.get("tau_p_holm", math.nan) < 0.05 and row["sign"] * row["tau_b"] > 0]
    against = [row for row in judged if row.get("tau_p_holm", math.nan) < 0.05 and row["sign"] * row["tau_b"] < 0]
    told = Markup("{} of {} measures point the believed way with a Holm-corrected p below 0.05").format(
        len(sure), len(judged)
    )
    lines.append(told + (f", {len(against)} the opposite way." if against else "."))
    ceilings = [row for row in material.verdict.ceilings if row["target"] == target and not math.isnan(row["tau_b"])]
    if ceilings:
        least = min(ceilings, key=lambda row: row["tau_b"])
        lines.append(
            Markup("Noise of the target ({}) would hold even a perfect measure at about τ-b {:.2f}.").format(
                {"both": "test set and seeds"}.get(least["noise"], least["noise"]), least["tau_b"]
            )
        )
    if judged[0]["n"] < 10:
        few = Markup("<b>Only {} configurations were judged: look at the intervals, not at the order.</b>")
        lines.append(few.format(judged[0]["n"]))
    return Markup("<p>{}</p>").format(Markup(" ").join(lines))


def _data(material: Material, target: str) -> Data:
    rows = sorted((row for row in material.verdict.rows if row["target"] == target), key=best_first)
    colour = colours.of_families(row["family"] for row in material.verdict.rows)
    data: dict[str, list[object]] = {
        "place": list(range(1, len(rows) + 1)),
        "measure": [row["measure"] for row in rows],
        "family": [row["family"] or "–" for row in rows],
        "sign": ["rises" if row["sign"] > 0 else "falls" for row in rows],
        "colour": [colour[row["family"]] for row in rows],
        "marked": [row["measure"] == material.reference for row in rows],
    }
    for name in ("tau_p_holm", "k_corrected", "k_p_holm", "pgdl", "adjusted_r2", "sign_error", "sign_error_worst"):
        data[name] = [row.get(name, math.nan) for row in rows]
    for name in ("tau_b", "psi"):
        turned = [believed(row, name) for row in rows]
        data |= {key: [each[i] for each in turned] for i, key in enumerate((name, f"{name}_low", f"{name}_high"))}
    return data


def _widened(columns: list[tuple[str, str, int, str]]) -> list[tuple[str, str, int, str]]:
    """The columns, with the room that is left given to the names of the measures."""
    spare = max(_WIDTH - sum(width for _, _, width, _ in columns), 0)
    return [(field, title, width + spare * (field == "measure"), kind) for field, title, width, kind in columns]


def _says(value: object) -> bool:
    return not (isinstance(value, float) and math.isnan(value))


def believed(row: Json, statistic: str) -> tuple[float, float, float]:
    """A statistic with its interval, turned by the believed sign: larger is better."""
    value, low, high = (row.get(name, math.nan) for name in (statistic, f"{statistic}_low", f"{statistic}_high"))
    return (value, low, high) if row["sign"] > 0 else (-value, -high, -low)


def _tau(row: Json) -> Markup:
    value, low, high = believed(row, "tau_b")
    return Markup("τ-b {:.2f}").format(value) + ("" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]")


def _ordinal(place: int) -> str:
    ending = "th" if place % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place}{ending}"


def _formatter(field: str, kind: str) -> HTMLTemplateFormatter:
    templates = {
        "measure": _MEASURE,
        "text": "<%- value %>",
        "p": _P_VALUE,
        "interval": _INTERVAL.format(low=f"{field}_low", high=f"{field}_high"),
    }
    return HTMLTemplateFormatter(template=templates.get(kind) or _NUMBER.replace("{digits}", kind))
