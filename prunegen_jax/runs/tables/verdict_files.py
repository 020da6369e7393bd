"""The files of a verdict: verdict.csv, verdict.json and one CSV per further table and matrix; written, and read back.

`_SCHEMA` says what verdict.json must hold. It may be damaged, untrusted, or written by another version; a report draws
nothing of it before it was checked.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from prunegen_jax.judging.statistics import RANKED_BY
from prunegen_jax.judging.verdict import Matrix, Row, Verdict, cell, to_lines
from prunegen_jax.runs import files, schema
from prunegen_jax.runs.tables.write import csv_text

_TABLES = ("differences", "baselines", "ceilings", "sensitivity", "signatures", "families", "pairs", "warnings")
# Fields of rows that hold text: a measure may be called "inf".
_TEXT = {"measure", "target", "family", "k_set", "reference", "statistic", "baseline", "noise", "signature", "best"}
_TEXT |= {"same_as", "kind", "text", "first", "second", "best_single"}


def write(verdict: Verdict, directory: str | os.PathLike[str]) -> list[epath.Path]:
    """Writes a verdict into a folder, each file in one step.

    Args:
        verdict: the verdict.
        directory: the folder; it is made if it does not exist.

    Returns:
        The paths: verdict.csv, verdict.json, and one CSV per further table and matrix. A matrix is named after a
        target, which may have any name: its file has the safe form of it.
    """
    folder = epath.Path(directory)
    texts = {"verdict.csv": csv_text(*verdict.to_rows()), "verdict.json": verdict.to_json()}
    texts |= {f"{name}.csv": csv_text(*to_lines(rows)) for name in _TABLES if (rows := getattr(verdict, name))}
    stems = file_stems([*(name.removesuffix(".csv") for name in texts), *verdict.matrices])
    for name, matrix in verdict.matrices.items():
        lines = [[row, *map(cell, values)] for row, values in zip(matrix.rows, matrix.values, strict=True)]
        texts[f"{stems[name]}.csv"] = csv_text(["", *matrix.columns], lines)
    paths = {files.inside(folder, name): text for name, text in texts.items()}
    for path, text in paths.items():
        with files.atomic(path) as file:
            file.write(text.encode())
    return list(paths)


def file_stems(names: Sequence[str]) -> dict[str, str]:
    """A file name, without its ending, for each of some names: safe in every file system, no two the same."""
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


def read_verdict(path: epath.Path) -> Verdict:
    """The verdict in a verdict.json.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not a verdict that a report can show.
    """
    try:
        with files.reading(path) as file:
            content = schema.check(json.loads(file.read()), _SCHEMA, path)
        verdict = _from_json(content)
        _check_consistency(verdict)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path} is not a valid verdict ({error}); judge the workdir again") from None
    return verdict


def _rows_with(*required: str) -> schema.Rule:
    """A rule for a list of rows that hold some fields, and in every field text or a number, as its name says."""

    def is_row(row: Any) -> bool:
        return (
            isinstance(row, dict)
            and set(required) <= row.keys()
            and all((schema.is_text if name in _TEXT else _is_value)(value) for name, value in row.items())
            and ("sign" not in required or row["sign"] in (-1, 1))
        )

    return schema.list_of(is_row)


def _is_value(value: Any) -> bool:
    return value is None or isinstance(value, bool) or schema.is_number(value)


def _names(least: int) -> schema.Rule:
    """A rule for a list of at least so many texts, no two equal."""
    return lambda names: schema.list_of(schema.is_text)(names) and len(set(names)) == len(names) >= least


_SCORES = ("measure", "target", "n", RANKED_BY, "psi")
_SCHEMA: dict[str, schema.Rule] = {
    "rows": _rows_with(*_SCORES, "family", "sign"),
    "differences": _rows_with("measure", "target", "statistic", "better_by", "low", "high"),
    "baselines": _rows_with(),
    "ceilings": _rows_with("target", "noise", "tau_b"),
    "sensitivity": _rows_with(*_SCORES, *(f"{name}_with_left_out" for name in _SCORES[2:])),
    "signatures": _rows_with(),
    "families": _rows_with(),
    "pairs?": _rows_with("target", "first", "second", "pair_r2", "best_single", "single_r2"),
    "warnings?": _rows_with("measure", "target", "kind", "text"),
    "matrices": schema.map_of(
        {
            "rows": _names(1),
            "columns": _names(1),
            "values": schema.list_of(schema.list_of(_is_value)),
            "meaning": schema.is_text,
        }
    ),
    "notes": schema.list_of(schema.is_text),
    "left_out": schema.list_of(lambda pair: schema.list_of(schema.is_text)(pair) and len(pair) == 2),
    "settings": {
        "axes?": _names(0),
        "models": schema.is_finite,
        "judged": schema.is_finite,
        "level?": schema.is_finite,
    },
}


def _from_json(content: schema.Json) -> Verdict:
    """The verdict of checked JSON. ValueError for a matrix without a shape, OverflowError beyond all floats."""
    tables = {name: tuple(map(_row, content.get(name, ()))) for name in ("rows", *_TABLES)}
    return Verdict(
        **tables,
        matrices={name: _matrix(matrix) for name, matrix in content["matrices"].items()},
        notes=tuple(content["notes"]),
        left_out=tuple((name, reason) for name, reason in content["left_out"]),
        settings=content["settings"],
    )


def _row(row: schema.Json) -> Row:
    return {name: value if name in _TEXT else _number(value) for name, value in row.items()}


def _number(value: Any) -> Any:
    """A number as `Verdict.to_json` stores it, read back."""
    number = math.nan if value is None else float(value)
    return number if value is None or isinstance(value, str) else value


def _matrix(stored: schema.Json) -> Matrix:
    shape = (len(stored["rows"]), len(stored["columns"]))
    values = np.array([[_number(x) for x in line] for line in stored["values"]], dtype=np.float64).reshape(shape)
    return Matrix(tuple(stored["rows"]), tuple(stored["columns"]), values, stored["meaning"])


def _check_consistency(verdict: Verdict) -> None:
    """ValueError unless every measure has one row for every target, and matrices shown together have one shape."""
    pairs = [(row["measure"], row["target"]) for row in verdict.rows]
    measures, targets = {m for m, _ in pairs}, {t for _, t in pairs}
    if not pairs or len(set(pairs)) != len(pairs) or len(pairs) != len(measures) * len(targets):
        raise ValueError("it does not have one row for each measure and target")
    for group in ("shared", "added"):
        shapes = {matrix.values.shape for name, matrix in verdict.matrices.items() if name.startswith(group)}
        if len(shapes) > 1:
            raise ValueError(f"its matrices {group!r} have several shapes")
    added = set()
    for name in (name for name in verdict.matrices if name.startswith("added")):
        target = max((each for each in verdict.targets if name.endswith(f"_{each}")), key=len, default="")
        added.add((name.removesuffix(target), target))  # the longest: "loss_gap" ends with "gap"
    if added != {(kind, target) for kind, _ in added for target in verdict.targets}:
        raise ValueError("its matrices 'added' are not the same for every target")
