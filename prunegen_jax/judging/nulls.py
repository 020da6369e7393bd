"""Permutation nulls of information: what a measure without any information seems to have.

Permuting a measure among the models keeps its ties and loses everything else, so that the null depends on the pattern
of ties and missing values alone: measures that share it (all those without ties) share their null.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from prunegen_jax.judging.information import FEW, Conditions, above, from_counts
from prunegen_jax.judging.parallel import Progress, threaded
from prunegen_jax.judging.pgdl import score_by_pair
from prunegen_jax.judging.prepared import PreparedOrder, prepare_order

_AT_ONCE = 2**13  # models times permutations that are counted together


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
    progress: Progress | None = None,
) -> dict[str, Null]:
    """The nulls of K = min_S I / H ("k") and of the PGDL score ("pgdl").

    Args:
        measure: its pattern of ties matters alone, `[n]`.
        target: `[n]`.
        given: the sets of axes of K.
        permutations: draws.
        seed: of the permutations.
        pgdl: the sets of axes of the PGDL score, on a complete grid; None for a null of `nan`.
        progress: see `parallel.threaded`.
    """
    known = ~(np.isnan(measure) | np.isnan(target))
    ranks, g = representative(np.where(known, measure, np.nan))[known], target[known]
    conditions = given.take(known)
    against = prepare_order(g, conditions)

    def of_draws(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        counts = against.counts(drawn)
        scores = np.full(len(drawn), np.nan)
        if pgdl is not None:  # its pairs of axes are the last of the sets
            last = slice(-len(pgdl.cells), None)
            up = counts.sum(axis=0) if not against.is_tied else above(drawn, conditions)
            scores = score_by_pair(counts[0][:, last], up[:, last], against.more_cells[last], pgdl).min(axis=-1)
        return from_counts(counts, conditions).minima, scores

    parts = _shuffled(ranks, permutations, [seed, 1])
    found = threaded(of_draws, parts, what="permutations", progress=progress)
    return {
        name: Null(np.concatenate(draws)) for name, draws in zip(("k", "pgdl"), zip(*found, strict=True), strict=True)
    }


def null_of_information(
    measure: np.ndarray, against: PreparedOrder, *, permutations: int, seed: int
) -> tuple[Null, Null]:
    """The nulls of I(V_m; V_o | V_3, U_S) / H(V_o | V_3, U_S), for the empty S and for the minimum over S.

    Args:
        measure: its pattern of ties matters alone, without `nan`, `[n]`.
        against: what the information is about, and what is known already, of the same models.
        permutations: draws.
        seed: of the permutations.
    """
    empty, least = [], []
    for drawn in _shuffled(representative(measure), permutations, [seed, 2]):
        found = from_counts(against.counts(drawn), against.given)
        empty.append(found.normalised[:, 0])
        least.append(found.minima)
    return Null(np.concatenate(empty)), Null(np.concatenate(least))


def _shuffled(ranks: np.ndarray, permutations: int, seed: list[int]) -> list[np.ndarray]:
    """The permuted ranks in parts `[b, n]` of some draws; for many models each draw alone."""
    generator, step = np.random.default_rng(seed), max(1, _AT_ONCE // max(len(ranks), 1))
    step = step if len(ranks) <= FEW else 1
    dtype = np.int16 if len(ranks) < 2**15 else np.int32  # compared faster than floats
    draws = [generator.permutation(ranks).astype(dtype) for _ in range(permutations)]
    return [np.stack(draws[i : i + step]) for i in range(0, permutations, step)]
