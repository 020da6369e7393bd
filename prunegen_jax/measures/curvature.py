"""Flatness by curvature: eigenvalues, traces and spectral density of the Hessian of the training loss.

H = ∇²L̂(w), L̂ the mean cross-entropy (nats) over the whole training set in evaluation mode, w the kernels and biases of
the network with batch norm folded into them (`fold=False`: of the network as it is; `details["folded"]` says which).
`batch_size` is the number of examples per chunk and changes nothing but speed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from prunegen_jax.compute.options import check_at_least, check_choice
from prunegen_jax.measures import fisher, hessian, lanczos, traces
from prunegen_jax.measures.objective import Objective, Weights, weight_function
from prunegen_jax.types import Estimate, Measure, Partial, TrainedModel


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

    Details: the `count` largest "eigenvalues" and their "residuals" ‖H v − λ v‖, the "smallest" Ritz value (if it is
    negative the point is not a minimum), the number of "products", and whether they "converged".

    Args:
        model: any.
        key: randomness of the start.
        count: number of eigenvalues.
        tolerance: relative error bound to reach.
        budget: the most Hessian-vector products.
        fold: fold batch norm into the weights first.
        batch_size: examples per chunk; changes nothing but speed.
        memory: bytes that storing the linearized gradient may take; beyond it every product recomputes it.

    Raises:
        ValueError: if `count` is below 1 or above the budget or the number of weights.
    """
    network = weight_function(model, fold=fold)
    operator = hessian.linearized(network.objective(batch_size), network.weights, memory=memory)
    flat = ravel_pytree(network.weights)[0]
    found = lanczos.largest_eigenvalues(
        operator, jax.random.normal(key, flat.shape, flat.dtype), count=count, tolerance=tolerance, budget=budget
    )
    return Estimate(
        float(found.values[0]),
        details={
            **network.details(),
            "eigenvalues": found.values.tolist(),
            "residuals": found.residuals.tolist(),
            "smallest": found.smallest,
            "products": found.products,
            "converged": found.converged,
        },
    )


def hessian_trace(model: TrainedModel, key: jax.Array, **options: Any) -> Estimate:
    """tr H by `traces.trace`, to a standard error of `relative_error` or `budget` products; tr G for ReLU networks.

    H − G is a sum of second derivatives of the logits. If these are piecewise linear in each layer's weights, its
    diagonal is zero: tr H = tr G, estimates of `hessian_trace` and `gauss_newton_trace` differ by their errors alone,
    and a verdict counts the two as one measure. Options: those of `operator_trace`.
    """
    return operator_trace(model, key, hessian.hessian, **options)


def hessian_weighted_trace(
    model: TrainedModel, key: jax.Array, *, parameters: str = "kernels", **options: Any
) -> Estimate:
    """Σ_j H_jj w_j² over the kernels (`parameters="all"`: biases too), the trace of D_w H D_w.

    To second order, at a minimum, dropping every kernel entry with a small probability a raises the loss by
    (a / 2) Σ_j H_jj w_j²: one minus random prunability is about 2 β L̂ / Σ_j H_jj w_j². Folding batch norm or scaling
    a ReLU unit changes neither.

    Args:
        model: any.
        key: randomness of the probes.
        parameters: "kernels" or "all".
        **options: those of `operator_trace`.

    Raises:
        ValueError: for an unknown option.
    """
    check_choice("parameters", parameters, ("kernels", "all"))
    kernels = weight_function(model, fold=options.get("fold", True)).kernels

    def operator(objective: Objective, weights: Weights) -> Partial:
        scale = weights
        if parameters == "kernels":
            scale = {name: w if name in kernels else jnp.zeros_like(w) for name, w in weights.items()}
        return hessian.weighted(hessian.hessian(objective, weights), scale)

    return operator_trace(model, key, operator, **options)


