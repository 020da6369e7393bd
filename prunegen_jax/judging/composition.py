"""The whole judgement of a table: every statistic of every measure, put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ..tables import Table
from . import kendall, regression, uncertainty
from .grid import average, drop_duplicates, grid_of
from .verdict import Row, Verdict


def judge(
    table: Table,
    *,
    targets: Sequence[str] | None = None,
    measures: Sequence[str] | None = None,
    repeats: Literal["mean", "keep"] = "mean",
    reference: str = "prunability",
    draws: int = 1000,
    permutations: int = 999,
    level: float = 0.95,
    seed: int = 0,
) -> Verdict:
    """Judges the measures of a table against its targets (larger = generalizes worse)."""
    targets = _chosen("target", targets, table.targets)
    measures = _chosen("measure", measures, table.measures)
    if repeats not in ("mean", "keep"):
        raise ValueError(f"repeats is {repeats!r}; choose 'mean' or 'keep'")
    if not len(table):
        raise ValueError("the table has no model to judge" + _why(table))
    notes = list(table.notes)
    single, duplicates = drop_duplicates(table)
    raw_grid, axes = grid_of(single)
    notes += duplicates + axes
    judged, grid = single, raw_grid
    if repeats == "mean" and raw_grid.axes:
        judged, grid, averaged = average(single, raw_grid)
        notes += averaged
    weights = uncertainty.bootstrap_weights(grid.configurations, draws=draws, seed=seed) if draws else None
    rows = []
    for target in targets:
        g = judged.targets[target]
        for name in measures:
            m = judged.measures[name]
            row: Row = {
                "measure": name,
                "target": target,
                "family": table.families.get(name, ""),
                "sign": table.signs.get(name, 1),
                "n": int((~np.isnan(m) & ~np.isnan(g)).sum()),
            }
            row |= {
                "tau_b": kendall.tau(m, g),
                "tau_a": kendall.tau(m, g, kind="a"),
                "spearman": kendall.spearman(m, g),
            }
            row["adjusted_r2"] = regression.adjusted_r2(m, g)
            if weights is not None:
                a, b = kendall.weighted_tau(m, g, weights)
                row["tau_b_low"], row["tau_b_high"] = uncertainty.interval(b, level=level)
                row["tau_a_low"], row["tau_a_high"] = uncertainty.interval(a, level=level)
                r2 = regression.weighted_adjusted_r2(m, g, weights)
                row["adjusted_r2_low"], row["adjusted_r2_high"] = uncertainty.interval(r2, level=level)
            rows.append(row)
    return Verdict(tuple(rows), notes=tuple(notes), left_out=table.left_out)


def _chosen(kind: str, names: Sequence[str] | None, there: dict[str, np.ndarray]) -> list[str]:
    if names is None:
        names = list(there)
    for name in names:
        if name not in there:
            raise ValueError(f"there is no {kind} {name!r} in the table; its {kind}s are {', '.join(there) or 'none'}")
    if not names:
        raise ValueError(f"the table has no {kind}; at least one is needed")
    return list(names)


def _why(table: Table) -> str:
    return (
        f": all {len(table.left_out)} are left out, the first because: {table.left_out[0][1]}" if table.left_out else ""
    )
