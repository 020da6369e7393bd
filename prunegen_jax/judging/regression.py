"""Linear fits of a target by one measure or several: adjusted R2, and R2 out of sample."""

from __future__ import annotations

import numpy as np


def complete(features: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Which models `[n]` have a finite target and finite features `[n]` or `[n, q]`: a fit can use no others."""
    finite = np.isfinite(features).reshape(len(target), -1).all(axis=1)
    return finite & np.isfinite(target)


def adjusted_r2(features: np.ndarray, target: np.ndarray) -> float:
    """Adjusted R2 = 1 - (1 - R2)(n - 1)/(n - q - 1) of the least-squares fit target = a . features + b.

    Models with values that are not finite are left out (Jiang et al. 2019).

    Args:
        features: `[n]` or `[n, q]`.
        target: `[n]`.

    Returns:
        Adjusted R2; `nan` if n <= q + 1 or the target is constant.
    """
    return float(weighted_adjusted_r2(features, target, np.ones((1, len(target))))[0])


def weighted_adjusted_r2(features: np.ndarray, target: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`adjusted_r2` `[draws]` of models that count `weights [draws, n]` times in the fit; n stays their number."""
    x, y = _standard(features, target)
    w = weights[:, complete(features, target)]
    n, q = x.shape
    if n <= q + 1 or not y.any():
        return np.full(len(weights), np.nan)
    columns = np.concatenate([np.ones((n, 1)), x, y[:, None]], axis=1)
    # all second moments of (1, x, y) under all weights at once, then one small fit per draw
    moments = (w @ (columns[:, :, None] * columns[:, None, :]).reshape(n, -1)).reshape(-1, q + 2, q + 2)
    moments /= w.sum(axis=1)[:, None, None]
    mean = moments[:, 0, 1:]
    covariance = moments[:, 1:, 1:] - mean[:, :, None] * mean[:, None, :]
    inner, cross = covariance[:, :q, :q], covariance[:, :q, q]
    slope = np.einsum("bij,bj->bi", np.linalg.pinv(inner, rcond=1e-12, hermitian=True), cross)
    spread = covariance[:, q, q]
    with np.errstate(invalid="ignore", divide="ignore"):
        r2 = np.where(spread > 1e-14, np.einsum("bi,bi->b", slope, cross) / spread, np.nan)
    return 1 - (1 - r2) * (n - 1) / (n - q - 1)


def logarithm(features: np.ndarray) -> np.ndarray:
    """Natural logarithm of the features, `nan` for a value that is not positive."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(features > 0, np.log(features), np.nan)


def k_fold_r2(
    features: np.ndarray, target: np.ndarray, *, folds: int = 10, groups: np.ndarray | None = None, seed: int = 0
) -> float:
    """Out-of-sample R2 = 1 - sum (y - y_hat)^2 / sum (y - y_bar)^2, y_hat from the fit to the other folds and y_bar
    their mean, so that 0 is no better than predicting a constant, and below 0 is worse.

    Args:
        features: `[n]` or `[n, q]`.
        target: `[n]`.
        folds: number of folds.
        groups: models of one group stay in one fold, as repeats of a configuration do, `[n]`; None for no groups.
        seed: of the split.

    Returns:
        R2; `nan` with fewer groups than folds or fewer than q + 2 models in a fit.

    Raises:
        ValueError: if `folds` is below 2.
    """
    if folds < 2:
        raise ValueError(f"folds is {folds}; it must be at least 2")
    known = complete(features, target)
    x, y = _standard(features, target)
    group = np.unique(np.arange(len(target)) if groups is None else groups, return_inverse=True)[1][known]
    present = np.unique(group)
    if len(present) < folds:
        return float("nan")
    fold_of = np.zeros(group.max() + 1, dtype=np.int64)
    fold_of[np.random.default_rng(seed).permutation(present)] = np.arange(len(present)) % folds
    fold = fold_of[group]
    residual, spread = 0.0, 0.0
    for held_out in range(folds):
        fit, test = fold != held_out, fold == held_out
        if fit.sum() < x.shape[1] + 2:
            return float("nan")
        design = np.concatenate([np.ones((len(y), 1)), x], axis=1)
        coefficients = np.linalg.lstsq(design[fit], y[fit], rcond=None)[0]
        residual += float(((y[test] - design[test] @ coefficients) ** 2).sum())
        spread += float(((y[test] - y[fit].mean()) ** 2).sum())
    return 1 - residual / spread if spread > 0 else float("nan")


def _standard(features: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Complete rows of features `[m, q]` and target `[m]`, each column with mean 0 and largest magnitude 1.

    R2 does not change, and neither huge nor tiny measures lose digits.
    """
    known = complete(features, target)
    columns = []
    for column in [*features.reshape(len(target), -1)[known].T, target[known]]:
        scale = np.abs(column).max(initial=0.0)
        varies = scale > 0 and (column != column[0]).any()
        centred = column / scale - np.mean(column / scale) if varies else np.zeros_like(column)
        columns.append(centred / np.abs(centred).max() if varies else centred)
    return np.stack(columns[:-1], axis=1), columns[-1]
