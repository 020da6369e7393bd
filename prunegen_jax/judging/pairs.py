"""More than one number per measure: the best pairs of measures, and how fragile a measure is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.stats

from prunegen_jax.judging.case import Case
from prunegen_jax.judging.verdict import Row

SHOWN = 5  # pairs for each target
_MOST = 1000  # models whose pairs are counted
_CERTAIN = 1.96  # standard deviations of the difference of two test errors


def best_pairs(case: Case, target: str, names: Sequence[str], *, folds: int, seed: int) -> list[Row]:
    """The pairs of measures that predict the target's ranks best together, cross-validated, and the best single one.

    The ranks of the target are fitted by the ranks of the two (a plane, least squares) on all folds but one, and
    predicted on that one: R2 = 1 - sum of squared errors / sum of squares about the mean of the other folds. Single
    measures are fitted in the same way on the same folds. The best of many pairs seems better than it is.

    Args:
        case: the table.
        target: the target's name.
        names: the measures; those that lack values are not used, nor are constant ones.
        folds: folds, of configurations drawn at random.
        seed: of the folds.

    Returns:
        At most `SHOWN` rows, the best first, fewer where there are fewer than two measures; none for less than two
        configurations a fold.
    """
    g = case.table.targets[target]
    known = ~np.isnan(g)
    columns = {name: case.table.measures[name][known] for name in names}
    used = [name for name, values in columns.items() if not np.isnan(values).any() and len(np.unique(values)) > 1]
    n = int(known.sum())
    if len(used) < 2 or n < 2 * folds or len(np.unique(g[known])) < 2:
        return []
    ranks = np.stack([scipy.stats.rankdata(columns[name]) for name in used] + [scipy.stats.rankdata(g[known])], axis=1)
    fold = np.random.default_rng([seed, 7]).permutation(np.arange(n) % folds)
    errors, spread = sum_errors(ranks / n, fold)
    r2 = 1 - errors / spread
    single = int(np.argmax(np.diag(r2)))
    first, second = np.triu_indices(len(used), 1)
    best = np.argsort(-r2[first, second], kind="stable")[:SHOWN]
    about = {"target": target, "n": n, "best_single": used[single], "single_r2": float(r2[single, single])}
    return [
        about
        | {
            "first": used[i],
            "second": used[j],
            "pair_r2": float(r2[i, j]),
            "gain": float(r2[i, j] - r2[single, single]),
        }
        for i, j in zip(first[best], second[best], strict=True)
    ]


def sum_errors(columns: np.ndarray, fold: np.ndarray) -> tuple[np.ndarray, float]:
    """Squared errors of prediction on held-out folds, `[p, p]`, of every pair of columns, and the spread without any.

    Args:
        columns: the features and last what they predict, `[n, p + 1]`.
        fold: the fold of each row, `[n]`.

    Returns:
        The sums for the features i and j, for feature i alone on the diagonal; and the sum of squares about the mean.
    """
    p = columns.shape[1] - 1
    total, spread = np.zeros((p, p)), 0.0
    for part in np.unique(fold):
        rest, out = columns[fold != part], columns[fold == part]
        rest, out = rest - rest.mean(axis=0), out - rest.mean(axis=0)
        fit, test = rest.T @ rest, out.T @ out
        own, to = np.diag(fit)[:p], fit[:p, p]
        cross = fit[:p, :p]
        with np.errstate(invalid="ignore", divide="ignore"):
            determinant = np.outer(own, own) - cross**2
            one = np.where(
                determinant > 1e-9 * np.outer(own, own),
                (to[:, None] * own[None, :] - to[None, :] * cross) / determinant,
                0.5 * (to / own)[:, None],  # of columns that are one, each has half; the diagonal too
            )
        two = one.T
        total += test[p, p] - 2 * (one * test[:p, p][:, None] + two * test[:p, p][None, :])
        total += (
            one**2 * np.diag(test)[:p][:, None] + two**2 * np.diag(test)[:p][None, :] + 2 * one * two * test[:p, :p]
        )
        spread += float(test[p, p])
    return total, spread


def fragility(measure: np.ndarray, target: np.ndarray, error: np.ndarray | None, test_size: int | None) -> float:
    """How far a measure moves between networks whose test errors do not differ beyond noise (Zhang and Louis 2025).

    The mean difference of the measure's ranks over the pairs of networks with |e - e'| <= 1.96 sqrt(2 e (1 - e) / n), e
    their mean test error and n the size of the test set, over its mean over all pairs: 0 for a measure that is
    equal where the errors are, 1 for one that does not know them.

    Args:
        measure: `[n]`.
        target: `[n]`, an accuracy's: its differences are compared with the noise.
        error: the test errors, `[n]`; None if they are not known.
        test_size: number of test examples; None if it is not known.

    Returns:
        The ratio; `nan` without test errors or their number, and where no pair is so close.
    """
    known = ~(np.isnan(measure) | ~np.isfinite(target))
    if error is None or test_size is None or known.sum() < 2:
        return float("nan")
    rows = np.flatnonzero(known & np.isfinite(error))
    if len(rows) > _MOST:
        rows = np.sort(np.random.default_rng(8).permutation(rows)[:_MOST])
    m, g, e = scipy.stats.rankdata(measure[rows]), target[rows], np.clip(error[rows], 0, 1)
    first, second = np.triu_indices(len(rows), 1)
    mean = (e[first] + e[second]) / 2
    with np.errstate(over="ignore"):  # inf is not close
        difference = np.abs(g[first] - g[second])
    close = difference <= _CERTAIN * np.sqrt(2 * mean * (1 - mean) / test_size)
    moved = np.abs(m[first] - m[second])
    return float(moved[close].mean() / moved.mean()) if close.any() and moved.any() else float("nan")
