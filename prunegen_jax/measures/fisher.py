"""Flatness from first derivatives: Fisher–Rao norm, empirical Fisher trace, relative flatness of the last layer.

All exact, in one to four passes over the training set, for kernels and biases of the network with batch norm folded
(`fold=False`: of the network as it is).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute import lockstep
from prunegen_jax.compute.evaluation import batches
from prunegen_jax.compute.options import check_choice
from prunegen_jax.measures import gradient_noise, hessian
from prunegen_jax.measures.objective import weight_function
from prunegen_jax.measures.structure import is_folded, last_layer, program_of, select_network
from prunegen_jax.types import Dataset, Estimate, Measure, Partial, PyTree, TrainedModel, not_applicable


def fisher_rao_norm(
    model: TrainedModel,
    key: jax.Array,
    *,
    fisher: str = "empirical",
    fold: bool = True,
    batch_size: int | None = None,
) -> Estimate:
    """wᵀ F w = (1/m) Σ_i ⟨w, ∇ℓ_i(w)⟩², F the empirical Fisher matrix; "true" takes labels from the predictions.

    Computed from the derivative of the logits along w, in one forward pass. For a network without biases that is
    homogeneous of degree L it equals L² (1/m) Σ_i (⟨p_i, f_i⟩ − f_i[y_i])². Not the square root.

    Args:
        model: any.
        key: not used.
        fisher: "empirical" or "true".
        fold: fold batch norm into the weights first.
        batch_size: examples per chunk; changes nothing but speed.

    Raises:
        ValueError: for an unknown `fisher`.
    """
    check_choice("fisher", fisher, ("empirical", "true"))
    network = weight_function(model, fold=fold)
    objective = network.objective(batch_size)
    values = hessian.rayleigh_fisher(objective, network.weights, network.weights)[0 if fisher == "empirical" else 1]
    examples = np.asarray(values, np.float64).reshape(-1)[: len(model.train)]
    return Estimate(float(examples.mean()), details={**network.details(), "fisher": fisher})


def empirical_fisher_trace(
    model: TrainedModel, key: jax.Array, *, fold: bool = True, batch_size: int | None = None
) -> Estimate:
    """(1/m) Σ_i ‖∇ℓ_i(w)‖² with the true labels, from per-example gradients."""
    network = weight_function(model, fold=fold)
    squares, _ = gradient_noise.example_gradients(network, np.arange(len(model.train)), batch_size)
    return Estimate(float(squares.mean()), details=network.details())


def relative_flatness(
    model: TrainedModel, key: jax.Array, *, fold: bool = True, batch_size: int | None = None
) -> Estimate:
    """κ = Σ_{s,s'} ⟨w_s, w_s'⟩ tr H_{ss'} of the last layer, w_s the weights of class s, H_{ss'} = ∂²L̂/∂w_s ∂w_s'.

    Where the logits are linear in the input φ of the last layer, in closed form κ = (1/m) Σ_i ‖φ_i‖² Σ_s p_is ‖w_s −
    w̄_i‖², w̄_i = Σ_s p_is w_s. Not applicable where several layers make the logits, or they are not linear in φ.

    Args:
        model: any.
        key: not used.
        fold: fold batch norm into the weights first.
        batch_size: examples at a time; changes nothing but speed.
    """
    network, folded = select_network(model, fold=fold), is_folded(model, fold=fold)
    path, kernel = last_layer(network)
    head = program_of(network).layer_input(path)
    length = batch_size or 500
    total, worst = 0.0, 0.0
    for start, indices in enumerate(batches(len(network.train), batch_size=length)):
        terms, apart = _relative_flatness(head, network.params, kernel, network.train, indices)
        total += float(np.asarray(terms, np.float64)[: len(network.train) - start * len(indices)].sum())
        worst = max(worst, float(apart))
    if worst > 1e-3:
        return not_applicable(f"needs logits linear in the input of {'/'.join(path)}; they differ by {worst:.2g}")
    return Estimate(total / len(network.train), details={"folded": folded, "layer": "/".join(path)})


@lockstep.jit
def _relative_flatness(
    head: Partial, params: PyTree, kernel: jax.Array, data: Dataset, indices: Any
) -> tuple[jax.Array, jax.Array]:
    """The terms of κ, `[n]`, and how far logits are from φ W plus a constant, relative to their size."""
    with jax.default_matmul_precision("highest"):
        logits, phi = head(params, data.take(indices)[0])
        phi = phi.reshape(logits.shape[0], -1)
        w = kernel.reshape(-1, logits.shape[1])
        if w.shape[0] != phi.shape[1]:
            return jnp.zeros_like(logits[:, 0]), jnp.inf * jnp.ones((), logits.dtype)
        p = jax.nn.softmax(logits, axis=-1)
        # distances to the mean, not a difference of squares, which cancels where the predictions are confident
        distances = jax.vmap(lambda mean: jnp.sum(jnp.square(w - mean[:, None]), axis=0))(p @ w.T)
        spread = jnp.sum(p * distances, axis=1)
        rest = logits - phi @ w  # the bias, the same for every example
        apart = jnp.max(jnp.abs(rest - rest[:1])) / jnp.maximum(jnp.max(jnp.abs(logits)), 1e-30)
    return jnp.sum(jnp.square(phi), axis=1) * spread, apart


MEASURES = {
    "empirical_fisher_trace": Measure(
        empirical_fisher_trace, +1, "flatness", 4.0, "Jastrzębski et al. 2021", (), ("permutation",)
    ),
    "fisher_rao_norm": Measure(
        fisher_rao_norm,
        +1,
        "flatness",
        2.0,
        "Liang et al. 2019",
        (),
        ("permutation", "neuron_scaling", "layer_scaling"),
    ),
    "relative_flatness": Measure(
        relative_flatness, +1, "flatness", 1.0, "Petzka et al. 2021", (), ("permutation", "layer_scaling")
    ),
}
