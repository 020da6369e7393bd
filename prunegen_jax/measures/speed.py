"""Optimization speed: how fast the training loss fell."""

from __future__ import annotations

import jax
import numpy as np

from prunegen_jax.types import Estimate, History, Measure, TrainedModel


def sum_of_training_losses(model: TrainedModel, key: jax.Array) -> Estimate:
    """Σ_t ℓ_t over epochs t = 1 … T, ℓ_t the mean mini-batch loss of epoch t in nats (TSE of Ru et al. 2021)."""
    return Estimate(float(np.sum(_history(model).epoch_loss, dtype=np.float64)))


def updates_to_target(model: TrainedModel, key: jax.Array) -> Estimate:
    """Optimizer updates until the training cross-entropy fell below the target; +inf if it never did (censored)."""
    history = _history(model)
    reached = [n for n, loss in zip(history.check_update, history.check_loss, strict=True) if loss < history.target]
    return Estimate(float(reached[0]) if reached else float("inf"), details={"censored": not reached})


def _history(model: TrainedModel) -> History:
    assert model.history is not None  # `needs` of both measures
    return model.history


MEASURES = {
    "sum_of_training_losses": Measure(sum_of_training_losses, +1, "speed", 0.0, "Ru et al. 2021", ("history",)),
    "updates_to_target": Measure(updates_to_target, +1, "speed", 0.0, "Jiang et al. 2020 (63, 64)", ("history",)),
}
