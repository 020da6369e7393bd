"""What the cells of a column mean: levels of an axis, numbers, missing values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from prunegen_jax.judging.table import LARGEST_TEST
from prunegen_jax.judging.verdict import cell

_FORMULA = re.compile(r"'*[=+\-@\t\r]")  # how a cell begins that a spreadsheet may run, or that `guard` wrote
_LONGEST_CELL = 60  # letters of a cell in a message, and in an array of text


def levels(cells: Sequence[Any]) -> np.ndarray:
    """The values of an axis, `[n]`: float64 when every cell that is not empty is a number, otherwise strings."""
    texts = [cell(value) for value in cells]
    if is_numeric(texts):
        return np.array([number(text) for text in texts])
    # an array of text keeps room for its longest cell in every place
    return np.array(texts, dtype=str if max(map(len, texts), default=0) <= _LONGEST_CELL else object)


def numbers(column: str, cells: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """The cells of a column of numbers, float64 `[n]`, `nan` where empty.

    Args:
        column: the column's name.
        cells: its cells.
        labels: the models' names, for messages.

    Raises:
        ValueError: for text, and in the column "test_size" for what is no number of examples.
    """
    values = np.empty(len(cells))
    for i, text in enumerate(cells):
        try:
            values[i] = number(text)
        except ValueError as error:
            raise ValueError(
                f"column {column!r} must hold numbers, but model {quote(labels[i])} (line {i + 2}) "
                f"has {quote(text)}; leave the cell empty if the value is missing"
            ) from error
    if column == "test_size":
        for i in np.flatnonzero(~np.isnan(values) & ~((values >= 1) & (values <= LARGEST_TEST))):
            raise ValueError(
                f"column 'test_size' has {quote(cells[i])} for model {quote(labels[i])} (line {i + 2}); "
                "test_size must be a positive finite number of examples"
            )
    return values


def number(value: Any) -> float:
    """A cell or a record's value as a float; `nan` for None and the empty cell.

    Raises:
        ValueError: for text.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return float("nan")
    return float(value)


def is_numeric(texts: Sequence[str]) -> bool:
    """Whether every cell is a number or empty, and at least one is a number."""
    known = [text for text in texts if text.strip()]
    return bool(known) and all(map(_reads_as_number, known))


def has_numbers(texts: Sequence[str]) -> bool:
    """Whether some cell is a number: text elsewhere in such a column is a mistake, not a label."""
    return any(_reads_as_number(text) and not np.isnan(float(text)) for text in texts)


def guard(text: str) -> str:
    """A cell as it is written: text that a spreadsheet would run as a formula gets an apostrophe in front."""
    return f"'{text}" if _FORMULA.match(text) and not _reads_as_number(text) else text


def unguard(text: str) -> str:
    """What `guard` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def quote(text: str) -> str:
    """A cell in a message: a file may hold cells of any length."""
    return repr(text if len(text) <= _LONGEST_CELL else f"{text[:_LONGEST_CELL]}...")


def _reads_as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
