"""One network of an ensemble during training: its epochs, its checks, its end. Plain arithmetic on the host."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from prunegen_jax.training.recipe import Snapshot, TrainingRequest
from prunegen_jax.training.step import State, first_update
from prunegen_jax.training.stopping import checks_per_epoch, part_start, worth_checking


@dataclasses.dataclass
class Slot:
    """A slot of the ensemble that trains a network.

    During an epoch `snapshot.state` is out of date: the states of all slots are in one tree.

    Attributes:
        index: position of the request among all requests.
        request: the network to train.
        snapshot: how far training has come.
        begin: first update of the current epoch.
        end: first update of the next epoch.
        checks: number of checks to consider in the current epoch.
        losses: losses of the mini-batches since the last check that was considered.
        epoch_sum: sum of the losses of the mini-batches of the current epoch.
    """

    index: int
    request: TrainingRequest
    snapshot: Snapshot
    begin: int = 0
    end: int = 0
    checks: int = 1
    losses: list[float] = dataclasses.field(default_factory=list)
    epoch_sum: float = 0.0

    def begin_epoch(self, size: int) -> None:
        """Starts the next epoch of `size` examples."""
        recipe, snapshot = self.request.recipe, self.snapshot
        epoch = snapshot.epochs
        self.begin, end = (first_update(e, size=size, batch_size=recipe.batch_size) for e in (epoch, epoch + 1))
        self.end = min(end, recipe.max_updates)
        last_loss = snapshot.check_loss[-1] if snapshot.check_loss else math.inf
        self.checks = checks_per_epoch(last_loss, recipe.target)
        self.losses, self.epoch_sum = [], 0.0
        self.snapshot = snapshot._replace(epochs=epoch + 1)

    def update_range(self, part: int, parts: int) -> tuple[int, int]:
        """The updates of `part` of `parts` of the epoch; none if training has ended."""
        if self.snapshot.status != "training":
            return 0, 0
        return part_start(self.begin, self.end, part, parts), part_start(self.begin, self.end, part + 1, parts)

    def add_losses(self, losses: np.ndarray, updates: int) -> None:
        """Records the mini-batch losses of the latest updates, after which there are `updates` in all."""
        self.losses.extend(losses)
        self.epoch_sum += float(losses.sum())
        self.snapshot = self.snapshot._replace(updates=updates)

    @property
    def is_last_epoch(self) -> bool:
        """Whether this epoch is the last that the caps allow."""
        recipe = self.request.recipe
        return self.snapshot.epochs >= recipe.max_epochs or self.end >= recipe.max_updates

    def loss_before_check(self, part: int, parts: int, size: int) -> float | None:
        """The running mini-batch loss if the whole set is to be evaluated after `part` of `parts`, else None."""
        if self.snapshot.status != "training" or (part + 1) % (parts // self.checks) or not self.losses:
            return None
        running, begin = float(np.mean(self.losses)), self.snapshot.updates - len(self.losses)
        self.losses = []
        if not math.isfinite(running):
            reason = f"mini-batch loss {running} between updates {begin} and {self.snapshot.updates}"
            self.snapshot = self.snapshot._replace(status="diverged", reason=reason)
            return None
        recipe, snapshot = self.request.recipe, self.snapshot
        last_update = snapshot.check_update[-1] if snapshot.check_update else 0
        epochs_since = (snapshot.updates - last_update) * recipe.batch_size / size
        worthwhile = worth_checking(
            running, epochs_since, snapshot.check_running, snapshot.check_loss, target=recipe.target
        )
        return running if worthwhile or (self.is_last_epoch and snapshot.updates == self.end) else None

    def add_check(self, loss: float, running: float) -> None:
        """Records the cross-entropy on the whole training set, and ends training if it decides that."""
        snapshot = self.snapshot._replace(
            check_update=(*self.snapshot.check_update, self.snapshot.updates),
            check_loss=(*self.snapshot.check_loss, loss),
            check_running=(*self.snapshot.check_running, running),
        )
        if not math.isfinite(loss):
            reason = f"training cross-entropy {loss} at update {snapshot.updates}"
            snapshot = snapshot._replace(status="diverged", reason=reason)
        elif loss < self.request.recipe.target:
            snapshot = snapshot._replace(status="converged")
        self.snapshot = snapshot

    def end_epoch(self, state: State) -> Snapshot:
        """The snapshot after the epoch."""
        snapshot, recipe = self.snapshot._replace(state=state), self.request.recipe
        if math.isfinite(self.epoch_sum):
            mean = self.epoch_sum / (snapshot.updates - self.begin)
            snapshot = snapshot._replace(epoch_loss=(*snapshot.epoch_loss, mean))
        if snapshot.epochs == 1:
            snapshot = snapshot._replace(first_epoch=(state.params, state.stats))
        if self.is_last_epoch and snapshot.status == "training" and recipe.target == 0:
            snapshot = snapshot._replace(status="ended")
        elif self.is_last_epoch and snapshot.status == "training":
            by_epochs = snapshot.epochs >= recipe.max_epochs
            cap = f"{snapshot.epochs} epochs" if by_epochs else f"{snapshot.updates} updates"
            reason = f"cross-entropy {snapshot.check_loss[-1]:.4g} after {cap}, target {recipe.target:g}"
            snapshot = snapshot._replace(status="not_converged", reason=reason)
        self.snapshot = snapshot
        return snapshot
