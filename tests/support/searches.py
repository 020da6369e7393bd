"""Searches for the tests of lockstep: programs whose number of calls depends on the answers."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute import lockstep

DATA = jnp.arange(12.0).reshape(4, 3)
traced: list[str] = []  # one entry for each time `moment` is traced


@functools.partial(lockstep.jit, static_argnames="power")
def moment(weights, data, scale=2.0, *, power):
    """A program with a default, a static argument and a tree for an answer."""
    traced.append(str(power))
    return {"sum": scale * jnp.sum((data @ weights) ** power), "weights": weights}


def halvings(weights, data, limit):
    """A search whose number of calls depends on what they answer."""
    calls = 0
    while float(moment(weights, data, power=2)["sum"]) > limit:
        weights, calls = moment(0.5 * weights, data, power=2)["weights"], calls + 1
    return calls, np.asarray(weights)


def start(seed: int) -> jax.Array:
    """The weights that the search of that seed starts from."""
    return jax.random.normal(jax.random.key(seed), (3,)) * 2.0**seed


def searches(seeds) -> list[Callable]:
    """One search for each seed."""
    return [functools.partial(halvings, start(seed), DATA, 1.0) for seed in seeds]
