"""The cross-entropy on the whole training set of some of the networks of an ensemble."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute.evaluation import batches, cross_entropy, default_batch_size, loss_and_accuracy
from prunegen_jax.networks import Network
from prunegen_jax.training.rows import Rows
from prunegen_jax.training.step import State
from prunegen_jax.types import Dataset, Partial

NETWORKS_PER_CALL = 8  # a constant: which networks are checked at the same moment differs, and must not recompile


def mean_losses(network: Network, states: State, data: Dataset | Rows, slots: Sequence[int]) -> list[float]:
    """Mean cross-entropy in nats over the whole of `data`, evaluation mode, of the networks in `slots`."""
    count = jax.tree.leaves(states.params)[0].shape[0]
    if count == 1:
        params, stats = _first((states.params, states.stats))
        return [loss_and_accuracy(Partial(network.apply, stats), params, data)[0]]
    network, per_call = network.vmapped or network, min(NETWORKS_PER_CALL, count)
    means: list[float] = []
    for begin in range(0, len(slots), per_call):
        group = list(slots[begin : begin + per_call])
        filled = jnp.asarray(group + group[-1:] * (per_call - len(group)))
        parts = [
            np.asarray(_losses(network.apply, states.params, states.stats, filled, data, indices), np.float64)
            for indices in batches(len(data), batch_size=default_batch_size(data))
        ]
        sums = np.concatenate(parts, axis=1)[:, : len(data)].sum(axis=1)
        means += [float(total) / len(data) for total in sums[: len(group)]]
    return means


_first = jax.jit(lambda tree: jax.tree.map(lambda x: x[0], tree))  # one call, not one for each leaf


@functools.partial(jax.jit, static_argnums=0)
def _losses(
    apply: object, params: object, stats: object, slots: jax.Array, data: Dataset | Rows, indices: jax.Array
) -> jax.Array:
    """Cross-entropy `[slots, n]` of the examples `indices [n]`."""
    params, stats = jax.tree.map(lambda x: jnp.take(x, slots, axis=0), (params, stats))
    with jax.default_matmul_precision("highest"):
        images, labels = data.take(indices)
        logits = jax.vmap(apply, in_axes=(0, 0, None))(stats, params, images).astype(jnp.float32)
    return jax.vmap(cross_entropy, in_axes=(0, None))(logits, labels)
