"""Per-example losses of a network over a whole data set, float32 on the device, summed in float64 on the host."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from prunegen_jax.compute import lockstep
from prunegen_jax.compute.planes import as_partial
from prunegen_jax.types import Apply, Dataset, PyTree

BATCH = 500  # examples evaluated at a time, at most; results do not depend on it beyond rounding
_CPU_PIXELS = 64 * 32 * 32  # evaluated at a time on a CPU: more do not fit into its caches and take twice as long


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """−ln softmax(logits)[label] in nats, `[n]`, of `logits [n, K]` and `labels [n]`."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def losses_of(data: Dataset, outputs: jax.Array, labels: jax.Array) -> jax.Array:
    """ℓ_i, `[n]`, of outputs `[n, ...]` and labels `[n, ...]` of `data`: its own loss, or else the cross-entropy.

    Raises:
        ValueError: if its own loss does not return one number per example.
    """
    if data.loss is None:
        return cross_entropy(outputs, labels)
    losses = data.loss(outputs, labels)
    if jnp.shape(losses) != labels.shape[:1]:
        raise ValueError(
            f"the loss of the data set returns the shape {jnp.shape(losses)} for {labels.shape[0]} examples, not one "
            "loss per example, [n]: do not average over examples"
        )
    return losses.astype(outputs.dtype)


def default_batch_size(data: Dataset) -> int:
    """How many examples to evaluate at a time on this backend."""
    if jax.default_backend() != "cpu":
        return BATCH
    return max(1, min(BATCH, _CPU_PIXELS // math.prod(data.inputs.shape[1:3])))


def batches(size: int, *, batch_size: int = BATCH) -> list[np.ndarray]:
    """Index vectors of one length that cover 0 … size − 1 in order; the last repeats the last index to fill up."""
    length = min(batch_size, size)
    return [np.minimum(np.arange(start, start + length), size - 1) for start in range(0, size, length)]


def concatenate_batches(
    function: Callable[[np.ndarray], tuple[jax.Array, ...]], size: int, *, batch_size: int | None = None
) -> tuple[np.ndarray, ...]:
    """What `function` returns for all examples, evaluated batch by batch.

    Args:
        function: from indices of examples `[n]` to a tuple of arrays `[n, ...]`.
        size: the number of examples.
        batch_size: examples at a time; None for the default of `batches`.

    Returns:
        For each array of the tuple the values of all examples in order, `[size, ...]`, without those that fill up
        the last batch.
    """
    rows = batches(size) if batch_size is None else batches(size, batch_size=batch_size)
    results = [function(indices) for indices in rows]
    return tuple(np.concatenate([np.asarray(part) for part in parts])[:size] for parts in zip(*results, strict=True))


@lockstep.jit
def _losses(apply: Any, params: PyTree, data: Dataset, indices: jax.Array) -> tuple[jax.Array, jax.Array]:
    with jax.default_matmul_precision("highest"):
        images, labels = data.take(indices)
        logits = apply(params, images).astype(jnp.float32)
    losses = losses_of(data, logits, labels)
    if data.loss is not None:
        return losses, jnp.full_like(losses, jnp.nan)
    return losses, jnp.argmax(logits, axis=-1).astype(labels.dtype) != labels


def example_losses(
    apply: Apply, params: PyTree, data: Dataset, *, batch_size: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Loss and error of every example.

    Args:
        apply: (params, images `[n, H, W, C]`) → logits `[n, K]`, in evaluation mode.
        params: the network's parameters.
        data: the examples, N of them.
        batch_size: examples at a time; None for a number that suits the backend.

    Returns:
        Cross-entropy in nats, float32 `[N]`, and whether the arg max is wrong, bool `[N]`. For a data set with a loss
        of its own: that loss, and NaN.
    """
    step = functools.partial(_losses, as_partial(apply), params, data)
    return concatenate_batches(step, len(data), batch_size=batch_size or default_batch_size(data))


def loss_and_accuracy(apply: Apply, params: PyTree, data: Dataset) -> tuple[float, float]:
    """Mean loss (nats) and accuracy in [0, 1] over the whole set, no tail dropped; NaN where `data` has no classes."""
    losses, errors = example_losses(apply, params, data)
    return float(losses.sum(dtype=np.float64)) / len(data), 1.0 - float(errors.mean(dtype=np.float64))
