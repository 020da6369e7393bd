"""The order by one column, with everything that does not depend on the measures it is compared with computed once."""

from __future__ import annotations

import dataclasses

import numpy as np

from prunegen_jax.judging.information import Conditions, above, count_cells


@dataclasses.dataclass(frozen=True)
class PreparedOrder:
    """The order by one column, prepared for the comparison with many measures.

    Attributes:
        more: 1 for pairs with i > j by the column (and by the third order, if there is one), `[n, n]`.
        less: 1 for pairs with i < j by the column (and i > j by the third order), `[n, n]`.
        more_cells: counts of `more` by cell, `[cells]`.
        less_cells: counts of `less` by cell, `[cells]`.
        given: the sets of axes.
        is_third: whether a third order is given.
        is_tied: whether the column has ties.
    """

    more: np.ndarray
    less: np.ndarray
    more_cells: np.ndarray
    less_cells: np.ndarray
    given: Conditions
    is_third: bool
    is_tied: bool

    def counts(self, first: np.ndarray, *, above_first: np.ndarray | None = None) -> np.ndarray:
        """Counts `[2 or 4, cells]` for `from_counts`, as of `pair_counts`.

        Args:
            first: the measure, without `nan`, `[n]`.
            above_first: `above(first, given)` if it is known already, `[cells]`.
        """
        up, n = first[:, None] > first, len(first)

        def cells(*tables: np.ndarray) -> np.ndarray:
            return count_cells(lambda rows: np.stack([t[rows] for t in tables]), n, self.given)

        if not self.is_third and not self.is_tied:
            (pp,) = cells(self.more * up)
            total = above(first, self.given) if above_first is None else above_first
            return np.stack([pp, total - pp])
        if not self.is_third:
            return cells(self.more * up, self.less * up)
        if len(np.unique(first)) == n:
            pp, pm = cells(self.more * up, self.less * up)
            return np.stack([pp, pm, self.more_cells - pp, self.less_cells - pm])
        down = first[:, None] < first
        return cells(self.more * up, self.less * up, self.more * down, self.less * down)


def prepare_order(second: np.ndarray, given: Conditions, *, third: np.ndarray | None = None) -> PreparedOrder:
    """Prepares `second [n]`, and `third [n]`, for many measures; keeps n^2 numbers: for up to some thousand models."""
    more, less = second[:, None] > second, second[:, None] < second
    if third is not None:
        above_third = third[:, None] > third
        more, less = more & above_third, less & above_third
    tables = more.astype(np.float32), less.astype(np.float32)
    totals = count_cells(lambda rows: np.stack([t[rows] for t in tables]), len(second), given)
    return PreparedOrder(*tables, *totals, given, third is not None, len(np.unique(second)) < len(second))
