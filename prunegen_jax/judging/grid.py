"""The grid of a sweep: codes of its axes, repeats of a configuration, pairs of models that differ in one axis."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping

import numpy as np

from prunegen_jax.judging.table import Table

# Of the largest repeat: far above the rounding of a mean, which is some 1e-16 for each repeat, and below the smallest
# difference of two mean accuracies, one over the product of the sizes of training and test set and the repeats.
ROUNDING = 1e-11
_LARGE = 1e280  # sums of larger numbers overflow


@dataclasses.dataclass(frozen=True)
class Grid:
    """The places of `n` models on `k` axes that vary.

    Attributes:
        axes: names of the axes.
        codes: integers 0..levels-1 in ascending order of the values (strings in alphabetical order), `[n, k]`.
        configurations: integers `[n]`, equal for models that agree on all axes.
        repeats: numbers `[n]` of the models of one configuration; equal numbers belong together (the seed, if any).
    """

    axes: tuple[str, ...]
    codes: np.ndarray
    configurations: np.ndarray
    repeats: np.ndarray

    def take(self, rows: np.ndarray) -> Grid:
        """The grid of the models at `rows` (indices or a mask)."""
        return dataclasses.replace(
            self, codes=self.codes[rows], configurations=self.configurations[rows], repeats=self.repeats[rows]
        )

    @property
    def has_every_cell(self) -> bool:
        """Whether every combination of the axes' values is there, once or more often."""
        levels = [len(np.unique(self.codes[:, a])) for a in range(len(self.axes))]
        return math.prod(levels) == len(np.unique(combine(self.codes)))

    @property
    def is_complete(self) -> bool:
        """Whether every combination of the axes' values is there exactly once."""
        once = len(np.unique(combine(self.codes))) == len(self.codes)
        return bool(self.axes) and once and self.has_every_cell


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Unordered pairs of models, by cells.

    Attributes:
        first: one model of each pair, `[e]`.
        second: the other, `[e]`.
        cell: the cell of each pair, 0..cells-1, `[e]`.
        cells: how many cells there are.
    """

    first: np.ndarray
    second: np.ndarray
    cell: np.ndarray
    cells: int


def encode(values: np.ndarray) -> np.ndarray:
    """Integers `[n]` in the order of the values, equal for equal values; floats are equal if 10 digits agree."""
    different, place = np.unique(values, return_inverse=True)
    if different.dtype.kind == "f":
        different = np.array([float(f"{value:.9e}") for value in different])
    return np.unique(different, return_inverse=True)[1].reshape(-1)[place.reshape(-1)]


def combine(codes: np.ndarray) -> np.ndarray:
    """One integer per row of `codes [n, k]`, equal for equal rows; 0 for all if `k` = 0."""
    if codes.shape[1] == 0:
        return np.zeros(len(codes), dtype=np.int64)
    return np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)


def grid_of(table: Table) -> tuple[Grid, list[str]]:
    """The grid of a table, with notes on axes that do not vary."""
    notes, axes, codes, seeds = [], [], [], []
    for axis, values in table.hyperparameters.items():
        code = encode(values)
        if axis.lower() in table.replicates:
            seeds.append(code)
        elif code.max(initial=0) == 0:
            notes.append(f"axis {axis} has one level and is not used")
        else:
            axes.append(axis)
            codes.append(code)
    stacked = np.stack(codes, axis=1) if codes else np.zeros((len(table), 0), dtype=np.int64)
    configurations = combine(stacked)
    repeats = combine(np.stack(seeds, axis=1)) if seeds else np.zeros(len(table), dtype=np.int64)
    clash = combine(np.stack([configurations, repeats], axis=1))
    if len(np.unique(clash)) < len(table):
        notes.append("models that share all hyperparameters are repeats, told apart by their order")
        repeats = _number_within(clash) * (repeats.max(initial=0) + 1) + repeats
    return Grid(tuple(axes), stacked, configurations, repeats), notes


def binned(grid: Grid, values: Mapping[str, np.ndarray], bins: int) -> tuple[Grid, list[str]]:
    """The grid with axes of numbers cut into `bins` intervals that hold equally many models; and notes on them.

    Axes of text, and of no more than `bins` values, stay, and so do configurations and repeats. Equal values are never
    cut apart.

    Args:
        grid: the grid.
        values: the values of each axis.
        bins: intervals of an axis.
    """
    codes, notes = grid.codes.copy(), []
    for place, axis in enumerate(grid.axes):
        levels, counts = np.unique(codes[:, place], return_counts=True)
        if len(levels) <= bins or values[axis].dtype.kind != "f":
            continue
        middle = np.cumsum(counts) - counts / 2  # of each level, in models
        cut = np.floor(middle * bins / len(codes)).astype(np.int64)
        codes[:, place] = np.unique(cut, return_inverse=True)[1].reshape(-1)[np.searchsorted(levels, codes[:, place])]
        notes.append(f"axis {axis}: its {len(levels)} values are put into {len(np.unique(cut))} bins")
    return dataclasses.replace(grid, codes=codes), notes


def average(table: Table, grid: Grid) -> tuple[Table, Grid, list[str]]:
    """Averages measures, targets and confounders over the repeats of a configuration that have a value.

    Means that differ by no more than rounding could make of equal ones are equal, see `unite`.

    Returns:
        The table and the grid with one row per configuration, and notes on what was averaged.
    """
    first = np.unique(grid.configurations, return_index=True)[1]
    first = np.sort(first)  # configurations in order of appearance
    if len(first) == len(table):
        return table, grid, []
    place = np.empty(len(first), dtype=np.int64)
    place[grid.configurations[first]] = np.arange(len(first))
    rows = place[grid.configurations]
    notes = [f"repeats averaged: {len(table)} models are {len(first)} configurations"]
    means = {}
    for part in ("measures", "targets", "confounders"):
        means[part] = {}
        for name, values in getattr(table, part).items():
            means[part][name], partial = _mean(values, rows, len(first))
            if partial:
                notes.append(f"{name} is averaged over the repeats that have it in {partial} configurations")
    kept = {a: v for a, v in table.hyperparameters.items() if a.lower() not in table.replicates}
    short = dataclasses.replace(table, hyperparameters=kept).take(first)
    return dataclasses.replace(short, **means), grid.take(first), notes


def drop_duplicates(table: Table) -> tuple[Table, list[str]]:
    """The table without rows that repeat an earlier one in every hyperparameter, measure and target; and a note."""
    if not len(table):
        return table, []
    axes = [encode(v) for v in table.hyperparameters.values()]
    values = [np.unique(v, return_inverse=True)[1] for part in (table.measures, table.targets) for v in part.values()]
    first = np.unique(np.stack(axes + values, axis=1), axis=0, return_index=True)[1]
    dropped = len(table) - len(first)
    if not dropped:
        return table, []
    duplicates = sorted(set(range(len(table))) - set(first.tolist()))
    names = ", ".join(table.names[i] for i in duplicates[:5]) + (", ..." if dropped > 5 else "")
    return table.take(np.sort(first)), [f"{dropped} duplicated rows are judged once: {names}"]


def pairs_along(grid: Grid) -> Iterator[Pairs]:
    """For each axis, the pairs of models that differ in that axis alone and share the repeat's number.

    A cell holds the models that agree in everything else.
    """
    for axis in range(len(grid.axes)):
        others = np.delete(grid.codes, axis, axis=1)
        cell = combine(np.concatenate([others, grid.repeats[:, None]], axis=1))
        first, second = pairs_within(cell)
        differ = grid.codes[first, axis] != grid.codes[second, axis]  # two models may share a bin
        first, second = first[differ], second[differ]
        yield Pairs(first, second, cell[first], int(cell.max(initial=-1)) + 1)


def pairs_within(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All unordered pairs of rows of one group, `groups [n]` integers."""
    order = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[order], groups[order], side="left")
    position = np.arange(len(groups)) - starts  # how many of the group come before
    second = np.repeat(np.arange(len(groups)), position)
    offset = np.arange(len(second)) - np.repeat(np.cumsum(position) - position, position)
    return order[np.repeat(starts, position) + offset], order[second]


