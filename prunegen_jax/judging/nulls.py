"""Permutation nulls of information: what a measure without any information seems to have.

Permuting a measure among the models keeps its ties and loses everything else, so that the null depends on the pattern
of ties and missing values alone: measures that share it (all those without ties) share their null.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from prunegen_jax.judging.information import Conditions, above, from_counts
from prunegen_jax.judging.pgdl import score_by_pair
from prunegen_jax.judging.prepared import prepare_order


@dataclasses.dataclass(frozen=True)
class Null:
    """The distribution of a statistic over permuted measures.

    Attributes:
        draws: its values `[permutations]`.
    """

    draws: np.ndarray

    @property
    def bias(self) -> float:
        """The mean: what a measure without information seems to have."""
        return float(np.nanmean(self.draws)) if not np.isnan(self.draws).all() else float("nan")

    @property
    def limit(self) -> float:
        """The 95 % quantile, that one permuted measure in twenty exceeds."""
        return float(np.nanquantile(self.draws, 0.95)) if not np.isnan(self.draws).all() else float("nan")

    def p_value(self, value: float) -> float:
        """(1 + draws at least as large) / (1 + draws): a level-alpha test for every alpha."""
        known = self.draws[~np.isnan(self.draws)]
        if np.isnan(value) or not len(known):
            return float("nan")
        return float((1 + (known >= value - 1e-12).sum()) / (1 + len(known)))

    def corrected(self, value: float) -> float:
        """(value - bias) / (1 - bias): 0 on average for a measure without information, 1 for a perfect one."""
        return (value - self.bias) / (1 - self.bias) if self.bias < 1 else float("nan")


def tie_pattern(measure: np.ndarray) -> bytes:
    """Which models lack a value, and how many share each value, from the smallest to the largest value."""
    missing = np.isnan(measure)
    counts = np.unique(measure[~missing], return_counts=True)[1]
    return missing.tobytes() + counts.astype(np.int64).tobytes()


def almost_untied(measure: np.ndarray) -> np.ndarray:
    """The measure, or one without ties if fewer than 1 % of its pairs are tied and no value is missing.

    The null of the latter differs by far less than the noise of few permutations, and many measures share it.
    """
    counts = np.unique(measure, return_counts=True)[1]
    tied, total = float((counts * (counts - 1)).sum()), max(len(measure) * (len(measure) - 1), 1)
    rare = not np.isnan(measure).any() and tied / total < 0.01
    return np.arange(len(measure), dtype=np.float64) if rare else measure


def representative(measure: np.ndarray) -> np.ndarray:
    """The measure's ranks in ascending order, where it has values: equal for measures of one tie pattern."""
    known = ~np.isnan(measure)
    ranks = np.full(len(measure), np.nan)
    ranks[known] = np.sort(np.unique(measure[known], return_inverse=True)[1])
    return ranks


def nulls_of_k_and_pgdl(
    measure: np.ndarray,
    target: np.ndarray,
    given: Conditions,
    *,
    permutations: int,
    seed: int,
    pgdl: Conditions | None = None,
) -> dict[str, Null]:
    """The nulls of K = min_S I / H ("k") and of the PGDL score ("pgdl").

    Args:
        measure: its pattern of ties matters alone, `[n]`.
        target: `[n]`.
        given: the sets of axes of K.
        permutations: draws.
        seed: of the permutations.
        pgdl: the sets of axes of the PGDL score, on a complete grid; None for a null of `nan`.
    """
    known = ~(np.isnan(measure) | np.isnan(target))
    ranks, g = representative(np.where(known, measure, np.nan))[known], target[known]
    conditions = given.take(known)
    against, generator = prepare_order(g, conditions), np.random.default_rng([seed, 1])
    k, scores = np.full(permutations, np.nan), np.full(permutations, np.nan)
    for draw in range(permutations):
        m = generator.permutation(ranks)
        up = above(m, conditions)
        counts = against.counts(m, above_first=up)
        k[draw] = from_counts(counts, conditions).minimum[0]
        if pgdl is not None:  # its pairs of axes are the last of the sets
            last = slice(-len(pgdl.cells), None)
            scores[draw] = score_by_pair(counts[0, last], up[last], against.more_cells[last], pgdl).min()
    return {"k": Null(k), "pgdl": Null(scores)}


def null_of_information(
    measure: np.ndarray,
    other: np.ndarray,
    given: Conditions,
    *,
    third: np.ndarray | None = None,
    permutations: int,
    seed: int,
) -> tuple[Null, Null]:
    """The nulls of I(V_m; V_o | V_3, U_S) / H(V_o | V_3, U_S), for the empty S and for the minimum over S.

    Args:
        measure: its pattern of ties matters alone, `[n]`.
        other: what the information is about, `[n]`.
        given: the sets S of axes.
        third: what is known already, `[n]`; None for nothing.
        permutations: draws.
        seed: of the permutations.
    """
    known = ~(np.isnan(measure) | np.isnan(other))
    known &= True if third is None else ~np.isnan(third)
    conditions, generator = given.take(known), np.random.default_rng([seed, 2])
    against = prepare_order(other[known], conditions, third=third if third is None else third[known])
    ranks, empty, least = representative(measure[known]), np.empty(permutations), np.empty(permutations)
    for draw in range(permutations):
        drawn = from_counts(against.counts(generator.permutation(ranks)), conditions)
        empty[draw], least[draw] = drawn.normalised[0], drawn.minimum[0]
    return Null(empty), Null(least)
