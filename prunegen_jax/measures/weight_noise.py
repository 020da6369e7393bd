"""Random noise in the weights of a network, and its loss or error under draws of the noise.

What the measures of noise (`perturbation`, `pac_bayes`) and of average sharpness (`neighbourhood`) share. Noise is
drawn once per draw and scaled (common random numbers), so that its effect is a smooth function of the scale.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute import lockstep
from prunegen_jax.compute.evaluation import example_losses
from prunegen_jax.compute.options import check_at_least
from prunegen_jax.measures.bounds import FLOOR
from prunegen_jax.measures.objective import WeightFunction, Weights


def split_key(weights: Weights, key: jax.Array) -> dict[str, jax.Array]:
    """A key for each of the weights, by name."""
    return dict(zip(weights, jax.random.split(key, len(weights)), strict=True))


@functools.partial(lockstep.jit, static_argnames="magnitude")
def add_gaussian(weights: Weights, key: jax.Array, scale: jax.Array, *, magnitude: bool, floor: jax.Array) -> Weights:
    """w + u, u Gaussian of standard deviation `scale`, or √(`scale`² w² + `floor`²) if `magnitude`.

    A negative scale gives −u; at scale zero the floor is left. With a floor of zero the noise is `scale` · w times a
    standard normal, so that scaling a weight scales its noise, sign and all.
    """

    def perturb(w: jax.Array, key: jax.Array) -> jax.Array:
        size = scale.astype(w.dtype)
        if magnitude:
            proportional, low = size * w, floor.astype(w.dtype)
            root = jnp.sqrt(jnp.square(proportional) + jnp.square(low))
            size = jnp.where(low > 0, jnp.where(size < 0, -root, root), proportional)
        return w + size * jax.random.normal(key, w.shape, w.dtype)

    keys = split_key(weights, key)
    return {name: perturb(leaf, keys[name]) for name, leaf in weights.items()}


@functools.partial(lockstep.jit, static_argnames=("magnitude", "normalized"))
def add_rgm_noise(
    weights: Weights, key: jax.Array, scale: jax.Array, *, magnitude: bool, normalized: tuple[str, ...]
) -> Weights:
    """Noise as in the code of Dziugaite et al. (2020).

    Its standard deviation is σ², or σ'² w² + ε² if `magnitude`. The scale (1) and the shift (0) that folding leaves
    behind each kernel that batch norm followed have noise as well.

    Args:
        weights: w.
        key: randomness of the draw.
        scale: σ or σ'.
        magnitude: whether the noise grows with the weights.
        normalized: names of the kernels that batch norm followed.
    """

    def noisy(w: jax.Array, key: jax.Array) -> jax.Array:
        square = jnp.square(scale.astype(w.dtype))
        std = square * jnp.square(w) + jnp.asarray(FLOOR**2, w.dtype) if magnitude else square
        return w + std * jax.random.normal(key, w.shape, w.dtype)

    keys = split_key(weights, key)
    perturbed = {name: noisy(leaf, keys[name]) for name, leaf in weights.items()}
    for name, bias in weights.items():
        kernel = name.removesuffix("bias") + "kernel"
        if name.endswith("bias") and kernel in weights and kernel in normalized:
            scale_key, shift_key = jax.random.split(jax.random.fold_in(keys[name], 1))
            gamma = noisy(jnp.ones_like(bias), scale_key)
            out = (1,) * (weights[kernel].ndim - 1) + (-1,)
            perturbed[kernel] = perturbed[kernel] * gamma.reshape(out)
            perturbed[name] = perturbed[name] * gamma + noisy(jnp.zeros_like(bias), shift_key)
    return perturbed


def losses_under_noise(
    network: WeightFunction, key: jax.Array, draws: int, perturb: Callable[..., Weights]
) -> Callable[[float], np.ndarray]:
    """Mean loss and error over the training set for each of several draws of noise, as a function of its scale.

    Args:
        network: the network to perturb.
        key: randomness of the draws.
        draws: how many.
        perturb: (weights, key, scale) → perturbed weights.

    Returns:
        A function from a scale to losses (nats) and errors, `[2, draws]`. It keeps what it has computed.

    Raises:
        ValueError: for fewer than two draws.
    """
    check_at_least(2, draws=draws)

    @functools.cache
    def evaluate(scale: float) -> np.ndarray:
        means = []
        for draw in range(draws):
            weights = perturb(network.weights, jax.random.fold_in(key, draw), jnp.float32(scale))
            means.append(mean_loss_and_error(network, weights))
        return np.array(means).T

    return evaluate


def mean_loss_and_error(network: WeightFunction, weights: Weights) -> tuple[float, float]:
    """Mean cross-entropy (nats) and error over the training set."""
    losses, errors = example_losses(network.apply, weights, network.data)
    return float(np.mean(losses, dtype=np.float64)), float(np.mean(errors, dtype=np.float64))
