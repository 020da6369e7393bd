"""Training to a target cross-entropy or for all epochs: `train` one network, `train_many` in an ensemble of slots.

Both yield a snapshot after every epoch, from which training resumes bit for bit. No clock, no file, no printing: the
caller saves and shows snapshots.
"""

from __future__ import annotations

from collections.abc import Iterator

from prunegen_jax.networks import Network
from prunegen_jax.training.ensemble import compile_ahead, compile_for, start, train_many
from prunegen_jax.training.recipe import Recipe, Snapshot, TrainingRequest
from prunegen_jax.training.step import Hyper, State, hyper
from prunegen_jax.types import Dataset

__all__ = [
    "Hyper", "Recipe", "Snapshot", "State", "TrainingRequest", "compile_ahead", "compile_for", "hyper", "start",
    "train", "train_many",
]  # fmt: skip


def train(
    network: Network, data: Dataset, h: Hyper, recipe: Recipe, *, resume: Snapshot | None = None
) -> Iterator[Snapshot]:
    """Trains until the cross-entropy on the whole training set falls below the target, or to a cap.

    Args:
        network: from `prunegen_jax.networks.build`.
        data: the training set; it stays on the device and batches are gathered there.
        h: learning rate, L2 weight decay, dropout and key, all traced.
        recipe: the optimizer, the batch, the target and the caps.
        resume: a snapshot to continue from, instead of the beginning.

    Yields:
        A snapshot after every epoch. The last one has a `status` other than "training": "converged", "ended" (a cap was
        reached, and there is no target), "not_converged" (a cap was reached first) or "diverged" (a loss was not
        finite), the latter two with the reason.

    Raises:
        ValueError: if a batch is larger than the set.
    """
    for [(_, snapshot)] in train_many(network, data, [TrainingRequest(h, recipe, resume)]):
        yield snapshot
