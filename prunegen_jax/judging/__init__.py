"""How well each measure predicts generalization, how certain that is, and what it adds to the others (NumPy, SciPy)."""

from typing import Any

from prunegen_jax.judging.composition import judge
from prunegen_jax.judging.format import format_table
from prunegen_jax.judging.statistics import STATISTICS, Statistic
from prunegen_jax.judging.table import Table
from prunegen_jax.judging.verdict import Matrix, Verdict
from prunegen_jax.judging.words import describe

__all__ = ["STATISTICS", "Matrix", "Statistic", "Table", "Verdict", "describe", "format_table", "judge", "write"]


def __getattr__(name: str) -> Any:
    if name != "write":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from prunegen_jax.runs.tables.verdict_files import write  # noqa: PLC0415 - numerics import nothing that has files

    return write
