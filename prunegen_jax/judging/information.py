"""Conditional mutual information between the order of models by a measure and by generalization.

For an ordered pair of distinct models V_m = sgn(m_i - m_j), V_g likewise, and U_S holds both models' values of the
hyperparameters in S (Jiang et al. 2020). Pairs tied in any of the values compared are dropped. Information is blind to
the sign: a measure and its negative share as much with the target. Plug-in estimates are biased upward: see `nulls`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse

from prunegen_jax.judging.dominance import dominance
from prunegen_jax.judging.grid import combine
from prunegen_jax.judging.parallel import lazy

FEW = 1024  # models up to which a product of matrices counts pairs faster than `dominance`
MOST = 2048  # models up to which triples of orders are counted
MOST_PAIRED = 18  # axes of which sets of two are made


@dataclasses.dataclass(frozen=True)
class Conditions:
    """The sets S of axes to condition on. A cell of a set is an ordered pair of combinations of its values.

    Attributes:
        sets: the axes of each set.
        indicators: for each set, one column per combination of its values, `[n, groups]`.
        cells: the places of all cells in a flattened `[groups, groups]`, one set after the other, `[cells]`.
        mirror: for each cell the one with the two combinations swapped, `[cells]`.
        starts: the first cell of each set, `[sets]`.
        groups: the combination of values of each model in each set, `[n, sets]`.
    """

    sets: tuple[tuple[int, ...], ...]
    indicators: np.ndarray
    cells: np.ndarray
    mirror: np.ndarray
    starts: np.ndarray
    groups: np.ndarray

    def take(self, rows: np.ndarray) -> Conditions:
        """The conditions of the models at `rows` (indices or a mask)."""
        return dataclasses.replace(self, indicators=self.indicators[rows], groups=self.groups[rows])

    def by_cell(self, sums: np.ndarray) -> np.ndarray:
        """Adds up, over the models i of a combination, their sums over the models j of each: `[b, cells]`.

        Args:
            sums: for each model i the sums over j by the columns of `indicators`, `[n, b, groups]`.
        """
        n, b, _ = sums.shape
        parts = []
        for columns, members in self.members:  # a count is at most n^2, and exact in float32 up to 2^24
            own = sums[:, :, columns].astype(members.dtype, copy=False).reshape(n, b * members.shape[0])
            shape = (members.shape[0], b, members.shape[0])
            parts.append((members @ own).reshape(shape).transpose(1, 0, 2).reshape(b, -1))
        return np.concatenate(parts, axis=1, dtype=np.float64)

    @lazy
    def members(self) -> list[tuple[slice, scipy.sparse.csr_array]]:
        """Per set its columns of `indicators`, and these columns as a sparse matrix `[groups of the set, n]`."""
        n, sizes = len(self.groups), np.sqrt(np.diff(self.starts, append=len(self.cells))).round().astype(int)
        members, low = [], 0
        for size, group in zip(sizes, self.groups.T, strict=True):
            starts = np.concatenate([[0], np.cumsum(np.bincount(group, minlength=size))])
            ones = np.ones(n, np.float32 if n <= 2**12 else np.float64)
            entries = (ones, np.argsort(group, kind="stable"), starts)
            members.append((slice(low, low + size), scipy.sparse.csr_array(entries, shape=(size, n))))
            low += size
        return members

    @property
    def pairs(self) -> np.ndarray:
        """How many ordered pairs of models each cell holds, a model with itself too, `[cells]`."""
        members = self.indicators.sum(axis=0, dtype=np.float64)
        return np.outer(members, members).ravel()[self.cells]


def conditions(
    codes: np.ndarray,
    *,
    smallest: int = 0,
    largest: int = 2,
    most: int | None = None,
    paired: Sequence[int] | None = None,
) -> Conditions:
    """All sets of `smallest` to `largest` of the axes whose integer codes are `codes [n, k]`, small sets first.

    Sets with more than `most` combinations of values are left out, see `most_groups`; None for no limit. Sets of two
    axes or more are of the axes `paired` alone; None for all axes.
    """
    axes = range(codes.shape[1])
    some = axes if paired is None else sorted(paired)
    sizes = range(smallest, largest + 1)
    sets = tuple(s for size in sizes for s in itertools.combinations(axes if size < 2 else some, size))
    groups = [combine(codes[:, list(s)]) for s in sets]
    few = [most is None or group.max(initial=0) < most for group in groups]
    sets, groups = tuple(itertools.compress(sets, few)), list(itertools.compress(groups, few))
    indicators = [(g[:, None] == np.arange(g.max(initial=0) + 1)).astype(np.float32) for g in groups]
    sizes = np.array([block.shape[1] for block in indicators])
    width, starts = int(sizes.sum()), np.cumsum(sizes**2) - sizes**2
    cells, mirror = [], []
    for low, size, start in zip(np.cumsum(sizes) - sizes, sizes, starts, strict=True):
        index = low + np.arange(size)
        cells.append((index[:, None] * width + index).ravel())
        mirror.append(start + np.arange(size**2).reshape(size, size).T.ravel())
    places = np.concatenate(cells), np.concatenate(mirror), starts
    return Conditions(sets, np.concatenate(indicators, axis=1), *places, np.stack(groups, axis=1))


def most_groups(n: int) -> int:
    """The combinations of values up to which a set of axes tells something of `n` models on an incomplete grid.

    Where the combinations are more than half as many as the models, as of axes with a value of its own for nearly every
    model (a random search), most cells hold one pair of models, whose order is then certain: there is nothing to tell.
    Up to 64 combinations all are kept.
    """
    return max(64, n // 2)


@dataclasses.dataclass(frozen=True)
class Information:
    """Information in bits, per set S.

    Attributes:
        shared: I(V_1; V_2 | U_S), `[..., sets]`.
        entropy_first: H(V_1 | U_S), `[..., sets]`.
        entropy_second: H(V_2 | U_S), `[..., sets]`.
        pairs: ordered pairs of models that were counted, at most.
    """

    shared: np.ndarray
    entropy_first: np.ndarray
    entropy_second: np.ndarray
    pairs: int

    @property
    def normalised(self) -> np.ndarray:
        """I(V_1; V_2 | U_S) / H(V_2 | U_S) per set, in [0, 1]; `nan` where nothing is uncertain."""
        return _ratio(self.shared, self.entropy_second)

    @property
    def minimum(self) -> tuple[float, int]:
        """K: the smallest of `normalised`, and the index of the set that attains it (-1 if all are `nan`)."""
        ratios = self.normalised
        if np.isnan(ratios).all():
            return float("nan"), -1
        return float(np.nanmin(ratios)), int(np.nanargmin(ratios))

    @property
    def minima(self) -> np.ndarray:
        """K for each of several orders, `[...]`; `nan` if all are."""
        return np.fmin.reduce(self.normalised, axis=-1)


def information(
    first: np.ndarray, second: np.ndarray, given: Conditions, *, third: np.ndarray | None = None
) -> Information:
    """Shared information of two orders, given each set of axes.

    With a third order it costs O(n^2 groups), in blocks of rows; without, far less: see `dominance`.

    Args:
        first: `[n]`; models with a value that is `nan` are left out.
        second: `[n]`.
        given: the sets of axes.
        third: a third order that is given too, I(V_1; V_2 | V_3, U_S), `[n]`; None for none.
    """
    known = ~(np.isnan(first) | np.isnan(second))
    known &= True if third is None else ~np.isnan(third)
    if not known.all():
        first, second, given = first[known], second[known], given.take(known)
        third = third if third is None else third[known]
    return from_counts(pair_counts(first, second, given, third=third), given)


def pair_counts(
    first: np.ndarray, second: np.ndarray, given: Conditions, *, third: np.ndarray | None = None
) -> np.ndarray:
    """Counts of the ordered pairs of models by cell. Without ties some of them follow from others.

    Args:
        first: `[n]`, without `nan`.
        second: `[n]`, without `nan`.
        given: the sets of axes.
        third: a third order, `[n]`; None for none.

    Returns:
        `[2, cells]`, the pairs with V_1, V_2 = (+, +) and (+, -); with a third order `[4, cells]`, among the pairs that
        it puts as i > j, with (-, +) and (-, -) too. Without it these are the mirrored ones.
    """
    untied, n = len(np.unique(second)) == len(second), len(first)
    if third is None and n > FEW:
        pp = given.by_cell(dominance(first, second).sums(given.indicators))[0]
        if untied:
            return np.stack([pp, above(first, given) - pp])
        return np.stack([pp, given.by_cell(dominance(first, -second).sums(given.indicators))[0]])

    def orders(rows: slice) -> tuple[np.ndarray, np.ndarray]:
        return first[rows, None] > first, second[rows, None] > second

    def stacked(*tables: np.ndarray) -> np.ndarray:
        return np.stack(tables).astype(np.float32)

    if third is None and untied:
        (pp,) = count_cells(lambda rows: stacked(np.logical_and(*orders(rows))), n, given)
        return np.stack([pp, above(first, given) - pp])
    if third is not None and untied and len(np.unique(first)) == n:

        def three(rows: slice) -> np.ndarray:
            higher = third[rows, None] > third
            up, more = (table & higher for table in orders(rows))
            return stacked(up & more, up, more)

        pp, up, more = count_cells(three, n, given)
        return np.stack([pp, up - pp, more - pp, above(third, given) - up - more + pp])

    def all_of_them(rows: slice) -> np.ndarray:
        (up, more), less = orders(rows), second[rows, None] < second
        if third is None:
            return stacked(up & more, up & less)
        higher, down = third[rows, None] > third, first[rows, None] < first
        more, less = more & higher, less & higher
        return stacked(up & more, up & less, down & more, down & less)

    return count_cells(all_of_them, n, given)


def count_cells(tables: Callable[[slice], np.ndarray], n: int, given: Conditions) -> np.ndarray:
    """Sums 0/1 tables over pairs of models, `tables(rows) -> [outcomes, rows, n]`, by cell: `[outcomes, cells]`."""
    z, block = given.indicators, max(1, min(256, 2**24 // max(n, 1) - 1))
    parts = [tables(slice(start, start + block)) @ z for start in range(0, max(n, 1), block)]
    return given.by_cell(np.concatenate(parts, axis=1).transpose(1, 0, 2))


def above(values: np.ndarray, given: Conditions) -> np.ndarray:
    """Pairs i, j with values_i > values_j by cell, from running counts in the order of the values.

    Args:
        values: `[n]` or `[b, n]`, without `nan`.
        given: the sets of axes.

    Returns:
        `[cells]` or `[b, cells]`.
    """
    z, many = given.indicators, np.atleast_2d(values)
    running = np.zeros((len(z) + 1, z.shape[1]), z.dtype)
    below = np.empty((len(z), len(many), z.shape[1]), z.dtype)
    for b, one in enumerate(many):
        order = np.argsort(one)
        np.cumsum(z[order], axis=0, out=running[1:])
        below[:, b] = running[np.searchsorted(one[order], one, side="left")]
    return given.by_cell(below).reshape(*values.shape[:-1], -1)


def from_counts(counts: np.ndarray, given: Conditions) -> Information:
    """The information of counts `[2 or 4, ..., cells]` of the outcomes of `pair_counts`.

    I = (1/n) sum_u [sum_ab f(n_abu) - sum_a f(n_au) - sum_b f(n_bu) + f(n_u)] with f(x) = x log2 x. Of two counts the
    other two are the mirrored ones, and add the same to every sum over cells.
    """
    pp, pm = counts[:2]
    mp, mm = counts[2:] if len(counts) == 4 else (pm[..., given.mirror], pp[..., given.mirror])

    def total(*parts: np.ndarray) -> np.ndarray:
        half = parts if len(counts) == 4 or len(parts) == 1 else parts[: len(parts) // 2]
        sums = np.add.reduceat(sum(c * np.log2(np.maximum(c, 1)) for c in half), given.starts, axis=-1)
        return sums * (len(parts) // len(half))

    everything = pp + pm + mp + mm
    cell, joint = total(everything), total(pp, pm, mp, mm)
    one, two = total(pp + pm, mp + mm), total(pp + mp, pm + mm)
    n = np.add.reduceat(everything, given.starts, axis=-1)[..., :1]
    with np.errstate(invalid="ignore", divide="ignore"):  # nan without a pair
        parts = [np.maximum(v / n, 0) for v in (joint - one - two + cell, cell - one, cell - two)]
    return Information(*parts, int(n.max()) * (1 if len(counts) == 2 else 2))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator > 1e-12, np.minimum(numerator / denominator, 1.0), np.nan)
