"""How certain a statistic is: bootstrap over configurations, and corrections for comparing many measures."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import scipy.stats


def bootstrap_weights(configurations: np.ndarray, *, draws: int, seed: int) -> np.ndarray:
    """Random weights `[draws, n]` of the models, one per configuration and draw, with mean one over configurations.

    They are Dirichlet(1, ..., 1) times the number of configurations (Rubin 1981, "The Bayesian Bootstrap"): as
    spread as the counts of an ordinary bootstrap, but never zero, so that every cell of the grid keeps its models.

    Args:
        configurations: the configuration of each model, `[n]`.
        draws: number of draws.
        seed: of the draws.

    Raises:
        ValueError: if `draws` is below 1.
    """
    if draws < 1:
        raise ValueError(f"draws is {draws}; it must be at least 1")
    count = int(configurations.max(initial=-1)) + 1
    weights = np.random.default_rng([seed, 0]).standard_exponential((draws, count))
    present = np.unique(configurations)
    weights /= weights[:, present].mean(axis=1, keepdims=True)
    return weights[:, configurations]


def pair_variance(first: np.ndarray, second: np.ndarray, residual: np.ndarray, configurations: np.ndarray) -> float:
    """Sampling variance of a statistic that is a sum over pairs of models, from its deviations `residual [e]`.

    With U_c the sum of the residuals that touch configuration c, sum_c U_c^2 counts the noise that belongs to single
    pairs twice; the variance is sum_c U_c^2 - sum_e r_e^2, and never less than sum_e r_e^2, which is what it would be
    if the pairs were independent.

    Args:
        first: one model of each pair, `[e]`.
        second: the other, `[e]`.
        residual: the pair's deviation, `[e]`.
        configurations: the configuration of each model, `[n]`.
    """
    if not len(residual):
        return float("nan")
    ends = np.sort(np.stack([configurations[first], configurations[second]]), axis=0)
    pair = np.unique(ends, axis=1, return_inverse=True)[1].reshape(-1)
    own = float((np.bincount(pair, weights=residual) ** 2).sum())
    touching = sum(np.bincount(end, weights=residual, minlength=ends.max() + 1) for end in ends)
    return max(float((touching**2).sum()) - own, own)


def rescaled(draws: np.ndarray, value: float, variance: float) -> np.ndarray:
    """The draws `[draws]`, stretched about the statistic's value to a given variance.

    Product weights w_i w_j give the noise of single pairs three times its variance. Over all pairs of models that is
    negligible, in the small cells of a grid it is not.
    """
    spread = float(np.nanstd(draws)) if not np.isnan(draws).all() else 0.0
    return value + (draws - value) * (np.sqrt(variance) / spread) if spread > 0 and variance >= 0 else draws


def interval(draws: np.ndarray, *, level: float, count: int | None = None) -> tuple[float, float]:
    """The central interval that holds `level` of the draws `[draws]` that are numbers; `nan` when most are not.

    With the `count` of configurations it is expanded as Hesterberg (2015, "What Teachers Should Know About the
    Bootstrap") does for few of them: the tails are those of the normal law beyond t sqrt((count + 1) / (count - 1)),
    t the quantile of Student's law, because weights spread less than samples do.

    Args:
        draws: `[draws]`.
        level: between 0 and 1.
        count: number of configurations; None for an interval that is not expanded.

    Returns:
        Both ends; `nan` with fewer than two configurations.

    Raises:
        ValueError: if `level` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it must lie between 0 and 1, for example 0.95")
    known = draws[~np.isnan(draws)]
    if 2 * len(known) < len(draws) or not len(known) or (count is not None and count < 2):
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    if count is not None:
        tail = float(scipy.stats.norm.sf(scipy.stats.t.isf(tail, count - 1) * np.sqrt((count + 1) / (count - 1))))
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


def two_sided(draws: np.ndarray) -> float:
    """Bootstrap p-value of "the statistic is zero": twice the share of draws on the rarer side, at least 2/(B + 1)."""
    known = draws[~np.isnan(draws)]
    if not len(known):
        return float("nan")
    rarer = min((known <= 0).sum(), (known >= 0).sum())
    return float(min(1.0, 2 * (rarer + 1) / (len(known) + 1)))


def of_agreement(pairs: int, level: float) -> float:
    """A lower limit of tau when `pairs` pairs of configurations, no two of which share one, are all ordered alike.

    Of a population with tau that happens with probability ((1 + tau) / 2)^pairs, which is (1 - level) / 2 at the
    limit 2 ((1 - level) / 2)^(1 / pairs) - 1 (Clopper and Pearson 1934). A bootstrap cannot say it: in all its draws
    every pair is ordered alike.
    """
    return 2 * ((1 - level) / 2) ** (1 / pairs) - 1 if pairs else -1.0


def holm(p_values: np.ndarray, groups: Sequence[Hashable] | None = None) -> np.ndarray:
    """p-values `[m]` adjusted for comparing m measures, so that they control the family-wise error rate (Holm 1979).

    Sorted ascending, the i-th becomes max_{j <= i} min(1, (m - j + 1) p_(j)). `nan` stays and counts for nothing.

    Args:
        p_values: `[m]`.
        groups: the group of each; a group counts once, with the largest of its p-values. None if all count.
    """
    if groups is not None:
        of_group: dict[Hashable, float] = {}
        for group, p in zip(groups, p_values, strict=True):
            of_group[group] = float(np.fmax(of_group.get(group, np.nan), p))
        once = dict(zip(of_group, holm(np.array(list(of_group.values()))), strict=True))
        return np.where(np.isnan(p_values), np.nan, [once[group] for group in groups])
    adjusted = np.full(len(p_values), np.nan)
    order = np.argsort(p_values)
    order = order[~np.isnan(p_values[order])]
    steps = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps * p_values[order]))
    return adjusted
