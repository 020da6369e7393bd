"""Optimization speed: how fast the training loss fell, from the history of the training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from prunegen_jax.compute.options import check_at_least, check_choice, check_positive
from prunegen_jax.measures.estimates import normalized_estimate
from prunegen_jax.types import Estimate, History, Measure, NotApplicableError, TrainedModel, not_applicable

THRESHOLDS = (1.0, 0.5, 0.1, 0.05, 0.01)  # nats; every hitting time's `details` list all of them
DECAYS = {"sum": 0.999, "recursive": 0.1}
UNITS = ("updates", "examples", "epochs")


def sum_of_training_losses(model: TrainedModel, key: jax.Array, *, normalize: str = "raw") -> Estimate:
    """Σ_{t ≤ T} ℓ_t in nats over the epochs t = 1 … T, ℓ_t the mean mini-batch loss in epoch t, while weights change.

    TSE of Ru et al. (2021). Runs that stop at a target differ in T: the sum mixes speed with duration, which
    `sum_of_first_training_losses` does not. `normalize`: see `estimates.normalized_estimate`.
    """
    return _sum(model, _losses(model), normalize)


def sum_of_first_training_losses(
    model: TrainedModel, key: jax.Array, *, epochs: int = 1, normalize: str = "raw"
) -> Estimate:
    """Σ_{t ≤ T₀} ℓ_t in nats over the first T₀ = `epochs` epochs, which all runs have in common.

    Over one pass it is the (negated) sum of predictive log-likelihoods that estimates the log evidence (Lyle et al.
    2020), hence the default of 1. Not applicable to a run that stopped before.
    """
    losses = _losses(model)
    check_at_least(1, epochs=epochs)
    if losses.size < epochs:
        return not_applicable(f"trained for {losses.size} epochs, fewer than epochs={epochs}")
    return _sum(model, losses[:epochs], normalize)


def sum_of_last_training_losses(
    model: TrainedModel, key: jax.Array, *, epochs: int = 1, normalize: str = "raw"
) -> Estimate:
    """Σ_{t > T − E} ℓ_t in nats over the last E = `epochs` epochs: TSE-E of Ru et al. (2021)."""
    losses = _losses(model)
    check_at_least(1, epochs=epochs)
    if losses.size < epochs:
        return not_applicable(f"trained for {losses.size} epochs, fewer than epochs={epochs}")
    return _sum(model, losses[-epochs:], normalize)


def sum_of_update_losses(model: TrainedModel, key: jax.Array, *, normalize: str = "raw") -> Estimate:
    """Σ_t n_t ℓ_t in nats, n_t the updates of epoch t: the sum over updates, comparable across batch sizes.

    Epoch t = 1 … T of our own runs ends with update ⌈t m/b⌉, the last one with the run. If that does not agree with the
    total, epochs of ⌈m/b⌉ updates are tried, then of ⌊m/b⌋, the last one what is left; else all are of one length.
    """
    losses = _losses(model)
    return _sum(model, _epoch_updates(_history(model), len(model.train)) * losses, normalize)


def averaged_training_loss(
    model: TrainedModel, key: jax.Array, *, decay: float | None = None, form: str = "sum", normalize: str = "raw"
) -> Estimate:
    """TSE-EMA of Ru et al. (2021), in nats, at γ = `decay` in (0, 1].

    form="sum": Σ_t γ^{T−t} ℓ_t, the paper's, by default at γ = 0.999. form="recursive": e ← γ e + (1 − γ) ℓ_t from
    e = ℓ_1, what the authors' code computes, by default at its γ = 0.1 (nearly the last epoch's loss).

    Args:
        model: needs `history`.
        key: not used.
        decay: γ; None for the default of the form.
        form: "sum" or "recursive".
        normalize: see `estimates.normalized_estimate`.

    Raises:
        ValueError: for an unknown form, or a γ out of range.
    """
    check_choice("form", form, tuple(DECAYS))
    decay = DECAYS[form] if decay is None else decay
    if not 0.0 < decay <= 1.0:
        raise ValueError(f"decay={decay} must be in (0, 1]")
    losses = _losses(model)
    if form == "sum":
        return _sum(model, decay ** np.arange(losses.size - 1, -1, -1, dtype=np.float64) * losses, normalize)
    average = losses[0]
    for loss in losses[1:]:
        average = decay * average + (1.0 - decay) * loss
    return _sum(model, np.asarray([average]), normalize)


def updates_to_target(
    model: TrainedModel, key: jax.Array, *, unit: str = "updates", interpolate: bool = True
) -> Estimate:
    """Hitting time of the training's own target loss, see `hitting_time`; +inf if it was never reached (censored)."""
    target = _history(model).target
    if target <= 0.0:
        raise NotApplicableError("needs a target loss in the history: its training did not stop at a loss")
    return _hitting(model, (target,), unit, interpolate)


def updates_to_loss(
    model: TrainedModel, key: jax.Array, *, loss: float = 0.1, unit: str = "updates", interpolate: bool = True
) -> Estimate:
    """Hitting time of a training cross-entropy of `loss` nats, see `hitting_time`; +inf if censored.

    Args:
        model: needs `history`.
        key: not used.
        loss: the threshold.
        unit: "updates" (not comparable across batch sizes), "examples" (× batch size) or "epochs" (× batch size ÷ m).
        interpolate: as in `hitting_time`.

    Raises:
        ValueError: if the loss is not positive, or the unit is unknown.
    """
    return _hitting(model, (loss,), unit, interpolate)


