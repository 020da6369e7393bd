"""PAC-Bayes flatness: the noise σ that costs ten points of training accuracy, and the bounds made of it.

σ is the scale of Gaussian noise in kernels and biases at which the training accuracy has dropped by `target` (0.1) on
average over `draws` draws, to within `tolerance` (0.01); σ' the scale of noise of standard deviation √(σ'² w² + ε²).
If the accuracy jumps over that window, details["converged"] is False and σ is the largest scale seen below it.
`compat="rgm"` does what the code of Dziugaite et al. (2020) does: bisection on [0, 2], at most 15 steps; noise of
standard deviation σ² (σ'² w² + ε²) instead; and noise in the scale (1) and shift (0) that folding leaves behind
each kernel that batch norm followed (`normalized_kernels`). The six measures share the draws and the two searches.
`normalize` as in `weights.quantity`: raw C, or the bound √(C / m).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute import lockstep, trees
from prunegen_jax.compute.evaluation import example_losses
from prunegen_jax.measures import bounds, subject
from prunegen_jax.measures.perturbation import drawn, gaussian, scale_sem, search_details
from prunegen_jax.measures.search import Crossing, largest_scale, rgm_bisection
from prunegen_jax.measures.weights import check_choice, has_normalization, quantity, remembered
from prunegen_jax.types import Estimate, Measure, TrainedModel, not_applicable


def pac_bayes_flatness(model: TrainedModel, key: jax.Array, *, normalize: str = "raw", **options: Any) -> Estimate:
    """1 / σ² (53). Options: those of `noise_scale`."""
    return _flatness(model, key, normalize, magnitude=False, **options)


def pac_bayes_init(model: TrainedModel, key: jax.Array, *, normalize: str = "raw", **options: Any) -> Estimate:
    """‖w − w⁰‖² / (4σ²) + ln(m/σ) + 10 (48), over the kernels. Options: those of `noise_scale`."""
    return bound(model, key, _search(False), bounds.pac_bayes, normalize, from_init=True, **options)


def pac_bayes_orig(model: TrainedModel, key: jax.Array, *, normalize: str = "raw", **options: Any) -> Estimate:
    """‖w‖² / (4σ²) + ln(m/σ) + 10 (49), over the kernels. Options: those of `noise_scale`."""
    return bound(model, key, _search(False), bounds.pac_bayes, normalize, from_init=False, **options)


def pac_bayes_mag_flatness(model: TrainedModel, key: jax.Array, *, normalize: str = "raw", **options: Any) -> Estimate:
    """1 / σ'² (61). Options: those of `noise_scale`."""
    return _flatness(model, key, normalize, magnitude=True, **options)


def pac_bayes_mag_init(model: TrainedModel, key: jax.Array, *, normalize: str = "raw", **options: Any) -> Estimate:
    """`bounds.pac_bayes_magnitude` with R = ‖w − w⁰‖ (56), over the kernels. Options: those of `noise_scale`."""
    return magnitude_bound(model, key, _search(True), bounds.pac_bayes_magnitude, normalize, from_init=True, **options)


def pac_bayes_mag_orig(model: TrainedModel, key: jax.Array, *, normalize: str = "raw", **options: Any) -> Estimate:
    """`bounds.pac_bayes_magnitude` with R = ‖w‖ (57), over the kernels. Options: those of `noise_scale`."""
    return magnitude_bound(model, key, _search(True), bounds.pac_bayes_magnitude, normalize, from_init=False, **options)


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
) -> tuple[Crossing, float | None]:
    """σ, or σ' if `magnitude`, with its standard error over the draws. Remembered with the model."""
    check_choice("compat", compat, (None, "none", "rgm"))
    compat = None if compat == "none" else compat
    bits = np.asarray(jax.random.key_data(key)).tolist()
    name = f"noise_scale {magnitude} {target} {tolerance} {draws} {compat} {fold} {bits}"

    def search() -> tuple[Crossing, float | None]:
        moved = subject.subject(model, fold=fold)
        dense = float(np.mean(example_losses(moved.apply, moved.weights, moved.data)[1], dtype=np.float64))
        if compat == "rgm":
            noise = functools.partial(rgm_noise, magnitude=magnitude, normalized=normalized_kernels(model))
        else:
            noise = functools.partial(gaussian, magnitude=magnitude, floor=jnp.float32(bounds.FLOOR))
        errors = drawn(moved, key, draws, noise, 1)

        def drop(scale: float) -> float:
            return float(errors(scale).mean()) - dense

        if compat == "rgm":
            found = rgm_bisection(drop, target, tolerance=tolerance)
        else:
            found = largest_scale(
                drop, target, start=0.1 if magnitude else 0.01, scale_tolerance=1e-3, response_tolerance=tolerance
            )
        return found, scale_sem(found, errors)

    return remembered(model, name, search)


