"""One network of an ensemble on its way: its epochs, its checks, its end. Plain arithmetic on the host."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from prunegen_jax.training.recipe import Recipe, Snapshot
from prunegen_jax.training.step import Hyper, State, first_update
from prunegen_jax.training.stopping import checks_per_epoch, edge, worth_checking


class Job(NamedTuple):
    """One network to train: what is its own, its caps and target, and where to go on from."""

    h: Hyper
    recipe: Recipe
    resume: Snapshot | None = None


@dataclasses.dataclass
class Seat:
    """A job in its slot. While it trains `now.state` is out of date: the states of all slots are in one tree."""

    index: int
    job: Job
    now: Snapshot
    begin: int = 0  # updates of the present epoch
    end: int = 0
    considered: int = 1  # checks to consider in it
    losses: list[float] = dataclasses.field(default_factory=list)  # of the mini-batches since the last of these
    epoch_sum: float = 0.0

    def begin_epoch(self, size: int) -> None:
        """Sets out for the next epoch of `size` examples."""
        recipe, epoch = self.job.recipe, self.now.epochs
        self.begin, end = (first_update(e, size=size, batch_size=recipe.batch_size) for e in (epoch, epoch + 1))
        self.end = min(end, recipe.max_updates)
        self.considered = checks_per_epoch(self.now.check_loss[-1] if self.now.check_loss else math.inf, recipe.target)
        self.losses, self.epoch_sum = [], 0.0
        self.now = self.now._replace(epochs=epoch + 1)

    def range(self, part: int, parts: int) -> tuple[int, int]:
        """The updates of `part` of `parts` of the epoch; none if it has ended."""
        if self.now.status != "training":
            return 0, 0
        return edge(self.begin, self.end, part, parts), edge(self.begin, self.end, part + 1, parts)

    def took(self, losses: np.ndarray, updates: int) -> None:
        """Notes the mini-batch losses of the latest updates."""
        self.losses.extend(losses)
        self.epoch_sum += float(losses.sum())
        self.now = self.now._replace(updates=updates)

    @property
    def last(self) -> bool:
        """Whether this epoch is the last that the caps allow."""
        return self.now.epochs >= self.job.recipe.max_epochs or self.end >= self.job.recipe.max_updates

    def due(self, part: int, parts: int, size: int) -> float | None:
        """The running mini-batch loss if the whole set is to be evaluated after `part` of `parts`, else None."""
        if self.now.status != "training" or (part + 1) % (parts // self.considered) or not self.losses:
            return None
        running, begin = float(np.mean(self.losses)), self.now.updates - len(self.losses)
        self.losses = []
        if not math.isfinite(running):
            reason = f"mini-batch loss {running} between updates {begin} and {self.now.updates}"
            self.now = self.now._replace(status="diverged", reason=reason)
            return None
        recipe, now = self.job.recipe, self.now
        since = (now.updates - (now.check_update[-1] if now.check_update else 0)) * recipe.batch_size / size
        wanted = worth_checking(running, since, now.check_running, now.check_loss, target=recipe.target)
        return running if wanted or (self.last and now.updates == self.end) else None

    def checked(self, loss: float, running: float) -> None:
        """Decides by the cross-entropy on the whole training set."""
        now = self.now._replace(
            check_update=(*self.now.check_update, self.now.updates),
            check_loss=(*self.now.check_loss, loss),
            check_running=(*self.now.check_running, running),
        )
        if not math.isfinite(loss):
            now = now._replace(status="diverged", reason=f"training cross-entropy {loss} at update {now.updates}")
        elif loss < self.job.recipe.target:
            now = now._replace(status="converged")
        self.now = now

    def end_epoch(self, state: State) -> Snapshot:
        """The snapshot after the epoch."""
        now, recipe = self.now._replace(state=state), self.job.recipe
        if math.isfinite(self.epoch_sum):
            now = now._replace(epoch_loss=(*now.epoch_loss, self.epoch_sum / (now.updates - self.begin)))
        if now.epochs == 1:
            now = now._replace(first_epoch=(state.params, state.stats))
        if self.last and now.status == "training":
            cap = f"{now.epochs} epochs" if now.epochs >= recipe.max_epochs else f"{now.updates} updates"
            reason = f"cross-entropy {now.check_loss[-1]:.4g} after {cap}, target {recipe.target:g}"
            now = now._replace(status="not_converged", reason=reason)
        self.now = now
        return now
