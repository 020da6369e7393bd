"""How certain the statistics of a case are: intervals, paired differences, nulls, corrections for many measures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from prunegen_jax.judging import uncertainty
from prunegen_jax.judging.comparison import Comparison, Resample, pair_variance
from prunegen_jax.judging.nulls import Null, almost_untied, nulls_of_k_and_pgdl, tie_pattern
from prunegen_jax.judging.parallel import Progress
from prunegen_jax.judging.statistics import STATISTICS, Statistic
from prunegen_jax.judging.verdict import Row

Draws = Mapping[str, np.ndarray]  # statistic -> [draws]
_SPREAD = 1e-9  # of draws that differ by rounding alone


def bootstrap(data: Comparison, *, draws: int, seed: int) -> Draws:
    """Bootstrap draws of every statistic that has a bootstrap, by name.

    The weights are the same for every measure and target, so that differences are paired.

    Args:
        data: the measure and the target.
        draws: number of draws.
        seed: of the weights.
    """
    resampled = {name: s.bootstrap for name, s in STATISTICS.items() if s.bootstrap}
    if data.known.sum() < 4:
        return {name: np.full(draws, np.nan) for name in resampled}
    everyone = np.arange(data.case.models_grid.configurations.max() + 1)
    sample = Resample(data, uncertainty.bootstrap_weights(everyone, draws=draws, seed=seed))
    return {name: function(sample) for name, function in resampled.items()}


def add_intervals(data: Mapping[str, Comparison], rows: list[Row], samples: Mapping[str, Draws], level: float) -> None:
    """Adds the interval of every statistic to the rows of a target, as `NAME_low` and `NAME_high`.

    Draws that are all equal say nothing about certainty: then it is the interval of `uncertainty.of_agreement` where
    every pair is ordered alike, and `nan` elsewhere.

    Args:
        data: the comparison of each measure with the target.
        rows: one row per measure.
        samples: the draws of each measure.
        level: of the intervals.
    """
    for row in rows:
        for statistic, values in samples[row["measure"]].items():
            low, high = uncertainty.interval(values, level=level, count=row["n"])
            if high - low < _SPREAD:
                low, high = _of_agreement(STATISTICS[statistic], data[row["measure"]], row[statistic], level)
            row |= {f"{statistic}_low": low, f"{statistic}_high": high}


def _of_agreement(statistic: Statistic, data: Comparison, value: float, level: float) -> tuple[float, float]:
    if statistic.disjoint_pairs is None or abs(value) < 1 - _SPREAD:
        return float("nan"), float("nan")
    bound = uncertainty.of_agreement(statistic.disjoint_pairs(data), level)
    return (bound, 1.0) if value > 0 else (-1.0, -bound)


def differences(
    data: Mapping[str, Comparison], rows: Sequence[Row], samples: Mapping[str, Draws], reference: str, level: float
) -> list[Row]:
    """By how much a reference is better than each other measure, with paired intervals.

    Values are turned so that larger is better: by the measures' believed signs for a statistic that has one, and for
    errors by -1. The p-values of one statistic are corrected for the number of measures (Holm).

    Args:
        data: the comparison of each measure with the target.
        rows: the rows of the target, one per measure.
        samples: the draws of each measure.
        reference: the measure that the others are compared with; without it there is nothing to compare.
        level: of the intervals.
    """
    by_name = {row["measure"]: row for row in rows}
    if reference not in by_name:
        return []
    result: list[Row] = []
    for name, statistic in STATISTICS.items():
        if not statistic.bootstrap:
            continue
        group: list[Row] = []
        for rival in (n for n in by_name if n != reference):
            both = (reference, rival)
            ours, theirs = (statistic.direction(by_name[n]["sign"]) for n in both)
            value = ours * by_name[reference][name] - theirs * by_name[rival][name]
            drawn = ours * samples[reference][name] - theirs * samples[rival][name]
            if statistic.terms:
                drawn = uncertainty.rescaled(drawn, value, _variance(statistic, [data[n] for n in both], ours, theirs))
            low, high = uncertainty.interval(drawn, level=level, count=min(by_name[n]["n"] for n in both))
            p = float("nan") if np.isnan(value) else uncertainty.two_sided(drawn)
            if high - low < _SPREAD < abs(value):  # all draws are equal
                low = high = p = float("nan")
            row: Row = {"measure": rival, "target": rows[0]["target"], "reference": reference, "statistic": name}
            row |= {"better_by": value, "low": low, "high": high}
            group.append(row | {"p": p})
        once = [by_name[row["measure"]]["same_as"] or row["measure"] for row in group]
        for row, p in zip(group, uncertainty.holm(np.array([row["p"] for row in group]), once), strict=True):
            row["p_holm"] = float(p)
        result += group
    return result


def _variance(statistic: Statistic, both: Sequence[Comparison], ours: int, theirs: int) -> float:
    """Sampling variance of a difference of two sums over the same pairs of configurations."""
    one, two = map(statistic.terms, both)
    terms = dataclasses.replace(one, residual=ours * one.residual - theirs * two.residual)
    return pair_variance(both[0].case, terms)


def add_nulls(
    data: Mapping[str, Comparison],
    rows: list[Row],
    *,
    permutations: int,
    seed: int,
    shared: dict[tuple, dict[str, Null]],
    progress: Progress | None = None,
) -> None:
    """Adds bias, 95 % limit, p-value and value less bias of K and the PGDL score, against permuted measures.

    Measures with one pattern of ties share their null for a target, and for targets of one order. Targets of other
    orders do not: what the hyperparameters leave uncertain about them differs.

    Args:
        data: the comparison of each measure with the target.
        rows: the rows of the target, one per measure.
        permutations: draws of a null.
        seed: of the permutations.
        shared: the nulls of the targets before, to which those of this one are added.
        progress: see `parallel.threaded`.
    """
    for row in rows:
        each = data[row["measure"]]
        is_scored = not np.isnan(row["pgdl"])
        stand_in = almost_untied(np.where(np.isnan(each.target), np.nan, each.measure))
        order = np.unique(each.target, return_inverse=True, equal_nan=True)[1]
        key = (tie_pattern(stand_in), is_scored, order.tobytes(), np.isnan(each.target).tobytes())
        if key not in shared:
            scored = each.case.pgdl if is_scored else None
            options = {"permutations": permutations, "seed": seed, "pgdl": scored, "progress": progress}
            shared[key] = nulls_of_k_and_pgdl(stand_in, each.target, each.case.given, **options)
        for name, null in shared[key].items():
            row |= {f"{name}_null": null.bias, f"{name}_null_95": null.limit}
            row |= {STATISTICS[name].p_column: null.p_value(row[name]), f"{name}_corrected": null.corrected(row[name])}


def add_corrections(rows: list[Row]) -> None:
    """Adds every p-value corrected for the number of measures compared (Holm), as `COLUMN_holm`.

    Measures that are one, by "same_as" of their rows, count once.
    """
    once = [row["same_as"] or row["measure"] for row in rows]
    for column in (s.p_column for s in STATISTICS.values()):
        if column in rows[0]:
            for row, p in zip(rows, uncertainty.holm(np.array([row[column] for row in rows]), once), strict=True):
                row[f"{column}_holm"] = float(p)
