"""How well each measure predicts generalization, how certain that is, and what it adds to the others (NumPy, SciPy).

Names are imported on first use: a table is read, and a sweep run, without SciPy, whose import takes seconds.
"""

import importlib
from typing import Any

_HOME = {
    "STATISTICS": "statistics",
    "Matrix": "verdict",
    "Statistic": "statistics",
    "Table": "table",
    "Verdict": "verdict",
    "describe": "words",
    "format_table": "format",
    "judge": "composition",
}
__all__ = ["STATISTICS", "Matrix", "Statistic", "Table", "Verdict", "describe", "format_table", "judge", "write"]


def __getattr__(name: str) -> Any:
    if name == "write":
        from prunegen_jax.runs.tables.verdict_files import write  # noqa: PLC0415 - numerics import nothing that has files

        return write
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
