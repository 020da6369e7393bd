"""The verdict as a sortable table, and in a few sentences."""

from __future__ import annotations

import math
from typing import NamedTuple

from bokeh.models import ColumnDataSource, DataTable, Div, HTMLTemplateFormatter, InlineStyleSheet, TableColumn
from markupsafe import Markup

from prunegen_jax.judging.statistics import RANKED_BY, STATISTICS, best_first, shown_statistics
from prunegen_jax.report import colours
from prunegen_jax.report.material import Material
from prunegen_jax.report.views import FONT, Data, View, target_name
from prunegen_jax.runs.schema import Json

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


class _Column(NamedTuple):
    """A column of the table: the data it shows, its heading, its width in pixels, and how its cells are drawn."""

    field: str
    title: str
    width: int
    kind: str


_NAMES = (
    _Column("place", "#", 30, "0"),
    _Column("measure", "measure", 206, "measure"),
    _Column("family", "family", 74, "text"),
    _Column("sign", "belief", 52, "text"),
)


def _statistics() -> list[_Column]:
    """The columns of the statistics that are shown."""
    columns = []
    for name, statistic in shown_statistics().items():
        if statistic.is_signed:
            columns.append(_Column(name, f"{statistic.label}, interval", 254, "interval"))
        else:
            title = f"{statistic.label} − bias" if statistic.less_bias else statistic.label
            field = f"{name}_corrected" if statistic.less_bias else name
            columns.append(_Column(field, title, max(6 * len(title) + 14, 50), str(statistic.digits - 1)))
        if statistic.shows_p_value:
            columns.append(_Column(f"{statistic.p_column}_holm", "p", 60, "p"))
    return columns


def table(material: Material) -> View:
    """The verdict's rows, best first; a click on a heading sorts."""
    targets = material.verdict.targets
    views = {str(place): _data(material, target) for place, target in enumerate(targets)}
    source = ColumnDataSource(views["0"], name="verdict")
    every = [*_NAMES, *_statistics()]
    defined = [c for c in every if any(_is_defined(value) for data in views.values() for value in data[c.field])]
    columns = [
        TableColumn(field=c.field, title=c.title, width=c.width, formatter=_formatter(c.field, c.kind))
        for c in _fill_width(defined)
    ]
    count = max(len(data["measure"]) for data in views.values())
    view = DataTable(
        source=source, columns=columns, index_position=None, row_height=_ROW, autosize_mode="none", selectable=False,
        height=min(count, _SHOWN) * _ROW + 30, sizing_mode="stretch_width", reorderable=False, name="verdict_table",
        stylesheets=[InlineStyleSheet(css=_STYLE)],
    )  # fmt: skip
    return View(view, [(source, views)])


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
    judged = [row for row in rows if not math.isnan(row[RANKED_BY])]
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
    column = f"{STATISTICS[RANKED_BY].p_column}_holm"
    significant = [row["sign"] * row[RANKED_BY] > 0 for row in judged if row.get(column, math.nan) < 0.05]
    with_belief = Markup("{} of {} measures point the believed way with a Holm-corrected p below 0.05").format(
        sum(significant), len(judged)
    )
    against = len(significant) - sum(significant)
    lines.append(with_belief + (f", {against} the opposite way." if against else "."))
    ceilings = [row for row in material.verdict.ceilings if row["target"] == target and not math.isnan(row["tau_b"])]
    if ceilings:
        least = min(ceilings, key=lambda row: row["tau_b"])
        lines.append(
            Markup(
                "With the noise of the target ({}) even a perfect measure would reach a τ-b of only about {:.2f}."
            ).format({"both": "test set and seeds"}.get(least["noise"], least["noise"]), least["tau_b"])
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
    for column in _statistics():
        data[column.field] = [row.get(column.field, math.nan) for row in rows]
        if column.kind == "interval":
            turned = [believed(row, column.field) for row in rows]
            for place, end in enumerate(("", "_low", "_high")):
                data[column.field + end] = [each[place] for each in turned]
    return data


def _fill_width(columns: list[_Column]) -> list[_Column]:
    """The columns, with the remaining width given to the names of the measures."""
    spare = max(_WIDTH - sum(c.width for c in columns), 0)
    return [c._replace(width=c.width + spare * (c.field == "measure")) for c in columns]


def _is_defined(value: object) -> bool:
    return not (isinstance(value, float) and math.isnan(value))


def believed(row: Json, statistic: str) -> tuple[float, float, float]:
    """A statistic with its interval, multiplied by the expected sign: larger is better."""
    value, low, high = (row.get(name, math.nan) for name in (statistic, f"{statistic}_low", f"{statistic}_high"))
    return (value, low, high) if row["sign"] > 0 else (-value, -high, -low)


def _tau(row: Json) -> Markup:
    value, low, high = believed(row, RANKED_BY)
    return Markup("{} {:.2f}").format(STATISTICS[RANKED_BY].label, value) + (
        "" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]"
    )


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
