"""What information a measure would seem to have if it had none: permutation nulls, and the bias they reveal.

Permuting a measure among the models keeps its ties and loses everything else, so that the null depends on the pattern
of ties and missing values alone: measures that share it (all those without ties) share their null.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from .information import Conditions, count_cells, from_counts, information, pair_tables
from .pgdl import score_by_pair


@dataclasses.dataclass(frozen=True)
class Null:
    """Draws `[permutations]` of a statistic for permuted measures."""

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
    """Equal for measures that differ by a permutation of equal patterns: which models lack a value, and how many
    share each value, from the smallest to the largest."""
    missing = np.isnan(measure)
    counts = np.unique(measure[~missing], return_counts=True)[1]
    return missing.tobytes() + counts.astype(np.int64).tobytes()


def almost_untied(measure: np.ndarray) -> np.ndarray:
    """The measure, or one without ties in its place where fewer than 1 % of its pairs are tied and none is missing:
    its null differs by far less than the noise of few permutations, and many measures share it.
    """
    counts = np.unique(measure, return_counts=True)[1]
    tied, total = float((counts * (counts - 1)).sum()), max(len(measure) * (len(measure) - 1), 1)
    rare = not np.isnan(measure).any() and tied / total < 0.01
    return np.arange(len(measure), dtype=np.float64) if rare else measure


def representative(measure: np.ndarray) -> np.ndarray:
    """The measure's ranks in ascending order, at the places where it has values: the same for a whole tie pattern."""
    known = ~np.isnan(measure)
    ranks = np.full(len(measure), np.nan)
    ranks[known] = np.sort(np.unique(measure[known], return_inverse=True)[1])
    return ranks


def permuted(measure: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The measure with its values shuffled among the models that have one."""
    shuffled, known = measure.copy(), ~np.isnan(measure)
    shuffled[known] = generator.permutation(measure[known])
    return shuffled


def null_of_k(
    measure: np.ndarray,
    target: np.ndarray,
    given: Conditions,
    *,
    permutations: int,
    seed: int,
    pgdl: Conditions | None = None,
) -> tuple[Null, Null]:
    """The nulls of K = min_S I / H and, with `pgdl` conditions (a complete grid), of the PGDL score."""
    known = ~(np.isnan(measure) | np.isnan(target))
    ranks, g = representative(np.where(known, measure, np.nan))[known], target[known]
    conditions = given.take(known)
    generator = np.random.default_rng([seed, 1])
    k, scores = np.full(permutations, np.nan), np.full(permutations, np.nan)
    more = None if pgdl is None else _above(g, pgdl)
    for draw in range(permutations):
        m = generator.permutation(ranks)
        counts = count_cells(lambda rows, m=m: pair_tables(m, g, None, rows), len(m), conditions)
        k[draw] = from_counts(counts, conditions).minimum[0]
        if pgdl is not None:
            # (+, +) is there already: the pairs of axes are among the sets
            both = counts[0, -len(pgdl.cells) :]
            scores[draw] = score_by_pair(both, _above(m, pgdl), more, pgdl).min()
    return Null(k), Null(scores)


def null_of_information(
    measure: np.ndarray,
    other: np.ndarray,
    given: Conditions,
    *,
    third: np.ndarray | None = None,
    permutations: int,
    seed: int,
) -> tuple[Null, Null]:
    """The nulls of I(V_m; V_o | V_3, U_S) / H(V_o | V_3, U_S), for the empty S and for the minimum over S."""
    generator = np.random.default_rng([seed, 2])
    ranks = representative(measure)
    draws = [information(permuted(ranks, generator), other, given, third=third) for _ in range(permutations)]
    return Null(np.array([d.normalised[0] for d in draws])), Null(np.array([d.minimum[0] for d in draws]))


def _above(values: np.ndarray, given: Conditions) -> np.ndarray:
    """Pairs i, j with values_i > values_j by cell, `[cells]`, from running counts in the order of the values."""
    order, z = np.argsort(values), given.indicators
    running = np.concatenate([np.zeros((1, z.shape[1]), np.float32), np.cumsum(z[order], axis=0)])
    below = running[np.searchsorted(values[order], values, side="left")]
    return (z.T @ below).ravel()[given.cells].astype(np.float64)
