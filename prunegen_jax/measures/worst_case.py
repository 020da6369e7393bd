"""The worst perturbation of the weights in a box around them: what `sharpness` and `neighbourhood` share."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute import lockstep
from prunegen_jax.compute.evaluation import losses_of
from prunegen_jax.compute.options import check_at_least
from prunegen_jax.measures.objective import Objective, Weights, chunk_logits
from prunegen_jax.measures.weight_noise import split_key


class Worst(NamedTuple):
    """The worst point found in a box: mean loss (nats) and error over the training set, gradients computed."""

    loss: float
    error: float
    gradients: int


@functools.partial(lockstep.jit, static_argnames="magnitude")
def make_box(weights: Weights, scale: jax.Array, floor: jax.Array, *, magnitude: bool) -> Weights:
    """Half-widths of the box: `scale`, or `scale` |w| + `floor` if `magnitude`."""

    def width(w: jax.Array) -> jax.Array:
        size = scale.astype(w.dtype)
        return size * jnp.abs(w) + floor.astype(w.dtype) if magnitude else size * jnp.ones_like(w)

    return jax.tree.map(width, weights)


def ascend_box(
    objective: Objective,
    weights: Weights,
    box: Weights,
    key: jax.Array,
    *,
    steps: int,
    starts: int,
    enough: float = float("inf"),
) -> Worst:
    """The largest mean loss and the largest error found in the box |u_j| ≤ box_j around the weights.

    Ascent along the sign of the gradient, `steps` steps of a quarter of the box, projected, from u = 0 and from
    `starts` − 1 random points. Ends as soon as an error exceeds `enough`.

    Args:
        objective: the training loss.
        weights: the centre of the box.
        box: its half-widths.
        key: randomness of the starting points.
        steps: steps from each starting point.
        starts: number of starting points.
        enough: an error beyond which there is no need to go on.

    Raises:
        ValueError: for a negative number of steps or fewer than one start.
    """
    check_at_least(0, steps=steps)
    check_at_least(1, starts=starts)
    size, loss, error, gradients = len(objective.data), -np.inf, 0.0, 0
    for start in range(starts):
        u = jax.tree.map(jnp.zeros_like, weights) if start == 0 else _random(box, jax.random.fold_in(key, start))
        for _ in range(steps + 1):
            total, wrong, gradient = loss_error_gradient(objective, jax.tree.map(jnp.add, weights, u))
            loss, error = np.fmax(loss, float(total)), max(error, float(wrong) / size)
            gradients += 1
            if error > enough:
                return Worst(float(loss), error, gradients)
            u = _ascend(u, gradient, box)
    return Worst(float(loss), error, gradients)


@lockstep.jit
def loss_error_gradient(objective: Objective, weights: Weights) -> tuple[jax.Array, jax.Array, Weights]:
    """Mean loss, number of wrong predictions (a logit that is not a number is one) and gradient over the whole set."""

    def loss(w: Weights, indices: jax.Array, scale: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits, labels = chunk_logits(objective, w, indices)
        wrong = ~jnp.all(jnp.isfinite(logits.reshape(indices.size, -1)), axis=-1)
        if objective.data.loss is None:
            wrong |= jnp.argmax(logits, axis=-1).astype(labels.dtype) != labels
        return jnp.vdot(scale, losses_of(objective.data, logits, labels)), jnp.sum(wrong & (scale > 0))

    def step(total: Any, chunk: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        (value, wrong), gradient = jax.value_and_grad(loss, has_aux=True)(weights, *chunk)
        return jax.tree.map(jnp.add, total, (value, wrong, gradient)), None

    zero = jnp.zeros((), objective.scale.dtype)
    nothing = (zero, jnp.sum(jnp.zeros((0,), bool)), jax.tree.map(jnp.zeros_like, weights))
    with jax.default_matmul_precision("highest"):
        return jax.lax.scan(step, nothing, (objective.indices, objective.scale))[0]


@lockstep.jit
def _ascend(u: Weights, gradient: Weights, box: Weights) -> Weights:
    return jax.tree.map(lambda u, g, b: jnp.clip(u + b / 4 * jnp.sign(g), -b, b), u, gradient, box)


@lockstep.jit
def _random(box: Weights, key: jax.Array) -> Weights:
    keys = split_key(box, key)
    return {name: b * jax.random.uniform(keys[name], b.shape, b.dtype, -1.0, 1.0) for name, b in box.items()}
