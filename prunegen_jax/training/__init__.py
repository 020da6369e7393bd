"""Training one network to a target cross-entropy: `train` yields a snapshot after every epoch, from which it resumes.

No clock, no file, no printing: whoever drives the generator saves and shows what it likes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from prunegen_jax.evaluation import loss_and_accuracy
from prunegen_jax.models import Network
from prunegen_jax.training.optimizers import optimizer as find_optimizer
from prunegen_jax.training.step import Hyper, Program, State, first_update, hyper, program
from prunegen_jax.training.stopping import checks_per_epoch, pieces, worth_checking
from prunegen_jax.types import Dataset, History, Partial, PyTree

__all__ = ["Hyper", "Recipe", "Snapshot", "State", "compile_for", "hyper", "start", "train"]

Status = Literal["training", "converged", "not_converged", "diverged"]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train and when to stop; networks that share it, and their shape, share a compiled program.

    Attributes:
        optimizer: a name of `OPTIMIZERS`.
        batch_size: examples per update.
        augment: mirror and shift the images of every batch.
        target: cross-entropy in nats on the whole training set, evaluation mode, below which training stops.
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
        find_optimizer(self.optimizer)
        for field in ("batch_size", "max_epochs", "max_updates"):
            if getattr(self, field) < 1:
                raise ValueError(f"train.{field}={getattr(self, field)} must be at least 1")
        if not 0 < self.target < math.inf:
            raise ValueError(f"train.target={self.target} must be a positive number of nats")

    def check(self, size: int) -> None:
        """ValueError if a batch is larger than the training set of `size` examples."""
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
        """The part that measures may read."""
        losses = (self.epoch_loss, self.check_update, self.check_loss)
        return History(*losses, self.updates, recipe.batch_size, recipe.target)


def compile_for(network: Network, recipe: Recipe) -> Program:
    """The jitted functions that train `network` by `recipe`; compiled once per shape of network and data."""
    return program(network, optimizer_name=recipe.optimizer, batch_size=recipe.batch_size, augment=recipe.augment)


def start(network: Network, recipe: Recipe, h: Hyper) -> Snapshot:
    """The network before its first update."""
    return Snapshot(compile_for(network, recipe).init(h.key), epochs=0, updates=0)


def train(
    network: Network, data: Dataset, h: Hyper, recipe: Recipe, *, resume: Snapshot | None = None
) -> Iterator[Snapshot]:
    """Trains until the cross-entropy on the whole training set falls below the target.

    Yields a snapshot after every epoch and, last, one whose `status` is not "training": "converged",
    "not_converged" (a cap was reached) or "diverged" (a loss was not finite), with the reason. A snapshot's state is
    given to the next update and then gone: copy what is to be kept before asking for the next.

    Args:
        network: from `prunegen_jax.models.build`.
        data: the training set; it stays on the device and batches are gathered there.
        h: learning rate, L2 weight decay, dropout and key, all traced.
        recipe: the optimizer, the batch, the target and the caps.
        resume: a snapshot to continue from, instead of the beginning.

    Raises:
        ValueError: if a batch is larger than the set.
    """
    recipe.check(len(data))
    snapshot = resume or start(network, recipe, h)
    while snapshot.status == "training":
        snapshot = _epoch(network, data, h, recipe, snapshot)
        yield snapshot


def _epoch(network: Network, data: Dataset, h: Hyper, recipe: Recipe, snapshot: Snapshot) -> Snapshot:
    """One more epoch, with the checks that fall into it."""
    compiled, epoch = compile_for(network, recipe), snapshot.epochs
    begin, end = (first_update(e, size=len(data), batch_size=recipe.batch_size) for e in (epoch, epoch + 1))
    end = min(end, recipe.max_updates)
    last = epoch + 1 >= recipe.max_epochs or end >= recipe.max_updates
    now, losses = snapshot._replace(epochs=epoch + 1), 0.0
    considered = checks_per_epoch(now.check_loss[-1] if now.check_loss else math.inf, recipe.target)
    for a, b in pieces(begin, end, considered):
        state, total = compiled.run(now.state, h, data, jnp.int32(epoch), jnp.int32(a), jnp.int32(b))
        running = float(total) / (b - a)
        losses += float(total)
        now = now._replace(state=state, updates=b)
        if not math.isfinite(running):
            return now._replace(status="diverged", reason=f"mini-batch loss {running} between updates {a} and {b}")
        since = (b - (now.check_update[-1] if now.check_update else 0)) * recipe.batch_size / len(data)
        due = worth_checking(running, since, now.check_running, now.check_loss, target=recipe.target)
        if due or (last and b == end):
            now = _check(network, data, now, running, recipe.target)
            if now.status != "training":
                break
    now = now._replace(epoch_loss=(*now.epoch_loss, losses / (now.updates - begin)))
    if epoch == 0:
        now = now._replace(first_epoch=jax.tree.map(jnp.copy, (now.state.params, now.state.stats)))
    if last and now.status == "training":
        cap = f"{now.epochs} epochs" if now.epochs >= recipe.max_epochs else f"{now.updates} updates"
        reason = f"cross-entropy {now.check_loss[-1]:.4g} after {cap}, target {recipe.target:g}"
        now = now._replace(status="not_converged", reason=reason)
    return now


def _check(network: Network, data: Dataset, now: Snapshot, running: float, target: float) -> Snapshot:
    """Evaluates the whole training set and decides."""
    loss, _ = loss_and_accuracy(Partial(network.apply, now.state.stats), now.state.params, data)
    now = now._replace(
        check_update=(*now.check_update, now.updates),
        check_loss=(*now.check_loss, loss),
        check_running=(*now.check_running, running),
    )
    if not math.isfinite(loss):
        return now._replace(status="diverged", reason=f"training cross-entropy {loss} at update {now.updates}")
    return now._replace(status="converged") if loss < target else now
