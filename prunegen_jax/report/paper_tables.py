"""The verdict as tables for a paper: Markdown and LaTeX, one of each per target."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from prunegen_jax.judging.statistics import shown_statistics
from prunegen_jax.report.material import Material
from prunegen_jax.report.ranking import relation_words, rows_of
from prunegen_jax.runs.schema import Json
from prunegen_jax.runs.tables.verdict_files import file_stems

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


class _Column(NamedTuple):
    """A column of numbers: that of the verdict, its headings, and how it is written."""

    name: str
    markdown: str
    latex: str
    digits: int
    shows_interval: bool = False

    def text(self, row: Json) -> str:
        """The value in a row, with its interval; empty if it is not defined."""
        value = row.get(self.name)
        if _is_absent(value):
            return ""
        text = f"{round(value, self.digits) + 0.0:.{self.digits}f}"  # adding zero makes of "-0.000" a "0.000"
        low, high = row.get(f"{self.name}_low"), row.get(f"{self.name}_high")
        if self.shows_interval and not (_is_absent(low) or _is_absent(high)):
            text += f" [{low:.2f}, {high:.2f}]"
        return text


def paper_tables(material: Material) -> dict[str, str]:
    """File name -> content: `verdict_TARGET.md` and `.tex`, numbers as in verdict.csv, best measure first."""
    texts = {}
    for target, stem in file_stems(material.verdict.targets).items():
        rows = rows_of(material, target)
        columns = [column for column in _columns() if any(column.text(row) for row in rows)]
        texts[f"verdict_{stem}.md"] = _markdown(rows, columns)
        texts[f"verdict_{stem}.tex"] = _latex(rows, columns)
    return texts


def _columns() -> list[_Column]:
    """The statistics that are shown, each with its p-value or, if it has a bias, with the limit of its null."""
    columns = [_Column("n", "n", "$n$", 0)]
    for name, statistic in shown_statistics().items():
        label, latex, digits = statistic.label, statistic.latex or latex_text(statistic.label), statistic.digits
        columns.append(_Column(name, label, latex, digits, statistic.shows_interval))
        if statistic.less_bias:
            columns.append(_Column(f"{name}_null_95", f"{label} null 95 %", rf"{latex} null 95\,\%", digits))
        elif statistic.shows_p_value:
            columns.append(_Column(f"{statistic.p_column}_holm", "p (Holm)", r"$p_{\mathrm{Holm}}$", digits))
    return columns


def _markdown(rows: Sequence[Json], columns: Sequence[_Column]) -> str:
    lines = [["measure", "family", "sign", *(column.markdown for column in columns)]]
    lines.append(["---", "---", "---", *("---:" for _ in columns)])
    for row, name in zip(rows, _names(rows), strict=True):
        words = [_markdown_text(name), _markdown_text(row["family"]), "+" if row["sign"] > 0 else "−"]
        lines.append([*words, *(column.text(row) for column in columns)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _latex(rows: Sequence[Json], columns: Sequence[_Column]) -> str:
    lines = [["measure", "family", "sign", *(column.latex for column in columns)]]
    for row, name in zip(rows, _names(rows), strict=True):
        words = [latex_text(name), latex_text(row["family"]), "$+$" if row["sign"] > 0 else "$-$"]
        lines.append([*words, *(column.text(row).replace("-", "$-$") for column in columns)])
    body = [" & ".join(line) + r" \\" for line in lines]
    rule = [r"\toprule", body[0], r"\midrule", *body[1:], r"\bottomrule"]
    begin = "% \\usepackage{booktabs}\n\\begin{tabular}{llc" + "r" * len(columns) + "}\n"
    return begin + "\n".join(rule) + "\n\\end{tabular}\n"


def _names(rows: Sequence[Json]) -> list[str]:
    """The measures, with a remark at each that is one with a better one."""
    relations = relation_words(rows)
    return [row["measure"] + (f" ({words})" if words else "") for row, words in zip(rows, relations, strict=True)]


def _is_absent(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _markdown_text(words: str) -> str:
    """Text that Markdown shows as it is, without HTML, the end of a cell, or emphasis."""
    escaped = html.escape(words.replace("\n", " "), quote=False)
    return re.sub(r"([\\`*\[\]|])", r"\\\1", escaped)


def latex_text(words: str) -> str:
    """Text with the special characters of LaTeX escaped."""
    return "".join(_LATEX.get(letter, letter) for letter in words.replace("\n", " "))
