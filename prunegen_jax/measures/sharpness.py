"""Flatness by the worst perturbation in a box: the size α that costs ten points of training accuracy, and its bounds.

α is the largest half-width of the box |u_j| ≤ α in which the training accuracy falls by at most `target` (0.1); α' that
of |u_j| ≤ α' |w_j| + ε. The worst point is looked for by ascending the loss along the sign of its gradient over the
whole set, a quarter of the box at a time, from the network itself and from random points of the box; so α is an upper
estimate, and found to a factor 1 + `scale_tolerance`. Kernels and biases move, with batch norm folded. The six measures
share the two searches. Their bounds have ln(m/α) where the paper writes ln(m/σ), by our reading, and count the kernels
alone. `normalize` as in `weights.quantity`: raw C, or the bound √(C / m).
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute import lockstep
from prunegen_jax.measures import bounds, subject
from prunegen_jax.measures.pac_bayes import answer, bound, magnitude_bound
from prunegen_jax.measures.search import Crossing, largest_scale
from prunegen_jax.measures.weights import remembered
from prunegen_jax.types import Estimate, Measure, TrainedModel


class Worst(NamedTuple):
    """The worst that was found in a box: mean loss (nats) and error over the training set, gradients it took."""

    loss: float
    error: float
    gradients: int


def sharpness_flatness(model: TrainedModel, key: jax.Array, *, normalize: str = "raw", **options: Any) -> Estimate:
    """1 / α² (54). Options: those of `box_size`."""
    return _flatness(model, key, normalize, magnitude=False, **options)


def sharpness_init(model: TrainedModel, key: jax.Array, *, normalize: str = "raw", **options: Any) -> Estimate:
    """‖w − w⁰‖² ln(2ω) / (4α²) + ln(m/α) + 10 (51), over the kernels. Options: those of `box_size`."""
    return bound(model, key, _search(False), _formula(model, options), normalize, from_init=True, **options)


def sharpness_orig(model: TrainedModel, key: jax.Array, *, normalize: str = "raw", **options: Any) -> Estimate:
    """‖w‖² ln(2ω) / (4α²) + ln(m/α) + 10 (52), over the kernels. Options: those of `box_size`."""
    return bound(model, key, _search(False), _formula(model, options), normalize, from_init=False, **options)


def sharpness_mag_flatness(model: TrainedModel, key: jax.Array, *, normalize: str = "raw", **options: Any) -> Estimate:
    """1 / α'² (62). Options: those of `box_size`."""
    return _flatness(model, key, normalize, magnitude=True, **options)


def sharpness_mag_init(
    model: TrainedModel, key: jax.Array, *, delta: float = bounds.DELTA, normalize: str = "raw", **options: Any
) -> Estimate:
    """`bounds.sharpness_magnitude` with R = ‖w − w⁰‖ (59) and δ = `delta`. Options: those of `box_size`."""
    formula = functools.partial(bounds.sharpness_magnitude, delta=delta)
    return magnitude_bound(model, key, _search(True), formula, normalize, from_init=True, **options)


def sharpness_mag_orig(
    model: TrainedModel, key: jax.Array, *, delta: float = bounds.DELTA, normalize: str = "raw", **options: Any
) -> Estimate:
    """`bounds.sharpness_magnitude` with R = ‖w‖ (60) and δ = `delta`. Options: those of `box_size`."""
    formula = functools.partial(bounds.sharpness_magnitude, delta=delta)
    return magnitude_bound(model, key, _search(True), formula, normalize, from_init=False, **options)


def box_size(
    model: TrainedModel,
    key: jax.Array,
    magnitude: bool,
    *,
    target: float = 0.1,
    scale_tolerance: float = 0.02,
    steps: int = 10,
    starts: int = 2,
    fold: bool = True,
    batch_size: int | None = None,
) -> tuple[Crossing, None]:
    """α, or α' if `magnitude`. Remembered with the model."""
    bits = np.asarray(jax.random.key_data(key)).tolist()
    name = f"box_size {magnitude} {target} {scale_tolerance} {steps} {starts} {fold} {batch_size} {bits}"

    def search() -> tuple[Crossing, None]:
        moved = subject.subject(model, fold=fold)
        goal = subject.objective(moved, batch_size)
        dense = _pass(goal, moved.weights)[1]
        limit = (float(dense) / len(model.train)) + target

        def worst_error(scale: float) -> float:
            floor = bounds.FLOOR if magnitude else 0.0
            sides = box(moved.weights, jnp.float32(scale), jnp.float32(floor), magnitude=magnitude)
            return worst(goal, moved.weights, sides, key, steps=steps, starts=starts, enough=limit).error

        return largest_scale(
            worst_error, limit, start=0.02 if magnitude else 0.002, scale_tolerance=scale_tolerance
        ), None

    return remembered(model, name, search)


