"""An ensemble of slots: E networks of equal shape train in one program; a free slot takes the next network.

No network waits for the slowest and nothing is compiled again. The result of a network depends on E, never on the
other networks of the ensemble or on its slot.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute.sharding import shardings
from prunegen_jax.networks import Network
from prunegen_jax.training.losses import mean_losses
from prunegen_jax.training.recipe import Recipe, Snapshot, TrainingRequest
from prunegen_jax.training.rows import stored
from prunegen_jax.training.slot import Slot
from prunegen_jax.training.step import Hyper, Program, State, program
from prunegen_jax.types import Dataset

Span = Callable[[str], AbstractContextManager[object]]


def compile_for(network: Network, recipe: Recipe, *, slots: int = 1, devices: Sequence[jax.Device] = ()) -> Program:
    """The jitted functions that train `network` by `recipe`; compiled once per shape of network and data."""
    return program(
        network,
        optimizer_name=recipe.optimizer,
        batch_size=recipe.batch_size,
        augment=recipe.augment,
        slots=slots,
        devices=tuple(devices),
    )


def compile_ahead(
    network: Network, recipe: Recipe, data: Dataset, h: Hyper, *, slots: int = 1, devices: Sequence[jax.Device] = ()
) -> None:
    """Compiles the updates that `train_many` will do, for data and hyperparameters of these shapes; runs none."""
    compiled = compile_for(network, recipe, slots=slots, devices=devices)
    split, replicated = shardings(devices, "slots")
    one = jax.eval_shape(compiled.init, h.key), jax.eval_shape(lambda: h)
    many = jax.tree.map(lambda x: jax.ShapeDtypeStruct((slots, *x.shape), x.dtype, sharding=split), one)
    shared = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated), jax.eval_shape(stored, data)
    )
    compiled.run.lower(*many, shared, *np.zeros((3, slots), np.int32)).compile()


def start(network: Network, recipe: Recipe, h: Hyper) -> Snapshot:
    """The network before its first update."""
    return Snapshot(compile_for(network, recipe).init(h.key), epochs=0, updates=0)


def train_many(
    network: Network,
    data: Dataset,
    requests: Sequence[TrainingRequest],
    *,
    slots: int = 1,
    devices: Sequence[jax.Device] = (),
    span: Span = contextlib.nullcontext,
) -> Iterator[list[tuple[int, Snapshot]]]:
    """Trains a network for every request to its target or cap.

    Args:
        network: the shape that the networks share.
        data: the training set that they share; it stays on the devices and batches are gathered there.
        requests: their recipes may differ in target and caps alone.
        slots: E, how many train at once.
        devices: the devices that share the slots; none stands for JAX's default device.
        span: called with "update" or "check", returns the context in which that is done; it may measure time.

    Yields:
        After each epoch (index of the request, snapshot) of the networks that trained. The last snapshot of each has a
        status other than "training". A snapshot may be kept.

    Raises:
        ValueError: if the recipes differ in more, a batch is larger than the set, or E is not a positive multiple of
            the number of devices.
    """
    for request in requests:
        request.recipe.check(len(data))
        if request.recipe.compiled != requests[0].recipe.compiled:
            differing = f"{request.recipe.compiled} is not {requests[0].recipe.compiled}"
            raise ValueError(
                f"networks trained together must share optimizer, batch size and augmentation: {differing}"
            )
    ensemble = _Ensemble(network, data, requests, slots, tuple(devices), span)
    while ensemble.fill():
        yield ensemble.epoch()


class _Ensemble:
    """The slots, and the states of their networks on the device."""

    def __init__(
        self,
        network: Network,
        data: Dataset,
        requests: Sequence[TrainingRequest],
        slots: int,
        devices: tuple[jax.Device, ...],
        span: Span,
    ) -> None:
        self.network, self.span = network, span
        self.waiting = collections.deque(enumerate(requests))
        self.slots: list[Slot | None] = [None] * slots  # None: free
        self.states: State | None = None
        self.hypers: Hyper | None = None
        self.sharding, replicated = shardings(devices, "slots")
        data = stored(data)
        self.data = jax.device_put(data, replicated) if replicated else data
        if requests:
            self.program = compile_for(network, requests[0].recipe, slots=slots, devices=devices)

    def fill(self) -> bool:
        """Gives the free slots to waiting requests; returns whether any slot trains."""
        for number, slot in enumerate(self.slots):
            while slot is None and self.waiting:
                index, request = self.waiting.popleft()
                snapshot = request.resume or Snapshot(self.program.init(request.h.key), epochs=0, updates=0)
                if snapshot.status != "training":
                    continue
                self._place(number, snapshot.state, request.h)
                slot = self.slots[number] = Slot(index, request, snapshot)
        return any(self.slots)

    def _place(self, number: int, state: State, h: Hyper) -> None:
        """Puts a network into the slot `number`."""
        if self.states is None:  # slots that stay free are filled with the same network, and never updated
            count = len(self.slots)
            many = jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x), (count, *x.shape)), (state, h))
            self.states, self.hypers = jax.device_put(many, self.sharding) if self.sharding else many
        self.states = self.program.put(self.states, number, state)
        self.hypers = self.program.put(self.hypers, number, h)

    def epoch(self) -> list[tuple[int, Snapshot]]:
        """Trains one epoch in every slot, with its checks; slots of finished networks become free."""
        training = {number: slot for number, slot in enumerate(self.slots) if slot}
        for slot in training.values():
            slot.begin_epoch(len(self.data))
        parts = max(slot.checks for slot in training.values())  # powers of two: every check is at the end of a part
        for part in range(parts):
            ranges = {number: slot.update_range(part, parts) for number, slot in training.items()}
            if any(begin < end for begin, end in ranges.values()):
                self._update(training, ranges)
            losses = {number: slot.loss_before_check(part, parts, len(self.data)) for number, slot in training.items()}
            self._check({number: running for number, running in losses.items() if running is not None})
        snapshots = [
            (slot.index, slot.end_epoch(self.program.take(self.states, number))) for number, slot in training.items()
        ]
        self.slots = [slot if slot and slot.snapshot.status == "training" else None for slot in self.slots]
        return snapshots

    def _update(self, training: dict[int, Slot], ranges: dict[int, tuple[int, int]]) -> None:
        """Does the updates `ranges` of the slots."""
        numbers = np.zeros((3, len(self.slots)), np.int32)
        for number, slot in training.items():
            numbers[:, number] = slot.snapshot.epochs - 1, *ranges[number]
        with self.span("update"):
            self.states, losses = self.program.run(self.states, self.hypers, self.data, *numbers)
            host = np.asarray(losses, np.float64)
        for number, (begin, end) in ranges.items():
            if begin < end:
                training[number].add_losses(host[number, : end - begin], end)

    def _check(self, running_losses: dict[int, float]) -> None:
        """Evaluates the whole training set for some slots, given with their running mini-batch losses."""
        if not running_losses:
            return
        with self.span("check"):
            losses = mean_losses(self.network, self.states, self.data, list(running_losses))
        for (number, running), loss in zip(running_losses.items(), losses, strict=True):
            self.slots[number].add_check(loss, running)
