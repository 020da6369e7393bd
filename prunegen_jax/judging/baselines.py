"""What to compare measures with: oracles, canonical orders of the hyperparameters, noise, and the ceiling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from prunegen_jax.judging import kendall
from prunegen_jax.judging.grid import Grid

ORACLES = (0.01, 0.02, 0.05)  # standard deviations, in the target's unit


def oracles(target: np.ndarray, *, draws: int, seed: int) -> dict[str, list[np.ndarray]]:
    """For each eps of `ORACLES`, `draws` measures `target [n]` + N(0, eps^2)."""
    generator = np.random.default_rng([seed, 3])
    return {
        f"oracle {eps}": [target + eps * generator.normal(size=len(target)) for _ in range(draws)] for eps in ORACLES
    }


def noise(n: int, *, draws: int, seed: int) -> dict[str, list[np.ndarray]]:
    """`draws` measures N(0, 1) `[n]`."""
    generator = np.random.default_rng([seed, 4])
    return {"random": [generator.normal(size=n) for _ in range(draws)]}


def canonical(
    grid: Grid, values: Mapping[str, np.ndarray], *, orders: Mapping[str, Sequence[str | float]] | None = None
) -> dict[str, list[np.ndarray]]:
    """For each axis, the index of its value `[n]` in the believed order, from smallest to largest target.

    Args:
        grid: the grid.
        values: the values of each axis.
        orders: the believed order of an axis' values, by axis; the values ascend where none is given.

    Raises:
        ValueError: if an order is for an unknown axis or lacks a value.
    """
    orders = dict(orders or {})
    for axis in orders:
        if axis not in grid.axes:
            raise ValueError(
                f"an order is given for axis {axis!r}; the axes that vary are {', '.join(grid.axes) or 'none'}"
            )
    columns = {}
    for place, axis in enumerate(grid.axes):
        index = grid.codes[:, place].astype(np.float64)
        if axis in orders:
            believed = [str(v) for v in orders[axis]]
            own = [f"{v:g}" if isinstance(v, float) else str(v) for v in values[axis].tolist()]
            missing = sorted(set(own) - set(believed))
            if missing:
                raise ValueError(
                    f"the order of axis {axis!r} does not include value {missing[0]!r}; it has {', '.join(believed)}"
                )
            index = np.array([float(believed.index(v)) for v in own])
        columns[f"order of {axis}"] = [index]
    return columns


def noise_levels(
    target: np.ndarray, error: np.ndarray | None, configurations: np.ndarray, *, test_size: int | None
) -> dict[str, float]:
    """Standard deviations of the noise in a configuration's mean target, by source.

    Args:
        target: the target of every model, `[n]`.
        error: the test errors, `[n]`; None if the target is no accuracy.
        configurations: the configuration of each model, `[n]`.
        test_size: number of test examples; None if it is not known.

    Returns:
        "test set": sqrt(mean e (1 - e) / test_size), e the test errors, as if the models' test sets were independent;
        they are one, so that this is an upper estimate. "seeds": s / sqrt(R), with s^2 the pooled variance among the R
        repeats of a configuration. "both": the test set's, and the part of the variance among seeds that it does not
        explain. An unknown source is left out.
    """
    known = np.isfinite(target)
    levels, sampling = {}, 0.0
    if error is not None and test_size is not None:
        sampling = float(np.nanmean(error[known] * (1 - error[known]))) / test_size if known.any() else 0.0
        levels["test set"] = float(np.sqrt(sampling))
    groups = np.unique(configurations[known], return_inverse=True)[1]
    count = np.bincount(groups)
    spare = int((count - 1).sum())
    if spare > 0:
        deviation = target[known] - (np.bincount(groups, weights=target[known]) / count)[groups]
        spread = float((deviation**2).sum()) / spare
        levels["seeds"] = float(np.sqrt(spread * np.mean(1 / count)))
        if "test set" in levels:
            levels["both"] = float(np.sqrt(sampling + max(spread - sampling, 0.0) * np.mean(1 / count)))
    return levels


def ceiling(target: np.ndarray, level: float, *, draws: int, seed: int) -> np.ndarray:
    """tau-b `[draws]` between what a perfect measure would know and what is observed, under noise of sd `level`.

    The true values behind the target are not known; the observed ones are used instead, shrunk to their mean until
    their variance is what the noise leaves. A perfect measure is the truth, the target is the truth plus noise.

    Args:
        target: `[n]`.
        level: standard deviation of the noise.
        draws: number of draws.
        seed: of the noise.
    """
    known = target[np.isfinite(target)]
    exponent = -int(np.frexp(np.abs(known).max(initial=0))[1])  # tau does not depend on the scale, but squares overflow
    known, level = np.ldexp(known, exponent), float(np.ldexp(level, exponent))
    variance = float(np.var(known, ddof=1)) if len(known) > 1 else 0.0
    if variance == 0:
        return np.full(draws, np.nan)
    shrink = np.sqrt(max(0.0, 1 - level**2 / variance))
    if shrink == 0:
        return np.zeros(draws)
    truth = known.mean() + shrink * (known - known.mean())
    generator = np.random.default_rng([seed, 5])
    return np.array([kendall.tau(truth, truth + level * generator.normal(size=len(truth))) for _ in range(draws)])
