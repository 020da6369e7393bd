"""The studies that come with the package: results of sweeps, as tables to judge again."""

from __future__ import annotations

import dataclasses
import os

from etils import epath

from prunegen_jax.judging.table import Table
from prunegen_jax.measures import MEASURES, find
from prunegen_jax.runs import configs, tables, workdir

FOLDER = epath.Path(configs.FOLDER.parent / "studies")


def names() -> list[str]:
    """The studies that come with the package, which `read_study` takes."""
    return sorted(path.parent.name for path in FOLDER.glob("*/results.csv"))


def read_study(study: str | os.PathLike[str]) -> Table:
    """The networks of a study, with the families and signs of the measures that are known.

    Args:
        study: the name of one that comes with the package, see `names()`, or a folder with its results.csv, such as a
            judged workdir.

    Raises:
        ValueError: if it is neither, or its results.csv holds no table.
    """
    is_name = isinstance(study, str) and study in names()
    path = workdir.results_path(FOLDER / study if is_name else epath.Path(study))
    if not path.exists():
        raise ValueError(f"{study!s} has no results.csv; give a judged workdir, or one of {', '.join(names())}")
    table = tables.read_csv(path)
    known = {name: find(name) for name in table.measures if name.partition(":")[0] in MEASURES}
    families, signs = ({name: getattr(row, part) for name, row in known.items()} for part in ("family", "sign"))
    return dataclasses.replace(table, families=families, signs=signs)
