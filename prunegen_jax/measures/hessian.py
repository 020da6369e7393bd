"""Products of the Hessian and the Gauss–Newton matrix of the training loss with vectors, over the full set in chunks.

H = ∇²L̂(w) of the kernels and biases, p in all. An operator is a `Partial` that takes vectors `[V, p]` to products
`[V, p]`; it is a pytree, so that programs which take one are compiled once for all networks of a shape.

One product costs 8 matrix multiplications for every 3 of a gradient (forward, tangent forward, backward, tangent
backward). Two of them do not depend on the vector and are shared: between the vectors of a block (`hessian`), or
between all products, if the linearization fits into memory (`linearized`). There is a loop over the vectors inside a
chunk, not a vmap: vmapped kernels make convolutions slow.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from prunegen_jax.compute import lockstep
from prunegen_jax.compute.evaluation import losses_of
from prunegen_jax.measures.objective import Objective, Weights, chunk_logits, chunk_loss
from prunegen_jax.types import Partial

MEMORY = 3e9  # bytes that a stored linearization may take


def hessian(objective: Objective, weights: Weights) -> Partial:
    """v ↦ H v, for blocks of vectors."""
    return Partial(_hessian_products, objective, weights)


def linearized(objective: Objective, weights: Weights, *, memory: float = MEMORY) -> Partial:
    """v ↦ H v for one vector after another: what does not depend on v is stored, if it fits into `memory` bytes.

    Never for networks that are measured together: a linearization is a function of one network, and cannot be vmapped.
    """
    if lockstep.size() > 1:
        return hessian(objective, weights)
    shapes = jax.eval_shape(_linearize, objective, weights)
    if sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes)) > memory:
        return hessian(objective, weights)
    return Partial(_linearized_products, weights, _linearize(objective, weights))


def gauss_newton(objective: Objective, weights: Weights) -> Partial:
    """v ↦ G v, G = (1/N) Σ_i J_iᵀ (diag p_i − p_i p_iᵀ) J_i, the Fisher matrix of the softmax."""
    return Partial(_gauss_newton_products, objective, weights)


def weighted(operator: Partial, weights: Weights) -> Partial:
    """v ↦ w ∘ A (w ∘ v): the operator D_w A D_w, whose trace is Σ_j A_jj w_j²."""
    return Partial(_weighted_products, operator, ravel_pytree(weights)[0])


@lockstep.jit
def gradient(objective: Objective, weights: Weights) -> Weights:
    """∇L̂(w) over the full set."""
    with jax.default_matmul_precision("highest"):
        return _gradient(objective, weights)


@lockstep.jit
def product(operator: Partial, vector: jax.Array) -> jax.Array:
    """A v of an operator and one vector `[p]`."""
    return operator(vector[None, :])[0]


@lockstep.jit
def products(operator: Partial, vectors: jax.Array) -> jax.Array:
    """A v of an operator and a block of vectors `[V, p]`."""
    return operator(vectors)


def _gradient(objective: Objective, weights: Weights) -> Weights:
    def step(total: Weights, chunk: tuple[jax.Array, jax.Array]) -> tuple[Weights, None]:
        return jax.tree.map(jnp.add, total, jax.grad(chunk_loss, argnums=1)(objective, weights, *chunk)), None

    return jax.lax.scan(step, jax.tree.map(jnp.zeros_like, weights), (objective.indices, objective.scale))[0]


@lockstep.jit
def _linearize(objective: Objective, weights: Weights) -> Partial:
    with jax.default_matmul_precision("highest"):
        return jax.linearize(lambda w: _gradient(objective, w), weights)[1]


def _linearized_products(weights: Weights, linear: Partial, vectors: jax.Array) -> jax.Array:
    unravel = ravel_pytree(weights)[1]
    with jax.default_matmul_precision("highest"):
        return jax.lax.map(lambda v: ravel_pytree(linear(unravel(v)))[0], vectors)


def _hessian_products(objective: Objective, weights: Weights, vectors: jax.Array) -> jax.Array:
    flat, unravel = ravel_pytree(weights)

    def step(total: jax.Array, chunk: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        def chunk_gradient(w: jax.Array) -> jax.Array:
            return ravel_pytree(jax.grad(chunk_loss, argnums=1)(objective, unravel(w), *chunk))[0]

        return total + jax.lax.map(jax.linearize(chunk_gradient, flat)[1], vectors), None

    with jax.default_matmul_precision("highest"):
        return jax.lax.scan(step, jnp.zeros_like(vectors), (objective.indices, objective.scale))[0]


def _gauss_newton_products(objective: Objective, weights: Weights, vectors: jax.Array) -> jax.Array:
    flat, unravel = ravel_pytree(weights)

    def step(total: jax.Array, chunk: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        indices, scale = chunk
        logits, forward = jax.linearize(lambda w: chunk_logits(objective, unravel(w), indices)[0], flat)
        backward = jax.linear_transpose(forward, flat)
        p = jax.nn.softmax(logits, axis=-1)

        def one(vector: jax.Array) -> jax.Array:
            u = forward(vector)
            centred = p * (u - jnp.sum(p * u, axis=-1, keepdims=True))
            return backward(scale[:, None] * centred)[0]

        return total + jax.lax.map(one, vectors), None

    with jax.default_matmul_precision("highest"):
        return jax.lax.scan(step, jnp.zeros_like(vectors), (objective.indices, objective.scale))[0]


def _weighted_products(operator: Partial, weights: jax.Array, vectors: jax.Array) -> jax.Array:
    return weights[None, :] * operator(weights[None, :] * vectors)


@lockstep.jit
def slopes(objective: Objective, weights: Weights, direction: Weights) -> jax.Array:
    """⟨v, ∇ℓ_i⟩ of every example, `[chunks, B]`, with v = `direction`."""

    def one(indices: jax.Array) -> jax.Array:
        out, u, labels = _outputs_along(objective, weights, direction, indices)
        return _slope(objective, out, u, labels)

    with jax.default_matmul_precision("highest"):
        return jax.lax.map(one, objective.indices)


@lockstep.jit
def rayleigh_fisher(objective: Objective, weights: Weights, direction: Weights) -> tuple[jax.Array, jax.Array]:
    """⟨v, ∇ℓ_i⟩² and (J_i v)ᵀ (diag p_i − p_i p_iᵀ) (J_i v) of every example, `[chunks, B]` each, with v = `direction`.

    Their means are vᵀ F v with F the empirical and the true Fisher matrix.
    """

    def one(indices: jax.Array) -> tuple[jax.Array, jax.Array]:
        out, u, labels = _outputs_along(objective, weights, direction, indices)
        p = jax.nn.softmax(out, axis=-1)
        mean = jnp.sum(p * u, axis=-1)
        variance = jnp.sum(p * jnp.square(u - mean[:, None]), axis=-1)
        return jnp.square(_slope(objective, out, u, labels)), variance

    with jax.default_matmul_precision("highest"):
        return jax.lax.map(one, objective.indices)


def _outputs_along(
    objective: Objective, weights: Weights, direction: Weights, indices: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Outputs of one chunk of examples, their derivative along `direction`, and the labels."""
    return jax.jvp(lambda w: chunk_logits(objective, w, indices), (weights,), (direction,), has_aux=True)


def _slope(objective: Objective, out: jax.Array, u: jax.Array, labels: jax.Array) -> jax.Array:
    return jax.jvp(lambda z: losses_of(objective.data, z, labels), (out,), (u,))[1]
