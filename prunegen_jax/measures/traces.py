"""Traces of symmetric operators with standard errors, until they are accurate enough: Hutchinson and Hutch++.

An operator takes vectors `[V, p]` to products `[V, p]`, see `hessian`. The estimator of one sample is matfree's;
Hutch++ and the stopping rule are implemented here.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from matfree import stochtrace

from prunegen_jax.compute import lockstep
from prunegen_jax.compute.options import check_choice
from prunegen_jax.compute.sampling import standard_error
from prunegen_jax.measures.lanczos import apply_one
from prunegen_jax.types import Partial

BLOCK = 8  # probes between two checks of the standard error


@dataclasses.dataclass(frozen=True)
class Trace:
    """An estimate of tr A.

    Attributes:
        value: the estimate.
        sem: its standard error.
        products: products with the operator.
        converged: whether the requested relative error was met within the budget.
    """

    value: float
    sem: float
    products: int
    converged: bool


@functools.partial(lockstep.jit, static_argnames="probes")
def _samples(operator: Partial, basis: jax.Array, key: jax.Array, probes: int) -> jax.Array:
    """gᵀ (I − QQᵀ) A (I − QQᵀ) g of `probes` Rademacher vectors g, with Q the rows of `basis [r, p]`."""

    def project(vector: jax.Array) -> jax.Array:
        return vector - (basis @ vector) @ basis

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        signs = stochtrace.sampler_signs(basis[0], num=probes)(key)
        form = stochtrace.monte_carlo_trace()
        return jax.vmap(lambda g: form(lambda v: apply_one(operator, v), project(g)))(signs)


@functools.partial(lockstep.jit, static_argnames="size")
def _sketch(operator: Partial, like: jax.Array, key: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """An orthonormal basis of the range of A Ω as rows `[size, p]`, Ω of Rademacher vectors, and tr(Qᵀ A Q)."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        signs = stochtrace.sampler_signs(like, num=size)(key)
    basis = jnp.linalg.qr(operator(signs).T)[0].T
    return basis, jnp.sum(basis * operator(basis), axis=1)


def trace(
    operator: Partial,
    like: jax.Array,
    key: jax.Array,
    *,
    method: str = "hutch++",
    relative_error: float = 0.02,
    budget: int = 128,
    sketch: int = 16,
) -> Trace:
    """tr A with a standard error below `relative_error` |tr A|, or the smallest that `budget` products reach.

    Args:
        operator: A.
        like: an array `[p]` of the dimension and precision of A.
        key: randomness of the probes.
        method: "hutchinson": the mean of gᵀ A g over Rademacher vectors g. "hutch++" (Meyer et al. 2021): the trace on
            the range of a sketch exactly, and Hutchinson on the rest; 2 · sketch products before the first sample.
        relative_error: standard error to reach, relative to the trace.
        budget: the most products.
        sketch: number of vectors of the sketch.

    Raises:
        ValueError: for an unknown method, or a budget that does not leave two samples.
    """
    check_choice("method", method, ("hutchinson", "hutch++"))
    exact, spent = 0.0, 0
    basis = jnp.zeros((1, like.shape[0]), like.dtype)
    if method == "hutch++":
        sketch = min(sketch, like.shape[0])
        basis, parts = _sketch(operator, like, jax.random.fold_in(key, 0), sketch)
        exact, spent = float(np.asarray(parts, np.float64).sum()), 2 * sketch
    if budget < spent + 2:
        raise ValueError(f"budget={budget} must leave at least two samples after {spent} products for the sketch")
    samples = np.zeros(0)
    for block in range(1, budget + 1):
        probes = min(BLOCK, budget - spent)
        new = _samples(operator, basis, jax.random.fold_in(key, block), probes)
        samples, spent = np.append(samples, np.asarray(new, np.float64)), spent + probes
        value = exact + samples.mean()
        if not np.isfinite(value):
            raise FloatingPointError(f"the trace is {value}: a product with the operator is not finite")
        sem = standard_error(samples)
        sem = np.inf if sem is None else sem
        # two blocks at least: one alone may be accurate by chance
        converged = sem <= relative_error * abs(value) and len(samples) >= min(2 * BLOCK, budget)
        if converged or budget - spent < 1:
            break
    return Trace(float(value), float(sem), spent, bool(converged))
