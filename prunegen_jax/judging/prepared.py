"""The order by one column, with everything that does not depend on the measures it is compared with computed once."""

from __future__ import annotations

import dataclasses

import numpy as np

from prunegen_jax.judging.dominance import dominance
from prunegen_jax.judging.information import FEW, Conditions, above, count_cells

_COLUMNS = 64  # of pairs in a product of matrices


@dataclasses.dataclass(frozen=True)
class PreparedOrder:
    """The order by one column, prepared for the comparison with many measures.

    The models are sorted by the third order, or without one by the column, so that a model is above earlier ones alone
    (but for `less` of a column with ties, without a third order).

    Attributes:
        order: the models sorted, `[n]`.
        second: the column, in the models' own order, `[n]`.
        more: 1 for pairs with i > j by the column (and by the third order, if there is one), sorted, `[n, n]`.
        less: 1 for pairs with i < j by the column (and i > j by the third order), sorted, `[n, n]`.
        more_cells: counts of `more` by cell, `[cells]`.
        less_cells: counts of `less` by cell, `[cells]`.
        given: the sets of axes.
        of_sorted: the sets of axes of the sorted models.
        is_third: whether a third order is given.
        is_tied: whether the column has ties.
    """

    order: np.ndarray
    second: np.ndarray
    more: np.ndarray
    less: np.ndarray
    more_cells: np.ndarray
    less_cells: np.ndarray
    given: Conditions
    of_sorted: Conditions
    is_third: bool
    is_tied: bool

    def counts(self, first: np.ndarray, *, above_first: np.ndarray | None = None) -> np.ndarray:
        """Counts `[2 or 4, ..., cells]` for `from_counts`, as of `pair_counts`.

        Args:
            first: one measure or several, without `nan`, `[n]` or `[b, n]`.
            above_first: `above(first, given)` if it is known already, `[..., cells]`.
        """
        many = np.atleast_2d(first)
        counts = self._counts(many, above_first)
        return counts.reshape(len(counts), *first.shape[:-1], -1)

    def _counts(self, first: np.ndarray, above_first: np.ndarray | None) -> np.ndarray:
        pp, mirror = self._cells(first, 1), self.given.mirror
        is_untied = all(len(np.unique(one)) == len(one) for one in first)
        if not self.is_third and is_untied:  # pairs of the column that the measure does not confirm it reverses
            return np.stack([pp, (self.more_cells - pp)[:, mirror]])
        if not self.is_third and not self.is_tied:
            return np.stack([pp, (above(first, self.given) if above_first is None else above_first) - pp])
        pm = self._cells(first, -1)
        if not self.is_third:
            return np.stack([pp, pm])
        if is_untied:
            return np.stack([pp, pm, self.more_cells - pp, self.less_cells - pm])
        return np.stack([pp, pm, *(self._cells(-first, way) for way in (1, -1))])

    def _cells(self, first: np.ndarray, way: int) -> np.ndarray:
        """Counts of the pairs of `more` (1) or `less` (-1) that the measures `[b, n]` put as i > j, `[b, cells]`."""
        if not len(self.more):
            return self.given.by_cell(dominance(first, way * self.second).sums(self.given.indicators))
        table, first = self.more if way > 0 else self.less, np.ascontiguousarray(first[:, self.order].T)
        (n, b), z = first.shape, self.of_sorted.indicators
        sums = np.empty((z.shape[1], b, n), np.float32)  # over the models i of each group, per model j
        by_measure = np.ascontiguousarray(first.T)
        for start in range(0, n, _COLUMNS):
            columns = slice(start, min(start + _COLUMNS, n))
            above_them = slice(0 if self.is_tied and not self.is_third else start, n)
            inside = first[above_them, :, None] > by_measure[None, :, columns]
            inside &= table[above_them, None, columns]
            product = z[above_them].T @ inside.astype(np.float32).reshape(len(inside), -1)
            sums[:, :, columns] = product.reshape(len(product), b, -1)
        counts = []
        for group, members in self.of_sorted.members:
            each = sums[group].reshape(-1, n) @ z[:, group].astype(members.dtype, copy=False)
            counts.append(each.reshape(members.shape[0], b, -1).transpose(1, 0, 2).reshape(b, -1))
        return np.concatenate(counts, axis=1, dtype=np.float64)


def prepare_order(second: np.ndarray, given: Conditions, *, third: np.ndarray | None = None) -> PreparedOrder:
    """Prepares `second [n]`, and `third [n]`, for many measures.

    With a third order, and for few models, it keeps n^2 numbers.
    """
    is_third, is_tied = third is not None, len(np.unique(second)) < len(second)
    order = np.argsort(second if third is None else third, kind="stable")
    if third is None and len(second) > FEW:
        none = np.zeros((0, 0), bool)
        return PreparedOrder(
            order, second, none, none, above(second, given), np.zeros(0), given, given, is_third, is_tied
        )
    g = second[order]
    more, less = g[:, None] > g, g[:, None] < g
    if third is not None:
        t = third[order]
        above_third = t[:, None] > t
        more, less = more & above_third, less & above_third
    of_sorted = given.take(order)
    totals = count_cells(lambda rows: np.stack([more[rows], less[rows]]).astype(np.float32), len(g), of_sorted)
    return PreparedOrder(order, second, more, less, *totals, given, of_sorted, is_third, is_tied)
