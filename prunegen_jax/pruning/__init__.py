"""Pruning: masks, the scan through them, and prunability."""

from prunegen_jax.pruning.prunability import GRID, Curve, Pruned, prunability, prunability_prefix, pruned_loss_curve
from prunegen_jax.pruning.random import dropped_counts, random_prunability
from prunegen_jax.pruning.scan import Scan
from prunegen_jax.pruning.tolerance import Criterion, Tolerance, limit_of

__all__ = [
    "GRID", "Criterion", "Curve", "Pruned", "Scan", "Tolerance", "dropped_counts", "limit_of",
    "prunability", "prunability_prefix", "pruned_loss_curve", "random_prunability",
]  # fmt: skip
