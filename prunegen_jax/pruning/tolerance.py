"""How much a pruned network may lose: the largest loss, or error, that passes."""

from __future__ import annotations

import math
from typing import Literal

from prunegen_jax.compute.options import check_at_least, check_choice
from prunegen_jax.pruning.scan import Scan

Tolerance = Literal["relative", "absolute", "max"]
Criterion = Literal["loss", "error"]


def limit_of(dense: float, *, tolerance: Tolerance, beta: float, delta: float) -> tuple[float, str]:
    """The largest loss (or error) that passes.

    Args:
        dense: L̂, the loss (or error) of the network as it is.
        tolerance: "relative": (1 + β) L̂; "absolute": L̂ + δ; "max": L̂ + max(β L̂, δ). At L̂ = 0 the relative form
            leaves no room at all; the form "max" is used then.
        beta: β.
        delta: δ.

    Returns:
        The limit, and a note if the tolerance is degenerate, else "".

    Raises:
        ValueError: for an unknown tolerance, a negative β or δ, or an L̂ that is not finite.
    """
    check_choice("tolerance", tolerance, ("relative", "absolute", "max"))
    check_at_least(0, beta=beta, delta=delta)
    if not math.isfinite(dense):
        raise ValueError(f"the network's own criterion is {dense}: prunability needs a finite training loss")
    if tolerance == "relative" and dense > 0:
        return (1.0 + beta) * dense, ""
    note = f"L̂ = 0: the tolerance is δ = {delta:g}" if tolerance == "relative" else ""
    return dense + (delta if tolerance == "absolute" else max(beta * dense, delta)), note


def limit_of_scan(
    scan: Scan, criterion: Criterion, *, tolerance: Tolerance, beta: float, delta: float
) -> tuple[float, str]:
    """`limit_of` for the network of `scan`; for the criterion "error" rounded down to a whole number of examples."""
    limit, note = limit_of(scan.dense(), tolerance=tolerance, beta=beta, delta=delta)
    if criterion == "error":  # rounding in the sum of fractions must not cost an example
        limit = math.floor(limit * scan.size + 1e-6) / scan.size
    return limit, note
