"""What the judge found: rows, matrices and notes, as a type and as text."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Matrix:
    """A labelled matrix.

    Attributes:
        rows: labels of the rows.
        columns: labels of the columns.
        values: `[len(rows), len(columns)]`.
        meaning: what an entry is.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: np.ndarray
    meaning: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Verdict:
    """Everything the judge found about a table.

    Attributes:
        rows: one per measure and target, with every statistic, its interval and its null.
        differences: by how much the reference measure is better than each rival.
        baselines: the same statistics for oracles, canonical orders and noise.
        ceilings: the best tau-b that a measure could reach, per target and source of noise.
        sensitivity: statistics with the models left out put back.
        signatures: fits of several measures together.
        families: what each family of measures shares and adds.
        pairs: the pairs of measures that predict a target best together, see `pairs.best_pairs`.
        warnings: what has to be said beside a measure's numbers, see `cautions.warnings`.
        matrices: shared and added information, by name.
        notes: what was done with the table, one sentence each.
        left_out: every model not judged, with the reason.
        settings: the judge's options, and how many models were judged.
    """

    rows: tuple[Row, ...]
    differences: tuple[Row, ...] = ()
    baselines: tuple[Row, ...] = ()
    ceilings: tuple[Row, ...] = ()
    sensitivity: tuple[Row, ...] = ()
    signatures: tuple[Row, ...] = ()
    families: tuple[Row, ...] = ()
    pairs: tuple[Row, ...] = ()
    warnings: tuple[Row, ...] = ()
    matrices: dict[str, Matrix] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets judged, in order."""
        return tuple(dict.fromkeys(row["target"] for row in self.rows))

    def row(self, measure: str, target: str) -> Row:
        """The row of one measure and target.

        Raises:
            ValueError: if it was not judged.
        """
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
        return to_lines(self.rows)

    def to_json(self) -> str:
        """The whole verdict as JSON; `null` where a statistic is not defined, "inf" where it is infinite."""
        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        content["matrices"] = {k: dataclasses.asdict(m) for k, m in self.matrices.items()}
        return json.dumps(_plain(content), indent=1, allow_nan=False) + "\n"


def to_lines(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of a CSV of rows, with a column for every key of any row."""
    header = list(dict.fromkeys(name for row in rows for name in row))
    return header, [[cell(row.get(name)) for name in header] for row in rows]


def cell(value: Any) -> str:
    """A value as a CSV cell: a float in full (the shortest text that reads back equal), empty for `nan` and None."""
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return ""
    return repr(float(value)) if isinstance(value, float | np.floating) else str(value)


def _plain(value: Any) -> Any:
    """JSON's own types; `nan` becomes None, infinities become strings."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None if math.isnan(value) else str(float(value))
    return value
