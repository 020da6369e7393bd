"""A table written as CSV, so that `read_csv` reads it back equal."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from typing import Any

from prunegen_jax.judging.table import Table
from prunegen_jax.judging.verdict import cell
from prunegen_jax.runs.files import atomic
from prunegen_jax.runs.tables.cells import guard
from prunegen_jax.runs.tables.columns import header_of_measure, header_of_target


def to_rows(table: Table) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the table's CSV: name, status, `hp.*`, measures by name, targets, confounders, test_size.

    The models left out come last, their status says why. Numbers are written in full (`repr`).
    """
    full, n = table.with_left_out(), len(table)
    reasons = [reason for _, reason in table.left_out] if len(full) > n else []
    statuses = [*(table.statuses or ["converged"] * n), *reasons]
    columns: dict[str, Sequence[Any]] = {"name": full.names, "status": statuses}
    columns |= {f"hp.{k}": v for k, v in full.hyperparameters.items()}
    columns |= {header_of_measure(m, full.measures[m]): full.measures[m] for m in sorted(full.measures)}
    columns |= {header_of_target(t): values for t, values in full.targets.items()}
    columns |= {f"confounder.{k}": v for k, v in full.confounders.items()}
    if table.test_size is not None:
        columns["test_size"] = [table.test_size] * len(full)
    return list(columns), [[cell(column[i]) for column in columns.values()] for i in range(len(full))]


def write_csv(table: Table, path: str | os.PathLike[str]) -> None:
    """Writes `to_rows(table)` to `path` in one step: a reader sees the old file or the new one, never a part."""
    with atomic(path) as file:
        file.write(csv_text(*to_rows(table)).encode())


def csv_text(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """The text of a CSV, in which a spreadsheet finds no formula: see `cells.guard`."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([guard(cell) for cell in line] for line in (header, *lines))
    return text.getvalue()
