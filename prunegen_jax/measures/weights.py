"""What the measures of one network share: whose weights they look at, the final transform, results kept beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from prunegen_jax.compute import trees
from prunegen_jax.types import Estimate, PyTree, TrainedModel

NORMALIZATIONS = ("raw", "sqrt_m", "log", "log_sqrt_m")


def check_choice(option: str, value: Any, choices: Iterable[Any]) -> None:
    """ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{option}={value!r} is not known; choose among {', '.join(map(repr, choices))}")


def measured(model: TrainedModel, fold: bool) -> TrainedModel:
    """The network whose weights count: with batch norm folded away if `fold` and if the model has that network."""
    return model.folded if fold and model.folded is not None else model


def remembered(owner: Any, name: str, compute: Callable[[], Any]) -> Any:
    """`compute()`, done once per model or data set: a dozen measures share one pass for the margins, say.

    Kept in the instance itself, which is immutable: a changed copy (`dataclasses.replace`) starts with nothing.
    """
    kept = owner.__dict__.setdefault("_remembered", {})
    if name not in kept:
        kept[name] = compute()
    return kept[name]


def has_normalization(params: PyTree) -> bool:
    """Whether normalization layers are left among the parameters, by names and shapes.

    What tells one: a leaf called "scale" or "gamma", a vector called "weight", or a vector called "bias", "b" or "beta"
    in a node of the tree without a kernel.
    """
    parents = {path[:-1] for path in trees.kernels(params)}
    for path, leaf in trees.named_leaves(params):
        name = path[-1].lower() if path else ""
        if name in ("scale", "gamma") or (leaf.ndim == 1 and name == "weight"):
            return True
        if leaf.ndim == 1 and name in ("bias", "b", "beta") and path[:-1] not in parents:
            return True
    return False


def log(value: float) -> float:
    """ln of a number ≥ 0, −inf of zero."""
    return math.log(value) if value != 0.0 else -math.inf


def quantity(
    *,
    size: int,
    normalize: str,
    value: float | None = None,
    log_value: float | None = None,
    details: dict[str, Any] | None = None,
) -> Estimate:
    """The estimate of a quantity C ≥ 0, given as C or as ln C, after the transform that `normalize` asks for.

    "raw": C. "sqrt_m": √(C / m), the form in which the bounds hold and in which Jiang et al. (2020) and Dziugaite et
    al. (2020) compare measures, m = `size` training examples. "log": ln C. "log_sqrt_m": ½ (ln C − ln m), what the
    latter's code stores for products. `details` gets ln C as "log": a product may leave the range of floats (C = inf
    or 0), its logarithm does not. A quantity that is undefined (0 · ∞, 0 / 0) fails.

    Raises:
        ValueError: for a transform that is not known.
    """
    check_choice("normalize", normalize, NORMALIZATIONS)
    if log_value is None:
        log_value = math.nan if value is None or math.isnan(value) else log(value)
    details = {"log": log_value, **(details or {})}
    if math.isnan(log_value):
        layers = details.get("zero_layers")
        reason = (
            f"undefined: all weights of {', '.join(layers)} are zero"
            if layers
            else "not a number: 0 · ∞, 0 / 0, or weights that are not finite"
        )
        return Estimate(math.nan, status="failed", reason=reason, details=details)
    if normalize == "raw":
        return Estimate(_exp(log_value) if value is None else value, details=details)
    if normalize == "log":
        return Estimate(log_value, details=details)
    half = 0.5 * (log_value - math.log(size))
    return Estimate(_exp(half) if normalize == "sqrt_m" else half, details=details)


def _exp(power: float) -> float:
    try:
        return math.exp(power)
    except OverflowError:
        return math.inf
