"""Gradient noise: how much the gradients of single training examples differ, at the end and after the first epoch.

In evaluation mode, for kernels and biases of the network with batch norm folded (`fold=False`: of the network as it
is): in training mode batch norm makes the loss of one example depend on its batch.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from prunegen_jax.compute import lockstep
from prunegen_jax.measures import hessian, subject
from prunegen_jax.types import Dataset, Estimate, Measure, TrainedModel

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

    `examples`: estimated from n of them drawn without replacement, with a standard error; then divided by n − 1 rather
    than n, as their own mean gradient stands for ∇L̂. `unbiased` forces n − 1 (True) or n (False) in either case.

    Raises:
        ValueError: if `examples` is not between 2 and the size of the training set.
    """
    size = len(model.train)
    n = size if examples is None else examples
    if not 2 <= n <= size:
        raise ValueError(f"examples={n} must lie between 2 and {size}, the size of the training set")
    chosen = np.arange(size) if n == size else np.sort(np.asarray(jax.random.permutation(key, size)[:n]))
    moved = subject.subject(model, fold=fold)
    squares, mean = example_gradients(moved, chosen, batch_size)
    unbiased = n < size if unbiased is None else unbiased
    value = (squares.sum() - n * float(mean @ mean)) / (n - 1 if unbiased else n)
    sem = None if n == size else _sem(moved, chosen, squares, mean, size, batch_size)
    more = {"examples": n, "squared_gradient_norm": float(mean @ mean)}
    return Estimate(float(value), sem, details={**subject.details(moved), **more})


def gradient_noise_first_epoch(
    model: TrainedModel,
    key: jax.Array,
    *,
    examples: int | None = None,
    unbiased: bool | None = None,
    fold: bool = True,
    batch_size: int | None = None,
) -> Estimate:
    """`gradient_noise` of the network as it was after the first epoch."""
    return gradient_noise(
        model.first_epoch, key, examples=examples, unbiased=unbiased, fold=fold, batch_size=batch_size
    )


def example_gradients(
    moved: subject.Subject, chosen: np.ndarray, batch_size: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """‖∇ℓ_i‖² `[n]` of the `chosen` examples `[n]` and their mean gradient `[p]`, both float64."""
    parameters = sum(leaf.size for leaf in moved.weights.values())
    length = batch_size or max(1, min(subject.chunk_size(moved.data), PER_EXAMPLE_VALUES // parameters))
    goal = subject.objective(_only(moved, chosen), length)
    squares, total = [], np.zeros(parameters)
    for indices, scale in zip(goal.indices, goal.scale, strict=True):
        square, gradient = _gradients(goal, moved.weights, indices, scale)
        squares.append(np.asarray(square, np.float64))
        total += np.asarray(gradient, np.float64)
    return np.concatenate(squares)[: len(chosen)], total


@lockstep.jit
def _gradients(
    goal: subject.Objective, weights: subject.Weights, indices: jax.Array, scale: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """‖∇ℓ_i‖² `[B]` of one chunk, and Σ_i scale_i ∇ℓ_i `[p]`."""

    def one(index: jax.Array) -> jax.Array:
        return ravel_pytree(
            jax.grad(subject.chunk_loss, argnums=1)(goal, weights, index[None], jnp.ones((1,), scale.dtype))
        )[0]

    with jax.default_matmul_precision("highest"):
        gradients = jax.vmap(one)(indices)
        return jnp.sum(jnp.square(gradients), axis=1), scale @ gradients


def _sem(
    moved: subject.Subject,
    chosen: np.ndarray,
    squares: np.ndarray,
    mean: np.ndarray,
    size: int,
    batch_size: int | None,
) -> float:
    """Standard error of the mean of ‖g_i − ḡ‖² over a sample without replacement from `size` examples."""
    unravel = ravel_pytree(moved.weights)[1]
    direction = unravel(jnp.asarray(mean, jnp.result_type(*moved.weights.values())))
    goal = subject.objective(_only(moved, chosen), batch_size)
    along = hessian.slopes(goal, moved.weights, direction)
    apart = squares - 2 * np.asarray(along, np.float64).reshape(-1)[: len(chosen)] + mean @ mean
    return float(apart.std(ddof=1) / np.sqrt(len(chosen)) * np.sqrt(1 - len(chosen) / size))


def _only(moved: subject.Subject, chosen: np.ndarray) -> subject.Subject:
    data = moved.data
    if len(chosen) == len(data):
        return moved
    part = Dataset(jnp.take(data.images, chosen, axis=0), jnp.take(data.labels, chosen), data.mean, data.std)
    return moved._replace(data=part)


_SOURCE = "Jiang et al. 2020"

MEASURES = {
    "gradient_noise": Measure(gradient_noise, +1, "noise", 4.0, f"{_SOURCE} (65)", (), ("permutation",)),
    "gradient_noise_first_epoch": Measure(
        gradient_noise_first_epoch, +1, "noise", 4.0, f"{_SOURCE} (66)", ("first_epoch",), ("permutation",)
    ),
}
