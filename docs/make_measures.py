"""Writes docs/measures.md from `prunegen_jax.MEASURES`, the docstrings of its functions, and docs/networks.csv.

python docs/make_measures.py
"""

from __future__ import annotations

import csv
import inspect
import pathlib
import re
import sys
from collections.abc import Callable
from typing import Any

from prunegen_jax import MEASURES
from prunegen_jax.types import Measure

PAGE = pathlib.Path(__file__).parent / "measures.md"
TABLE = PAGE.with_name("networks.csv")  # written by docs/make_table.py
EVERYTHING, NETWORK_AND_DATA = "everything", "network and data"
Column = dict[tuple[str, str], str]  # (measure, what it is given) → "ok" or why it does not apply
FAMILIES = {
    "pruning": "Pruning: how much of the network can be removed",
    "size": "Size of the network",
    "norms": "Norms of the weights, and their products",
    "margins": "Margins: how far the training examples are from being misclassified",
    "flatness": "Flatness: how the loss rises around the weights",
    "noise": "Noise: how the gradients of examples differ",
    "speed": "Speed of training",
    "beyond": "Other measures",
}
HEAD = """# The measures

<!-- Written by docs/make_measures.py from prunegen_jax.MEASURES; a test checks that they agree. -->

The {count} rows of `prunegen_jax.MEASURES`, by family. The formula is the first paragraph of the function's docstring;
`help(prunegen_jax.MEASURES["{example}"].function)` shows all of it, with options and errors.

* **sign** is what the source expects: + if a larger value should mean a larger generalization gap, − if a larger value
  should mean a smaller gap. Values are never multiplied by it.
* **cost** is in passes over the training set, roughly; a gradient counts as three. Compiling is extra, once per shape
  of network. The option `subset=n`, which all but those of the history take, computes a measure on the first n training
  examples; in a sweep they are a random subset, the same for all networks.
* **needs** names the optional fields of `TrainedModel` without which the measure is "not applicable".
* **unchanged by** permuting hidden units (P), scaling a ReLU unit's incoming weights by c > 0 and its outgoing weights
  by 1/c (N), doing so for a whole layer (L).

m is the number of training examples, W_l the kernel of layer l, w the entries of all kernels, w⁰ and W_l⁰ the same
before training, ω the number of entries, d that of kernels, L̂ the cross-entropy on the training set in nats, f the
logits, p their softmax, ℓ_i the loss of example i, H the Hessian of L̂, γ the margin, σ and α scales of perturbations.
Numbers in parentheses after Jiang et al. 2020 are the equations of their appendix.
"""
NETWORKS = """
## Which measures apply to which network

`make table` computes all measures of networks of several kinds, with random weights and statistics, given everything
that can be given (initial state, first epoch, history). ✓: the measure applies; a letter: it does not, for the reason
below. The last row is for the network and its training set alone.

"""
_QUOTED = re.compile(r"`([A-Za-z_][\w.]*)`")
_LETTERS = {"permutation": "P", "neuron_scaling": "N", "layer_scaling": "L"}


def page() -> str:
    """The text of the page."""
    text = HEAD.format(count=len(MEASURES), example="prunability")
    for family in [*FAMILIES, *sorted({row.family for row in MEASURES.values()} - set(FAMILIES))]:
        rows = {name: row for name, row in MEASURES.items() if row.family == family}
        if rows:
            text += f"\n## {FAMILIES.get(family, family)}\n\n{_table(rows)}"
    text += NETWORKS + networks(load())
    defined = "\n".join(f"* `{name}`: {_escaped(words)}" for name, words in sorted(_mentioned().items()))
    return f"{text}\n## What the formulas refer to\n\n{defined}\n"


def load() -> dict[str, Column]:
    """The columns of docs/networks.csv, by network, without empty cells."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        kinds, rows = list(reader.fieldnames or [])[2:], list(reader)
    return {kind: {(row["measure"], row["given"]): row[kind] for row in rows if row[kind]} for kind in kinds}


def networks(columns: dict[str, Column]) -> str:
    """The table of measures × networks in Markdown, the counts of those that apply, and the reasons of the others."""
    reasons: dict[str, str] = {"ok": "✓"}
    lines = [f"| measure | {' | '.join(columns)} |", f"|---|{':-:|' * len(columns)}"]
    for name in MEASURES:
        cells = [column.get((name, EVERYTHING), "not computed yet") for column in columns.values()]
        marks = [reasons.setdefault(cell, chr(ord("a") + len(reasons) - 1)) for cell in cells]
        lines.append(f"| `{name}` | {' | '.join(marks)} |")
    for given in (EVERYTHING, NETWORK_AND_DATA):
        counts = [sum(column.get((name, given)) == "ok" for name in MEASURES) for column in columns.values()]
        lines.append(f"| **of {len(MEASURES)}, given {given}** | {' | '.join(map(str, counts))} |")
    notes = [f"* {mark}: {_escaped(reason)}" for reason, mark in reasons.items() if reason != "ok"]
    return "\n".join([*lines, "", *notes]) + "\n"


def _table(rows: dict[str, Measure]) -> str:
    lines = ["| measure | formula | sign | cost | needs | unchanged by | source |", "|---|---|:-:|--:|---|---|---|"]
    for name, row in rows.items():
        sign = "+" if row.sign > 0 else "−"
        needs = ", ".join(f"`{field}`" for field in row.needs)
        unchanged = " ".join(_LETTERS[change] for change in row.invariant)
        cells = (f"`{name}`", _escaped(formula(row.function)), sign, f"{row.cost:g}", needs, unchanged, row.source)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def formula(function: Callable[..., Any]) -> str:
    """The first paragraph of a docstring, on one line. ValueError if there is none."""
    paragraph = " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())
    if not paragraph:
        raise ValueError(f"{function} has no docstring: the table of measures needs its formula")
    return paragraph


def _mentioned() -> dict[str, str]:
    """The functions that formulas mention, by the name used there, with their first paragraphs; recursively."""
    found: dict[str, str] = {}
    waiting = [row.function for row in MEASURES.values()]
    while waiting:
        function = waiting.pop()
        for name in _QUOTED.findall(formula(function)):
            other = _resolve(name, sys.modules[function.__module__])
            if name not in MEASURES and name not in found and inspect.isfunction(other):
                found[name] = formula(other)
                waiting.append(other)
    return found


def _resolve(name: str, module: Any) -> Any:
    found = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _escaped(words: str) -> str:
    """`words` as Markdown: characters with a meaning in Markdown are escaped outside of code, pipes everywhere."""
    parts = re.split(r"(`[^`]*`)", words)
    plain = [re.sub(r"([\\*<]|(?<!\w)_)", r"\\\1", part) if i % 2 == 0 else part for i, part in enumerate(parts)]
    return "".join(plain).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
