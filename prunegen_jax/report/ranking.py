"""The verdict on each target as a table of the page, which a click on a heading sorts."""

from __future__ import annotations

import math
from typing import NamedTuple

from prunegen_jax.judging.statistics import STATISTICS, Statistic, ranked, relations, shown_statistics
from prunegen_jax.report import colours
from prunegen_jax.report.material import Material
from prunegen_jax.runs.schema import Json

_LONGEST = 7  # characters of a number before it is written with an exponent


class Heading(NamedTuple):
    """The heading of a column: its words, its CSS class, and which values a first click puts on top."""

    title: str
    kind: str
    best_is_largest: bool = False


class Cell(NamedTuple):
    """A cell: its text, what sorting compares ("" sorts last), and for an interval its ends as text and in percent."""

    text: str
    key: float | str = ""
    interval: str = ""
    percent: tuple[float, float, float] | None = None
    style: str = ""


class Row(NamedTuple):
    """A row: the measure's name, whether it is the reference, the colour of its family, its cells, its warnings.

    `relation` says that it is one with a better measure, or its reverse.
    """

    name: str
    is_reference: bool
    colour: str
    cells: tuple[Cell, ...]
    warnings: tuple[str, ...] = ()
    relation: str = ""


class Ranking(NamedTuple):
    """A table of the page; `explained` are the statistics that it shows."""

    headings: tuple[Heading, ...]
    rows: tuple[Row, ...]
    explained: tuple[Statistic, ...] = ()
    shows_p_value: bool = False


def ranking(material: Material, target: str) -> Ranking:
    """The verdict's rows on a target, best first, without columns that have no value."""
    rows = rows_of(material, target)
    colour = colours.of_families(row["family"] for row in material.verdict.rows)
    headings, columns = (
        [Heading("family", "wide"), Heading("expected to", "wide")],
        [
            [Cell(row["family"] or "–", row["family"]) for row in rows],
            [Cell("rise" if row["sign"] > 0 else "fall", float(row["sign"])) for row in rows],
        ],
    )
    explained, shows_p_value = [], False
    for name, statistic in shown_statistics().items():
        heading, cells = _column(name, statistic, rows)
        if any(cell.key != "" for cell in cells):
            headings.append(heading)
            columns.append(cells)
            explained.append(statistic)
            p_values = [row.get(f"{statistic.p_column}_holm", math.nan) for row in rows]
            if statistic.shows_p_value and not all(map(math.isnan, p_values)):
                headings.append(Heading("p", "number"))
                columns.append([p_value(value) for value in p_values])
                shows_p_value = True
    lines = [
        Row(
            row["measure"],
            row["measure"] == material.reference,
            colour[row["family"]],
            cells,
            _warnings(material, row),
            relation,
        )
        for row, relation, cells in zip(rows, relation_words(rows), zip(*columns, strict=True), strict=True)
    ]
    return Ranking(tuple(headings), tuple(lines), tuple(explained), shows_p_value)


def psi_table(material: Material, target: str) -> Ranking:
    """Psi along each hyperparameter alone and on average, multiplied by the expected sign; one row per measure."""
    rows = rows_of(material, target)
    columns = {f"psi.{axis}": str(axis) for axis in material.verdict.settings.get("axes", ())}
    columns |= {"psi": STATISTICS["psi"].label}
    lines = []
    for row, relation in zip(rows, relation_words(rows), strict=True):
        values = [row["sign"] * row.get(name, math.nan) for name in columns]
        cells = tuple(number(value, 2)._replace(style=_shade(value)) for value in values)
        lines.append(Row(row["measure"], row["measure"] == material.reference, "", cells, relation=relation))
    return Ranking(tuple(Heading(title, "shade", True) for title in columns.values()), tuple(lines))


def rows_of(material: Material, target: str) -> list[Json]:
    """The verdict's rows on a target, best first."""
    return ranked([row for row in material.verdict.rows if row["target"] == target])


def relation_words(rows: list[Json]) -> list[str]:
    """For each row of `rows_of`: "same as NAME" or "reverse of NAME" if it is one with a better measure, else ""."""
    words = {"same": "same as ", "reverse": "reverse of ", "": ""}
    return [words[kind] + name for kind, name in relations(rows)]


def directed(row: Json, statistic: str) -> tuple[float, float, float]:
    """A statistic with its interval, multiplied by the expected sign: larger is better."""
    value, low, high = (row.get(name, math.nan) for name in (statistic, f"{statistic}_low", f"{statistic}_high"))
    return (value, low, high) if row["sign"] > 0 else (-value, -high, -low)


def number(value: float, digits: int) -> Cell:
    """A number with so many digits behind the point, in short form if it is large, and a dash if it is not defined."""
    if math.isnan(value):
        return Cell("–")
    text = f"{round(value, digits) + 0.0:.{digits}f}"  # adding zero makes of "-0.00" a "0.00"
    return Cell((text if len(text) <= _LONGEST else f"{value:.2g}").replace("-", "−"), value)


def p_value(value: float) -> Cell:
    """A p-value with three digits."""
    return Cell("<0.001", value) if value < 0.001 else number(value, 3)


def _column(name: str, statistic: Statistic, rows: list[Json]) -> tuple[Heading, list[Cell]]:
    if statistic.is_signed:
        cells = [_interval(*directed(row, name)) for row in rows]
        return Heading(f"{statistic.label}, interval", "interval", True), cells
    field = f"{name}_corrected" if statistic.less_bias else name
    title = f"{statistic.label} − bias" if statistic.less_bias else statistic.label
    cells = [number(row.get(field, math.nan), statistic.digits - 1) for row in rows]
    return Heading(title, "number", not statistic.smaller_is_better), cells


def _interval(value: float, low: float, high: float) -> Cell:
    cell = number(value, 2)
    if math.isnan(value):
        return cell
    ends = (value, value) if math.isnan(low) or math.isnan(high) else (low, high)
    percent = tuple(round(50 + 48 * max(-1.0, min(1.0, x)), 1) for x in (value, *ends))
    words = "" if math.isnan(low) or math.isnan(high) else f"{number(low, 2).text} … {number(high, 2).text}"
    return cell._replace(interval=words, percent=percent)


def _warnings(material: Material, row: Json) -> tuple[str, ...]:
    about = (row["measure"], row["target"])
    return tuple(each["text"] for each in material.verdict.warnings if (each["measure"], each["target"]) == about)


def _shade(value: float) -> str:
    """The colours of a cell for a value from -1 to 1."""
    if math.isnan(value):
        return ""
    place = round((max(-1.0, min(1.0, value)) + 1) / 2 * (len(colours.DIVERGING) - 1))
    ink = "#ffffff" if abs(value) > 0.62 else colours.INK
    return f"background:{colours.DIVERGING[place]};color:{ink}"
