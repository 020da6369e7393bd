"""Rank correlation: Kendall's tau over all pairs of models, and granulated over the axes of a sweep.

Larger means that the measure grows with the target. Infinite values keep their place in the order, two equal
infinities tie. Models without a value (`nan`) are left out of the statistic.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
import scipy.sparse
import scipy.stats

from prunegen_jax.judging.dominance import dominance
from prunegen_jax.judging.grid import Pairs

Kind = Literal["a", "b"]
_FEW = 100  # models up to which all pairs are compared: SciPy takes 0.4 ms to check its arguments


def sign(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """sgn(first - second) as float64, where equal infinities give 0 and `nan` gives 0."""
    return (first > second).astype(np.float64) - (first < second)


def tau(measure: np.ndarray, target: np.ndarray, *, kind: Kind = "b") -> float:
    """Kendall's tau over the models that have both values, in O(n log n) if they are many.

    tau-a = sum_{i != j} sgn(m_i - m_j) sgn(g_i - g_j) / (n (n - 1)), with sgn(0) = 0 (Jiang et al. 2020); tau-b divides
    by sqrt((n0 - n1)(n0 - n2)) instead, where n1 and n2 count the tied pairs among all n0 (Kendall 1945).

    Args:
        measure: `[n]`.
        target: `[n]`.
        kind: "a" or "b".

    Returns:
        tau; `nan` with fewer than two models, and for tau-b if measure or target is constant.
    """
    known = ~(np.isnan(measure) | np.isnan(target))
    x, y = (np.unique(v[known], return_inverse=True)[1] for v in (measure, target))
    n = len(x)
    if n < 2:
        return float("nan")
    if x.max() == 0 or y.max() == 0:
        return 0.0 if kind == "a" else float("nan")
    total = n * (n - 1) // 2
    roots = [np.sqrt(float(total - _tied_pairs(v))) for v in (x, y)]
    if n <= _FEW:
        excess = int(np.vdot(sign(x[:, None], x), sign(y[:, None], y))) // 2  # concordant minus discordant pairs
        return excess / total if kind == "a" else float(np.clip(excess / roots[0] / roots[1], -1.0, 1.0))
    value = float(scipy.stats.kendalltau(x, y, method="asymptotic").statistic)
    return value if kind == "b" else round(value * roots[0] * roots[1]) / total  # the excess is an integer


def p_value(measure: np.ndarray, target: np.ndarray) -> float:
    """Two-sided p-value of tau = 0: exact without ties and up to 50 models, otherwise asymptotic (SciPy)."""
    known = ~(np.isnan(measure) | np.isnan(target))
    x, y = (np.unique(v[known], return_inverse=True)[1] for v in (measure, target))
    if len(x) < 2 or x.max() == 0 or y.max() == 0:
        return float("nan")
    few = len(x) <= 50 and x.max() == y.max() == len(x) - 1
    return float(scipy.stats.kendalltau(x, y, method="exact" if few else "asymptotic").pvalue)


def spearman(measure: np.ndarray, target: np.ndarray) -> float:
    """Spearman's rho of `measure [n]` and `target [n]`, ties at their mean rank; `nan` for a constant."""
    known = ~(np.isnan(measure) | np.isnan(target))
    x, y = (scipy.stats.rankdata(v[known]) for v in (measure, target))
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def weighted_tau(
    measure: np.ndarray, target: np.ndarray, weights: np.ndarray, *, few: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """tau-a and tau-b of models that count w times: sum_{i != j} w_i w_j s_ij / sum_{i != j} w_i w_j.

    Args:
        measure: `[n]`.
        target: `[n]`.
        weights: `[draws, n]`.
        few: models up to which all pairs are gone through.

    Returns:
        tau-a and tau-b, each `[draws]`; of weights that are all one they are `tau`.
    """
    known = ~(np.isnan(measure) | np.isnan(target))
    x, y, w = measure[known], target[known], weights[:, known]
    if len(x) <= few:
        numerator = np.einsum("bi,bi->b", w @ (sign(x[:, None], x) * sign(y[:, None], y)), w)
    else:  # every pair once, twice what the models below agree less what they disagree
        columns = np.ascontiguousarray(w.T)
        below = (dominance(x, order).sums(columns)[:, 0] for order in (y, -y))
        numerator = 2 * np.einsum("ib,ib->b", np.subtract(*below), columns)
    total = w.sum(axis=1) ** 2
    scale = np.sqrt(np.maximum(total - _tied_weight(x, w), 0)) * np.sqrt(np.maximum(total - _tied_weight(y, w), 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        tau_b = np.where(scale > 1e-12 * total, numerator / scale, np.nan)
        return numerator / (total - (w**2).sum(axis=1)), tau_b


@dataclasses.dataclass(frozen=True)
class Granulated:
    """The granulated Kendall coefficient.

    Attributes:
        value: Psi.
        per_axis: psi of each axis `[k]`, `nan` for an axis without cells.
        cells: cells used, per axis `[k]`.
        skipped: cells skipped, per axis `[k]`.
    """

    value: float
    per_axis: np.ndarray
    cells: np.ndarray
    skipped: np.ndarray


def granulated(measure: np.ndarray, target: np.ndarray, pairs: Sequence[Pairs], *, kind: Kind = "a") -> Granulated:
    """Granulated Kendall coefficient Psi (Jiang et al. 2020).

    psi_a is the mean, over all settings of the other hyperparameters, of tau among the models where only axis `a`
    varies; Psi is the mean of the psi_a, each axis with equal weight. Cells with fewer than two models that have both
    values are skipped and counted, so are constant cells under tau-b.

    Args:
        measure: `[n]`.
        target: `[n]`.
        pairs: the pairs of models along each axis, of `grid.pairs_along`.
        kind: the tau of a cell, "a" or "b".
    """
    per_axis, used, skipped = [], [], []
    for axis in pairs:
        taus = _cell_taus(measure, target, axis, kind)
        per_axis.append(float(np.nanmean(taus)) if not np.isnan(taus).all() else float("nan"))
        used.append(int((~np.isnan(taus)).sum()))
        skipped.append(int(np.isnan(taus).sum()))
    defined = [value for value in per_axis if not np.isnan(value)]
    value = float(np.mean(defined)) if defined else float("nan")
    return Granulated(value, np.array(per_axis), np.array(used, dtype=int), np.array(skipped, dtype=int))


def _cell_taus(measure: np.ndarray, target: np.ndarray, pairs: Pairs, kind: Kind) -> np.ndarray:
    """tau within each cell, `[cells]`, `nan` where it is not defined."""
    x = sign(measure[pairs.first], measure[pairs.second])
    y = sign(target[pairs.first], target[pairs.second])
    missing = np.isnan(measure) | np.isnan(target)
    known = ~(missing[pairs.first] | missing[pairs.second])

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(pairs.cell, weights=values * known, minlength=pairs.cells)

    scale = total(np.ones(len(x))) if kind == "a" else np.sqrt(total(np.abs(x)) * total(np.abs(y)))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(scale > 0, total(x * y) / scale, np.nan)


def _tied_pairs(ranks: np.ndarray) -> int:
    counts = np.bincount(ranks)
    return int((counts * (counts - 1) // 2).sum())


def _tied_weight(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """sum over groups of equal values of (their weight)^2, `[draws]`: self-pairs and tied pairs together."""
    ranks = np.unique(values, return_inverse=True)[1]
    order = np.argsort(ranks, kind="stable")
    starts = np.flatnonzero(np.diff(ranks[order], prepend=-1))
    return (
        (np.add.reduceat(weights[:, order], starts, axis=1) ** 2).sum(axis=1) if len(starts) else np.zeros(len(weights))
    )


def weighted_granulated(
    measure: np.ndarray, target: np.ndarray, pairs: Sequence[Pairs], weights: np.ndarray, *, block: int = 4_000_000
) -> np.ndarray:
    """Psi `[draws]` of models that count `weights [draws, n]` times, with tau-a in the cells.

    A pair counts w_i w_j times, and so does its share of the cell: psi_a = sum_e c_e w_i w_j s_e / sum_e c_e w_i w_j
    over the pairs e along axis a, with c_e = 1 / (pairs in its cell), so that equal weights give `granulated`.

    Args:
        measure: `[n]`.
        target: `[n]`.
        pairs: the pairs of models along each axis.
        weights: `[draws, n]`.
        block: models times draws in memory at once.
    """
    total, axes, n = np.zeros(len(weights)), 0, weights.shape[1]
    columns = np.ascontiguousarray(weights.T)
    step = max(1, block // max(n, 1))
    for axis in pairs:
        share, signs = _shares(measure, target, axis)
        if not share.any():
            continue
        sums = []
        for values in (share * signs, share):
            matrix = scipy.sparse.csr_array((values, (axis.first, axis.second)), shape=(n, n))
            parts = [columns[:, i : i + step] for i in range(0, len(weights), step)]
            sums.append(np.concatenate([np.einsum("ib,ib->b", matrix @ part, part) for part in parts]))
        total, axes = total + sums[0] / sums[1], axes + 1
    return total / axes if axes else np.full(len(weights), np.nan)


def granulated_terms(measure: np.ndarray, target: np.ndarray, pairs: Sequence[Pairs]) -> Terms:
    """Psi as a sum over pairs of models, for `uncertainty.pair_variance`."""
    shares = [_shares(measure, target, axis) for axis in pairs]
    axes = sum(bool(share.any()) for share, _ in shares)
    residuals = [np.zeros(0)]
    for share, signs in shares:
        own = share / share.sum() if share.any() else share
        residuals.append(own * (signs - own @ signs) / max(axes, 1))
    empty = [np.zeros(0, dtype=np.int64)]
    first, second = (np.concatenate(empty + [getattr(axis, end) for axis in pairs]) for end in ("first", "second"))
    return Terms(first, second, np.concatenate(residuals))


@dataclasses.dataclass(frozen=True)
class Terms:
    """The deviations of a statistic that is a sum over pairs of models.

    Attributes:
        first: one model of each pair, `[e]`.
        second: the other, `[e]`.
        residual: the pair's deviation, `[e]`.
    """

    first: np.ndarray
    second: np.ndarray
    residual: np.ndarray


def _shares(measure: np.ndarray, target: np.ndarray, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Per pair `[e]`: 1 / (known pairs in its cell), or 0 if it is not known; and sgn(m - m') sgn(g - g')."""
    missing = np.isnan(measure) | np.isnan(target)
    known = (~(missing[pairs.first] | missing[pairs.second])).astype(np.float64)
    in_cell = np.bincount(pairs.cell, weights=known, minlength=pairs.cells)[pairs.cell]
    signs = sign(measure[pairs.first], measure[pairs.second]) * sign(target[pairs.first], target[pairs.second])
    return known / np.maximum(in_cell, 1), signs
