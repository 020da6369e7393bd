"""Margins: how far the training examples are from the decision boundary; the final loss beside them."""

from __future__ import annotations

import jax

from prunegen_jax import evaluation
from prunegen_jax.types import Estimate, Measure, TrainedModel


def training_cross_entropy(model: TrainedModel, key: jax.Array) -> Estimate:
    """L̂, mean cross-entropy in nats on the whole training set at the end: the confounder every measure must beat."""
    return Estimate(evaluation.loss_and_accuracy(model.apply, model.params, model.train)[0])


MEASURES = {
    "training_cross_entropy": Measure(
        training_cross_entropy,
        +1,
        "margins",
        1.0,
        "Jiang et al. 2020 (23)",
        invariant=("permutation", "neuron_scaling", "layer_scaling"),
    ),
}
