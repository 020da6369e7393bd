"""Whether a table can be judged in memory: arrays that grow with the square of its models are estimated first."""

from __future__ import annotations

import itertools

import numpy as np

from prunegen_jax.judging.grid import Grid, combine
from prunegen_jax.judging.information import MOST, MOST_PAIRED, most_groups

LIMIT = 4 * 2**30  # bytes


def check(grid: Grid, models_grid: Grid, *, measures: int, draws: int = 0, permutations: int = 0) -> None:
    """Checks the memory that judging takes.

    Args:
        grid: the grid of what is judged.
        models_grid: the grid of the single models.
        measures: number of measures.
        draws: bootstrap draws.
        permutations: permutations of the nulls.

    Raises:
        ValueError: if it is more than `LIMIT`.
    """
    needed = estimate(grid, models_grid, measures=measures, draws=draws, permutations=permutations)
    if needed > LIMIT:
        raise ValueError(
            f"judging {len(models_grid.codes)} models and {measures} measures on {len(grid.axes)} axes takes "
            f"{needed / 2**30:.1f} GB of memory or more, but the limit is {LIMIT >> 30} GB; judge fewer models, "
            "fewer measures, or put hyperparameters with many values into bins (bins=5, --bins=5)"
        )


def estimate(grid: Grid, models_grid: Grid, *, measures: int, draws: int = 0, permutations: int = 0) -> float:
    """Bytes that judging takes at its peak, fitted to measurements on several kinds of tables.

    The arguments are those of `check`. Once the sum passes `LIMIT` the rest is not counted.
    """
    n, axes = len(grid.codes), range(len(grid.axes))
    paired = range(min(len(axes), MOST_PAIRED))  # which of many axes are paired is not known yet
    sets = [*itertools.combinations(axes, 1), *itertools.combinations(paired, 2)]
    # an axis that varies has two values: many axes are too many whatever their values are
    needed = 16.0 * (1 + 2 * len(sets)) ** 2 + 72.0 * measures**2 + 48.0 * draws * len(models_grid.codes)
    needed += 24.0 * min(n, MOST) ** 2 if permutations else 0.0
    for axis in axes:  # pairs of models, as `grid.pairs_along` and `robustness.design` list them
        if needed > LIMIT:
            return needed
        others = combine(np.delete(grid.codes, axis, axis=1))
        needed += 200.0 * _pairs(combine(np.stack([others, grid.repeats], axis=1)))
        needed += 200.0 * _pairs(combine(np.delete(models_grid.codes, axis, axis=1)))
    width, cells = 1, 1  # of the conditions' indicators and of the counts of pairs by cell
    most = None if grid.is_complete else most_groups(n)
    for axes_of_set in sets:
        counted = needed + 16.0 * width**2 + 100.0 * cells + 40.0 * n * width
        if counted > LIMIT:
            return counted
        size = int(combine(grid.codes[:, list(axes_of_set)]).max(initial=0)) + 1
        if most is not None and size > most:
            continue
        width, cells = width + size, cells + size**2
    return needed + 16.0 * width**2 + 100.0 * cells + 40.0 * n * width


def _pairs(groups: np.ndarray) -> float:
    counts = np.bincount(groups).astype(np.float64)
    return float((counts * (counts - 1) / 2).sum())
