"""Probabilities that a network predicts, and how far they can be trusted: calibration error and Brier score."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute.evaluation import concatenate_batches, default_batch_size
from prunegen_jax.compute.planes import as_partial
from prunegen_jax.types import Apply, Dataset, PyTree

BINS = 15  # of the confidence, of equal width, as in Guo et al. (2017)


def predictions(apply: Apply, params: PyTree, data: Dataset) -> np.ndarray:
    """softmax(logits) of every example, float32 `[N, K]`, in evaluation mode at the highest matmul precision.

    Args:
        apply: (params, inputs [n, ...]) → logits [n, K].
        params: the network's parameters.
        data: the examples, N of them.
    """
    step = functools.partial(_predictions, as_partial(apply), params, data)
    (found,) = concatenate_batches(lambda rows: (step(rows),), len(data), batch_size=default_batch_size(data))
    return found


@jax.jit
def _predictions(apply: Any, params: PyTree, data: Dataset, indices: jax.Array) -> jax.Array:
    with jax.default_matmul_precision("highest"):
        inputs, _ = data.take(indices)
        return jax.nn.softmax(apply(params, inputs).astype(jnp.float32))


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = BINS) -> float:
    """ECE = Σ_b (n_b / n) |acc_b − conf_b| (Naeini et al. 2015; Guo et al. 2017), in [0, 1].

    Bin b of B holds the n_b examples whose largest probability lies in ((b − 1)/B, b/B]; acc_b is the fraction of them
    that is classified correctly, conf_b the mean of their largest probabilities.

    Args:
        probabilities: `[n, K]`.
        labels: `[n]`, integers.
        bins: B.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    # n_b |acc_b − conf_b| is the absolute sum of (correct − confidence) over the bin
    sums = np.bincount(place, weights=correct - confidence, minlength=bins)
    return float(np.abs(sums).sum() / len(labels))


def brier_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Σ_c (p_c − y_c)² averaged over the examples, y the one-hot label (Brier 1950), in [0, 2].

    Args:
        probabilities: `[n, K]`.
        labels: `[n]`, integers.
    """
    p = probabilities.astype(np.float64)
    p[np.arange(len(labels)), labels] -= 1.0
    return float(np.square(p).sum(axis=1).mean())
