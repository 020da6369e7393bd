"""Prunability: the smallest fraction of a network's parameters that can be kept without hurting its training loss.

With φ(w, α) the network w of which a fraction α is kept and the rest zeroed, L̂ the cross-entropy on the training set
and β the tolerance,

    prunability(w) = min { α : L̂(φ(w, α)) ≤ (1 + β) L̂(w) }.

The pruned loss is not monotone in α, so bisection is not used: `prunability` scans a grid upward from zero. Losses
are non-negative, so a mask fails as soon as the sum over the first examples exceeds what the whole set may sum to;
with the hardest examples first nearly every failing mask is abandoned within the first few.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import jax
import numpy as np

from prunegen_jax.pruning.masks import (
    Prunable,
    Scores,
    bernoulli_keep,
    bernoulli_scores,
    magnitude_scores,
    uniform_scores,
)
from prunegen_jax.pruning.scan import Scan
from prunegen_jax.types import Apply, Dataset, PyTree

GRID = 1000  # prunability is exact on the grid j / GRID
COARSE = 50  # grid of `prunability_prefix` and of curves
RATIO = 1.1  # of neighbouring dropped counts in random pruning

Tolerance = Literal["relative", "absolute", "max"]
Criterion = Literal["loss", "error"]


@dataclasses.dataclass(frozen=True)
class Pruned:
    """The crossing that was looked for.

    Attributes:
        fraction: the kept fraction α, a point of the grid.
        kept: the number of parameters kept, out of `prunable`; for Bernoulli masks the expected number.
        of_all: the same as a fraction of all parameters, those that are never pruned counted as kept.
        loss: the criterion (mean cross-entropy in nats, or error) at the crossing; for several masks their mean.
        dense: the criterion of the network as it is.
        limit: the largest value that passes.
        examples: examples evaluated to find it, counting every mask.
        sem: standard error of `fraction` over random masks; None for a deterministic order.
        note: what was done about a degenerate tolerance, else "".
    """

    fraction: float
    kept: int
    prunable: int
    of_all: float
    loss: float
    dense: float
    limit: float
    examples: int
    sem: float | None = None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Curve:
    """Pruned loss at kept fractions `[G]` (ascending), with kept counts and losses `[G]`."""

    fractions: np.ndarray
    kept: np.ndarray
    losses: np.ndarray

    @property
    def is_monotone(self) -> bool:
        """Whether keeping more never raises the loss."""
        return bool(np.all(np.diff(self.losses) <= 0))


def limit_of(dense: float, *, tolerance: Tolerance, beta: float, delta: float) -> tuple[float, str]:
    """The largest loss (or error) that passes, and a note if the tolerance is degenerate.

    "relative": (1 + β) L̂; "absolute": L̂ + δ; "max": L̂ + max(β L̂, δ). At L̂ = 0 the relative form leaves no room
    at all; the max form is used then.
    """
    if tolerance not in {"relative", "absolute", "max"}:
        raise ValueError(f"tolerance={tolerance!r} is not known; choose among relative, absolute, max")
    if not (beta >= 0 and delta >= 0):
        raise ValueError(f"beta={beta} and delta={delta} must not be negative")
    if not np.isfinite(dense):
        raise ValueError(f"the network's own criterion is {dense}: prunability needs a finite training loss")
    if tolerance == "relative" and dense > 0:
        return (1.0 + beta) * dense, ""
    note = f"L̂ = 0: the tolerance is δ = {delta:g}" if tolerance == "relative" else ""
    return dense + (delta if tolerance == "absolute" else max(beta * dense, delta)), note


def prunability(
    apply: Apply,
    params: PyTree,
    data: Dataset,
    *,
    scope: str = "global",
    beta: float = 0.1,
    tolerance: Tolerance = "relative",
    delta: float = 1e-6,
    criterion: Criterion = "loss",
    prunable: Prunable = "kernels",
    lanes: int | None = None,
) -> Pruned:
    """The smallest fraction j / 1000 that passes under magnitude pruning, found exactly.

    Args:
        apply: (params, images [n, H, W, C]) → logits [n, K], in evaluation mode.
        params: the trained parameters.
        data: the training set.
        scope: "global" magnitude pruning, or the same fraction in every "layer".
        beta: relative tolerance β.
        tolerance: "relative", "absolute" or "max", see `limit_of`.
        delta: absolute tolerance δ, in nats (or as an error rate).
        criterion: "loss" (cross-entropy in nats) or "error" on the training set.
        prunable: "kernels", "all", or a predicate of (path, leaf).
        lanes: masks evaluated in one call (vmapped, save on a CPU); None for what the backend likes.

    Raises:
        ValueError: for options that are not known, or a network whose own loss is not finite.
    """
    scan = Scan(apply, params, magnitude_scores(params, scope=scope, prunable=prunable), data, criterion, lanes)
    limit, note = _limit(scan, criterion, tolerance=tolerance, beta=beta, delta=delta)
    grid = [scan.scores.keep(j, GRID) for j in range(GRID)]  # keeping all always passes
    j, losses = scan.first_passing(grid, limit)
    return _pruned(scan, limit, note, j / GRID, scan.scores.keep(j, GRID), losses)


def prunability_prefix(
    apply: Apply,
    params: PyTree,
    data: Dataset,
    *,
    steps: int = COARSE,
    scope: str = "global",
    beta: float = 0.1,
    tolerance: Tolerance = "relative",
    delta: float = 1e-6,
    criterion: Criterion = "loss",
    prunable: Prunable = "kernels",
    lanes: int | None = None,
) -> Pruned:
    """The smallest fraction reached before the first failure, walking down the grid j / steps from dense.

    What an incremental pruner finds; at least `prunability` on the same grid. Options and errors as there.
    """
    _check_positive(steps=steps)
    scan = Scan(apply, params, magnitude_scores(params, scope=scope, prunable=prunable), data, criterion, lanes)
    dense = scan.dense()
    limit, note = _limit(scan, criterion, tolerance=tolerance, beta=beta, delta=delta)
    reached, losses = steps, np.array([dense])
    for j in range(steps - 1, -1, -1):
        found = scan.passes(scan.scores.keep(j, steps), limit)
        if found is None:
            break
        reached, losses = j, found
    return _pruned(scan, limit, note, reached / steps, scan.scores.keep(reached, steps), losses)


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
    McAllester's (2013) bound; the loss's excess is linear in the dropped fraction there, so its standard error is
    that of the mean loss, relative to the excess, times the dropped fraction. "mean_of_mu" is the mean of each
    mask's own prunability, with the standard error of a mean.

    Args:
        key: randomness of the masks.
        masks: R, the number of draws.
        draw: "exact" drops a uniform subset of exactly that many; "bernoulli" each parameter with that probability.
        aggregate: see above.
        apply, params, data, beta, tolerance, delta, criterion, prunable, lanes: as in `prunability`.
    """
    scores_of = {"exact": uniform_scores, "bernoulli": bernoulli_scores}
    if draw not in scores_of:
        raise ValueError(f"draw={draw!r} is not known; choose among {', '.join(scores_of)}")
    _check_positive(masks=masks)
    if aggregate not in {"loss_of_mean", "mean_of_mu"}:
        raise ValueError(f"aggregate={aggregate!r} is not known; choose among loss_of_mean, mean_of_mu")
    scores = scores_of[draw](key, params, masks=masks, prunable=prunable)
    scan = Scan(apply, params, scores, data, criterion, lanes)
    limit, note = _limit(scan, criterion, tolerance=tolerance, beta=beta, delta=delta)
    p = scores.prunable
    dropped = dropped_counts(p)
    grid = [_keep(scores, p, d, draw) for d in dropped]
    dropped = [*dropped, 0]
    if aggregate == "mean_of_mu":
        found = [dropped[scan.first_passing(grid, limit, masks=[r])[0]] for r in range(masks)]
        fractions = 1.0 - np.array(found) / p
        sem = float(fractions.std(ddof=1) / np.sqrt(masks)) if masks > 1 else None
        kept = p - round(float(np.mean(found)))
        value, of_all = float(fractions.mean()), scan.of_all(kept)
        return Pruned(value, kept, p, of_all, np.nan, scan.dense(), limit, scan.examples, sem, note)
    at, losses = scan.first_passing(grid, limit, masks=range(masks))
    drop = dropped[at] / p
    excess = losses.mean() - scan.dense()
    spread = losses.std(ddof=1) / np.sqrt(masks) if masks > 1 else np.nan
    sem = float(drop * spread / excess) if drop and excess > 0 and np.isfinite(spread) else None
    mean = float(losses.mean())
    note = note or ("" if drop else "not one parameter can be dropped")
    kept = p - dropped[at]
    return Pruned(1.0 - drop, kept, p, scan.of_all(kept), mean, scan.dense(), limit, scan.examples, sem, note)


