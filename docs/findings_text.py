"""Tables and numbers of docs/findings.md as text."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from prunegen_jax.judging.statistics import RANKED_BY
from prunegen_jax.judging.verdict import Row

DRAWS = 2000  # of the bootstrap


def paragraph(words: str) -> str:
    """A paragraph of lines that are not too long."""
    return textwrap.fill(" ".join(words.split()), 120, break_long_words=False, break_on_hyphens=False) + "\n"


def table(rows: Sequence[Row], columns: Mapping[str, str]) -> str:
    """A Markdown table of numbers, with headings by column."""
    lines = [[_number(row[key]) for key in columns] for row in rows]
    return markdown([list(columns.values()), ["---:"] * len(columns), *lines])


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


def ranking(rows: Sequence[Row]) -> str:
    """The rank correlation of every measure, and by how much the reference is better."""
    lines = [["measure", "tau-b", "95 %", "prunability is better by", "95 %"], ["---", "---:", "---", "---:", "---"]]
    for row in rows:
        low, high = interval(row)
        line = [f"`{row['measure']}`", f"{row['sign'] * row[RANKED_BY]:.2f}", f"{low:.2f} to {high:.2f}"]
        paired = ["", ""]
        if row["reference_better_by"] is not None:  # the reference itself has none
            paired = [f"{row['reference_better_by']:.2f}", f"{row['reference_low']:.2f} to {row['reference_high']:.2f}"]
        lines.append(line + paired)
    return markdown(lines)


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table of cells."""
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def interval(row: Row) -> tuple[float, float]:
    """The interval of tau-b in the expected direction."""
    ends = row["sign"] * row[f"{RANKED_BY}_low"], row["sign"] * row[f"{RANKED_BY}_high"]
    return min(ends), max(ends)


def with_interval(row: Row) -> str:
    """tau-b in the expected direction, with its interval."""
    low, high = interval(row)
    return f"{row['sign'] * row[RANKED_BY]:.2f} ({low:.2f} to {high:.2f})"
