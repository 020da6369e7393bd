"""The files that tables are read from, as text: bounded, decoded, and safe to show."""

from __future__ import annotations

import collections
import csv
import io
import json
import os
import pathlib
import re
import reprlib
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from etils.epath import Path

from prunegen_jax.runs.files import in_bucket
from prunegen_jax.runs.tables.cells import unguard

_SEPARATORS = ",;\t"
_DECIMAL_COMMA = re.compile(r"^\s*([+-]?\d*),(\d+(?:[eE][+-]?\d+)?)\s*$")
_MOST_BYTES = 2**27  # of a file: its cells take some thirty times as much
_MOST_MODELS = 1_000_000
_MOST_COLUMNS = 10_000
_MOST_LETTERS = 200  # of a name: figures and tables are drawn with it
_MOST_DIGITS = 300  # of an integer in JSON: no float is larger


def read_rows(path: str | os.PathLike[str]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of a CSV, as `readable` gives them.

    Cells are separated by commas, semicolons or tabs, whichever cuts the header into most. In a file of semicolons or
    tabs "0,5" is the number 0.5, as spreadsheets in many languages write it.

    Raises:
        ValueError: if the file is missing, empty, ragged, or larger than a table of models can be.
    """
    file = os.fspath(path)
    lines = _lines(file, _text(path, "; give the path of a CSV"))
    if len(lines) < 2:
        raise ValueError(f"{file!r} has no models; it needs a header line and one line per model")
    header, rows = lines[0], lines[1:]
    check_table(file, header, rows)
    return header, rows


def check_table(file: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Checks the names of the columns, and that every row has a cell for each.

    Raises:
        ValueError: if a name is too long or there twice, or a row is ragged.
    """
    _check_names(header, f"the name of a column of {file!r}")
    twice = next((name for name, count in collections.Counter(header).items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"{file!r} has two columns {twice!r}; every column needs a name of its own")
    for i, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(f"line {i + 2} of {file!r} has {len(row)} cells; the header has {len(header)}")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The object in a JSON file, its texts as `readable` gives them.

    Raises:
        ValueError: if the file is missing, or holds anything but an object.
    """
    file = os.fspath(path)
    text = _text(path)
    try:
        content = json.loads(text, object_pairs_hook=_object, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise ValueError(f"{file!r} is not JSON: {error}") from error
    except RecursionError:
        raise ValueError(f"{file!r} is nested too deeply; it must be an object, model -> value") from None
    except ValueError as error:
        raise ValueError(f"{file!r} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file!r} contains a {type(content).__name__}; it must be an object, model -> value")
    return content


def read_lines(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The objects of a file with one JSON object a line.

    Raises:
        ValueError: if the file is missing, or a line but the last, which may be cut off, holds anything else.
    """
    lines, found = _text(path).splitlines(), []
    for i, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            content = json.loads(line, object_pairs_hook=_object, parse_int=_integer)
        except (ValueError, RecursionError) as error:
            if i == len(lines) - 1:
                break
            raise ValueError(f"line {i + 1} of {os.fspath(path)!r} is not JSON: {error}") from error
        if not isinstance(content, dict):
            raise ValueError(f"line {i + 1} of {os.fspath(path)!r} is not an object")
        found.append(content)
    return found


def readable(text: str) -> str:
    """The text on one line, without characters that a terminal takes for a command or cannot show."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text)


def _text(path: str | os.PathLike[str], advice: str = "") -> str:
    """The content of a text file.

    Args:
        path: the file.
        advice: the end of the message if there is no such file.

    Raises:
        ValueError: if there is no regular file, it cannot be read, is too large, or is not UTF-8.
    """
    file = os.fspath(path)
    try:
        # `pathlib` for local files: to `epath` a pipe is a file, and reading it may never end
        if not (Path(path) if in_bucket(path) else pathlib.Path(path)).is_file():
            if Path(path).exists():
                raise ValueError(f"{file!r} is not a regular file{advice}")
            raise ValueError(f"there is no file {file!r}{advice}")
        with Path(path).open("rb") as opened:
            raw = opened.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{file!r} cannot be read: {error.strerror or error}") from error
    if raw[:2] == b"\x1f\x8b":
        raw = _decompressed(file, raw)
    if len(raw) > _MOST_BYTES:
        raise ValueError(f"{file!r} is larger than {_MOST_BYTES >> 20} MB; a table of models must be smaller")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file!r} is not text in UTF-8 (byte {error.start}); save it in that encoding") from error
    if "\0" in text:
        raise ValueError(f"{file!r} is not text in UTF-8 (byte {text.index(chr(0))}); save it in that encoding")
    return text


def _decompressed(file: str, raw: bytes) -> bytes:
    """The content of a gzip file, up to one byte more than a table may have."""
    decompressor = zlib.decompressobj(wbits=31)
    try:
        content = decompressor.decompress(raw, _MOST_BYTES + 1)
    except zlib.error as error:
        raise ValueError(f"{file!r} is not a complete gzip file: {error}") from error
    if not decompressor.eof and len(content) <= _MOST_BYTES:
        raise ValueError(f"{file!r} is not a complete gzip file: it ends too early")
    return content


def _lines(file: str, text: str) -> list[list[str]]:
    """The lines of a CSV that are not empty. ValueError at the first line that is too much."""
    lines: list[list[str]] = []
    separator = _separator(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        for line in reader:
            if len(line) > _MOST_COLUMNS:
                raise ValueError(
                    f"line {reader.line_num} of {file!r} has {len(line)} cells; the limit is {_MOST_COLUMNS}"
                )
            if len(lines) > _MOST_MODELS:
                raise ValueError(f"{file!r} has more than {_MOST_MODELS} lines; a table has one per model")
            if line:
                line = line if separator == "," else [_DECIMAL_COMMA.sub(r"\1.\2", cell) for cell in line]
                lines.append([unguard(readable(cell)) for cell in line])
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num} of {file!r} is not CSV: {error}") from error
    return lines


def _separator(text: str) -> str:
    """What separates the cells of a CSV: of `_SEPARATORS` the one that its first line holds most often."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    outside = "".join(header.split('"')[::2])  # of quotes
    return max(_SEPARATORS, key=outside.count)


def _check_names(names: Iterable[str], where: str) -> None:
    for name in names:
        if len(name) > _MOST_LETTERS:
            raise ValueError(f"{where}, {name[:20]!r}..., has {len(name)} characters; the limit is {_MOST_LETTERS}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a JSON file, its names and texts made readable."""
    content = {readable(name): readable(value) if isinstance(value, str) else value for name, value in pairs}
    _check_names(content, "the name")
    if len(content) < len({name for name, _ in pairs}):
        raise ValueError("two of its names differ only in characters that cannot be shown")
    return content


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits is too large")
    return int(digits)


def read_prediction(path: str | os.PathLike[str], names: Sequence[str]) -> np.ndarray:
    """The values `[n]` of one `.predict` file for the models `names`.

    Raises:
        ValueError: if a model lacks a number.
    """
    values = {k if "model" in k else f"model_{k}": v for k, v in read_json(path).items()}
    missing = [name for name in names if name not in values]
    if missing:
        raise ValueError(
            f"{os.fspath(path)!r} lacks {len(missing)} of {len(names)} models, the first is {missing[0]!r}; "
            "a prediction needs a number for every model of the task"
        )
    for name in names:
        if isinstance(values[name], bool) or not isinstance(values[name], (int, float)):
            shown = reprlib.repr(values[name])  # the value may be anything, of any size and depth
            raise ValueError(f"{os.fspath(path)!r} has {shown} for {name!r}; it must be a number")
    return np.array([float(values[name]) for name in names])
