"""How to train a network, and how far training has come."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, NamedTuple

from prunegen_jax.compute.options import check_at_least
from prunegen_jax.training.optimizers import optimizer
from prunegen_jax.training.step import Hyper, State
from prunegen_jax.types import History, PyTree

Status = Literal["training", "converged", "ended", "not_converged", "diverged"]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train and when to stop; networks that share it, and their shape, share a compiled program.

    Attributes:
        optimizer: a name of `OPTIMIZERS`.
        batch_size: examples per update.
        augment: mirror and shift the images of every batch.
        target: cross-entropy in nats on the whole training set, evaluation mode, below which training stops; 0 to
            train until a cap is reached, whatever the loss: then that is the end, not a failure.
        max_epochs: cap on epochs.
        max_updates: cap on updates.

    Raises:
        ValueError: for an unknown optimizer or a number out of range.
    """

    optimizer: str = "momentum"
    batch_size: int = 32
    augment: bool = False
    target: float = 0.01
    max_epochs: int = 300
    max_updates: int = 1_000_000_000

    def __post_init__(self) -> None:
        optimizer(self.optimizer)
        for field in ("batch_size", "max_epochs", "max_updates"):
            check_at_least(1, **{f"train.{field}": getattr(self, field)})
        if not 0 <= self.target < math.inf:
            rule = "a positive number of nats, or 0 for a fixed number of epochs"
            raise ValueError(f"train.target={self.target} must be {rule}")

    @property
    def compiled(self) -> tuple[str, int, bool]:
        """What programs depend on: networks that are trained together share it."""
        return self.optimizer, self.batch_size, self.augment

    def check(self, size: int) -> None:
        """Checks the recipe for a training set of `size` examples.

        Raises:
            ValueError: if a batch is larger than the training set.
        """
        if self.batch_size > size:
            raise ValueError(f"train.batch_size={self.batch_size} is larger than the training set of {size} examples")


class Snapshot(NamedTuple):
    """Training after a whole epoch, or at its end: all that is needed to continue bit for bit."""

    state: State
    epochs: int  # epochs begun
    updates: int
    epoch_loss: tuple[float, ...] = ()
    check_update: tuple[int, ...] = ()
    check_loss: tuple[float, ...] = ()
    check_running: tuple[float, ...] = ()  # mini-batch loss at every check
    first_epoch: tuple[PyTree, PyTree] | None = None  # parameters and running statistics after the first epoch
    status: Status = "training"
    reason: str = ""

    def history(self, recipe: Recipe) -> History:
        """The part that measures use."""
        losses = (self.epoch_loss, self.check_update, self.check_loss)
        return History(*losses, self.updates, recipe.batch_size, recipe.target)


class TrainingRequest(NamedTuple):
    """A network to train: hyperparameters, recipe, and a snapshot to continue from, if not from the beginning."""

    h: Hyper
    recipe: Recipe
    resume: Snapshot | None = None
