"""Eigenvalues and spectral densities of symmetric operators by Lanczos' method (matfree), until they are accurate.

An operator takes vectors `[V, p]` to products `[V, p]`, see `hessian`. matfree runs a fixed number of steps; here they
continue until the wanted eigenvalues are accurate enough.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matfree import decomp, stochtrace

from prunegen_jax.compute import lockstep
from prunegen_jax.compute.sampling import mean_and_standard_error
from prunegen_jax.types import Partial

CYCLE = 4  # Lanczos steps between two checks of the Ritz values


@dataclasses.dataclass(frozen=True)
class Eigenpairs:
    """The largest eigenvalues of a symmetric operator.

    Attributes:
        values: Ritz values `[k]`, the largest first.
        vectors: Ritz vectors `[k, p]`, of unit length.
        residuals: ‖A v − λ v‖ `[k]`, known from the recurrence.
        smallest: the smallest Ritz value: an upper estimate of the smallest eigenvalue.
        products: products with the operator.
        converged: whether every one of the k values met the tolerance.
    """

    values: np.ndarray
    vectors: np.ndarray
    residuals: np.ndarray
    smallest: float
    products: int
    converged: bool


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """Stochastic Lanczos quadrature: for each of R probes, k nodes and weights, `[R, k]` each, weights summing to one.

    (1/p) Σ_j f(λ_j) is estimated by the mean over probes of Σ_k weight_k f(node_k).
    """

    nodes: np.ndarray
    weights: np.ndarray
    dimension: int

    def sum(self, function: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
        """Σ_j f(λ_j) over all p eigenvalues, with its standard error over the probes."""
        samples = self.dimension * np.sum(self.weights * function(self.nodes), axis=1)
        mean, sem = mean_and_standard_error(samples)
        return mean, math.nan if sem is None else sem

    def density(self, grid: np.ndarray, *, width: float) -> np.ndarray:
        """The spectral density at the points of `grid [G]`, each node a Gaussian of standard deviation `width`."""
        distance = (grid[:, None] - self.nodes.reshape(1, -1)) / width
        kernel = np.exp(-0.5 * distance**2) / (width * np.sqrt(2 * np.pi))
        return kernel @ self.weights.reshape(-1) / len(self.weights)


@jax.custom_batching.custom_vmap
def apply_one(operator: Partial, vector: jax.Array) -> jax.Array:
    """A v of one vector `[p]`, which under `jax.vmap` hands the operator the whole block."""
    return operator(vector[None, :])[0]


@apply_one.def_vmap
def _apply_block(
    axis_size: int, in_batched: list[Any], operator: Partial, vectors: jax.Array
) -> tuple[jax.Array, bool]:
    if not any(jax.tree.leaves(in_batched[0])):
        return operator(vectors), True
    axes = jax.tree.map(lambda batched: 0 if batched else None, in_batched)  # operators of several networks
    return jax.vmap(lambda a, v: a(v[None, :])[0], tuple(axes), axis_size=axis_size)(operator, vectors), True


@functools.partial(lockstep.jit, static_argnames="steps")
def _tridiagonal(
    operator: Partial, start: jax.Array, basis: jax.Array, steps: int
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """`steps` Lanczos steps from `start [p]`, kept orthogonal to the rows of `basis [r, p]` (zero rows are free)."""

    def project(vector: jax.Array) -> jax.Array:
        return vector - (basis @ vector) @ basis

    def projected(vector: jax.Array) -> jax.Array:
        # In exact arithmetic a vector orthogonal to the Krylov space stays so, except for one component along the last
        # basis vector, which the projection removes and the recurrence has.
        return project(project(apply_one(operator, vector)))

    # matfree's tridiagonalization averages the two off-diagonals of this, which hides where the recurrence breaks down;
    # it mixes ranks and integer types
    arnoldi = decomp.hessenberg(steps, reortho="full", custom_vjp=False)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        decomposition = arnoldi(projected, project(start))
    small = decomposition.J_small
    return decomposition.Q_tall, jnp.diagonal(small), jnp.diagonal(small, offset=-1), decomposition.residual


def largest_eigenvalues(
    operator: Partial, start: jax.Array, *, count: int = 1, tolerance: float = 1e-4, budget: int = 80
) -> Eigenpairs:
    """The `count` largest eigenvalues, by Lanczos with full reorthogonalization from `start [p]`.

    Stops when the error bound min(r, r²/gap) of each, r its residual and gap the distance to the other Ritz values,
    is below `tolerance` |λ|, or after `budget` products. An eigenvalue of multiplicity two or more is found once, so
    fewer than `count` may be returned.

    Args:
        operator: the operator.
        start: a vector `[p]`.
        count: number of eigenvalues.
        tolerance: relative error bound to reach.
        budget: the most products.

    Raises:
        ValueError: if there are fewer dimensions than eigenvalues wanted, or the budget is smaller than `count`.
    """
    dimension = start.shape[0]
    if not 1 <= count <= min(dimension, budget):
        raise ValueError(f"count={count} must lie between 1 and the dimension {dimension} and budget={budget}")
    limit = min(budget, dimension)
    basis = jnp.zeros((limit, dimension), start.dtype)
    diagonal, off, products, exhausted = np.zeros(0), np.zeros(0), 0, False
    while True:
        steps = min(CYCLE, limit - products)
        vectors, new, new_off, start = _tridiagonal(operator, start, basis, steps)
        basis = jax.lax.dynamic_update_slice(basis, vectors, (products, 0))
        products += steps
        diagonal = np.append(diagonal, np.asarray(new, np.float64))
        off = np.concatenate([off, np.asarray(new_off, np.float64), [np.linalg.norm(np.asarray(start, np.float64))]])
        if not np.all(np.isfinite(diagonal)):
            raise FloatingPointError("a product with the operator is not finite")
        # where the recurrence breaks down, the steps before span an invariant subspace and the rest is rounding
        rounding = 20 * np.sqrt(dimension) * np.finfo(vectors.dtype).eps * (np.abs(diagonal).max() + off.max())
        broken = np.flatnonzero(off <= rounding)
        if exhausted := len(broken) > 0:
            diagonal, off = diagonal[: broken[0] + 1], off[: broken[0] + 1]
        ritz, coordinates = np.linalg.eigh(np.diag(diagonal) + np.diag(off[:-1], 1) + np.diag(off[:-1], -1))
        residuals = np.abs(off[-1] * coordinates[-1])
        converged = len(ritz) >= count and _accurate(ritz, residuals, count, tolerance)
        if converged or exhausted or products >= limit:
            break
    top = np.argsort(ritz)[::-1][:count]
    return Eigenpairs(
        ritz[top],
        np.asarray(coordinates[:, top].T @ np.asarray(basis, np.float64)[: len(ritz)]),
        residuals[top],
        float(ritz[0]),
        products,
        bool(converged or exhausted),
    )


def _accurate(ritz: np.ndarray, residuals: np.ndarray, count: int, tolerance: float) -> bool:
    """Whether the error bound of each of the `count` largest Ritz values (ascending) is small enough."""
    if len(ritz) <= count:
        return bool(np.all(residuals[-count:] <= tolerance * np.abs(ritz[-count:])))
    for i in range(len(ritz) - count, len(ritz)):
        gap = max(np.min(np.abs(np.delete(ritz, i) - ritz[i])) - residuals[i], 0.0)
        bound = residuals[i] if gap == 0.0 else min(residuals[i], residuals[i] ** 2 / gap)
        if bound > tolerance * abs(ritz[i]):
            return False
    return True


@functools.partial(lockstep.jit, static_argnames=("probes", "steps"))
def _quadrature(operator: Partial, like: jax.Array, key: jax.Array, probes: int, steps: int) -> tuple[jax.Array, ...]:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        starts = stochtrace.sampler_signs(like, num=probes)(key)
        basis = jnp.zeros((1, like.shape[0]), like.dtype)
        return jax.vmap(lambda v: _tridiagonal(operator, v, basis, steps)[1:3])(starts)


def spectral_density(
    operator: Partial, like: jax.Array, key: jax.Array, *, probes: int = 8, steps: int = 30
) -> Spectrum:
    """Nodes and weights of the spectral density by stochastic Lanczos quadrature with Rademacher probes.

    Weights are squared first components of the tridiagonal eigenvectors.

    Args:
        operator: the operator.
        like: an array `[p]` of the dimension and precision of the operator.
        key: randomness of the probes.
        probes: number of probes.
        steps: products for each probe.
    """
    steps = min(steps, like.shape[0])
    diagonals, offs = (np.asarray(x, np.float64) for x in _quadrature(operator, like, key, probes, steps))
    nodes, weights = [], []
    for diagonal, off in zip(diagonals, offs, strict=True):
        values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1))
        nodes.append(values)
        weights.append(vectors[0] ** 2)
    return Spectrum(np.array(nodes), np.array(weights), like.shape[0])
