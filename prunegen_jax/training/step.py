"""One network's training as pure, jitted functions of (state, hyperparameters, data, update number).

Randomness is a function of (key, purpose, number) and the batch order of the update's number, so training can stop
after any update and continue bit for bit.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from prunegen_jax import trees
from prunegen_jax.evaluation import cross_entropy
from prunegen_jax.models import Network
from prunegen_jax.training.optimizers import optimizer
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
    """Hyperparameters as float32 scalars and a key. ValueError for one out of range."""
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"train.learning_rate={learning_rate} must be a positive number")
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"train.weight_decay={weight_decay} must not be negative")
    if not 0 <= dropout < 1:
        raise ValueError(f"train.dropout={dropout} must lie between 0 and 1, 1 excluded")
    rates = (jnp.float32(x) for x in (learning_rate, weight_decay, dropout))
    return Hyper(*rates, jax.random.key(seed))


class Program(NamedTuple):
    """The compiled halves of training for one shape of network, optimizer, batch size and augmentation."""

    init: jax.stages.Wrapped  # (key) -> State
    run: jax.stages.Wrapped  # (state, hyper, data, epoch, start, stop) -> (state, sum of mini-batch losses)


@functools.cache
def program(network: Network, *, optimizer_name: str, batch_size: int, augment: bool) -> Program:
    """Jitted `init` and `run`; the same object for the same arguments, so nothing is compiled twice."""
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

    def run(
        state: State, h: Hyper, data: Dataset, epoch: jax.Array, start: jax.Array, stop: jax.Array
    ) -> tuple[State, jax.Array]:
        order = _order(h.key, epoch, len(data), batch_size)

        def body(number: jax.Array, carry: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
            state, total = carry
            first = number * batch_size - epoch * len(data)
            images, labels = data.take(lax.dynamic_slice(order, (first,), (batch_size,)))
            state, value = update(state, h, images, labels, number)
            return state, total + value

        return lax.fori_loop(start, stop, body, (state, jnp.float32(0.0)))

    return Program(jax.jit(init), jax.jit(run, donate_argnums=0))


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
    """Each image `[n, H, W, C]` mirrored with probability ½ and shifted by up to H // 8 pixels, zeros coming in."""
    flip_key, shift_key = jax.random.split(key)
    flip = jax.random.bernoulli(flip_key, 0.5, (images.shape[0], 1, 1, 1))
    images = jnp.where(flip, images[:, :, ::-1, :], images)
    reach = images.shape[1] // 8
    padded = jnp.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    corners = jax.random.randint(shift_key, (images.shape[0], 2), 0, 2 * reach + 1)
    return jax.vmap(lambda image, at: lax.dynamic_slice(image, (at[0], at[1], 0), images.shape[1:]))(padded, corners)
