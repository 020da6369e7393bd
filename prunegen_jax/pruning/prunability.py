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

import numpy as np

from prunegen_jax.compute.options import check_at_least
from prunegen_jax.pruning.kernels import select_prunable
from prunegen_jax.pruning.masks import Prunable, magnitude_scores
from prunegen_jax.pruning.scan import Scan
from prunegen_jax.pruning.tolerance import Criterion, Tolerance, limit_of_scan
from prunegen_jax.types import Apply, Dataset, PyTree

GRID = 1000  # prunability is exact on the grid j / GRID
COARSE_GRID = 50  # of `prunability_prefix` and of curves


@dataclasses.dataclass(frozen=True)
class Pruned:
    """How far a network can be pruned within the tolerance.

    Attributes:
        fraction: the kept fraction α, a point of the grid; for random masks the expected fraction.
        kept: the number of parameters kept; for random masks the expected number, rounded.
        prunable: the number of parameters that pruning may drop.
        of_all: the same as a fraction of all parameters, those that are never pruned counted as kept.
        loss: the criterion (mean cross-entropy in nats, or error) at `fraction`; for several masks their mean.
        dense: the criterion of the network as it is.
        limit: the largest value that passes.
        examples: examples evaluated to find it, counting every mask.
        sem: standard error of `fraction` over random masks; None for a deterministic order.
        note: how a degenerate tolerance was treated, else "".
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
    """Loss of the pruned network at every point of a grid.

    Attributes:
        fractions: kept fractions `[G]`, ascending.
        kept: kept counts `[G]`.
        losses: losses (or errors) `[G]`.
    """

    fractions: np.ndarray
    kept: np.ndarray
    losses: np.ndarray

    @property
    def is_monotone(self) -> bool:
        """Whether keeping more never raises the loss."""
        return bool(np.all(np.diff(self.losses) <= 0))


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
        apply: (params, inputs [n, ...]) → logits [n, K], in evaluation mode.
        params: the trained parameters.
        data: the training set.
        scope: "global" magnitude pruning, or the same fraction in every "layer".
        beta: relative tolerance β.
        tolerance: "relative", "absolute" or "max", see `tolerance.limit_of`.
        delta: absolute tolerance δ, in nats (or as an error rate).
        criterion: "loss" (cross-entropy in nats) or "error" on the training set.
        prunable: "kernels", "all", or a predicate of (path, leaf).
        lanes: masks evaluated in one call (vmapped, except on a CPU); None for a number that suits the backend.

    Raises:
        ValueError: for unknown options, or a network whose own loss is not finite.
    """
    scores = magnitude_scores(params, scope=scope, prunable=select_prunable(prunable, apply, params, data))
    scan = Scan(apply, params, scores, data, criterion, lanes)
    return smallest_fraction(scan, GRID, criterion, tolerance=tolerance, beta=beta, delta=delta)


def smallest_fraction(
    scan: Scan, steps: int, criterion: Criterion, *, tolerance: Tolerance, beta: float, delta: float
) -> Pruned:
    """The smallest fraction j / steps of the orders of `scan` that passes; options as in `prunability`."""
    limit, note = limit_of_scan(scan, criterion, tolerance=tolerance, beta=beta, delta=delta)
    grid = [scan.scores.keep(j, steps) for j in range(steps)]  # keeping all always passes
    j, losses = scan.first_passing(grid, limit)
    return _pruned(scan, limit, note, j / steps, scan.scores.keep(j, steps), losses)


def prunability_prefix(
    apply: Apply,
    params: PyTree,
    data: Dataset,
    *,
    steps: int = COARSE_GRID,
    scope: str = "global",
    beta: float = 0.1,
    tolerance: Tolerance = "relative",
    delta: float = 1e-6,
    criterion: Criterion = "loss",
    prunable: Prunable = "kernels",
    lanes: int | None = None,
) -> Pruned:
    """The smallest fraction reached before the first failure, walking down the grid j / steps from dense.

    The fraction that incremental pruning reaches; at least `prunability` on the same grid.

    Args:
        apply: (params, inputs [n, ...]) → logits [n, K], in evaluation mode.
        params: the trained parameters.
        data: the training set.
        steps: number of steps of the grid.
        scope: as in `prunability`.
        beta: as in `prunability`.
        tolerance: as in `prunability`.
        delta: as in `prunability`.
        criterion: as in `prunability`.
        prunable: as in `prunability`.
        lanes: as in `prunability`.

    Raises:
        ValueError: for unknown options, a number of steps below 1, or a network whose own loss is not finite.
    """
    check_at_least(1, steps=steps)
    prunable = select_prunable(prunable, apply, params, data)
    scan = Scan(apply, params, magnitude_scores(params, scope=scope, prunable=prunable), data, criterion, lanes)
    dense = scan.dense()
    limit, note = limit_of_scan(scan, criterion, tolerance=tolerance, beta=beta, delta=delta)
    reached, losses = steps, np.array([dense])
    for j in range(steps - 1, -1, -1):
        passing = scan.passes(scan.scores.keep(j, steps), limit)
        if passing is None:
            break
        reached, losses = j, passing
    return _pruned(scan, limit, note, reached / steps, scan.scores.keep(reached, steps), losses)


def pruned_loss_curve(
    apply: Apply,
    params: PyTree,
    data: Dataset,
    *,
    steps: int = COARSE_GRID,
    scope: str = "global",
    criterion: Criterion = "loss",
    prunable: Prunable = "kernels",
) -> Curve:
    """Loss (or error) at every kept fraction j / steps under magnitude pruning, for plots: a pass over `data` each.

    Args:
        apply: (params, inputs [n, ...]) → logits [n, K], in evaluation mode.
        params: the trained parameters.
        data: the training set.
        steps: number of steps of the grid.
        scope: as in `prunability`.
        criterion: as in `prunability`.
        prunable: as in `prunability`.

    Raises:
        ValueError: for unknown options, or a number of steps below 1.
    """
    check_at_least(1, steps=steps)
    scan = Scan(apply, params, magnitude_scores(params, scope=scope, prunable=prunable), data, criterion, 1)
    keeps = [scan.scores.keep(j, steps) for j in range(steps + 1)]
    losses = np.array([scan.exact(keep, 0) for keep in keeps])
    return Curve(np.arange(steps + 1) / steps, np.array([scan.scores.kept(k) for k in keeps]), losses)


def _pruned(scan: Scan, limit: float, note: str, fraction: float, keep: tuple[int, ...], losses: np.ndarray) -> Pruned:
    kept, loss = scan.scores.kept(keep), float(losses.mean())
    of_all = scan.of_all(kept)
    return Pruned(fraction, kept, scan.scores.prunable, of_all, loss, scan.dense(), limit, scan.examples, None, note)
