"""Prunability under random pruning: the parameters to drop are drawn at random."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute.options import check_at_least, check_choice
from prunegen_jax.compute.sampling import mean_and_standard_error, skewed_standard_error
from prunegen_jax.pruning.kernels import select_prunable
from prunegen_jax.pruning.masks import Prunable, Scores, bernoulli_keep, bernoulli_scores, uniform_scores
from prunegen_jax.pruning.prunability import Pruned
from prunegen_jax.pruning.scan import Scan
from prunegen_jax.pruning.subsets import draw_subsets, first_probabilities
from prunegen_jax.pruning.tolerance import Criterion, Tolerance, limit_of_scan
from prunegen_jax.types import Apply, Dataset, PyTree

RATIO = 1.1  # of neighbouring dropped counts
DROPS = 300  # parameters dropped in all draws of one count together, at least

_DRAWS: dict[str, Callable[..., Scores]] = {"exact": uniform_scores, "bernoulli": bernoulli_scores}


def random_prunability(
    key: jax.Array,
    apply: Apply,
    params: PyTree,
    data: Dataset,
    *,
    masks: int = 10,
    drops: int = DROPS,
    draw: Literal["exact", "bernoulli"] = "exact",
    aggregate: Literal["loss_of_mean", "mean_of_mu"] = "loss_of_mean",
    beta: float = 0.1,
    tolerance: Tolerance = "relative",
    delta: float = 1e-6,
    criterion: Criterion = "loss",
    prunable: Prunable = "kernels",
    lanes: int | None = None,
) -> Pruned:
    """Prunability when the parameters to drop are drawn at random: one minus the drop rate a at which the loss passes.

    With M(d) the mean criterion over random draws that drop d = a p of the p prunable parameters on average, and M(0)
    = L̂, "loss_of_mean" is 1 − d / p for the d at which M reaches the limit: the quantity in McAllester's (2013) bound.
    d need not be whole, and is often below one, where dropping one parameter already raises the mean loss beyond the
    limit. An "exact" draw then drops one parameter with probability d and none otherwise, M(d) = L̂ + d (M(1) − L̂).
    A "bernoulli" draw drops each with probability d / p; its M is that of the draws at d = 1, weighted by likelihood.

    `masks` nested draws over counts of which each is a tenth above the one before find the largest that passes. Where
    fewer than `drops` parameters are dropped by all of them together, at small d, ⌈`drops` / d⌉ draws per count replace
    them, from `subsets.draw_subsets`, at neighbouring counts until the crossing lies between two of them. M is linear
    between counts. The standard error of d is that of M there, relative to the excess over L̂, times d, as if M were
    linear from zero; it is zero if all p subsets of one parameter are evaluated, at p ≤ `drops`.

    "mean_of_mu" is the mean of each mask's own prunability in whole counts, with the standard error of a mean.

    The cost is 20 to 70 passes over the data for the nested masks, and at small d 24 for the probabilities of the
    subsets and as many as `drops` below one parameter, up to about four times as many above.

    Args:
        key: randomness of the masks.
        apply: (params, inputs [n, ...]) → logits [n, K], in evaluation mode.
        params: the trained parameters.
        data: the training set.
        masks: R, the number of nested draws, two or more.
        drops: the fewest parameters that the draws of one count drop together; fewer cost less and are less accurate.
        draw: "exact" drops a uniform subset of that many; "bernoulli" each parameter with that probability.
        aggregate: "loss_of_mean" or "mean_of_mu", see above.
        beta: as in `prunability`.
        tolerance: as in `prunability`.
        delta: as in `prunability`.
        criterion: as in `prunability`.
        prunable: as in `prunability`.
        lanes: as in `prunability`.

    Raises:
        ValueError: for unknown options, fewer than two masks or drops, or a network whose own loss is not finite.
    """
    check_choice("draw", draw, tuple(_DRAWS))
    check_choice("aggregate", aggregate, ("loss_of_mean", "mean_of_mu"))
    check_at_least(2, masks=masks, drops=drops)
    prunable = select_prunable(prunable, apply, params, data)
    scan = Scan(apply, params, _DRAWS[draw](key, params, masks=masks, prunable=prunable), data, criterion, lanes)
    limit, note = limit_of_scan(scan, criterion, tolerance=tolerance, beta=beta, delta=delta)
    dropped = dropped_counts(scan.scores.prunable)
    draw = "exact" if scan.scores.prunable == 1 else draw  # the same law of a single parameter
    grid = [_keep(scan.scores, count, draw) for count in dropped]
    if aggregate == "mean_of_mu":
        return _mean_of_mu(scan, grid, [*dropped, 0], masks, limit, note)
    index, losses = scan.first_passing(grid, limit, masks=range(masks))
    known = {dropped[index]: losses} if index < len(dropped) else {}
    flags = tuple(leaf is not None for leaf in scan.scores.leaves)
    for_first, for_subsets = jax.random.split(jax.random.fold_in(key, masks))  # the masks have those below
    first = functools.cache(lambda: first_probabilities(apply, params, data, for_first, flags))
    rise = _rise_of(scan, known, first, for_subsets, masks=masks, drops=drops, draw=draw)
    return _loss_of_mean(scan, rise, dropped[::-1], max(0, len(dropped) - 1 - index), limit, note, draw)


class _Rise(NamedTuple):
    """What dropping some parameters adds to the mean criterion.

    Attributes:
        counts: parameters dropped by each draw, `[n]`.
        rises: what each adds, `[n]`, times its weight.
        exhaustive: whether these are all the draws there are.
    """

    counts: np.ndarray
    rises: np.ndarray
    exhaustive: bool = False

    @property
    def mean(self) -> float:
        return float(self.rises.mean())

    @property
    def sem(self) -> float:
        return 0.0 if self.exhaustive else skewed_standard_error(self.rises) or 0.0

    def at(self, d: float, p: int, draw: str) -> _Rise:
        """From draws that drop one of p parameters on average, those that drop d < 1: weighted by their likelihood."""
        ratio = np.full(self.counts.shape, d)
        if draw == "bernoulli":
            ratio = d**self.counts * np.exp((p - self.counts) * (math.log1p(-d / p) - math.log1p(-1 / p)))
        return self._replace(rises=self.rises * ratio)


def _rise_of(
    scan: Scan,
    known: dict[int, np.ndarray],
    first: Callable[[], np.ndarray],
    key: jax.Array,
    *,
    masks: int,
    drops: int,
    draw: str,
) -> Callable[[int], _Rise]:
    """From a count d to the rise of the mean criterion when d parameters are dropped on average.

    Args:
        scan: of the nested masks.
        known: criteria `[masks]` that have been evaluated, by count.
        first: gives q of `subsets.draw_subsets`.
        key: randomness of the subsets.
        masks: as in `random_prunability`.
        drops: as in `random_prunability`.
        draw: as in `random_prunability`.
    """
    p = scan.scores.prunable
    seed = np.asarray(jax.random.bits(key, (4,), jnp.uint32)).tolist()

    def nested(d: int) -> _Rise:
        keep = _keep(scan.scores, d, draw)
        losses = known[d] if d in known else np.array([scan.exact(keep, r) for r in range(masks)])
        return _Rise(np.full(masks, d), losses - scan.dense())

    @functools.cache
    def rise(d: int) -> _Rise:
        draws = math.ceil(drops / d)
        if draws <= masks:
            return nested(d)
        if draw == "exact" and d == 1 and draws >= p:
            return _Rise(np.ones(p, int), scan.without(np.arange(p)[:, None]) - scan.dense(), exhaustive=True)
        random = np.random.default_rng([*seed, d])
        counts, some = np.full(draws, d), 1.0
        if draw == "bernoulli":  # draws that drop nothing add nothing, and are not evaluated
            some = -math.expm1(p * math.log1p(-d / p)) if d < p else 1.0
            counts = random.binomial(p, d / p, 2 * draws)
            while np.count_nonzero(counts) < draws:
                counts = np.append(counts, random.binomial(p, d / p, draws))
            counts = counts[counts > 0][:draws]
        positions, weights = draw_subsets(random, first(), counts)
        return _Rise(counts, some * weights * (scan.without(positions) - scan.dense()))

    return rise


def _loss_of_mean(
    scan: Scan, rise: Callable[[int], _Rise], counts: list[int], start: int, limit: float, note: str, draw: str
) -> Pruned:
    """Prunability where the mean criterion reaches the limit.

    Args:
        scan: of the nested masks.
        rise: from a count to its rise.
        counts: ascending.
        start: index of the count near which to look.
        limit: the largest criterion that passes.
        note: of the tolerance.
        draw: as in `random_prunability`.
    """
    p, room = scan.scores.prunable, limit - scan.dense()
    i = start
    while i >= 0 and not rise(counts[i]).mean <= room:  # a mean that is not a number does not pass
        i -= 1
    while i + 1 < len(counts) and rise(counts[i + 1]).mean <= room:
        i += 1
    loss = limit
    if i < 0:
        d, sem = _below_one(rise(1), room, p, draw)
        note = note or f"{d:.3g} parameters can be dropped on average"
    elif i + 1 == len(counts):
        d, sem, loss = float(p), 0.0, scan.dense() + rise(p).mean
    else:
        low, high = rise(counts[i]), rise(counts[i + 1])
        share = (room - low.mean) / (high.mean - low.mean) if math.isfinite(high.mean) else 0.0
        d = counts[i] + share * (counts[i + 1] - counts[i])
        slope = room / d if room > 0 else (high.mean - low.mean) / (counts[i + 1] - counts[i])
        sem = (low.sem + share * (high.sem - low.sem) if share else low.sem) / slope
    kept = p - round(d)
    return Pruned(1.0 - d / p, kept, p, scan.of_all(p - d), loss, scan.dense(), limit, scan.examples, sem / p, note)


def _below_one(one: _Rise, room: float, p: int, draw: str) -> tuple[float, float]:
    """d < 1 at which the rise is `room`, and its standard error, from the draws of one parameter on average."""
    if not math.isfinite(one.mean) or room <= 0:
        return 0.0, 0.0
    low, high = 0.0, 1.0
    for _ in range(60):
        d = (low + high) / 2
        low, high = (d, high) if one.at(d, p, draw).mean <= room else (low, d)
    return low, one.at(low, p, draw).sem * low / room


def _mean_of_mu(
    scan: Scan, grid: list[tuple[int, ...]], dropped: list[int], masks: int, limit: float, note: str
) -> Pruned:
    """The mean of each mask's own prunability; `dropped` has a zero more than `grid`, for when nothing passes."""
    p = scan.scores.prunable
    counts = np.array([dropped[scan.first_passing(grid, limit, masks=[r])[0]] for r in range(masks)])
    value, sem = mean_and_standard_error(1.0 - counts / p)
    kept = p - round(float(counts.mean()))
    return Pruned(value, kept, p, scan.of_all(kept), np.nan, scan.dense(), limit, scan.examples, sem, note)


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