def gauss_newton_trace(model: TrainedModel, key: jax.Array, **options: Any) -> Estimate:
    """tr G, G = (1/m) Σ_i J_iᵀ (diag p_i − p_i p_iᵀ) J_i: Gauss–Newton or Fisher matrix; tr H for ReLU networks.

    Equal to `hessian_trace` if the logits are piecewise linear in each layer's weights. Another form of tr G is
    (1/m) Σ_i E_{y∼p_i} ‖∇ ln p(y | x_i)‖²: labels drawn from the network's own predictions p_i. Options: those of
    `operator_trace`.
    """
    return operator_trace(model, key, hessian.gauss_newton, **options)


def operator_trace(
    model: TrainedModel,
    key: jax.Array,
    make_operator: Callable[[Objective, Weights], Partial],
    *,
    method: str = "hutch++",
    relative_error: float = 0.02,
    budget: int = 128,
    sketch: int = 16,
    fold: bool = True,
    batch_size: int | None = None,
) -> Estimate:
    """The trace of an operator on the weights.

    Args:
        model: any.
        key: randomness of the probes.
        make_operator: from the training loss and the weights to the operator.
        method: as in `traces.trace`.
        relative_error: as in `traces.trace`.
        budget: as in `traces.trace`.
        sketch: as in `traces.trace`.
        fold: fold batch norm into the weights first.
        batch_size: examples per chunk; changes nothing but speed.

    Raises:
        ValueError: for an unknown method, or a budget that does not leave two samples.
    """
    network = weight_function(model, fold=fold)
    found = traces.trace(
        make_operator(network.objective(batch_size), network.weights),
        ravel_pytree(network.weights)[0],
        key,
        method=method,
        relative_error=relative_error,
        budget=budget,
        sketch=sketch,
    )
    details = {**network.details(), "method": method, "products": found.products, "converged": found.converged}
    return Estimate(found.value, found.sem if math.isfinite(found.sem) else None, details=details)


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

    Blocks of probes are evaluated, two at least if the budget suffices, until the standard error is below
    `relative_error` of the value or the budget does not suffice for another block.
    "nodes" and "weights", [probes in all, steps] each: (1/p) Σ_j f(λ_j) is about the mean over probes of Σ_k weight_k
    f(node_k); exactly so in expectation for polynomials f of degree below 2 · steps, as here.

    Args:
        model: any.
        key: randomness of the probes.
        relative_error: standard error to reach, relative to the value.
        budget: the most Hessian-vector products.
        probes: number of probes of a block.
        steps: Hessian-vector products for each probe.
        fold: fold batch norm into the weights first.
        batch_size: examples per chunk; changes nothing but speed.

    Raises:
        ValueError: for fewer than two probes or two steps, or a budget below one block.
    """
    check_at_least(2, probes=probes, steps=steps)
    if budget < probes * steps:
        raise ValueError(f"budget={budget} must be at least probes × steps = {probes * steps}")
    network = weight_function(model, fold=fold)
    operator = hessian.hessian(network.objective(batch_size), network.weights)
    flat = ravel_pytree(network.weights)[0]
    largest_count = budget // (probes * steps)
    blocks: list[lanczos.Spectrum] = []
    while True:
        block_key = jax.random.fold_in(key, len(blocks))
        blocks.append(lanczos.spectral_density(operator, flat, block_key, probes=probes, steps=steps))
        nodes, weights = (np.concatenate([getattr(x, name) for x in blocks]) for name in ("nodes", "weights"))
        square, error = lanczos.Spectrum(nodes, weights, flat.size).sum(np.square)
        value = math.sqrt(square)
        converged = error <= 2 * square * relative_error
        if len(blocks) == largest_count or (converged and len(blocks) > 1):
            break
    details = {**network.details(), "products": int(nodes.size), "converged": bool(converged)}
    details |= {"nodes": nodes.tolist(), "weights": weights.tolist()}
    return Estimate(value, error / (2 * value) if value > 0 else None, details=details)


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

FORWARDS_OPTIONS_TO = dict.fromkeys(("hessian_trace", "hessian_weighted_trace", "gauss_newton_trace"), operator_trace)
