"""Prunability under random pruning: the parameters to drop are drawn at random."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import jax
import numpy as np

from prunegen_jax.compute.options import check_at_least, check_choice
from prunegen_jax.compute.sampling import mean_and_standard_error, standard_error
from prunegen_jax.pruning.kernels import select_prunable
from prunegen_jax.pruning.masks import Prunable, Scores, bernoulli_keep, bernoulli_scores, uniform_scores
from prunegen_jax.pruning.prunability import Pruned
from prunegen_jax.pruning.scan import Scan
from prunegen_jax.pruning.tolerance import Criterion, Tolerance, limit_of_scan
from prunegen_jax.types import Apply, Dataset, PyTree

RATIO = 1.1  # of neighbouring dropped counts

_DRAWS: dict[str, Callable[..., Scores]] = {"exact": uniform_scores, "bernoulli": bernoulli_scores}


def random_prunability(
    key: jax.Array,
    apply: Apply,
    params: PyTree,
    data: Dataset,
    *,
    masks: int = 10,
    draw: Literal["exact", "bernoulli"] = "exact",
    aggregate: Literal["loss_of_mean", "mean_of_mu"] = "loss_of_mean",
    beta: float = 0.1,
    tolerance: Tolerance = "relative",
    delta: float = 1e-6,
    criterion: Criterion = "loss",
    prunable: Prunable = "kernels",
    lanes: int | None = None,
) -> Pruned:
    """Prunability when the parameters to drop are drawn at random, over `masks` nested draws.

    Dropping a handful of parameters at random already hurts, so the grid is geometric in the dropped count: 1, 2, …,
    each a tenth more than the one before, up to all p.

    "loss_of_mean" is the smallest kept fraction at which the mean loss over the masks passes, the quantity in
    McAllester's (2013) bound. The excess of that loss is linear in the dropped fraction there, so the standard error
    of the fraction is that of the mean loss, relative to the excess, times the dropped fraction. "mean_of_mu" is the
    mean of each mask's own prunability, with the standard error of a mean.

    Args:
        key: randomness of the masks.
        apply: (params, inputs [n, ...]) → logits [n, K], in evaluation mode.
        params: the trained parameters.
        data: the training set.
        masks: R, the number of draws.
        draw: "exact" drops a uniform subset of exactly that many; "bernoulli" each parameter with that probability.
        aggregate: "loss_of_mean" or "mean_of_mu", see above.
        beta: as in `prunability`.
        tolerance: as in `prunability`.
        delta: as in `prunability`.
        criterion: as in `prunability`.
        prunable: as in `prunability`.
        lanes: as in `prunability`.

    Raises:
        ValueError: for unknown options, no masks, or a network whose own loss is not finite.
    """
    check_choice("draw", draw, tuple(_DRAWS))
    check_choice("aggregate", aggregate, ("loss_of_mean", "mean_of_mu"))
    check_at_least(1, masks=masks)
    prunable = select_prunable(prunable, apply, params, data)
    scan = Scan(apply, params, _DRAWS[draw](key, params, masks=masks, prunable=prunable), data, criterion, lanes)
    limit, note = limit_of_scan(scan, criterion, tolerance=tolerance, beta=beta, delta=delta)
    dropped = dropped_counts(scan.scores.prunable)
    grid = [_keep(scan.scores, count, draw) for count in dropped]
    if aggregate == "mean_of_mu":
        return _mean_of_mu(scan, grid, [*dropped, 0], masks, limit, note)
    return _loss_of_mean(scan, grid, [*dropped, 0], masks, limit, note)


def _mean_of_mu(
    scan: Scan, grid: list[tuple[int, ...]], dropped: list[int], masks: int, limit: float, note: str
) -> Pruned:
    """The mean of each mask's own prunability; `dropped` has a zero more than `grid`, for when nothing passes."""
    p = scan.scores.prunable
    counts = np.array([dropped[scan.first_passing(grid, limit, masks=[r])[0]] for r in range(masks)])
    value, sem = mean_and_standard_error(1.0 - counts / p)
    kept = p - round(float(counts.mean()))
    return Pruned(value, kept, p, scan.of_all(kept), np.nan, scan.dense(), limit, scan.examples, sem, note)


def _loss_of_mean(
    scan: Scan, grid: list[tuple[int, ...]], dropped: list[int], masks: int, limit: float, note: str
) -> Pruned:
    """The smallest kept fraction at which the mean loss over masks passes; `dropped` as in `_mean_of_mu`."""
    p = scan.scores.prunable
    index, losses = scan.first_passing(grid, limit, masks=range(masks))
    drop = dropped[index] / p
    excess = losses.mean() - scan.dense()
    spread = standard_error(losses)
    known = drop and excess > 0 and spread is not None and np.isfinite(spread)
    sem = float(drop * spread / excess) if known else None
    note = note or ("" if drop else "not one parameter can be dropped")
    kept = p - dropped[index]
    loss = float(losses.mean())
    return Pruned(1.0 - drop, kept, p, scan.of_all(kept), loss, scan.dense(), limit, scan.examples, sem, note)


def dropped_counts(p: int, *, ratio: float = RATIO) -> list[int]:
    """Dropped counts from p down to 1, neighbours at most a factor `ratio` (or one parameter) apart."""
    counts = [p]
    while counts[-1] > 1:
        counts.append(min(counts[-1] - 1, math.ceil(counts[-1] / ratio)))
    return counts


def _keep(scores: Scores, dropped: int, draw: str) -> tuple[int, ...]:
    p = scores.prunable
    count = p - dropped if draw == "exact" else bernoulli_keep(dropped / p)
    return (count,) * len(scores.sizes)
