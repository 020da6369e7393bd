"""Values of a program that are stored with their axes in another order than in the model, see `planes`."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Axes = tuple[int, ...]


class Stored(NamedTuple):
    """A value stored with its axes in another order: axis i of `array` is axis `order[i]` of the value."""

    array: jax.Array
    order: Axes


class Broadcast(NamedTuple):
    """A `broadcast_in_dim` that is evaluated later, when the layout of the other operands is known."""

    operand: jax.Array
    shape: tuple[int, ...]
    axes: Axes


Value = Any  # jax.Array, Stored or Broadcast


def as_written(value: Value) -> jax.Array:
    """A value with its axes in the order of the model."""
    if isinstance(value, Stored):
        return lax.transpose(value.array, tuple(int(i) for i in np.argsort(value.order)))
    if isinstance(value, Broadcast):
        return lax.broadcast_in_dim(value.operand, value.shape, value.axes)
    return value


def in_order(value: Value, order: Axes) -> jax.Array:
    """A value with its axes in `order`; scalars are unchanged."""
    if isinstance(value, Stored):
        if value.order == order:
            return value.array
        return lax.transpose(value.array, tuple(value.order.index(axis) for axis in order))
    if isinstance(value, Broadcast):
        places = [order.index(axis) for axis in value.axes]
        sort = tuple(int(i) for i in np.argsort(places))
        operand = value.operand if sort == tuple(range(len(sort))) else lax.transpose(value.operand, sort)
        return lax.broadcast_in_dim(operand, tuple(value.shape[axis] for axis in order), sorted(places))
    return lax.transpose(value, order) if jnp.ndim(value) else value


def rank(value: Value) -> int:
    """The number of axes of a value."""
    if isinstance(value, Stored):
        return len(value.order)
    return len(value.shape) if isinstance(value, Broadcast) else jnp.ndim(value)


def is_plain(value: Value) -> bool:
    """Whether a value is an array, with its axes in the order of the model."""
    return not isinstance(value, Stored | Broadcast)


def as_dtype(value: Value) -> Any:
    """The type of the entries of a value."""
    return jnp.result_type(value[0] if not is_plain(value) else value)
