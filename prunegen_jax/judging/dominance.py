"""Sums over the models that are smaller by two orders at once, without going through all pairs of models."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse

from prunegen_jax.judging.parallel import lazy

_COLUMNS = 512  # of weights that are summed at once, for memory


@dataclasses.dataclass(frozen=True, eq=False)
class Dominance:
    """Which models are smaller than which by two orders, for several pairs of orders of the same `n` models.

    Both orders are cut into blocks of `size` models. A model that is smaller than another by both orders lies in its
    block of the first order, or else in its block of the second, or else in earlier blocks of both: the first two are
    products of small matrices, the last is a cumulative sum over blocks. That takes O(n size + (n / size)^2) additions
    per column of weights instead of n^2, and the same sums.

    Attributes:
        first: places in the first order, ties broken so that no tied model is smaller by both, `[b, n]`.
        second: places in the second, `[b, n]`.
        size: models of a block.
    """

    first: np.ndarray
    second: np.ndarray
    size: int

    def sums(self, weights: np.ndarray) -> np.ndarray:
        """sum_j weights_j over the models j smaller than i by both orders.

        Args:
            weights: `[n, z]`, floats.

        Returns:
            `[n, b, z]` of the dtype of the weights.
        """
        parts = [weights[:, i : i + _COLUMNS] for i in range(0, weights.shape[1], _COLUMNS)]
        return np.concatenate([self._sums(part) for part in parts], axis=2)

    def _sums(self, weights: np.ndarray) -> np.ndarray:
        rows = np.arange(len(self.first))
        total = self._earlier_blocks(weights)
        for place, table in ((self.first, self._in_first), (self.second, self._in_second)):
            padded = np.zeros((len(rows), self._blocks * self.size, weights.shape[1]), weights.dtype)
            padded[rows[:, None], place] = weights
            inside = table.astype(weights.dtype, copy=False) @ padded.reshape(-1, self.size, weights.shape[1])
            total += inside.reshape(padded.shape)[rows, place.T]
        return total

    def _earlier_blocks(self, weights: np.ndarray) -> np.ndarray:
        """The sums over the models that lie in earlier blocks of both orders, `[n, b, z]`."""
        (b, n), side, z = self.first.shape, self._blocks + 1, weights.shape[1]
        one, two = self.first // self.size, self.second // self.size
        cell = (np.arange(b)[:, None] * side + one + 1) * side + two + 1
        scatter = scipy.sparse.csr_array(
            (np.ones(b * n, weights.dtype), (cell.ravel(), np.tile(np.arange(n), b))), shape=(b * side * side, n)
        )
        table = (scatter @ weights).reshape(b, side, side, z)
        for i in range(1, side):
            table[:, i] += table[:, i - 1]
        for i in range(1, side):
            table[:, :, i] += table[:, :, i - 1]
        return table[np.arange(b), one.T, two.T]

    @property
    def _blocks(self) -> int:
        return -(-self.first.shape[1] // self.size)

    @lazy
    def _in_first(self) -> np.ndarray:
        """Pairs smaller by both orders in one block of the first, `[b blocks, size, size]`."""
        return self._inside(self.first, self.second)

    @lazy
    def _in_second(self) -> np.ndarray:
        """Pairs smaller by both orders in one block of the second and different ones of the first."""
        return self._inside(self.second, self.first // self.size)

    def _inside(self, place: np.ndarray, other: np.ndarray) -> np.ndarray:
        ordered = np.zeros((len(place), self._blocks * self.size), np.int32)
        ordered[np.arange(len(place))[:, None], place] = other
        ordered = ordered.reshape(-1, self.size)
        earlier = np.tri(self.size, k=-1, dtype=bool)
        return ((ordered[:, :, None] > ordered[:, None, :]) & earlier).astype(np.float32)


def dominance(first: np.ndarray, second: np.ndarray) -> Dominance:
    """The pairs of models with first_j < first_i and second_j < second_i.

    Args:
        first: values of the models, `[n]` or `[b, n]`, without `nan`.
        second: `[n]`, without `nan`.
    """
    first = np.atleast_2d(first)
    second = np.broadcast_to(second, first.shape)
    index = np.broadcast_to(np.arange(first.shape[1]), first.shape)
    # of models tied in one order the other one runs backwards, so that none is before another in both
    one = np.lexsort((index, -second, first), axis=-1)
    two = np.lexsort((-index, -first, second), axis=-1)
    size = max(16, int(0.8 * first.shape[1] ** 0.5))
    return Dominance(_places(one), _places(two), size)


def _places(order: np.ndarray) -> np.ndarray:
    """The inverse of the permutations `[b, n]`."""
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.broadcast_to(np.arange(order.shape[1]), order.shape), axis=1)
    return place