def _number_within(groups: np.ndarray) -> np.ndarray:
    order = np.argsort(groups, kind="stable")
    numbers = np.empty(len(groups), dtype=np.int64)
    numbers[order] = np.arange(len(groups)) - np.searchsorted(groups[order], groups[order], side="left")
    return numbers


def _mean(values: np.ndarray, rows: np.ndarray, n: int) -> tuple[np.ndarray, int]:
    """Means `[n]` of the values by row, and the number of rows where only some values are missing."""
    known = ~np.isnan(values)
    count = np.bincount(rows[known], minlength=n)
    finite = np.abs(values[np.isfinite(values)])
    unit = 2.0**64 if finite.max(initial=0.0) > _LARGE else 1.0  # a power of two changes no digit
    with np.errstate(invalid="ignore", divide="ignore"):  # inf - inf is nan, and so is 0 / 0
        total = np.bincount(rows[known], weights=values[known] / unit, minlength=n)
        mean = np.where(count > 0, total / count * unit, np.nan)
    largest = np.zeros(n)
    np.maximum.at(largest, rows[known], np.abs(values[known]))
    partial = (count > 0) & (count < np.bincount(rows, minlength=n))
    return unite(mean, ROUNDING * largest), int(partial.sum())


def unite(values: np.ndarray, tolerance: np.ndarray | float) -> np.ndarray:
    """The values `[n]`, with those that differ by no more than a tolerance made equal to the smallest of them.

    Args:
        values: `[n]`; `nan` and infinities stay.
        tolerance: what each value may be off, `[n]` or one number.
    """
    united, finite = values.copy(), np.flatnonzero(np.isfinite(values))
    order = finite[np.argsort(values[finite], kind="stable")]
    off = np.broadcast_to(tolerance, values.shape)[order]
    ascending = values[order]
    with np.errstate(over="ignore"):  # a difference of infinity is larger than any tolerance
        starts = np.diff(ascending, prepend=-np.inf) > np.maximum(off, np.concatenate([off[:1], off[:-1]]))
    if len(order):
        united[order] = ascending[np.flatnonzero(starts)[np.cumsum(starts) - 1]]
    return united