@functools.partial(lockstep.jit, static_argnames=("magnitude", "normalized"))
def rgm_noise(
    weights: subject.Weights, key: jax.Array, scale: jax.Array, *, magnitude: bool, normalized: tuple[str, ...]
) -> subject.Weights:
    """Noise as in the code of Dziugaite et al. (2020), see above; `normalized` names the kernels followed by a norm."""

    def noisy(w: jax.Array, key: jax.Array) -> jax.Array:
        square = jnp.square(scale.astype(w.dtype))
        std = square * jnp.square(w) + jnp.asarray(bounds.FLOOR**2, w.dtype) if magnitude else square
        return w + std * jax.random.normal(key, w.shape, w.dtype)

    keys = dict(zip(weights, jax.random.split(key, len(weights)), strict=True))
    moved = {name: noisy(leaf, keys[name]) for name, leaf in weights.items()}
    for name, bias in weights.items():
        kernel = name.removesuffix("bias") + "kernel"
        if name.endswith("bias") and kernel in weights and kernel in normalized:
            scale_key, shift_key = jax.random.split(jax.random.fold_in(keys[name], 1))
            gamma = noisy(jnp.ones_like(bias), scale_key)
            out = (1,) * (weights[kernel].ndim - 1) + (-1,)
            moved[kernel] = moved[kernel] * gamma.reshape(out)
            moved[name] = moved[name] * gamma + noisy(jnp.zeros_like(bias), shift_key)
    return moved


def normalized_kernels(model: TrainedModel) -> tuple[str, ...]:
    """Names of the kernels that a batch norm follows in the network as it was trained (`model.params`).

    The norm of "…conv…" is called "…norm…", that of any other layer "…_norm", as in our own networks; in a network
    that has norms none of which is called so, all kernels count as followed by one.
    """
    scales = {path[:-1] for path, _ in trees.named_leaves(model.params) if path[-1:] == ("scale",)}
    kernels = [path for path in trees.kernels(model.params) if len(path) > 1]

    def norm(path: tuple[str, ...]) -> tuple[str, ...]:
        layer = path[-2]
        return (*path[:-2], layer.replace("conv", "norm") if "conv" in layer else f"{layer}_norm")

    found = [path for path in kernels if norm(path) in scales]
    if not found and has_normalization(model.params):
        found = kernels
    return tuple("/".join(path) for path in found)


def kernel_vectors(moved: subject.Subject) -> tuple[np.ndarray, np.ndarray | None]:
    """w and w − w⁰ of the kernels, float64 `[ω]` each; None without initial weights."""
    names = subject.kernel_names(moved)
    w = np.concatenate([np.asarray(moved.weights[name], np.float64).reshape(-1) for name in names])
    if moved.initial is None:
        return w, None
    return w, w - np.concatenate([np.asarray(moved.initial[name], np.float64).reshape(-1) for name in names])


Search = Callable[..., tuple[Crossing, float | None]]


def bound(
    model: TrainedModel,
    key: jax.Array,
    search: Search,
    formula: Callable[[float, float, int], float],
    normalize: str,
    *,
    from_init: bool,
    fold: bool = True,
    **options: Any,
) -> Estimate:
    """A bound in ‖w − w⁰‖² (`from_init`) or ‖w‖² and the scale that `search` finds."""
    moved = subject.subject(model, fold=fold)
    w, away = kernel_vectors(moved)
    vector = away if from_init else w
    if vector is None:
        return NO_INIT
    square, m = float(vector @ vector), len(model.train)
    return answer(moved, search(model, key, fold=fold, **options), lambda scale: formula(square, scale, m), normalize)


def magnitude_bound(
    model: TrainedModel,
    key: jax.Array,
    search: Search,
    formula: Callable[[np.ndarray, float, float, int], float],
    normalize: str,
    *,
    from_init: bool,
    fold: bool = True,
    **options: Any,
) -> Estimate:
    """A magnitude-aware bound, which needs w − w⁰ even where R = ‖w‖."""
    moved = subject.subject(model, fold=fold)
    w, away = kernel_vectors(moved)
    if away is None:
        return NO_INIT
    vector = away if from_init else w
    square, m = float(vector @ vector), len(model.train)
    return answer(
        moved, search(model, key, fold=fold, **options), lambda scale: formula(away, square, scale, m), normalize
    )


def answer(
    moved: subject.Subject,
    found: tuple[Crossing, float | None],
    formula: Callable[[float], float],
    normalize: str,
) -> Estimate:
    """`formula` of the scale found, transformed, with the standard error that the scale's own implies."""
    crossing, sem = found
    details = {**subject.details(moved), **search_details(crossing), "scale": crossing.scale, "scale_sem": sem}
    details["response"] = crossing.response
    if not crossing.scale > 0:
        reason = "no scale was found: the network is hurt by the smallest noise tried"
        return Estimate(float("nan"), status="failed", reason=reason, details=details)
    size = len(moved.data)

    def transformed(scale: float) -> Estimate:
        return quantity(value=formula(scale), size=size, normalize=normalize, details=details)

    result = transformed(crossing.scale)
    if sem is None or sem >= crossing.scale:
        return result
    spread = [transformed(crossing.scale + sign * sem).value for sign in (-1, 1)]
    return Estimate(result.value, abs(spread[1] - spread[0]) / 2, result.status, result.reason, result.details)


def _flatness(model: TrainedModel, key: jax.Array, normalize: str, *, fold: bool = True, **options: Any) -> Estimate:
    found = noise_scale(model, key, fold=fold, **options)
    return answer(subject.subject(model, fold=fold), found, lambda scale: 1 / scale**2, normalize)


def _search(magnitude: bool) -> Search:
    return functools.partial(noise_scale, magnitude=magnitude)


NO_INIT = not_applicable("needs init_params of the network that is measured")
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

HANDS_ON = dict.fromkeys(MEASURES, noise_scale)
