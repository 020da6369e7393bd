"""The verdict as tables for a text: Markdown and LaTeX, one of each per target."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence

from prunegen_jax.judging.verdict import file_stems
from prunegen_jax.report.material import Material, best_first
from prunegen_jax.report.stored import Json

_NUMBERS = (  # column, heading in Markdown, heading in LaTeX, digits
    ("n", "n", "$n$", 0),
    ("tau_b", "τ-b", r"$\tau_b$", 3),
    ("tau_p_holm", "p (Holm)", r"$p_{\mathrm{Holm}}$", 3),
    ("psi", "Ψ", r"$\Psi$", 3),
    ("k", "K", "$K$", 4),
    ("k_null_95", "K null 95 %", r"$K_{0.95}^{\mathrm{null}}$", 4),
    ("pgdl", "PGDL", "PGDL", 4),
    ("adjusted_r2", "adj. R²", r"adj.\ $R^2$", 3),
    ("sign_error", "sign error", "sign error", 3),
    ("sign_error_worst", "worst", "worst", 3),
)
_INTERVALS = ("tau_b", "psi", "adjusted_r2")
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def sheets(material: Material) -> dict[str, str]:
    """File name -> content: `verdict_TARGET.md` and `.tex`, numbers as in verdict.csv, best measure first."""
    stems = file_stems(material.verdict.targets)
    found = {}
    for target, stem in stems.items():
        rows = sorted((row for row in material.verdict.rows if row["target"] == target), key=best_first)
        columns = [entry for entry in _NUMBERS if any(not _absent(row.get(entry[0])) for row in rows)]
        found[f"verdict_{stem}.md"] = _markdown(rows, columns)
        found[f"verdict_{stem}.tex"] = _latex(rows, columns)
    return found


def _markdown(rows: Sequence[Json], columns: Sequence[tuple[str, str, str, int]]) -> str:
    lines = [["measure", "family", "belief", *(heading for _, heading, _, _ in columns)]]
    lines.append(["---", "---", "---", *("---:" for _ in columns)])
    for row in rows:
        words = [_markdown_text(row["measure"]), _markdown_text(row["family"]), "+" if row["sign"] > 0 else "−"]
        lines.append([*words, *(_cell(row, name, digits) for name, _, _, digits in columns)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _latex(rows: Sequence[Json], columns: Sequence[tuple[str, str, str, int]]) -> str:
    lines = [["measure", "family", "belief", *(heading for _, _, heading, _ in columns)]]
    for row in rows:
        words = [latex_text(row["measure"]), latex_text(row["family"]), "$+$" if row["sign"] > 0 else "$-$"]
        lines.append([*words, *(_cell(row, name, digits).replace("-", "$-$") for name, _, _, digits in columns)])
    body = [" & ".join(line) + r" \\" for line in lines]
    rule = [r"\toprule", body[0], r"\midrule", *body[1:], r"\bottomrule"]
    begin = "% \\usepackage{booktabs}\n\\begin{tabular}{llc" + "r" * len(columns) + "}\n"
    return begin + "\n".join(rule) + "\n\\end{tabular}\n"


def _cell(row: Json, name: str, digits: int) -> str:
    value = row.get(name)
    if _absent(value):
        return ""
    written = f"{round(value, digits) + 0.0:.{digits}f}"  # adding zero makes of "-0.000" a "0.000"
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    if name in _INTERVALS and not (_absent(low) or _absent(high)):
        written += f" [{low:.2f}, {high:.2f}]"
    return written


def _absent(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _markdown_text(words: str) -> str:
    """Text that Markdown shows as it is: no HTML, no cell's end, no emphasis."""
    escaped = html.escape(words.replace("\n", " "), quote=False)
    return re.sub(r"([\\`*\[\]|])", r"\\\1", escaped)


def latex_text(words: str) -> str:
    """Text that LaTeX sets as it is."""
    return "".join(_LATEX.get(letter, letter) for letter in words.replace("\n", " "))
