"""PAC-Bayes flatness: the noise σ that costs ten points of training accuracy, and the bounds made of it.

σ is the scale of Gaussian noise in kernels and biases at which the training accuracy has dropped by `target` (0.1) on
average over `draws` draws, to within `tolerance` (0.01); σ' the scale of noise of standard deviation √(σ'² w² + ε²).
Where noise of standard deviation ε alone costs more, there is no σ', and its measures are not applicable.
If the accuracy jumps over that window, details["converged"] is False and σ is the largest scale found below it.
`compat="rgm"` does what the code of Dziugaite et al. (2020) does: bisection on [0, 2], at most 15 steps, and the noise
of `weight_noise.add_rgm_noise`. The six measures share the draws and the two searches. `normalize` as in
`estimates.normalized_estimate`: raw C, or the bound √(C / m).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from prunegen_jax.compute.options import check_choice
from prunegen_jax.measures import bounds, scale_bounds
from prunegen_jax.measures.objective import weight_function
from prunegen_jax.measures.search import largest_scale, rgm_bisection, scale_standard_error
from prunegen_jax.measures.structure import normalized_kernels
from prunegen_jax.measures.weight_noise import add_gaussian, add_rgm_noise, losses_under_noise, mean_loss_and_error
from prunegen_jax.types import Estimate, Measure, TrainedModel


def pac_bayes_flatness(model: TrainedModel, key: jax.Array, *, normalize: str = "raw", **options: Any) -> Estimate:
    """1 / σ² (53). Options: those of `noise_scale`."""
    return scale_bounds.inverse_square(model, key, noise_scale, False, normalize, **options)


def pac_bayes_init(model: TrainedModel, key: jax.Array, *, normalize: str = "raw", **options: Any) -> Estimate:
    """‖w − w⁰‖² / (4σ²) + ln(m/σ) + 10 (48), over the kernels. Options: those of `noise_scale`."""
    return scale_bounds.norm_bound(model, key, noise_scale, _norm_bound, normalize, from_init=True, **options)


def pac_bayes_orig(model: TrainedModel, key: jax.Array, *, normalize: str = "raw", **options: Any) -> Estimate:
    """‖w‖² / (4σ²) + ln(m/σ) + 10 (49), over the kernels. Options: those of `noise_scale`."""
    return scale_bounds.norm_bound(model, key, noise_scale, _norm_bound, normalize, from_init=False, **options)


def pac_bayes_mag_flatness(model: TrainedModel, key: jax.Array, *, normalize: str = "raw", **options: Any) -> Estimate:
    """1 / σ'² (61). Options: those of `noise_scale`."""
    return scale_bounds.inverse_square(model, key, noise_scale, True, normalize, **options)


def pac_bayes_mag_init(model: TrainedModel, key: jax.Array, *, normalize: str = "raw", **options: Any) -> Estimate:
    """`bounds.pac_bayes_magnitude` with R = ‖w − w⁰‖ (56), over the kernels. Options: those of `noise_scale`."""
    formula = bounds.pac_bayes_magnitude
    return scale_bounds.magnitude_bound(model, key, noise_scale, formula, normalize, from_init=True, **options)


def pac_bayes_mag_orig(model: TrainedModel, key: jax.Array, *, normalize: str = "raw", **options: Any) -> Estimate:
    """`bounds.pac_bayes_magnitude` with R = ‖w‖ (57), over the kernels. Options: those of `noise_scale`."""
    formula = bounds.pac_bayes_magnitude
    return scale_bounds.magnitude_bound(model, key, noise_scale, formula, normalize, from_init=False, **options)


def noise_scale(
    model: TrainedModel,
    key: jax.Array,
    magnitude: bool,
    *,
    target: float = 0.1,
    tolerance: float = 0.01,
    draws: int = 10,
    compat: str | None = None,
    fold: bool = True,
) -> scale_bounds.Scale:
    """σ, or σ' if `magnitude`, with its standard error over the draws. Computed once per model.

    Args:
        model: any.
        key: randomness of the noise.
        magnitude: whether the noise grows with the weights.
        target: by how much the training accuracy drops.
        tolerance: to within how much of that.
        draws: number of draws of noise.
        compat: "rgm" for what the code of Dziugaite et al. (2020) does; None or "none" for none of that.
        fold: fold batch norm into the weights first.

    Raises:
        ValueError: for fewer than two draws, or an unknown `compat`.
    """
    check_choice("compat", compat, (None, "none", "rgm"))
    rgm = compat == "rgm"

    def search() -> scale_bounds.Scale:
        network = weight_function(model, fold=fold)
        dense = mean_loss_and_error(network, network.weights)[1]
        if rgm:
            names = normalized_kernels(model)
            perturb = functools.partial(add_rgm_noise, magnitude=magnitude, normalized=names)
        else:
            perturb = functools.partial(add_gaussian, magnitude=magnitude, floor=jnp.float32(bounds.FLOOR))
        evaluate = losses_under_noise(network, key, draws, perturb)

        def drop(scale: float) -> float:
            return float(evaluate(scale)[1].mean()) - dense

        if rgm:
            crossing = rgm_bisection(drop, target, tolerance=tolerance)
        else:
            start = 0.1 if magnitude else 0.01
            tolerances = {"scale_tolerance": 1e-3, "response_tolerance": tolerance}
            crossing = largest_scale(drop, target, start=start, constant_part=magnitude, **tolerances)
        return crossing, scale_standard_error(crossing, lambda scale: evaluate(scale)[1])

    return scale_bounds.cached_search(model, key, search, "noise", magnitude, target, tolerance, draws, rgm, fold)


def _norm_bound(square: float, sigma: float, omega: int, m: int) -> float:
    del omega  # the number of kernel entries is in the sharpness bounds alone
    return bounds.pac_bayes(square, sigma, m)


_INIT = ("init_params",)


def _row(function: Any, number: int, needs: tuple[str, ...] = ()) -> Measure:
    source = f"Jiang et al. 2020 ({number}); Dziugaite et al. 2020"
    return Measure(function, +1, "flatness", 130.0, source, needs, stream="pac_bayes")


MEASURES = {
    "pac_bayes_flatness": _row(pac_bayes_flatness, 53),
    "pac_bayes_init": _row(pac_bayes_init, 48, _INIT),
    "pac_bayes_orig": _row(pac_bayes_orig, 49),
    "pac_bayes_mag_flatness": _row(pac_bayes_mag_flatness, 61),
    "pac_bayes_mag_init": _row(pac_bayes_mag_init, 56, _INIT),
    "pac_bayes_mag_orig": _row(pac_bayes_mag_orig, 57, _INIT),
}

FORWARDS_OPTIONS_TO = dict.fromkeys(MEASURES, noise_scale)
