"""Searches for the scale of a perturbation at which a network has been hurt by so much."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

EVALUATIONS = 60  # the scale doubles or halves at most this often: a range of 10^18


@dataclasses.dataclass(frozen=True)
class Crossing:
    """Where a response crosses its limit.

    Attributes:
        scale: the scale found: its response is within the limit, or within the response tolerance of it.
        response: the response there.
        low, high: the last bracket: within the limit at `low`, beyond it at `high` (0 or inf if never seen).
        evaluations: evaluations of the response.
        converged: whether the tolerance that was asked for is met.
        seen: every (scale, response) evaluated.
    """

    scale: float
    response: float
    low: float
    high: float
    evaluations: int
    converged: bool
    seen: tuple[tuple[float, float], ...]

    def slope(self) -> float:
        """Change of the response per change of the scale across the crossing, over a tenth of the scale or more."""
        finite = [(x, y) for x, y in self.seen if math.isfinite(y)]
        pairs = [
            (b / a, (y - z) / (b - a))
            for a, z in finite
            for b, y in finite
            if a <= self.scale <= b and b >= 1.1 * a and y > z
        ]
        return min(pairs)[1] if pairs else math.nan


def largest_scale(
    response: Callable[[float], float],
    limit: float,
    *,
    start: float,
    scale_tolerance: float,
    response_tolerance: float = 0.0,
    evaluations: int = EVALUATIONS,
) -> Crossing:
    """The largest scale whose response is ≤ `limit`, for a response that grows with the scale from below the limit.

    Doubles or halves the scale from `start` until the crossing is bracketed, then bisects geometrically until the
    bracket is within a factor 1 + `scale_tolerance`, or the response within `response_tolerance` of the limit. A
    response that is not a number counts as beyond the limit. Where the response is not monotone, one crossing of
    possibly several.

    Raises:
        ValueError: if the start or the scale tolerance is not positive.
    """
    if not (start > 0 and scale_tolerance > 0):
        raise ValueError(f"start={start} and scale_tolerance={scale_tolerance} must be positive")
    low, high, scale = 0.0, math.inf, start
    seen: list[tuple[float, float]] = []
    while len(seen) < evaluations:
        value = response(scale)
        seen.append((scale, value))
        if response_tolerance > 0 and abs(value - limit) <= response_tolerance:
            return Crossing(scale, value, low, high, len(seen), True, tuple(seen))
        low, high = (scale, high) if value <= limit else (low, scale)
        if low > 0 and high <= low * (1 + scale_tolerance):
            break
        scale = 2 * low if high == math.inf else high / 2 if low == 0 else math.sqrt(low * high)
    tight = low > 0 and high <= low * (1 + scale_tolerance)
    return Crossing(
        low, dict(seen).get(low, math.nan), low, high, len(seen), tight and response_tolerance == 0, tuple(seen)
    )


def rgm_bisection(
    response: Callable[[float], float], target: float, *, upper: float = 2.0, tolerance: float = 0.01, steps: int = 15
) -> Crossing:
    """The bisection of Dziugaite et al. (2020): on [0, 2], at most 15 steps; the last scale, converged or not."""
    low, high = 0.0, upper
    seen: list[tuple[float, float]] = []
    for _ in range(steps):
        scale = 0.5 * (low + high)
        value = abs(response(scale))
        seen.append((scale, value))
        if abs(value - target) < tolerance:
            return Crossing(scale, value, low, high, len(seen), True, tuple(seen))
        low, high = (low, scale) if value > target else (scale, high)
    return Crossing(scale, value, low, high, len(seen), False, tuple(seen))
