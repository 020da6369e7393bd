"""What the judge found: rows, matrices and notes, and how they are written and printed."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from prunegen_jax.runs import files

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Matrix:
    """A labelled matrix `[len(rows), len(columns)]`; `meaning` says what an entry is."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: np.ndarray
    meaning: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Verdict:
    """Everything the judge found about a table.

    `rows` has one row per measure and target with every statistic, its interval and its nulls. `differences` compares
    the reference measure with each rival, `baselines` holds the same statistics for oracles, canonical orders and
    noise, `ceilings` the best tau that a measure could reach, `sensitivity` what changes with the models left out,
    `signatures` fits of several measures at once, `families` what each family of measures shares and adds.
    `matrices` are shared and added information. `notes` states every treatment, `left_out` every model not judged,
    with the reason.
    """

    rows: tuple[Row, ...]
    differences: tuple[Row, ...] = ()
    baselines: tuple[Row, ...] = ()
    ceilings: tuple[Row, ...] = ()
    sensitivity: tuple[Row, ...] = ()
    signatures: tuple[Row, ...] = ()
    families: tuple[Row, ...] = ()
    matrices: dict[str, Matrix] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets judged, in order."""
        return tuple(dict.fromkeys(row["target"] for row in self.rows))

    def row(self, measure: str, target: str) -> Row:
        """The row of one measure and target. Raises ValueError when it was not judged."""
        for row in self.rows:
            if row["measure"] == measure and row["target"] == target:
                return row
        judged = sorted({row["measure"] for row in self.rows})
        raise ValueError(
            f"no row for measure {measure!r} and target {target!r}; "
            f"measures are {', '.join(judged)}, targets {', '.join(self.targets)}"
        )

    def to_rows(self) -> tuple[list[str], list[list[str]]]:
        """Header and lines of verdict.csv: one line per measure and target, numbers in full."""
        return _lines(self.rows)

    def to_json(self) -> str:
        """The whole verdict as JSON; `null` where a statistic is not defined, "inf" where it is infinite."""
        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        content["matrices"] = {k: dataclasses.asdict(m) for k, m in self.matrices.items()}
        return json.dumps(_plain(content), indent=1, allow_nan=False) + "\n"


def write(verdict: Verdict, directory: str | os.PathLike[str]) -> list[epath.Path]:
    """Writes verdict.csv, verdict.json, and one CSV per further table and matrix into `directory`; returns the paths.

    Each file is replaced in one step. A matrix is named after a target, and a target after a column of somebody's: the
    file's name is the safe form of it.
    """
    folder = epath.Path(directory)
    texts = {"verdict.csv": _csv(*verdict.to_rows()), "verdict.json": verdict.to_json()}
    for name in ("differences", "baselines", "ceilings", "sensitivity", "signatures", "families"):
        if getattr(verdict, name):
            texts[f"{name}.csv"] = _csv(*_lines(getattr(verdict, name)))
    stems = file_stems([*(name.removesuffix(".csv") for name in texts), *verdict.matrices])
    for name, matrix in verdict.matrices.items():
        lines = [[row, *map(_cell, values)] for row, values in zip(matrix.rows, matrix.values, strict=True)]
        texts[f"{stems[name]}.csv"] = _csv(["", *matrix.columns], lines)
    paths = {files.inside(folder, name): text for name, text in texts.items()}
    for path, text in paths.items():
        with files.atomic(path) as file:
            file.write(text.encode())
    return list(paths)


def file_stems(names: Sequence[str]) -> dict[str, str]:
    """A file name, without its ending, for each name from outside: safe in every file system, no two the same."""
    stems: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")[:60] or "unnamed"
        number, stem = 1, plain
        while stem.lower() in taken:
            number += 1
            stem = f"{plain}_{number}"
        taken.add(stem.lower())
        stems[name] = stem
    return stems


def format_table(verdict: Verdict, *, target: str | None = None) -> str:
    """The verdict on one target for the terminal, best measure first, with what was left out and why.

    Measures are sorted by tau-b times their believed sign. The first target is shown when none is named.
    """
    target = verdict.targets[0] if target is None else target
    if target not in verdict.targets:
        raise ValueError(f"target {target!r} was not judged; the targets are {', '.join(verdict.targets)}")
    rows = [row for row in verdict.rows if row["target"] == target]
    rows.sort(key=lambda row: _order(row["sign"] * row["tau_b"]))
    columns = [name for name in _SHOWN if any(_shown(row, name) != "-" for row in rows)]
    if len({row["n"] for row in rows}) == 1:  # the line above the table says it
        columns.remove("n")
    cells = [[_SHOWN[name][0] for name in columns]]
    cells += [[_shown(row, name) for name in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = [f"target: {target} (larger is worse), {rows[0]['n']} models"]
    for line in cells:
        lines.append(
            "  ".join(
                c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
        )
    for row in verdict.ceilings:
        if row["target"] == target and not math.isnan(row["tau_b"]):
            lines.append(f"ceiling ({row['noise']}): tau-b {row['tau_b']:.3f}")
    return "\n".join([*lines, *_left_out(verdict)])


_SHOWN = {  # column -> (heading, format)
    "measure": ("measure", "s"),
    "sign": ("sign", "+d"),
    "n": ("n", "d"),
    "tau_b": ("tau-b", ".3f"),
    "tau_p_holm": ("p", ".2g"),
    "psi": ("Psi", ".3f"),
    "k_corrected": ("K", ".3f"),
    "k_p_holm": ("p", ".2g"),
    "pgdl": ("PGDL", ".3f"),
    "adjusted_r2": ("R2", ".3f"),
    "sign_error": ("sign error", ".3f"),
    "sign_error_worst": ("worst", ".3f"),
}  # p is Holm's, over the measures; K is less its bias


def _shown(row: Row, name: str) -> str:
    value = row.get(name)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    text = format(value, _SHOWN[name][1])
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    if name in ("tau_b", "psi", "adjusted_r2") and low is not None and not math.isnan(low):
        text += f" [{low:.2f}, {high:.2f}]"
    return text


def _left_out(verdict: Verdict) -> list[str]:
    if not verdict.left_out:
        return []
    # runs that stopped for one reason often differ in the numbers of its text alone
    statuses = [reason.partition(":")[0] for _, reason in verdict.left_out]
    counts = ", ".join(f"{statuses.count(s)} {s}" for s in dict.fromkeys(statuses))
    name, reason = verdict.left_out[0]
    return [f"left out: {len(statuses)} models ({counts}); the first is {name}: {reason}"]


def _order(value: float) -> tuple[bool, float]:
    return math.isnan(value), -value


def _lines(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    header = list(dict.fromkeys(name for row in rows for name in row))
    return header, [[_cell(row.get(name)) for name in header] for row in rows]


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, (float, np.floating)) and np.isnan(value)):
        return ""
    return repr(float(value)) if isinstance(value, (float, np.floating)) else str(value)


def _csv(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *lines])
    return text.getvalue()


def _plain(value: Any) -> Any:
    """JSON's own types; `nan` becomes None, infinities become strings."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None if math.isnan(value) else str(float(value))
    return value
