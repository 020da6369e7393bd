"""Per-example losses of a network over a whole data set, float32 on the device, summed in float64 on the host."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from prunegen_jax.compute import lockstep
from prunegen_jax.types import Apply, Dataset, PyTree, as_partial

BATCH = 500  # examples evaluated at a time, at most; results do not depend on it beyond float error
_PIXELS = 64 * 32 * 32  # on a CPU, evaluated at a time: more fall out of its caches and take twice as long


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """−ln softmax(logits)[label] in nats, `[n]`, of `logits [n, K]` and `labels [n]`."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def suited_batch(data: Dataset) -> int:
    """How many examples to evaluate at a time on this backend."""
    if jax.default_backend() != "cpu":
        return BATCH
    return max(1, min(BATCH, _PIXELS // math.prod(data.images.shape[1:3])))


def batches(size: int, *, batch_size: int = BATCH) -> list[np.ndarray]:
    """Index vectors of one length that cover 0 … size − 1 in order; the last repeats the last index to fill up."""
    length = min(batch_size, size)
    return [np.minimum(np.arange(start, start + length), size - 1) for start in range(0, size, length)]


@lockstep.jit
def _losses(apply: Any, params: PyTree, data: Dataset, indices: jax.Array) -> tuple[jax.Array, jax.Array]:
    with jax.default_matmul_precision("highest"):
        images, labels = data.take(indices)
        logits = apply(params, images).astype(jnp.float32)
    return cross_entropy(logits, labels), jnp.argmax(logits, axis=-1).astype(labels.dtype) != labels


def example_losses(
    apply: Apply, params: PyTree, data: Dataset, *, batch_size: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Cross-entropy in nats, float32 `[N]`, and whether the arg max is wrong, bool `[N]`, of every example."""
    step = functools.partial(_losses, as_partial(apply), params, data)
    losses, errors = zip(
        *(step(i) for i in batches(len(data), batch_size=batch_size or suited_batch(data))), strict=True
    )
    size = len(data)
    return np.concatenate([np.asarray(x) for x in losses])[:size], np.concatenate([np.asarray(x) for x in errors])[
        :size
    ]


def loss_and_accuracy(apply: Apply, params: PyTree, data: Dataset) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy in [0, 1] over the whole set, no tail dropped."""
    losses, errors = example_losses(apply, params, data)
    return float(losses.sum(dtype=np.float64)) / len(data), 1.0 - float(errors.mean(dtype=np.float64))
