"""A verdict as text for the terminal."""

from __future__ import annotations

import math
from typing import NamedTuple

from prunegen_jax.judging.statistics import ranked, relations, shown_statistics
from prunegen_jax.judging.verdict import Row, Verdict
from prunegen_jax.judging.words import unit_of


def format_table(verdict: Verdict, *, target: str | None = None) -> str:
    """The verdict on one target, best measure first, with what was left out and why.

    A star marks a measure with a warning below the table. A measure that is one with a better one, or its reverse, is
    indented below that one.

    Measures are sorted by tau-b times their expected sign; p-values are Holm's, over the measures; K is less its bias.

    Args:
        verdict: the verdict.
        target: the target; None for the first.

    Raises:
        ValueError: if the target was not judged.
    """
    target = verdict.targets[0] if target is None else target
    if target not in verdict.targets:
        raise ValueError(f"target {target!r} was not judged; the targets are {', '.join(verdict.targets)}")
    rows = ranked([row for row in verdict.rows if row["target"] == target])
    columns = [column for column in _columns() if any(column.text(row) != "-" for row in rows)]
    if len({row["n"] for row in rows}) == 1:  # the line above the table says it
        columns = [column for column in columns if column.name != "n"]
    cells = [[column.heading for column in columns], *([column.text(row) for column in columns] for row in rows)]
    for line, (kind, _) in zip(cells[1:], relations(rows), strict=True):
        line[0] = f"  {line[0]} ({kind})" if kind else line[0]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    unit = "models" if unit_of(verdict) == "networks" else "configurations"
    lines = [f"target: {target} (larger is worse), {rows[0]['n']} {unit}"]
    warned = [row for row in verdict.warnings if row["target"] == target]
    marks = ["", *("*" if any(w["measure"] == row["measure"] for w in warned) else "" for row in rows)]
    widths[0] += any(marks)
    for (name, *numbers), mark in zip(cells, marks, strict=True):
        name += mark
        padded = [name.ljust(widths[0]), *(c.rjust(w) for c, w in zip(numbers, widths[1:], strict=True))]
        lines.append("  ".join(padded).rstrip())
    for row in verdict.ceilings:
        if row["target"] == target and not math.isnan(row["tau_b"]):
            lines.append(f"ceiling ({row['noise']}): tau-b {row['tau_b']:.3f}")
    lines += [f"* {row['measure']}: {row['text']}" for row in warned]
    return "\n".join([*lines, *_left_out(verdict)])


class _Column(NamedTuple):
    """A column of the verdict as it is printed."""

    name: str
    heading: str
    form: str
    shows_interval: bool = False

    def text(self, row: Row) -> str:
        """The value in a row, with its interval; "-" if it is not defined."""
        value = row.get(self.name)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "-"
        low, high = (row.get(f"{self.name}_{end}", math.nan) for end in ("low", "high"))
        interval = f" [{low:.2f}, {high:.2f}]" if self.shows_interval and not math.isnan(low) else ""
        text = format(value, self.form)
        return (text.removeprefix("-") if text == "-0.000" else text) + interval


def _columns() -> list[_Column]:
    columns = [_Column("measure", "measure", "s"), _Column("sign", "sign", "+d"), _Column("n", "n", "d")]
    for name, statistic in shown_statistics().items():
        column = f"{name}_corrected" if statistic.less_bias else name
        columns.append(_Column(column, statistic.plain or statistic.label, ".3f", statistic.shows_interval))
        if statistic.shows_p_value:
            columns.append(_Column(f"{statistic.p_column}_holm", "p", ".2g"))
    return columns


def _left_out(verdict: Verdict) -> list[str]:
    if not verdict.left_out:
        return []
    # runs that stopped for one reason often differ in the numbers of its text alone
    statuses = [reason.partition(":")[0] for _, reason in verdict.left_out]
    counts = ", ".join(f"{statuses.count(s)} {s}" for s in dict.fromkeys(statuses))
    name, reason = verdict.left_out[0]
    return [f"left out: {len(statuses)} models ({counts}); the first is {name}: {reason}"]
