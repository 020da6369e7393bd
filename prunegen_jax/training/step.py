"""Training as pure, jitted functions of (states, hyperparameters, data, update numbers), for E networks at once.

Every array of a state and of the hyperparameters has a leading axis of E slots. One slot is computed without vmap;
several are vmapped, and several devices share the slots, with nothing passed between them.

Randomness is a function of (key, purpose, number) and the batch order of the update's number, so training can stop
after any update and continue bit for bit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from prunegen_jax.compute import sharding, trees
from prunegen_jax.compute.evaluation import cross_entropy
from prunegen_jax.networks import Network
from prunegen_jax.training.optimizers import optimizer
from prunegen_jax.training.rows import Rows
from prunegen_jax.types import Dataset, PyTree

_INIT, _ORDER, _DROPOUT, _AUGMENT = range(4)  # purposes of randomness


class State(NamedTuple):
    """All that training changes."""

    params: PyTree
    stats: PyTree  # running statistics of batch norm
    moments: PyTree  # of the optimizer


class Hyper(NamedTuple):
    """What may differ between networks that share one compiled program."""

    learning_rate: jax.Array
    weight_decay: jax.Array  # λ of (λ/2) Σ ‖W‖² over the kernels; its gradient goes through the optimizer (L2)
    dropout: jax.Array
    key: jax.Array


def hyper(*, learning_rate: float, weight_decay: float, dropout: float, seed: int) -> Hyper:
    """Hyperparameters as float32 scalars and a key.

    Args:
        learning_rate: a positive number.
        weight_decay: λ ≥ 0 of (λ/2) Σ ‖W‖² over the kernels.
        dropout: probability in [0, 1) that an entry is dropped.
        seed: of the key.

    Raises:
        ValueError: for one out of range.
    """
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"train.learning_rate={learning_rate} must be a positive number")
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"train.weight_decay={weight_decay} must not be negative")
    if not 0 <= dropout < 1:
        raise ValueError(f"train.dropout={dropout} must be at least 0 and below 1")
    rates = (jnp.float32(x) for x in (learning_rate, weight_decay, dropout))
    return Hyper(*rates, jax.random.key(seed))


class Program(NamedTuple):
    """The compiled parts of training for one shape of network, optimizer, batch size, augmentation and slots."""

    init: jax.stages.Wrapped  # (key) -> State of one network, no slots
    run: jax.stages.Wrapped  # (states, hypers, data, epochs [E], starts [E], stops [E]) -> (states, losses [E, U])
    put: jax.stages.Wrapped  # (states, slot, state) -> states
    take: jax.stages.Wrapped  # (states, slot) -> state


@functools.cache
def program(
    network: Network,
    *,
    optimizer_name: str,
    batch_size: int,
    augment: bool,
    slots: int = 1,
    devices: tuple[jax.Device, ...] = (),
) -> Program:
    """Jitted parts of training; the same object for the same arguments, so nothing is compiled twice.

    Args:
        network: the shape of the networks.
        optimizer_name: a name of `OPTIMIZERS`.
        batch_size: B.
        augment: mirror and shift the images of every batch.
        slots: E, networks trained at once.
        devices: the devices that share the slots; none stands for JAX's default device.

    Raises:
        ValueError: if E is not a positive multiple of the number of devices.
    """
    sharding.check_multiple("slots", slots, devices)
    if slots > 1 and network.vmapped is not None:
        network = network.vmapped
    transform = optimizer(optimizer_name)

    def init(key: jax.Array) -> State:
        params, stats = network.init(jax.random.fold_in(key, _INIT))
        return State(params, stats, transform.init(params))

    def update(
        state: State, h: Hyper, images: jax.Array, labels: jax.Array, number: jax.Array
    ) -> tuple[State, jax.Array]:
        if augment:
            images = flip_and_shift(_key(h.key, _AUGMENT, number), images)

        def loss(params: PyTree) -> tuple[jax.Array, PyTree]:
            key = _key(h.key, _DROPOUT, number)
            logits, stats = network.train_apply(params, state.stats, images, h.dropout, key)
            return cross_entropy(logits, labels).mean(), stats

        (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        grads = jax.tree_util.tree_map_with_path(
            lambda path, g, w: g + h.weight_decay * w if trees.is_kernel(trees.path_names(path), w) else g,
            grads,
            state.params,
        )
        with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counts with floats
            direction, moments = transform.update(grads, state.moments, state.params)
        params = jax.tree.map(lambda w, d: w - h.learning_rate * d, state.params, direction)
        return State(params, stats, moments), value

    def run_one(
        state: State, h: Hyper, data: Dataset | Rows, epoch: jax.Array, start: jax.Array, stop: jax.Array
    ) -> tuple[State, jax.Array]:
        order = _order(h.key, epoch, len(data), batch_size)

        def body(number: jax.Array, carry: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
            state, losses = carry
            first = number * batch_size - epoch * len(data)
            images, labels = data.take(lax.dynamic_slice(order, (first,), (batch_size,)))
            state, value = update(state, h, images, labels, number)
            return state, losses.at[number - start].set(value)

        return lax.fori_loop(start, stop, body, (state, jnp.zeros(-(-len(data) // batch_size), jnp.float32)))

    run = _over_slots(run_one, slots, devices)
    put = jax.jit(lambda states, slot, state: jax.tree.map(lambda x, y: x.at[slot].set(y), states, state))
    take = jax.jit(lambda states, slot: jax.tree.map(lambda x: x[slot], states))
    return Program(jax.jit(init), jax.jit(run, donate_argnums=0), put, take)


def _over_slots(function: Callable[..., Any], slots: int, devices: tuple[jax.Device, ...]) -> Callable[..., Any]:
    """`function(state, h, data, …)` for arguments with a leading axis of slots, the data excepted."""
    if slots == 1:

        def alone(state: State, h: Hyper, data: Dataset | Rows, *numbers: jax.Array) -> Any:
            state, h, *numbers = jax.tree.map(lambda x: x[0], (state, h, *numbers))
            return jax.tree.map(lambda x: x[None], function(state, h, data, *numbers))

        return alone
    many = jax.vmap(function, in_axes=(0, 0, None, 0, 0, 0))
    return sharding.split_over(many, devices, "slots", split=(True, True, False, True, True, True))


def first_update(epoch: int, *, size: int, batch_size: int) -> int:
    """Number of the first update of `epoch`: ⌈epoch · N / B⌉.

    Examples come in one stream, a fresh permutation of the N examples after another, cut into batches of exactly B.
    No tail is dropped and no batch is short; a batch may straddle two epochs.
    """
    return -(-epoch * size // batch_size)


def _order(key: jax.Array, epoch: jax.Array, size: int, batch_size: int) -> jax.Array:
    """The stream of examples from the start of `epoch`, `[N + B]`: its permutation and the beginning of the next."""
    this, following = (jax.random.permutation(_key(key, _ORDER, number), size) for number in (epoch, epoch + 1))
    return jnp.concatenate([this, following[:batch_size]])


def _key(key: jax.Array, purpose: int, number: jax.Array) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(key, purpose), number)


def flip_and_shift(key: jax.Array, images: jax.Array) -> jax.Array:
    """Each image `[n, H, W, C]` mirrored with probability ½ and shifted by up to H // 8 pixels, padded with zeros."""
    flip_key, shift_key = jax.random.split(key)
    flip = jax.random.bernoulli(flip_key, 0.5, (images.shape[0], 1, 1, 1))
    images = jnp.where(flip, images[:, :, ::-1, :], images)
    reach = images.shape[1] // 8
    padded = jnp.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    corners = jax.random.randint(shift_key, (images.shape[0], 2), 0, 2 * reach + 1)
    return jax.vmap(lambda image, corner: lax.dynamic_slice(image, (corner[0], corner[1], 0), images.shape[1:]))(
        padded, corners
    )
