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
from prunegen_jax.training.step import Hyper, Program, State, first_update, hyper, program
from prunegen_jax.training.stopping import checks_per_epoch, pieces, worth_checking
from prunegen_jax.types import Dataset, History, Partial, PyTree

__all__ = ["Options", "Snapshot", "hyper", "program", "start", "train"]

Status = Literal["training", "converged", "not_converged", "diverged"]


@dataclasses.dataclass(frozen=True)
class Options:
    """When training stops. Losses in nats."""

    target: float = 0.01  # cross-entropy on the whole training set, evaluation mode, below which it stops
    max_epochs: int = 300
    max_updates: int = 1_000_000_000


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

    def history(self, *, batch_size: int, target: float) -> History:
        """The part of the record that measures may read."""
        return History(self.epoch_loss, self.check_update, self.check_loss, self.updates, batch_size, target)


def start(compiled: Program, h: Hyper) -> Snapshot:
    """The network before its first update."""
    return Snapshot(compiled.init(h.key), epochs=0, updates=0)


def train(
    network: Network,
    data: Dataset,
    h: Hyper,
    *,
    optimizer: str,
    batch_size: int,
    augment: bool = False,
    options: Options | None = None,
    resume: Snapshot | None = None,
) -> Iterator[Snapshot]:
    """Trains until the cross-entropy on the whole training set falls below the target.

    Yields a snapshot after every epoch and, last, one whose `status` is not "training": "converged",
    "not_converged" (a cap was reached) or "diverged" (a loss was not finite), with the reason. A snapshot's state is
    given to the next update and then gone: copy what is to be kept before asking for the next.

    Args:
        network: from `prunegen_jax.models.build`.
        data: the training set; it stays on the device and batches are gathered there.
        h: learning rate, L2 weight decay, dropout and key, all traced.
        optimizer: a name of `OPTIMIZERS`.
        batch_size: examples per update, at most `len(data)`.
        augment: mirror and shift the images of every batch.
        options: the target and the caps.
        resume: a snapshot to continue from, instead of the beginning.

    Raises:
        ValueError: for an unknown optimizer, or a batch that is empty or larger than the set.
    """
    if not 1 <= batch_size <= len(data):
        raise ValueError(f"train.batch_size={batch_size} must lie between 1 and {len(data)}, the training-set size")
    options = options or Options()
    compiled = program(network, optimizer_name=optimizer, batch_size=batch_size, augment=augment)
    snapshot = resume or start(compiled, h)
    while snapshot.status == "training":
        snapshot = _epoch(network, compiled, data, h, snapshot, batch_size=batch_size, options=options)
        yield snapshot


def _epoch(
    network: Network,
    compiled: Program,
    data: Dataset,
    h: Hyper,
    snapshot: Snapshot,
    *,
    batch_size: int,
    options: Options,
) -> Snapshot:
    """One more epoch, with the checks that fall into it."""
    epoch = snapshot.epochs
    begin, end = (first_update(e, size=len(data), batch_size=batch_size) for e in (epoch, epoch + 1))
    end = min(end, options.max_updates)
    last = epoch + 1 >= options.max_epochs or end >= options.max_updates
    state, losses = snapshot.state, 0.0
    now = snapshot._replace(epochs=epoch + 1)
    considered = checks_per_epoch(now.check_loss[-1] if now.check_loss else math.inf, options.target)
    for a, b in pieces(begin, end, considered):
        state, total = compiled.run(state, h, data, jnp.int32(epoch), jnp.int32(a), jnp.int32(b))
        running = float(total) / (b - a)
        losses += float(total)
        now = now._replace(state=state, updates=b)
        if not math.isfinite(running):
            return now._replace(status="diverged", reason=f"mini-batch loss {running} between updates {a} and {b}")
        since = (b - (now.check_update[-1] if now.check_update else 0)) * batch_size / len(data)
        due = worth_checking(running, since, now.check_running, now.check_loss, target=options.target)
        if due or (last and b == end):
            now = _check(network, data, now, running, options.target)
            if now.status != "training":
                break
    done = now.updates - begin
    now = now._replace(epoch_loss=(*now.epoch_loss, losses / done))
    if epoch == 0:
        now = now._replace(first_epoch=jax.tree.map(jnp.copy, (now.state.params, now.state.stats)))
    if last and now.status == "training":
        cap = f"{options.max_epochs} epochs" if epoch + 1 >= options.max_epochs else f"{options.max_updates} updates"
        reason = f"cross-entropy {now.check_loss[-1]:.4g} after {cap}, target {options.target:g}"
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