def worst(
    goal: subject.Objective,
    weights: subject.Weights,
    sides: subject.Weights,
    key: jax.Array,
    *,
    steps: int,
    starts: int,
    enough: float = float("inf"),
) -> Worst:
    """The largest mean loss and the largest error seen in the box |u_j| ≤ sides_j around the weights.

    Ascent along the sign of the gradient, `steps` steps of a quarter of the box, projected, from u = 0 and from
    `starts` − 1 random points. Ends as soon as an error exceeds `enough`.

    Raises:
        ValueError: for a negative number of steps or fewer than one start.
    """
    if steps < 0 or starts < 1:
        raise ValueError(f"steps={steps} must not be negative and starts={starts} must be at least 1")
    size, loss, error, gradients = len(goal.data), -np.inf, 0.0, 0
    for start in range(starts):
        u = jax.tree.map(jnp.zeros_like, weights) if start == 0 else _random(sides, jax.random.fold_in(key, start))
        for _ in range(steps + 1):
            total, wrong, gradient = _pass(goal, jax.tree.map(jnp.add, weights, u))
            loss, error = np.fmax(loss, float(total)), max(error, float(wrong) / size)
            gradients += 1
            if error > enough:
                return Worst(float(loss), error, gradients)
            u = _ascend(u, gradient, sides)
    return Worst(float(loss), error, gradients)


@lockstep.jit
def _pass(goal: subject.Objective, weights: subject.Weights) -> tuple[jax.Array, jax.Array, subject.Weights]:
    """Mean loss, number of wrong answers (a logit that is not a number is one) and gradient over the whole set."""

    def loss(w: subject.Weights, indices: jax.Array, scale: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits, labels = subject.chunk_logits(goal, w, indices)
        wrong = (jnp.argmax(logits, axis=-1).astype(labels.dtype) != labels) | ~jnp.all(jnp.isfinite(logits), axis=-1)
        return jnp.vdot(scale, subject.cross_entropy(logits, labels)), jnp.sum(wrong & (scale > 0))

    def step(total: Any, chunk: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        (value, wrong), gradient = jax.value_and_grad(loss, has_aux=True)(weights, *chunk)
        return jax.tree.map(jnp.add, total, (value, wrong, gradient)), None

    zero = jnp.zeros((), goal.scale.dtype)
    nothing = (zero, jnp.sum(jnp.zeros((0,), bool)), jax.tree.map(jnp.zeros_like, weights))
    with jax.default_matmul_precision("highest"):
        return jax.lax.scan(step, nothing, (goal.indices, goal.scale))[0]


@lockstep.jit
def _ascend(u: subject.Weights, gradient: subject.Weights, sides: subject.Weights) -> subject.Weights:
    return jax.tree.map(lambda u, g, b: jnp.clip(u + b / 4 * jnp.sign(g), -b, b), u, gradient, sides)


@functools.partial(lockstep.jit, static_argnames="magnitude")
def box(weights: subject.Weights, scale: jax.Array, floor: jax.Array, *, magnitude: bool) -> subject.Weights:
    """Half-widths of the box: `scale`, or `scale` |w| + `floor` if `magnitude`."""

    def width(w: jax.Array) -> jax.Array:
        size = scale.astype(w.dtype)
        return size * jnp.abs(w) + floor.astype(w.dtype) if magnitude else size * jnp.ones_like(w)

    return jax.tree.map(width, weights)


@lockstep.jit
def _random(sides: subject.Weights, key: jax.Array) -> subject.Weights:
    keys = dict(zip(sides, jax.random.split(key, len(sides)), strict=True))
    return {name: b * jax.random.uniform(keys[name], b.shape, b.dtype, -1.0, 1.0) for name, b in sides.items()}


def _flatness(model: TrainedModel, key: jax.Array, normalize: str, *, fold: bool = True, **options: Any) -> Estimate:
    found = box_size(model, key, fold=fold, **options)
    return answer(subject.subject(model, fold=fold), found, lambda scale: 1 / scale**2, normalize)


def _search(magnitude: bool) -> Any:
    return functools.partial(box_size, magnitude=magnitude)


def _formula(model: TrainedModel, options: dict[str, Any]) -> Any:
    moved = subject.subject(model, fold=options.get("fold", True))
    omega = sum(moved.weights[name].size for name in subject.kernel_names(moved))
    return lambda square, alpha, m: bounds.sharpness(square, alpha, omega, m)


_INIT = ("init_params",)


def _row(function: Any, number: int, needs: tuple[str, ...] = ()) -> Measure:
    return Measure(function, +1, "flatness", 400.0, f"Jiang et al. 2020 ({number})", needs, stream="sharpness")


MEASURES = {
    "sharpness_flatness": _row(sharpness_flatness, 54),
    "sharpness_init": _row(sharpness_init, 51, _INIT),
    "sharpness_orig": _row(sharpness_orig, 52),
    "sharpness_mag_flatness": _row(sharpness_mag_flatness, 62),
    "sharpness_mag_init": _row(sharpness_mag_init, 59, _INIT),
    "sharpness_mag_orig": _row(sharpness_mag_orig, 60, _INIT),
}

HANDS_ON = dict.fromkeys(MEASURES, box_size)
