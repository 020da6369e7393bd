"""Flatness by the worst perturbation in a box: the size α that costs ten points of training accuracy, and its bounds.

α is the largest half-width of the box |u_j| ≤ α in which the training accuracy falls by at most `target` (0.1); α' that
of |u_j| ≤ α' |w_j| + ε. The worst point is searched by ascending the loss along the sign of its gradient over the whole
set, a quarter of the box at a time, from the network itself and from random points of the box; so α is an upper
estimate, and found to a factor 1 + `scale_tolerance`. Where |u_j| ≤ ε alone costs more than `target`, there is no α',
and its measures are not applicable. Kernels and biases move, with batch norm folded. The six measures share the two
searches. Their bounds have ln(m/α) where the paper writes ln(m/σ), by our reading, and count the kernels
alone. `normalize` as in `estimates.normalized_estimate`: raw C, or the bound √(C / m).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from prunegen_jax.measures import bounds, scale_bounds
from prunegen_jax.measures.objective import weight_function
from prunegen_jax.measures.search import largest_scale
from prunegen_jax.measures.worst_case import ascend_box, loss_error_gradient, make_box
from prunegen_jax.types import Estimate, Measure, TrainedModel


def sharpness_flatness(model: TrainedModel, key: jax.Array, *, normalize: str = "raw", **options: Any) -> Estimate:
    """1 / α² (54). Options: those of `box_size`."""
    return scale_bounds.inverse_square(model, key, box_size, False, normalize, **options)


def sharpness_init(model: TrainedModel, key: jax.Array, *, normalize: str = "raw", **options: Any) -> Estimate:
    """‖w − w⁰‖² ln(2ω) / (4α²) + ln(m/α) + 10 (51), over the kernels. Options: those of `box_size`."""
    return scale_bounds.norm_bound(model, key, box_size, bounds.sharpness, normalize, from_init=True, **options)


def sharpness_orig(model: TrainedModel, key: jax.Array, *, normalize: str = "raw", **options: Any) -> Estimate:
    """‖w‖² ln(2ω) / (4α²) + ln(m/α) + 10 (52), over the kernels. Options: those of `box_size`."""
    return scale_bounds.norm_bound(model, key, box_size, bounds.sharpness, normalize, from_init=False, **options)


def sharpness_mag_flatness(model: TrainedModel, key: jax.Array, *, normalize: str = "raw", **options: Any) -> Estimate:
    """1 / α'² (62). Options: those of `box_size`."""
    return scale_bounds.inverse_square(model, key, box_size, True, normalize, **options)


def sharpness_mag_init(
    model: TrainedModel, key: jax.Array, *, delta: float = bounds.DELTA, normalize: str = "raw", **options: Any
) -> Estimate:
    """`bounds.sharpness_magnitude` with R = ‖w − w⁰‖ (59) and δ = `delta`. Options: those of `box_size`."""
    formula = functools.partial(bounds.sharpness_magnitude, delta=delta)
    return scale_bounds.magnitude_bound(model, key, box_size, formula, normalize, from_init=True, **options)


def sharpness_mag_orig(
    model: TrainedModel, key: jax.Array, *, delta: float = bounds.DELTA, normalize: str = "raw", **options: Any
) -> Estimate:
    """`bounds.sharpness_magnitude` with R = ‖w‖ (60) and δ = `delta`. Options: those of `box_size`."""
    formula = functools.partial(bounds.sharpness_magnitude, delta=delta)
    return scale_bounds.magnitude_bound(model, key, box_size, formula, normalize, from_init=False, **options)


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
) -> scale_bounds.Scale:
    """α, or α' if `magnitude`. Computed once per model.

    Args:
        model: any.
        key: randomness of the starting points.
        magnitude: whether the box grows with the weights.
        target: by how much the training accuracy may fall.
        scale_tolerance: relative tolerance of α.
        steps: steps of ascent from each starting point.
        starts: number of starting points.
        fold: fold batch norm into the weights first.
        batch_size: examples per chunk; changes nothing but speed.

    Raises:
        ValueError: for a negative number of steps, fewer than one start, or a tolerance that is not positive.
    """

    def search() -> scale_bounds.Scale:
        network = weight_function(model, fold=fold)
        objective = network.objective(batch_size)
        dense = loss_error_gradient(objective, network.weights)[1]
        limit = (float(dense) / len(model.train)) + target

        def worst_error(scale: float) -> float:
            floor = bounds.FLOOR if magnitude else 0.0
            box = make_box(network.weights, jnp.float32(scale), jnp.float32(floor), magnitude=magnitude)
            return ascend_box(objective, network.weights, box, key, steps=steps, starts=starts, enough=limit).error

        start = 0.02 if magnitude else 0.002
        crossing = largest_scale(
            worst_error, limit, start=start, scale_tolerance=scale_tolerance, constant_part=magnitude
        )
        return crossing, None

    options = ("box", magnitude, target, scale_tolerance, steps, starts, fold, batch_size)
    return scale_bounds.cached_search(model, key, search, *options)


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

FORWARDS_OPTIONS_TO = dict.fromkeys(MEASURES, box_size)
