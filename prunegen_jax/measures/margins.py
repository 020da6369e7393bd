"""Measures of the logits of the training examples: output margins, entropy, confidence, the final loss."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute import evaluation, lockstep
from prunegen_jax.compute.options import check_at_least
from prunegen_jax.measures.cache import cached
from prunegen_jax.measures.estimates import log, normalized_estimate
from prunegen_jax.types import Dataset, Estimate, Measure, PyTree, TrainedModel


def inverse_margin(model: TrainedModel, key: jax.Array, *, normalize: str = "raw") -> Estimate:
    """1 / γ², γ the 10th percentile of the output margins, in squared inverse logits; see `tenth_percentile`.

    `details["margin"]` is γ with its sign: at a training accuracy below 0.9 it is negative, which the square hides,
    so `details["negative"]` says so. γ = 0 gives +inf. `normalize`: see `estimates.normalized_estimate`.

    Raises:
        ValueError: for fewer than 10 training examples.
    """
    log_value, details = log_inverse_squared_margin(model)
    return normalized_estimate(log_value=log_value, size=len(model.train), normalize=normalize, details=details)


def negative_output_entropy(model: TrainedModel, key: jax.Array) -> Estimate:
    """(1/m) Σ_i Σ_c p_ic ln p_ic ≤ 0 in nats, p = softmax of the logits: near 0 when predictions are confident."""
    return Estimate(float(_outputs(model)[1].mean()))


def training_confidence(model: TrainedModel, key: jax.Array) -> Estimate:
    """(1/m) Σ_i max_c p_ic in [1/K, 1], p = softmax of the logits: how sure the network is of its own predictions."""
    return Estimate(float(_outputs(model)[2].mean()))


def training_calibration_error(model: TrainedModel, key: jax.Array, *, bins: int = 15) -> Estimate:
    """Σ_b (m_b / m) |accuracy_b − confidence_b| in [0, 1], over bins of equal width of the confidence max_c p_ic.

    The expected calibration error (ECE) of the training set, with right-closed bins. A network that has fitted its
    labels is too unsure rather than too sure: `details["overconfidence"]` is mean confidence minus accuracy.

    Args:
        model: any.
        key: not used.
        bins: number of bins.

    Raises:
        ValueError: for no bins.
    """
    check_at_least(1, bins=bins)
    _, _, confidence, correct = _outputs(model)
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    differences = np.bincount(bin_of, correct - confidence, minlength=bins)
    details = {"overconfidence": float((confidence - correct).mean()), "bins": bins}
    return Estimate(float(np.abs(differences).sum() / confidence.size), details=details)


def training_cross_entropy(model: TrainedModel, key: jax.Array) -> Estimate:
    """L̂, mean cross-entropy in nats on the whole training set at the end: a confounder of every measure."""
    return Estimate(evaluation.loss_and_accuracy(model.apply, model.params, model.train)[0])


def output_margins(model: TrainedModel) -> np.ndarray:
    """γ_i = f(x_i)[y_i] − max_{c ≠ y_i} f(x_i)[c], raw logits f, of every training example: float64 `[m]`."""
    return _outputs(model)[0]


def tenth_percentile(model: TrainedModel) -> float:
    """γ, the ⌊m/10⌋-th smallest of m output margins (counting from 1, no interpolation), with its sign.

    The convention of the code of Dziugaite et al. (2020), who then take the absolute value.

    Raises:
        ValueError: for m < 10.
    """
    margins = output_margins(model)
    if margins.size < 10:
        raise ValueError(f"the 10th percentile of the margins needs 10 training examples or more; got {margins.size}")
    return float(np.sort(margins)[margins.size // 10 - 1])


def log_inverse_squared_margin(model: TrainedModel) -> tuple[float, dict[str, Any]]:
    """−2 ln |γ|, what "over margin" adds to the logarithm of a norm, and γ and its sign for an estimate's details."""
    margin = tenth_percentile(model)
    return -2.0 * log(abs(margin)), {"margin": margin, "negative": margin < 0.0}


@lockstep.jit
def _outputs_of(apply: Any, params: PyTree, data: Dataset, indices: jax.Array) -> tuple[jax.Array, ...]:
    with jax.default_matmul_precision("highest"):
        images, labels = data.take(indices)
        logits = apply(params, images).astype(jnp.float32)
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]
    is_own = labels[:, None] == jnp.arange(logits.shape[-1], dtype=labels.dtype)[None, :]
    margins = own - jnp.max(jnp.where(is_own, -jnp.inf, logits), axis=-1)
    log_p = jax.nn.log_softmax(logits, axis=-1)
    correct = (jnp.argmax(logits, axis=-1).astype(labels.dtype) == labels).astype(jnp.float32)
    return margins, jnp.sum(jnp.exp(log_p) * log_p, axis=-1), jnp.exp(jnp.max(log_p, axis=-1)), correct


def _outputs(model: TrainedModel) -> np.ndarray:
    """Margins, Σ_c p_c ln p_c, max_c p_c and whether it is right of every training example.

    float64 `[4, m]`, in one pass per model.
    """

    def compute() -> np.ndarray:
        step = functools.partial(_outputs_of, model.apply, model.params, model.train)
        return np.stack(evaluation.concatenate_batches(step, len(model.train))).astype(np.float64)

    return cached(model, "outputs", compute)


_ANY_RELU_SCALING = ("permutation", "neuron_scaling", "layer_scaling")  # none of them changes the function

MEASURES = {
    "inverse_margin": Measure(
        inverse_margin, +1, "margins", 1.0, "Jiang et al. 2020 (22)", invariant=_ANY_RELU_SCALING
    ),
    "negative_output_entropy": Measure(
        negative_output_entropy, +1, "margins", 1.0, "Jiang et al. 2020 (24)", invariant=_ANY_RELU_SCALING
    ),
    "training_confidence": Measure(
        training_confidence, +1, "margins", 1.0, "Hendrycks & Gimpel 2017", invariant=_ANY_RELU_SCALING
    ),
    "training_calibration_error": Measure(
        training_calibration_error,
        +1,
        "margins",
        1.0,
        "Naeini et al. 2015; Guo et al. 2017",
        invariant=_ANY_RELU_SCALING,
    ),
    "training_cross_entropy": Measure(
        training_cross_entropy, +1, "margins", 1.0, "Jiang et al. 2020 (23)", invariant=_ANY_RELU_SCALING
    ),
}
