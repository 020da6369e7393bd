"""Robust sign error: the share of pairs ordered wrongly when one hyperparameter changes (Dziugaite et al. 2020)."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import scipy.sparse

from prunegen_jax.judging.grid import Grid, combine, pairs_within
from prunegen_jax.judging.kendall import sign

Environments = Literal["auto", "configurations", "values"]


def noise_weight(difference: np.ndarray, test_size: int) -> np.ndarray:
    """The weight of a pair of models, from the difference of their test accuracies.

    max(0, max(0, 1 - phi)^2 - 1/2) with phi = 2 exp(-2 n (difference / 2)^2) (Hoeffding). 0 = ignored, 1/2 = certain.

    Args:
        difference: of two test accuracies, as fractions.
        test_size: n, the test examples behind each.
    """
    with np.errstate(over="ignore"):  # exp(-inf) is 0
        phi = 2 * np.exp(-2 * test_size * (np.asarray(difference, dtype=np.float64) / 2) ** 2)
    return np.maximum(0.0, np.maximum(0.0, 1 - phi) ** 2 - 0.5)


@dataclasses.dataclass(frozen=True)
class Design:
    """The pairs of models in which one hyperparameter changes, and the environments that they make up.

    Attributes:
        first: one model of each pair, `[e]`.
        second: the other, `[e]`.
        link: the pair of configurations that each pair belongs to, `[e]`.
        ends: the two configurations of each link, `[links, 2]`.
        environment: the environment of each link, `[links]`.
        axis: the hyperparameter that changes in each environment, `[environments]`.
        kind: how links were grouped, "configurations" or "values".
    """

    first: np.ndarray
    second: np.ndarray
    link: np.ndarray
    ends: np.ndarray
    environment: np.ndarray
    axis: np.ndarray
    kind: str


def design(grid: Grid, *, environments: Environments = "auto", minimum: float = 12.0) -> Design:
    """The environments of a grid, all repeats included.

    Args:
        grid: the grid of the single models.
        environments: "configurations": two configurations that differ in one hyperparameter, over all pairs of their
            repeats. "values": two values of one hyperparameter, over all settings of the others, for sweeps with few
            repeats. "auto": configurations if some two of them have at least `minimum` pairs of repeats.
        minimum: see "auto".

    Raises:
        ValueError: if `environments` is unknown.
    """
    if environments not in ("auto", "configurations", "values"):
        raise ValueError(f"environments is {environments!r}; choose 'auto', 'configurations' or 'values'")
    first, second, axes, low, high = [], [], [], [], []
    for axis in range(len(grid.axes)):
        i, j = pairs_within(combine(np.delete(grid.codes, axis, axis=1)))
        levels = grid.codes[:, axis]
        differ = levels[i] != levels[j]
        i, j = i[differ], j[differ]
        first.append(i)
        second.append(j)
        axes.append(np.full(len(i), axis))
        low.append(np.minimum(levels[i], levels[j]))
        high.append(np.maximum(levels[i], levels[j]))
    if not first or not sum(map(len, first)):
        empty = np.zeros(0, dtype=np.int64)
        return Design(empty, empty, empty, np.zeros((0, 2), dtype=np.int64), empty, empty, "values")
    i, j, axis, lower, upper = map(np.concatenate, (first, second, axes, low, high))
    ends = np.sort(np.stack([grid.configurations[i], grid.configurations[j]], axis=1), axis=1)
    key = ends[:, 0] * (int(grid.configurations.max()) + 1) + ends[:, 1]
    _, one, link = np.unique(key, return_index=True, return_inverse=True)
    link = link.reshape(-1)
    if environments == "auto":
        environments = "configurations" if np.bincount(link).max() >= minimum else "values"
    if environments == "configurations":
        return Design(i, j, link, ends[one], np.arange(len(one)), axis[one], environments)
    environment = combine(np.stack([axis, lower, upper], axis=1)[one])
    owner = np.zeros(environment.max() + 1, dtype=np.int64)
    owner[environment] = axis[one]
    return Design(i, j, link, ends[one], environment, owner, environments)


@dataclasses.dataclass(frozen=True)
class SignError:
    """The robust sign error.

    Attributes:
        mean: the mean loss over the environments kept.
        percentile: the 90th percentile.
        worst: the largest.
        axis_mean: the mean per axis, `[k]`.
        axis_worst: the largest per axis, `[k]`.
        losses: the loss of each environment, `nan` if it was not kept, `[environments]`.
        kept: how many were kept.
    """

    mean: float
    percentile: float
    worst: float
    axis_mean: np.ndarray
    axis_worst: np.ndarray
    losses: np.ndarray
    kept: int


def sign_error(
    measure: np.ndarray,
    target: np.ndarray,
    plan: Design,
    *,
    axes: int,
    test_size: int | None = None,
    minimum: float = 12.0,
) -> SignError:
    """Robust sign error of a measure.

    A pair has the error (1 - sgn(m - m') sgn(g - g')) / 2: 0 for the right order, 1 for the wrong one, 1/2 for a tie.
    An environment's loss is the mean over its pairs weighted by `noise_weight` (by one without `test_size`); it is
    kept when its effective size (sum w)^2 / sum w^2 is at least `minimum`. 1/2 is a coin. Every environment enters
    in both directions, which matters for the percentile (linear interpolation) alone.

    Args:
        measure: turned so that larger predicts larger, `[n]`.
        target: `[n]`.
        plan: the environments.
        axes: how many hyperparameters vary.
        test_size: number of test examples behind the target; None for equal weights.
        minimum: smallest effective size of an environment.
    """
    errors, trust, squares = _links(measure, target, plan, test_size)
    count = len(plan.axis)
    weight = np.bincount(plan.environment, weights=trust, minlength=count)
    square = np.bincount(plan.environment, weights=squares, minlength=count)
    error = np.bincount(plan.environment, weights=errors, minlength=count)
    with np.errstate(invalid="ignore", divide="ignore"):
        keep = (weight**2 / square >= minimum * (1 - 1e-12)) & (weight > 0)
        losses = np.where(keep, error / weight, np.nan)
    by_axis = [losses[keep & (plan.axis == a)] for a in range(axes)]
    return SignError(
        *_summary(losses[keep]),
        axis_mean=np.array([_summary(x)[0] for x in by_axis]),
        axis_worst=np.array([_summary(x)[2] for x in by_axis]),
        losses=losses,
        kept=int(keep.sum()),
    )


def weighted_sign_error(
    measure: np.ndarray,
    target: np.ndarray,
    plan: Design,
    weights: np.ndarray,
    *,
    kept: np.ndarray,
    test_size: int | None = None,
    block: int = 8_000_000,
) -> np.ndarray:
    """Mean, 90th percentile and worst sign error under weights.

    Where an environment is one pair of configurations, its loss does not depend on the weights: then they weigh the
    mean, and the other two are `nan`.

    Args:
        measure: turned so that larger predicts larger, `[n]`.
        target: `[n]`.
        plan: the environments.
        weights: how often each configuration counts, `[draws, c]`.
        kept: the environments that `sign_error` kept, `[environments]`.
        test_size: number of test examples behind the target; None for equal weights.
        block: pairs times draws in memory at once.

    Returns:
        `[3, draws]`.
    """
    if not kept.any():
        return np.full((3, len(weights)), np.nan)
    errors, trust, _ = _links(measure, target, plan, test_size)
    inside = np.flatnonzero(kept[plan.environment] & (trust > 0))
    inside = inside[np.argsort(plan.environment[inside], kind="stable")]
    step = max(1, block // max(len(inside), 1))
    parts = [weights[i : i + step] for i in range(0, len(weights), step)]
    return np.concatenate([_of_draws(errors[inside], trust[inside], plan, inside, w) for w in parts], axis=1)


def _of_draws(
    errors: np.ndarray, trust: np.ndarray, plan: Design, links: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """`weighted_sign_error` of some draws, over the links that are kept, in the order of their environments."""
    columns = np.ascontiguousarray(weights.T)
    products = columns[plan.ends[links, 0]] * columns[plan.ends[links, 1]]
    if plan.kind == "configurations":
        mean = ((errors / trust) @ products) / products.sum(axis=0)
        return np.stack([mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)])
    starts = np.flatnonzero(np.diff(plan.environment[links], prepend=-1, append=-1))
    sums = (
        scipy.sparse.csr_array((values, np.arange(len(links)), starts), shape=(len(starts) - 1, len(links))) @ products
        for values in (errors, trust)
    )
    losses = np.divide(*sums).T
    doubled = np.repeat(losses, 2, axis=1)
    return np.stack([losses.mean(axis=1), np.quantile(doubled, 0.9, axis=1), losses.max(axis=1)])


def _links(
    measure: np.ndarray, target: np.ndarray, plan: Design, test_size: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per pair of configurations `[links]`: sum of weight times error, of weights, and of squared weights."""
    i, j = plan.first, plan.second
    missing = np.isnan(measure) | np.isnan(target)
    known = ~(missing[i] | missing[j])
    with np.errstate(invalid="ignore", over="ignore"):  # equal infinities differ by nothing
        difference = np.where(known & (target[i] != target[j]), target[i] - target[j], 0.0)
    trust = known * (1.0 if test_size is None else noise_weight(difference, test_size))
    error = (1 - sign(measure[i], measure[j]) * sign(target[i], target[j])) / 2
    columns = (trust * error, trust, trust**2)
    return tuple(np.bincount(plan.link, weights=c, minlength=len(plan.ends)) for c in columns)


def _summary(losses: np.ndarray) -> tuple[float, float, float]:
    if not len(losses):
        return float("nan"), float("nan"), float("nan")
    return float(losses.mean()), float(np.quantile(np.repeat(losses, 2), 0.9)), float(losses.max())
