"""An ensemble of slots: E networks of equal shape train in one program; a slot whose network has ended takes the next.

Nothing waits for the slowest network and nothing is compiled again. What a network becomes depends on E, never on
which networks are beside it or on its slot.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.networks import Network
from prunegen_jax.training.checks import mean_losses
from prunegen_jax.training.recipe import Recipe, Snapshot
from prunegen_jax.training.seat import Job, Seat
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
    """Compiles the updates that `train_many` will do, for data and hyperparameters of these shapes, and does none."""
    compiled = compile_for(network, recipe, slots=slots, devices=devices)
    each, same = _shardings(tuple(devices))
    one = jax.eval_shape(compiled.init, h.key), jax.eval_shape(lambda: h)
    many = jax.tree.map(lambda x: jax.ShapeDtypeStruct((slots, *x.shape), x.dtype, sharding=each), one)
    shared = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=same), data)
    compiled.run.lower(*many, shared, *np.zeros((3, slots), np.int32)).compile()


def start(network: Network, recipe: Recipe, h: Hyper) -> Snapshot:
    """The network before its first update."""
    return Snapshot(compile_for(network, recipe).init(h.key), epochs=0, updates=0)


def train_many(
    network: Network,
    data: Dataset,
    jobs: Sequence[Job],
    *,
    slots: int = 1,
    devices: Sequence[jax.Device] = (),
    span: Span = contextlib.nullcontext,
) -> Iterator[list[tuple[int, Snapshot]]]:
    """Trains every job to its target or cap; after each epoch yields (index, snapshot) of those that trained.

    The last snapshot of a job has a status other than "training". A snapshot is the caller's to keep.

    Args:
        network: the shape that the jobs share.
        data: the training set that they share; it stays on the devices and batches are gathered there.
        jobs: their recipes may differ in target and caps alone.
        slots: E, how many train at once.
        devices: over which the slots are dealt out; none stands for JAX's default device.
        span: called with "update" or "check", gives the context in which that is done, for who wants to time it.

    Raises:
        ValueError: if the recipes differ in more, a batch is larger than the set, or E does not suit the devices.
    """
    for job in jobs:
        job.recipe.check(len(data))
        if job.recipe.compiled != jobs[0].recipe.compiled:
            raise ValueError(f"jobs trained together differ: {job.recipe.compiled} is not {jobs[0].recipe.compiled}")
    ensemble = _Ensemble(network, data, jobs, slots, tuple(devices), span)
    while ensemble.fill():
        yield ensemble.epoch()


def _shardings(devices: tuple[jax.Device, ...]) -> tuple[jax.NamedSharding | None, jax.NamedSharding | None]:
    """Where arrays with an axis of slots, and the others, lie; None, None on one device."""
    if len(devices) < 2:
        return None, None
    mesh = jax.sharding.Mesh(np.asarray(devices), ("slots",))
    return jax.NamedSharding(mesh, jax.P("slots")), jax.NamedSharding(mesh, jax.P())


class _Ensemble:
    """The slots, their states on the device and who sits where."""

    def __init__(
        self,
        network: Network,
        data: Dataset,
        jobs: Sequence[Job],
        slots: int,
        devices: tuple[jax.Device, ...],
        span: Span,
    ) -> None:
        self.network, self.span = network, span
        self.waiting = collections.deque(enumerate(jobs))
        self.seats: list[Seat | None] = [None] * slots
        self.states: State | None = None
        self.hypers: Hyper | None = None
        self.sharding, same = _shardings(devices)
        self.data = jax.device_put(data, same) if same else data
        if jobs:
            self.program = compile_for(network, jobs[0].recipe, slots=slots, devices=devices)

    def fill(self) -> bool:
        """Seats the waiting in the free slots; whether anyone is seated."""
        for slot, seat in enumerate(self.seats):
            while seat is None and self.waiting:
                index, job = self.waiting.popleft()
                now = job.resume or Snapshot(self.program.init(job.h.key), epochs=0, updates=0)
                if now.status != "training":
                    continue
                self._place(slot, now.state, job.h)
                seat = self.seats[slot] = Seat(index, job, now)
        return any(self.seats)

    def _place(self, slot: int, state: State, h: Hyper) -> None:
        if self.states is None:  # the slots that stay empty are filled with the same, and never updated
            count = len(self.seats)
            many = jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x), (count, *x.shape)), (state, h))
            self.states, self.hypers = jax.device_put(many, self.sharding) if self.sharding else many
        self.states = self.program.put(self.states, slot, state)
        self.hypers = self.program.put(self.hypers, slot, h)

    def epoch(self) -> list[tuple[int, Snapshot]]:
        """One more epoch of every seat, with the checks that fall into it; who has ended leaves."""
        seated = {slot: seat for slot, seat in enumerate(self.seats) if seat}
        for seat in seated.values():
            seat.begin_epoch(len(self.data))
        parts = max(seat.considered for seat in seated.values())  # powers of two: all checks lie on these edges
        for part in range(parts):
            ranges = {slot: seat.range(part, parts) for slot, seat in seated.items()}
            if any(begin < end for begin, end in ranges.values()):
                self._update(seated, ranges)
            due = {slot: seat.due(part, parts, len(self.data)) for slot, seat in seated.items()}
            self._check({slot: running for slot, running in due.items() if running is not None})
        ended = [(seat.index, seat.end_epoch(self.program.take(self.states, slot))) for slot, seat in seated.items()]
        self.seats = [seat if seat and seat.now.status == "training" else None for seat in self.seats]
        return ended

    def _update(self, seated: dict[int, Seat], ranges: dict[int, tuple[int, int]]) -> None:
        """The updates `ranges` of the slots."""
        numbers = np.zeros((3, len(self.seats)), np.int32)
        for slot, seat in seated.items():
            numbers[:, slot] = seat.now.epochs - 1, *ranges[slot]
        with self.span("update"):
            self.states, losses = self.program.run(self.states, self.hypers, self.data, *numbers)
            host = np.asarray(losses, np.float64)
        for slot, (begin, end) in ranges.items():
            if begin < end:
                seated[slot].took(host[slot, : end - begin], end)

    def _check(self, due: dict[int, float]) -> None:
        """Evaluates the whole training set for the slots `due`, whose running losses it maps to, and decides."""
        if not due:
            return
        with self.span("check"):
            losses = mean_losses(self.network, self.states, self.data, list(due))
        for (slot, running), loss in zip(due.items(), losses, strict=True):
            self.seats[slot].checked(loss, running)
