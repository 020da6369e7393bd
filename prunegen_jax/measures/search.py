"""Searches for the scale of a perturbation at which the loss or the error of a network has risen to a limit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from prunegen_jax.compute.options import check_positive
from prunegen_jax.compute.sampling import standard_error

EVALUATIONS = 60  # the scale doubles or halves at most this often: a range of 10^18


@dataclasses.dataclass(frozen=True)
class Crossing:
    """Where a response crosses its limit.

    Attributes:
        scale: the scale found: its response is within the limit, or within the response tolerance of it.
        response: the response there.
        limit: the largest response allowed.
        low: the largest scale found within the limit; 0 if there is none.
        high: the smallest scale found beyond the limit; inf if there is none, 0 if no scale can be within it.
        evaluations: evaluations of the response.
        converged: whether the requested tolerance is met.
        history: every (scale, response) evaluated.
    """

    scale: float
    response: float
    limit: float
    low: float
    high: float
    evaluations: int
    converged: bool
    history: tuple[tuple[float, float], ...]

    def slope(self) -> float:
        """Change of the response per change of the scale across the crossing, over a tenth of the scale or more."""
        finite = [(x, y) for x, y in self.history if math.isfinite(y)]
        pairs = [
            (b / a, (y - z) / (b - a))
            for a, z in finite
            for b, y in finite
            if 0 < a <= self.scale <= b and b >= 1.1 * a and y > z
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
    constant_part: bool = False,
) -> Crossing:
    """The largest scale whose response is ≤ `limit`, for a response that grows with the scale from below the limit.

    Doubles or halves the scale from `start` until the crossing is bracketed, then bisects geometrically until the
    bracket is within a factor 1 + `scale_tolerance`, or the response within `response_tolerance` of the limit. A
    response that is not a number counts as beyond the limit. Where the response is not monotone, one crossing of
    possibly several.

    A perturbation that does not vanish with its scale may be beyond the limit at every scale. With `constant_part` the
    scale 0 is tried, too, once the start turned out to be beyond; if 0 is, the search ends with `high` = 0.

    Args:
        response: from a scale to what is compared with the limit.
        limit: the largest response allowed.
        start: the first scale.
        scale_tolerance: relative tolerance of the scale.
        response_tolerance: absolute tolerance of the response; 0: the scale alone decides.
        evaluations: the most evaluations of the response.
        constant_part: whether the perturbation has a part that does not depend on the scale.

    Raises:
        ValueError: if the start or the scale tolerance is not positive.
    """
    check_positive(start=start, scale_tolerance=scale_tolerance)
    low, high, scale = 0.0, math.inf, start
    history: list[tuple[float, float]] = []
    while len(history) < evaluations:
        value = response(scale)
        history.append((scale, value))
        if response_tolerance > 0 and scale > 0 and abs(value - limit) <= response_tolerance:
            return Crossing(scale, value, limit, low, high, len(history), True, tuple(history))
        low, high = (scale, high) if value <= limit else (low, scale)
        if high == 0 or (low > 0 and high <= low * (1 + scale_tolerance)):
            break
        if constant_part and len(history) == 1 and low == 0:
            scale = 0.0
        else:
            scale = 2 * low if high == math.inf else high / 2 if low == 0 else math.sqrt(low * high)
    tight = low > 0 and high <= low * (1 + scale_tolerance)
    return Crossing(
        low,
        dict(history).get(low, math.nan),
        limit,
        low,
        high,
        len(history),
        tight and response_tolerance == 0,
        tuple(history),
    )


def rgm_bisection(
    response: Callable[[float], float], target: float, *, upper: float = 2.0, tolerance: float = 0.01, steps: int = 15
) -> Crossing:
    """The bisection of Dziugaite et al. (2020): on [0, 2], at most 15 steps; the last scale, converged or not.

    Args:
        response: from a scale to a number whose absolute value is compared with the target.
        target: the response to find.
        upper: the largest scale.
        tolerance: absolute tolerance of the response.
        steps: the most steps.
    """
    low, high = 0.0, upper
    history: list[tuple[float, float]] = []
    for _ in range(steps):
        scale = 0.5 * (low + high)
        value = abs(response(scale))
        history.append((scale, value))
        if abs(value - target) < tolerance:
            return Crossing(scale, value, target, low, high, len(history), True, tuple(history))
        low, high = (low, scale) if value > target else (scale, high)
    return Crossing(scale, value, target, low, high, len(history), False, tuple(history))


def scale_standard_error(crossing: Crossing, evaluate: Callable[[float], np.ndarray]) -> float | None:
    """Standard error of the scale found: that of the mean response over draws, divided by its slope.

    Args:
        crossing: the result of a search.
        evaluate: from a scale to the responses of each draw, `[draws]`, two or more.

    Returns:
        The standard error; None if no scale was found, or if the slope is not known.
    """
    if crossing.scale <= 0:
        return None
    sem = (standard_error(evaluate(crossing.scale)) or 0.0) / crossing.slope()
    return sem if math.isfinite(sem) else None


def search_details(crossing: Crossing) -> dict[str, Any]:
    """What the details of a measure say about its search."""
    return {
        "low": crossing.low,
        "high": crossing.high if math.isfinite(crossing.high) else None,
        "evaluations": crossing.evaluations,
        "converged": crossing.converged,
    }
