"""Pruning: masks, the scan through them, and prunability."""

from prunegen_jax.pruning.orders import block_prunability, channel_prunability, input_norm_prunability
from prunegen_jax.pruning.prunability import GRID, Curve, Pruned, prunability, prunability_prefix, pruned_loss_curve
from prunegen_jax.pruning.random import dropped_counts, random_prunability
from prunegen_jax.pruning.scan import Scan
from prunegen_jax.pruning.tolerance import Criterion, Tolerance, limit_of

__all__ = [
    "GRID", "Criterion", "Curve", "Pruned", "Scan", "Tolerance", "block_prunability", "channel_prunability",
    "dropped_counts", "input_norm_prunability", "limit_of", "prunability", "prunability_prefix",
    "pruned_loss_curve", "random_prunability",
]  # fmt: skip