def pruned_loss_curve(
    apply: Apply,
    params: PyTree,
    data: Dataset,
    *,
    steps: int = COARSE,
    scope: str = "global",
    criterion: Criterion = "loss",
    prunable: Prunable = "kernels",
) -> Curve:
    """Loss (or error) at every kept fraction j / steps under magnitude pruning, for plots: a pass over `data` each."""
    _check_positive(steps=steps)
    scan = Scan(apply, params, magnitude_scores(params, scope=scope, prunable=prunable), data, criterion, 1)
    keeps = [scan.scores.keep(j, steps) for j in range(steps + 1)]
    losses = np.array([scan.exact(keep, 0) for keep in keeps])
    return Curve(np.arange(steps + 1) / steps, np.array([scan.scores.kept(k) for k in keeps]), losses)


def dropped_counts(p: int, *, ratio: float = RATIO) -> list[int]:
    """Dropped counts from p down to 1, neighbours at most a factor `ratio` (or one parameter) apart."""
    counts = [p]
    while counts[-1] > 1:
        counts.append(min(counts[-1] - 1, math.ceil(counts[-1] / ratio)))
    return counts


def _keep(scores: Scores, p: int, dropped: int, draw: str) -> tuple[int, ...]:
    count = p - dropped if draw == "exact" else bernoulli_keep(dropped / p)
    return (count,) * len(scores.sizes)


def _pruned(scan: Scan, limit: float, note: str, fraction: float, keep: tuple[int, ...], losses: np.ndarray) -> Pruned:
    kept, loss = scan.scores.kept(keep), float(losses.mean())
    of_all = scan.of_all(kept)
    return Pruned(fraction, kept, scan.scores.prunable, of_all, loss, scan.dense(), limit, scan.examples, None, note)


def _limit(scan: Scan, criterion: Criterion, *, tolerance: Tolerance, beta: float, delta: float) -> tuple[float, str]:
    limit, note = limit_of(scan.dense(), tolerance=tolerance, beta=beta, delta=delta)
    if criterion == "error":  # a count of examples, which the rounding of a sum of fractions must not cost one
        limit = math.floor(limit * scan.size + 1e-6) / scan.size
    return limit, note


def _check_positive(**options: int) -> None:
    for name, value in options.items():
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
