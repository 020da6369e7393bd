"""Gradient noise: how much the gradients of single training examples differ, at the end and after the first epoch.

In evaluation mode, for kernels and biases of the network with batch norm folded (`fold=False`: of the network as it
is): in training mode batch norm makes the loss of one example depend on its batch.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from prunegen_jax.compute import lockstep
from prunegen_jax.compute.sampling import standard_error
from prunegen_jax.measures import hessian
from prunegen_jax.measures.objective import Objective, WeightFunction, Weights, chunk_loss, chunk_size, weight_function
from prunegen_jax.types import Estimate, Measure, TrainedModel

PER_EXAMPLE_VALUES = 20_000_000  # floats that the gradients of one chunk may take


def gradient_noise(
    model: TrainedModel,
    key: jax.Array,
    *,
    examples: int | None = None,
    unbiased: bool | None = None,
    fold: bool = True,
    batch_size: int | None = None,
) -> Estimate:
    """tr Cov = (1/m) Σ_i ‖∇ℓ_i − ∇L̂‖² of per-example gradients over the m training examples, exactly.

    Args:
        model: any.
        key: draws the examples.
        examples: n; the value is estimated from n examples drawn without replacement, with a standard error. None: all.
        unbiased: divide by n − 1 (True) or n (False). None: n − 1 if only some examples are drawn, whose own mean
            gradient stands for ∇L̂, else n.
        fold: fold batch norm into the weights first.
        batch_size: examples per chunk; changes nothing but speed.

    Raises:
        ValueError: if `examples` is not between 2 and the size of the training set.
    """
    size = len(model.train)
    n = size if examples is None else examples
    if not 2 <= n <= size:
        raise ValueError(f"examples={n} must lie between 2 and {size}, the size of the training set")
    chosen = np.arange(size) if n == size else np.sort(np.asarray(jax.random.permutation(key, size)[:n]))
    network = weight_function(model, fold=fold)
    squares, mean = example_gradients(network, chosen, batch_size)
    unbiased = n < size if unbiased is None else unbiased
    value = (squares.sum() - n * float(mean @ mean)) / (n - 1 if unbiased else n)
    sem = None if n == size else _sem(network, chosen, squares, mean, size, batch_size)
    details = {**network.details(), "examples": n, "squared_gradient_norm": float(mean @ mean)}
    return Estimate(float(value), sem, details=details)


def gradient_noise_first_epoch(model: TrainedModel, key: jax.Array, **options: Any) -> Estimate:
    """`gradient_noise` of the network as it was after the first epoch."""
    return gradient_noise(model.first_epoch, key, **options)


def example_gradients(
    network: WeightFunction, chosen: np.ndarray, batch_size: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """‖∇ℓ_i‖² `[n]` of the `chosen` examples `[n]` and their mean gradient `[p]`, both float64."""
    parameters = sum(leaf.size for leaf in network.weights.values())
    length = batch_size or max(1, min(chunk_size(network.data), PER_EXAMPLE_VALUES // parameters))
    objective = _take(network, chosen).objective(length)
    squares, total = [], np.zeros(parameters)
    for indices, scale in zip(objective.indices, objective.scale, strict=True):
        square, gradient = _gradients(objective, network.weights, indices, scale)
        squares.append(np.asarray(square, np.float64))
        total += np.asarray(gradient, np.float64)
    return np.concatenate(squares)[: len(chosen)], total


def covariance(network: WeightFunction, batch_size: int | None = None) -> np.ndarray:
    """C = (1/m) Σ_i (∇ℓ_i − ∇L̂)(∇ℓ_i − ∇L̂)ᵀ `[p, p]` of all m examples, float64."""
    _, mean = example_gradients(network, np.arange(len(network.data)), batch_size)
    total = np.zeros((mean.size, mean.size))
    objective = network.objective(batch_size or max(1, min(chunk_size(network.data), PER_EXAMPLE_VALUES // mean.size)))
    centre = jnp.asarray(mean, jnp.result_type(*network.weights.values()))
    for indices, scale in zip(objective.indices, objective.scale, strict=True):
        total += np.asarray(_products(objective, network.weights, indices, scale, centre), np.float64)
    return total


@lockstep.jit
def _products(
    objective: Objective, weights: Weights, indices: jax.Array, scale: jax.Array, centre: jax.Array
) -> jax.Array:
    """Σ_i scale_i (∇ℓ_i − c)(∇ℓ_i − c)ᵀ `[p, p]` of one chunk."""
    with jax.default_matmul_precision("highest"):
        apart = _each_gradient(objective, weights, indices) - centre[None]
        return apart.T @ (scale[:, None] * apart)


@lockstep.jit
def _gradients(
    objective: Objective, weights: Weights, indices: jax.Array, scale: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """‖∇ℓ_i‖² `[B]` of one chunk, and Σ_i scale_i ∇ℓ_i `[p]`."""
    with jax.default_matmul_precision("highest"):
        gradients = _each_gradient(objective, weights, indices)
        return jnp.sum(jnp.square(gradients), axis=1), scale @ gradients


def _each_gradient(objective: Objective, weights: Weights, indices: jax.Array) -> jax.Array:
    """∇ℓ_i `[B, p]` of one chunk."""
    unit = jnp.ones((1,), objective.scale.dtype)

    def one(index: jax.Array) -> jax.Array:
        return ravel_pytree(jax.grad(chunk_loss, argnums=1)(objective, weights, index[None], unit))[0]

    return jax.vmap(one)(indices)


def _sem(
    network: WeightFunction,
    chosen: np.ndarray,
    squares: np.ndarray,
    mean: np.ndarray,
    size: int,
    batch_size: int | None,
) -> float:
    """Standard error of the mean of ‖g_i − ḡ‖² over a sample without replacement from `size` examples."""
    unravel = ravel_pytree(network.weights)[1]
    direction = unravel(jnp.asarray(mean, jnp.result_type(*network.weights.values())))
    objective = _take(network, chosen).objective(batch_size)
    slopes = hessian.slopes(objective, network.weights, direction)
    distances = squares - 2 * np.asarray(slopes, np.float64).reshape(-1)[: len(chosen)] + mean @ mean
    return float((standard_error(distances) or 0.0) * np.sqrt(1 - len(chosen) / size))


def _take(network: WeightFunction, chosen: np.ndarray) -> WeightFunction:
    """`network` with only the `chosen` examples as its data."""
    data = network.data
    if len(chosen) == len(data):
        return network
    inputs, labels = (jnp.take(array, chosen, axis=0) for array in (data.inputs, data.labels))
    return network._replace(data=dataclasses.replace(data, inputs=inputs, labels=labels))


_SOURCE = "Jiang et al. 2020"

MEASURES = {
    "gradient_noise": Measure(gradient_noise, +1, "noise", 4.0, f"{_SOURCE} (65)", (), ("permutation",)),
    "gradient_noise_first_epoch": Measure(
        gradient_noise_first_epoch, +1, "noise", 4.0, f"{_SOURCE} (66)", ("first_epoch",), ("permutation",)
    ),
}

FORWARDS_OPTIONS_TO = {"gradient_noise_first_epoch": gradient_noise}