def updates_between_losses(
    model: TrainedModel,
    key: jax.Array,
    *,
    start: float = 0.1,
    end: float = 0.01,
    unit: str = "updates",
    interpolate: bool = True,
) -> Estimate:
    """Hitting time of `end` minus that of `start` (nats), see `hitting_time`; +inf if `end` was never reached.

    Args:
        model: needs `history`.
        key: not used.
        start: the larger loss.
        end: the smaller loss.
        unit: as in `updates_to_loss`.
        interpolate: as in `hitting_time`.

    Raises:
        ValueError: if `start` is not larger than `end`, a loss is not positive, or the unit is unknown.
    """
    if not start > end:
        raise ValueError(f"start={start} must be larger than end={end}")
    return _hitting(model, (start, end), unit, interpolate)


def hitting_time(
    updates: Sequence[int], losses: Sequence[float], threshold: float, *, interpolate: bool = True
) -> float:
    """Updates until the loss, known at checks only, first is ≤ `threshold`; +inf if it is at no check.

    With `interpolate` the logarithm of the loss is a straight line between that check and the one before; without,
    or at the first check, or from a loss of 0 or none finite, the answer is the check itself.
    """
    for i, loss in enumerate(losses):
        if loss > threshold or math.isnan(loss):
            continue
        before = losses[i - 1] if i else math.nan
        if not interpolate or not math.isfinite(before) or loss <= 0.0 or threshold <= 0.0:
            return float(updates[i])
        part = math.log(before / threshold) / math.log(before / loss)
        return updates[i - 1] + part * (updates[i] - updates[i - 1])
    return math.inf


def _hitting(model: TrainedModel, thresholds: tuple[float, ...], unit: str, interpolate: bool) -> Estimate:
    check_choice("unit", unit, UNITS)
    for threshold in thresholds:
        check_positive(loss=threshold)
    history = _history(model)
    scale = {"updates": 1.0, "examples": history.batch_size, "epochs": history.batch_size / len(model.train)}[unit]

    def time(threshold: float) -> float:
        return scale * hitting_time(history.check_update, history.check_loss, threshold, interpolate=interpolate)

    times = [time(threshold) for threshold in thresholds]
    value = times[0] if len(times) == 1 else times[1] - times[0] if math.isfinite(times[1]) else math.inf
    details: dict[str, Any] = {
        "censored": not math.isfinite(value),
        "unit": unit,
        "hitting_times": {f"{threshold:g}": time(threshold) for threshold in THRESHOLDS},
    }
    return Estimate(value, details=details)


def _sum(model: TrainedModel, terms: np.ndarray, normalize: str) -> Estimate:
    return normalized_estimate(value=float(terms.sum()), size=len(model.train), normalize=normalize)


def _losses(model: TrainedModel) -> np.ndarray:
    losses = np.asarray(_history(model).epoch_loss, np.float64)
    if not losses.size:
        raise ValueError("the history has no epoch: epoch_loss is empty")
    return losses


def _history(model: TrainedModel) -> History:
    if model.history is None:
        raise ValueError("needs the history of the training: TrainedModel(history=History(...))")
    return model.history


def _epoch_updates(history: History, size: int) -> np.ndarray:
    """Updates of each epoch, `[T]`; see `sum_of_update_losses`."""
    batch, epochs, total = history.batch_size, len(history.epoch_loss), history.updates
    ends = np.array([-(-t * size // batch) for t in range(epochs + 1)])
    for steps in (-(-size // batch), size // batch, total / epochs):
        if ends[-2] < total <= ends[-1]:
            break
        ends = steps * np.arange(epochs + 1)
    ends[-1] = total
    return np.diff(ends).astype(np.float64)


_NEEDS = ("history",)
_ANY = ("permutation", "neuron_scaling", "layer_scaling")  # the weights do not enter

MEASURES = {
    "sum_of_training_losses": Measure(sum_of_training_losses, +1, "speed", 0.0, "Ru et al. 2021", _NEEDS, _ANY),
    "sum_of_first_training_losses": Measure(
        sum_of_first_training_losses, +1, "speed", 0.0, "Lyle et al. 2020; Ru et al. 2021", _NEEDS, _ANY
    ),
    "sum_of_last_training_losses": Measure(
        sum_of_last_training_losses, +1, "speed", 0.0, "Ru et al. 2021", _NEEDS, _ANY
    ),
    "sum_of_update_losses": Measure(sum_of_update_losses, +1, "speed", 0.0, "Ru et al. 2021", _NEEDS, _ANY),
    "averaged_training_loss": Measure(averaged_training_loss, +1, "speed", 0.0, "Ru et al. 2021", _NEEDS, _ANY),
    "updates_to_target": Measure(updates_to_target, +1, "speed", 0.0, "Jiang et al. 2020 (63, 64)", _NEEDS, _ANY),
    "updates_to_loss": Measure(updates_to_loss, +1, "speed", 0.0, "Jiang et al. 2020 (63)", _NEEDS, _ANY),
    "updates_between_losses": Measure(updates_between_losses, +1, "speed", 0.0, "Jiang et al. 2020 (64)", _NEEDS, _ANY),
}
