"""Header and rows of a table, from whatever file or folder holds it: CSV, gzip, Parquet, or a model zoo's folders."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from prunegen_jax.judging.verdict import cell
from prunegen_jax.runs.files import in_bucket
from prunegen_jax.runs.tables.text_files import check_table, read_json, read_lines, read_rows, readable

_MOST_MODELS = 1_000_000


def read_source(path: str | os.PathLike[str]) -> tuple[list[str], list[list[str]]]:
    """Header and rows, every cell a text.

    Args:
        path: a CSV, which may be compressed with gzip; a Parquet file; or a folder of folders with a `result.json`
            each, as Ray Tune and the model zoos of Schürholt et al. have.

    Raises:
        ValueError: if it is none of these, or is damaged.
    """
    file = os.fspath(path)
    if file.lower().endswith((".parquet", ".pq")):
        return _parquet(file)
    if not in_bucket(path) and pathlib.Path(path).is_dir():
        return _folders(pathlib.Path(path))
    return read_rows(path)


def _parquet(file: str) -> tuple[list[str], list[list[str]]]:
    try:
        from pyarrow import parquet  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ValueError(f"{file!r} is a Parquet file; install pyarrow to read it, or save it as CSV") from error
    import pyarrow  # noqa: PLC0415 - optional

    try:
        columns = parquet.read_table(file).to_pydict()
    except (OSError, pyarrow.ArrowException) as error:
        raise ValueError(f"{file!r} cannot be read as Parquet: {error}") from error
    return _table(file, [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])


def _folders(folder: pathlib.Path) -> tuple[list[str], list[list[str]]]:
    """A row for every line of every `FOLDER/*/result.json`, with the hyperparameters as `config/NAME`."""
    rows: list[dict[str, Any]] = []
    for result in sorted(folder.glob("*/result.json")):
        config: dict[str, Any] = {}
        for name in ("params.json", "config.json"):
            if (result.parent / name).is_file():
                config = read_json(result.parent / name)
                break
        for line in read_lines(result):
            own = line.pop("config", None)
            row = line | {f"config/{k}": v for k, v in (config or own or {}).items()}
            rows.append({"trial_id": result.parent.name} | row | {"trial_id": result.parent.name})
            if len(rows) > _MOST_MODELS:
                raise ValueError(f"{str(folder)!r} has more than {_MOST_MODELS} lines of results")
    if not rows:
        raise ValueError(
            f"{str(folder)!r} is not a regular file but a folder without */result.json, which a model zoo has; give a "
            "CSV, a Parquet file or the folder of a zoo"
        )
    return _table(str(folder), rows)


def _table(file: str, rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not rows or not names:
        raise ValueError(f"{file!r} has no models")
    header = [readable(str(name)) for name in names]
    lines = [[_text(row.get(name)) for name in names] for row in rows]
    check_table(file, header, lines)
    return header, lines


def _text(value: Any) -> str:
    return readable(json.dumps(value, default=str) if isinstance(value, list | Mapping) else cell(value))
