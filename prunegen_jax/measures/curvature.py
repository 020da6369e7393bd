"""Flatness by curvature: eigenvalues, traces and spectral density of the Hessian of the training loss.

H = ∇²L̂(w), L̂ the mean cross-entropy (nats) over the whole training set in evaluation mode, w the kernels and biases of
the network with batch norm folded into them (`fold=False`: of the network as it is; `details["folded"]` says which).
`batch_size` is the number of examples per chunk and changes nothing but speed.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from prunegen_jax.measures import fisher, hessian, lanczos, subject, traces
from prunegen_jax.measures.weights import check_choice
from prunegen_jax.types import Estimate, Measure, TrainedModel


def hessian_top_eigenvalue(
    model: TrainedModel,
    key: jax.Array,
    *,
    count: int = 1,
    tolerance: float = 1e-4,
    budget: int = 80,
    fold: bool = True,
    batch_size: int | None = None,
    memory: float = hessian.MEMORY,
) -> Estimate:
    """λ_max(H), by Lanczos from a random start until its relative error bound is below `tolerance`.

    Details: the `count` largest "eigenvalues" and their "residuals" ‖H v − λ v‖, the "smallest" Ritz value (where it
    is negative the point is no minimum), the "products" spent of at most `budget`, and whether they "converged".
    `memory` is what storing the linearized gradient may take, in bytes; beyond it every product recomputes it.
    """
    moved = subject.subject(model, fold=fold)
    operator = hessian.linearized(subject.objective(moved, batch_size), moved.weights, memory=memory)
    flat = ravel_pytree(moved.weights)[0]
    found = lanczos.largest_eigenvalues(
        operator, jax.random.normal(key, flat.shape, flat.dtype), count=count, tolerance=tolerance, budget=budget
    )
    return Estimate(
        float(found.values[0]),
        details={
            **subject.details(moved),
            "eigenvalues": found.values.tolist(),
            "residuals": found.residuals.tolist(),
            "smallest": found.smallest,
            "products": found.products,
            "converged": found.converged,
        },
    )


def hessian_trace(
    model: TrainedModel,
    key: jax.Array,
    *,
    method: str = "hutch++",
    relative_error: float = 0.02,
    budget: int = 128,
    sketch: int = 16,
    fold: bool = True,
    batch_size: int | None = None,
) -> Estimate:
    """tr H by `traces.trace`, to a standard error of `relative_error` or `budget` Hessian-vector products."""
    moved = subject.subject(model, fold=fold)
    operator = hessian.hessian(subject.objective(moved, batch_size), moved.weights)
    return trace_estimate(moved, operator, key, method, relative_error, budget, sketch)


def hessian_weighted_trace(
    model: TrainedModel,
    key: jax.Array,
    *,
    parameters: str = "kernels",
    method: str = "hutch++",
    relative_error: float = 0.02,
    budget: int = 128,
    sketch: int = 16,
    fold: bool = True,
    batch_size: int | None = None,
) -> Estimate:
    """Σ_j H_jj w_j² over the kernels (`parameters="all"`: biases too), the trace of D_w H D_w.

    To second order, at a minimum, dropping every kernel entry with a small probability a raises the loss by
    (a / 2) Σ_j H_jj w_j²: one minus random prunability is about 2 β L̂ / Σ_j H_jj w_j². Folding batch norm or scaling
    a ReLU unit changes neither.
    """
    check_choice("parameters", parameters, ("kernels", "all"))
    moved = subject.subject(model, fold=fold)
    scale = moved.weights
    if parameters == "kernels":
        names = set(subject.kernel_names(moved))
        scale = {name: leaf if name in names else jnp.zeros_like(leaf) for name, leaf in scale.items()}
    operator = hessian.weighted(hessian.hessian(subject.objective(moved, batch_size), moved.weights), scale)
    return trace_estimate(moved, operator, key, method, relative_error, budget, sketch)


def hessian_frobenius_norm(
    model: TrainedModel,
    key: jax.Array,
    *,
    relative_error: float = 0.1,
    budget: int = 320,
    probes: int = 4,
    steps: int = 20,
    fold: bool = True,
    batch_size: int | None = None,
) -> Estimate:
    """‖H‖_F = √Σ_j λ_j², and in the details the spectral density of H by stochastic Lanczos quadrature.

    Blocks of `probes` probes, of `steps` Hessian-vector products each, two blocks at least where the budget has them,
    until the standard error is below `relative_error` of the value or `budget` leaves no room for another block.
    "nodes" and "weights", [probes in all, steps] each: (1/p) Σ_j f(λ_j) is about the mean over probes of Σ_k weight_k
    f(node_k); exactly so in expectation for polynomials f of degree below 2 · steps, as here.

    Raises:
        ValueError: for fewer than two probes or two steps, or a budget below one block.
    """
    if probes < 2 or steps < 2:
        raise ValueError(f"probes={probes} and steps={steps} must be at least 2")
    if budget < probes * steps:
        raise ValueError(f"budget={budget} must be at least probes × steps = {probes * steps}")
    moved = subject.subject(model, fold=fold)
    operator = hessian.hessian(subject.objective(moved, batch_size), moved.weights)
    flat = ravel_pytree(moved.weights)[0]
    most = budget // (probes * steps)
    blocks: list[lanczos.Spectrum] = []
    while True:
        own = jax.random.fold_in(key, len(blocks))
        blocks.append(lanczos.spectral_density(operator, flat, own, probes=probes, steps=steps))
        nodes, weights = (np.concatenate([getattr(x, name) for x in blocks]) for name in ("nodes", "weights"))
        square, error = lanczos.Spectrum(nodes, weights, flat.size).sum(np.square)
        value = math.sqrt(square)
        converged = error <= 2 * square * relative_error
        if len(blocks) == most or (converged and len(blocks) > 1):
            break
    more = {"products": int(nodes.size), "converged": bool(converged)}
    more |= {"nodes": nodes.tolist(), "weights": weights.tolist()}
    return Estimate(value, error / (2 * value) if value > 0 else None, details={**subject.details(moved), **more})


def gauss_newton_trace(
    model: TrainedModel,
    key: jax.Array,
    *,
    method: str = "hutch++",
    relative_error: float = 0.02,
    budget: int = 128,
    sketch: int = 16,
    fold: bool = True,
    batch_size: int | None = None,
) -> Estimate:
    """tr G, G = (1/m) Σ_i J_iᵀ (diag p_i − p_i p_iᵀ) J_i: the Gauss–Newton matrix, for the softmax the Fisher matrix.

    (1/m) Σ_i E_{y∼p_i} ‖∇ ln p(y | x_i)‖²: labels drawn from the network's own predictions p_i.
    """
    moved = subject.subject(model, fold=fold)
    operator = hessian.gauss_newton(subject.objective(moved, batch_size), moved.weights)
    return trace_estimate(moved, operator, key, method, relative_error, budget, sketch)


def trace_estimate(
    moved: subject.Subject,
    operator: Any,
    key: jax.Array,
    method: str,
    relative_error: float,
    budget: int,
    sketch: int,
) -> Estimate:
    """The trace of an operator on the weights that are moved, as the answer of a measure."""
    found = traces.trace(
        operator, ravel_pytree(moved.weights)[0], key,
        method=method, relative_error=relative_error, budget=budget, sketch=sketch,
    )  # fmt: skip
    more = {"method": method, "products": found.products, "converged": found.converged}
    return Estimate(
        found.value, found.sem if math.isfinite(found.sem) else None, details={**subject.details(moved), **more}
    )


_SCALINGS = ("neuron_scaling", "layer_scaling")

MEASURES = {
    "hessian_top_eigenvalue": Measure(
        hessian_top_eigenvalue, +1, "flatness", 100.0, "Yao et al. 2020 (PyHessian)", (), ("permutation",)
    ),
    "hessian_trace": Measure(hessian_trace, +1, "flatness", 250.0, "Hutchinson 1990; Meyer et al. 2021"),
    "hessian_weighted_trace": Measure(
        hessian_weighted_trace, +1, "flatness", 250.0, "second-order model of random pruning", (), _SCALINGS
    ),
    "hessian_frobenius_norm": Measure(
        hessian_frobenius_norm, +1, "flatness", 600.0, "Wu et al. 2022; density as in Ghorbani et al. 2019"
    ),
    "gauss_newton_trace": Measure(gauss_newton_trace, +1, "flatness", 250.0, "Martens 2014; Jastrzębski et al. 2021"),
    **fisher.MEASURES,
}
