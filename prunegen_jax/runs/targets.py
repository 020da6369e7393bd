"""What is to be predicted of a network beside its losses: calibration, and losses on further test sets.

No measure sees any of it: measures get the training set alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from prunegen_jax.compute.calibration import brier_score, expected_calibration_error, predictions
from prunegen_jax.compute.evaluation import example_losses
from prunegen_jax.runs import record, task
from prunegen_jax.runs.record import Record
from prunegen_jax.runs.schema import Json
from prunegen_jax.types import Dataset, TrainedModel


def evaluate(model: TrainedModel, examples: Dataset) -> Json:
    """Loss, number of errors, size, calibration error and Brier score on a test set."""
    losses, errors = example_losses(model.apply, model.params, examples)
    found, labels = predictions(model.apply, model.params, examples), np.asarray(examples.labels)
    return {
        "loss": float(losses.sum(dtype=np.float64)) / len(examples),
        "errors": int(errors.sum()),
        "size": len(examples),
        "ece": expected_calibration_error(found, labels),
        "brier": brier_score(found, labels),
    }


def add_missing(
    folder: epath.Path, existing: Record, model: TrainedModel, names: Sequence[str], config: ConfigDict
) -> Record:
    """The record with what it lacks of the test sets `names`; it is written if anything was added."""
    lacking = [name for name in names if name not in existing.targets]
    if not lacking:
        return existing
    added = {name: evaluate(model, examples) for name, examples in task.load_shifts(config, existing.point, lacking)}
    existing = dataclasses.replace(existing, targets=existing.targets | added)
    record.write(folder, existing)
    return existing
