"""What stands in the files that tables are read from, before anyone says what it means."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils.epath import Path


def read_rows(path: str | os.PathLike[str]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of a CSV. Raises ValueError when it is missing, empty or ragged."""
    if not Path(path).is_file():
        raise ValueError(f"there is no file {os.fspath(path)!r}; give the path of a CSV")
    with io.StringIO(Path(path).read_bytes().decode("utf-8-sig"), newline="") as file:
        lines = [line for line in csv.reader(file) if line]
    if len(lines) < 2:
        raise ValueError(f"{os.fspath(path)!r} holds no models; it needs a header line and one line per model")
    header, rows = lines[0], lines[1:]
    if len(set(header)) < len(header):
        twice = next(c for c in header if header.count(c) > 1)
        raise ValueError(f"{os.fspath(path)!r} has two columns {twice!r}; every column needs a name of its own")
    for i, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(f"line {i + 2} of {os.fspath(path)!r} has {len(row)} cells; the header has {len(header)}")
    return header, rows


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The object in a JSON file. Raises ValueError when it is not there or holds anything else."""
    if not Path(path).is_file():
        raise ValueError(f"there is no file {os.fspath(path)!r}")
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{os.fspath(path)!r} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{os.fspath(path)!r} holds a {type(content).__name__}; it has to be an object, model -> value"
        )
    return content


def read_prediction(path: str | os.PathLike[str], names: Sequence[str]) -> np.ndarray:
    """The values `[n]` of one `.predict` file for the models `names`. Raises ValueError when one lacks a number."""
    values = {k if "model" in k else f"model_{k}": v for k, v in read_json(path).items()}
    missing = [name for name in names if name not in values]
    if missing:
        raise ValueError(
            f"{os.fspath(path)!r} lacks {len(missing)} of {len(names)} models, the first is {missing[0]!r}; "
            "a prediction needs a number for every model of the task"
        )
    for name in names:
        if isinstance(values[name], bool) or not isinstance(values[name], (int, float)):
            raise ValueError(f"{os.fspath(path)!r} has {values[name]!r} for {name!r}; it has to be a number")
    return np.array([float(values[name]) for name in names])
