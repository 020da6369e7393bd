"""Growth: how a measure changes along one hyperparameter while all others are fixed, beside how the target does."""

from __future__ import annotations

import numpy as np

from prunegen_jax.judging import uncertainty
from prunegen_jax.judging.grid import average, combine, encode, grid_of
from prunegen_jax.judging.table import Table
from prunegen_jax.judging.verdict import Row


def growth_rows(
    table: Table,
    axis: str,
    *,
    targets: tuple[str, ...] = ("gap",),
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Row]:
    """The slope of every measure and some targets along `axis`, in standard deviations per doubling, others fixed.

    A cell holds the configurations (seeds averaged) that agree in all other hyperparameters. With x = log2 of the
    axis and z the measure divided by its standard deviation over all configurations, the slope is the least-squares fit
    with an intercept of its own for every cell, Σ (x − x̄_cell) (z − z̄_cell) / Σ (x − x̄_cell)². The interval is that of
    a Bayesian bootstrap over cells, expanded for few of them.

    Args:
        table: the models.
        axis: a hyperparameter of positive numbers.
        targets: names of targets that get a row too.
        draws: bootstrap draws.
        level: of the intervals.
        seed: of the draws.

    Returns:
        Per column its name, kind ("measure" or "target"), cells, slope with low and high, the share of cells in which
        it rises, and how many cells have it.

    Raises:
        ValueError: if the axis is not there, not of positive numbers, or does not vary.
    """
    values = table.hyperparameters.get(axis)
    if values is None:
        raise ValueError(f"there is no hyperparameter {axis!r}; there are {', '.join(table.hyperparameters)}")
    if values.dtype.kind != "f" or not (values > 0).all() or len(np.unique(values)) < 2:
        raise ValueError(f"hyperparameter {axis!r} must have at least two values, all positive numbers")
    short, grid, _ = average(table, grid_of(table)[0])
    codes = [encode(short.hyperparameters[name]) for name in grid.axes if name != axis]
    cell = combine(np.stack(codes, axis=1) if codes else np.zeros((len(short), 0), dtype=np.int64))
    x = np.log2(short.hyperparameters[axis])
    columns = [("target", name, short.targets[name]) for name in targets if name in short.targets]
    columns += [("measure", name, column) for name, column in short.measures.items()]
    weights = uncertainty.bootstrap_weights(np.arange(cell.max() + 1), draws=draws, seed=seed)
    rows = []
    for kind, name, column in columns:
        row: Row = {"axis": axis, "kind": kind, "name": name}
        rows.append(row | _slope(x, column, cell, weights, level))
    return rows


def _slope(x: np.ndarray, y: np.ndarray, cell: np.ndarray, weights: np.ndarray, level: float) -> Row:
    """Slope of y, divided by its standard deviation, on x within cells, with an interval over cells."""
    known = np.isfinite(y)
    count = int(cell.max()) + 1
    spread = y[known].std() if known.any() else 0.0
    if not spread > 0:
        return {"cells": 0, "slope": float("nan"), "low": float("nan"), "high": float("nan"), "rises": float("nan")}
    x, z, cell = x[known], y[known] / spread, cell[known]
    size = np.maximum(np.bincount(cell, minlength=count), 1)
    x = x - (np.bincount(cell, weights=x, minlength=count) / size)[cell]
    z = z - (np.bincount(cell, weights=z, minlength=count) / size)[cell]
    both = np.bincount(cell, weights=x * z, minlength=count)
    square = np.bincount(cell, weights=x * x, minlength=count)
    used = square > 0
    cells = int(used.sum())
    low, high = uncertainty.interval((weights @ both) / (weights @ square), level=level, count=cells)
    rises = float((both[used] > 0).mean() + 0.5 * (both[used] == 0).mean())
    return {"cells": cells, "slope": float(both.sum() / square.sum()), "low": low, "high": high, "rises": rises}
