"""Langevin chains that sample weights near those of a trained network, with or without a Metropolis correction.

The density is that of exp(−U(w)), U(w) = nβ L̂(w) + (γ/2) ‖w − w*‖², with w* the trained weights. A step of size ε is
w' = w − (ε/2) ∇U(w) + √ε ξ, ξ standard normal. With ∇U over all examples it is a proposal that the Metropolis rule
accepts or rejects (MALA, with the drift truncated: Roberts & Tweedie 1996): the chain samples the density itself, for
every ε. With ∇L̂ of a new minibatch in every step, nothing is accepted or rejected (SGLD, Welling & Teh 2011): the
chain samples the density in the limit ε → 0.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prunegen_jax.compute import lockstep
from prunegen_jax.measures.objective import Objective, Weights, chunk_loss
from prunegen_jax.measures.weight_noise import split_key
from prunegen_jax.measures.worst_case import loss_error_gradient

ACCEPTANCE = 0.574  # the most efficient of Metropolis-adjusted Langevin steps (Roberts & Rosenthal 1998)


class Density(NamedTuple):
    """What is sampled: exp(−nβ L̂(w) − (γ/2) ‖w − w*‖²), unnormalized; a pytree."""

    objective: Objective
    centre: Weights  # w*
    nbeta: jax.Array  # nβ
    localization: jax.Array  # γ


class Chains(NamedTuple):
    """Chains of weights.

    Attributes:
        last: the weights at the end, with a leading axis of chains.
        rises: L̂(w) − L̂(w*) after each step, or before it without correction, `[steps, chains]`.
        acceptance: the probability with which each step was accepted, `[steps, chains]`; 1 without correction.
        step_size: ε at the end.
    """

    last: Weights
    rises: jax.Array
    acceptance: jax.Array
    step_size: jax.Array


class _Point(NamedTuple):
    weights: Weights
    loss: jax.Array  # L̂
    energy: jax.Array  # U
    slope: Weights  # ∇U


@functools.partial(lockstep.jit, static_argnames=("steps", "adapted", "minibatch"))
def sample(
    density: Density,
    starts: Weights,
    key: jax.Array,
    step_size: jax.Array,
    *,
    steps: int,
    adapted: int = 0,
    minibatch: int | None = None,
) -> Chains:
    """Chains from `starts`, all with one step size.

    Args:
        density: what is sampled.
        starts: the weights to start from, with a leading axis of chains.
        key: randomness of the steps.
        step_size: ε, at the start.
        steps: number of steps.
        adapted: in how many of the first steps ε moves towards an acceptance of `ACCEPTANCE`, less and less
            (Robbins & Monro 1951).
        minibatch: examples per step, drawn with replacement; None: all, with the Metropolis correction.
    """

    def step(carry: tuple[Any, jax.Array], number: jax.Array) -> tuple[tuple[Any, jax.Array], tuple[jax.Array, ...]]:
        points, log_size = carry
        keys = jax.random.split(jax.random.fold_in(key, number), chains)
        points, rises, acceptance = jax.vmap(lambda point, k: move(point, k, jnp.exp(log_size)))(points, keys)
        gain = jnp.where(number < adapted, (number + 1).astype(log_size.dtype) ** -0.6, 0)
        return (points, log_size + gain * (jnp.mean(acceptance) - ACCEPTANCE)), (rises, acceptance)

    chains = jax.tree.leaves(starts)[0].shape[0]
    with jax.default_matmul_precision("highest"):
        if minibatch is None:
            base = loss_error_gradient(density.objective, density.centre)[0]
            begin: Any = jax.vmap(functools.partial(_evaluate, density))(starts)
            move = functools.partial(_metropolis, density, base)
        else:
            begin, move = starts, functools.partial(_unadjusted, density, minibatch)
        (last, log_size), (rises, acceptance) = jax.lax.scan(step, (begin, jnp.log(step_size)), jnp.arange(steps))
    return Chains(last if minibatch else last.weights, rises, acceptance, jnp.exp(log_size))


def _evaluate(density: Density, weights: Weights) -> _Point:
    loss, _, gradient = loss_error_gradient(density.objective, weights)
    away = jax.tree.map(jnp.subtract, weights, density.centre)
    energy = density.nbeta * loss + density.localization / 2 * _dot(away, away)
    return _Point(weights, loss, energy, _slope(density, gradient, away))


def _slope(density: Density, gradient: Weights, away: Weights) -> Weights:
    return jax.tree.map(lambda g, a: density.nbeta * g + density.localization * a, gradient, away)


def _metropolis(
    density: Density, base: jax.Array, point: _Point, key: jax.Array, size: jax.Array
) -> tuple[_Point, jax.Array, jax.Array]:
    """One step; where the loss or its gradient is not a number, it is rejected."""
    noise_key, uniform_key = jax.random.split(key)
    noise = _noise(density.centre, noise_key)
    slope = _truncated(point.slope, size)
    new = _evaluate(density, _proposal(point.weights, slope, noise, size))
    slopes = jax.tree.map(jnp.add, slope, _truncated(new.slope, size))
    # ln of the density's ratio, and of that of the proposals' densities: (‖ξ‖² − ‖ξ − (√ε/2) (D + D')‖²) / 2
    log_ratio = point.energy - new.energy + jnp.sqrt(size) / 2 * _dot(noise, slopes) - size / 8 * _dot(slopes, slopes)
    acceptance = jnp.nan_to_num(jnp.exp(jnp.minimum(log_ratio, 0)), nan=0.0)
    accepted = jax.random.uniform(uniform_key, (), acceptance.dtype) < acceptance
    point = jax.tree.map(lambda a, b: jnp.where(accepted, a, b), new, point)
    return point, point.loss - base, acceptance


def _truncated(slope: Weights, size: jax.Array) -> Weights:
    """D = ∇U, shortened where it would move the weights further, by (ε/2) ‖D‖, than noise does, by √(ε d)."""
    longest = 2 * jnp.sqrt(sum(leaf.size for leaf in slope.values()) / size)
    length = jnp.sqrt(_dot(slope, slope))
    return jax.tree.map(lambda leaf: leaf * (longest / jnp.maximum(length, longest)), slope)


def _unadjusted(
    density: Density, minibatch: int, weights: Weights, key: jax.Array, size: jax.Array
) -> tuple[Weights, jax.Array, jax.Array]:
    """One step. The examples do not depend on the weights, so that the rise of their loss is unbiased."""
    objective, (noise_key, examples_key) = density.objective, jax.random.split(key)
    examples = jax.random.randint(examples_key, (minibatch,), 0, len(objective.data), objective.indices.dtype)
    scale = jnp.full((minibatch,), 1 / minibatch, objective.scale.dtype)
    loss, gradient = jax.value_and_grad(chunk_loss, argnums=1)(objective, weights, examples, scale)
    rise = loss - chunk_loss(objective, density.centre, examples, scale)
    slope = _slope(density, gradient, jax.tree.map(jnp.subtract, weights, density.centre))
    return _proposal(weights, slope, _noise(weights, noise_key), size), rise, jnp.ones_like(rise)


def _proposal(weights: Weights, slope: Weights, noise: Weights, size: jax.Array) -> Weights:
    return jax.tree.map(lambda w, s, x: w - size / 2 * s + jnp.sqrt(size) * x, weights, slope, noise)


def _noise(like: Weights, key: jax.Array) -> Weights:
    return {name: jax.random.normal(k, like[name].shape, like[name].dtype) for name, k in split_key(like, key).items()}


def _dot(a: Weights, b: Weights) -> jax.Array:
    return sum(jnp.vdot(a[name], b[name]) for name in a)
