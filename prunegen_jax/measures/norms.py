"""Norms of the kernels, their products, path norm, distances from initialization.

Every measure here takes, by default, the network with batch norm folded into its kernels (`fold=True`; the network
itself if the model has no folded one, `details["folded"]` says which). Option `normalize`: see
`estimates.normalized_estimate`. Kernels are those of convolution and dense layers; biases count in the path norm alone.
m is the number of training examples, d of kernels, γ the 10th percentile of the output margins, see
`margins.tenth_percentile`.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute import lockstep, trees
from prunegen_jax.compute.options import check_positive
from prunegen_jax.measures import structure
from prunegen_jax.measures.estimates import log, normalized_estimate
from prunegen_jax.measures.margins import log_inverse_squared_margin
from prunegen_jax.types import Estimate, Measure, NotApplicableError, PyTree, TrainedModel


def parameter_norm(model: TrainedModel, key: jax.Array, *, fold: bool = True, normalize: str = "raw") -> Estimate:
    """Σ_l ‖W_l‖_F² over the kernels."""
    return _sum(model, squared_norms(model, fold), fold, normalize)


def l2_norm(model: TrainedModel, key: jax.Array, *, fold: bool = True, normalize: str = "raw") -> Estimate:
    """‖w‖₂, w all kernel entries in one vector: the square root of `parameter_norm`."""
    return _sum(model, squared_norms(model, fold), fold, normalize, root=True)


def distance_from_initialization(
    model: TrainedModel, key: jax.Array, *, fold: bool = True, normalize: str = "raw"
) -> Estimate:
    """Σ_l ‖W_l − W_l⁰‖_F² over the kernels, W⁰ the initial weights (folded likewise)."""
    squares = squared_distances(model, fold)
    return squares if isinstance(squares, Estimate) else _sum(model, squares, fold, normalize)


def l2_distance_from_initialization(
    model: TrainedModel, key: jax.Array, *, fold: bool = True, normalize: str = "raw"
) -> Estimate:
    """‖w − w⁰‖₂: the square root of `distance_from_initialization`."""
    squares = squared_distances(model, fold)
    return squares if isinstance(squares, Estimate) else _sum(model, squares, fold, normalize, root=True)


def product_of_frobenius_norms(
    model: TrainedModel, key: jax.Array, *, fold: bool = True, normalize: str = "raw"
) -> Estimate:
    """Π_l ‖W_l‖_F², formed in log space; a kernel of zeros makes it 0, its logarithm −inf, and the details say so."""
    return product(model, squared_norms(model, fold), fold, normalize)


def product_of_frobenius_norms_over_margin(
    model: TrainedModel, key: jax.Array, *, fold: bool = True, normalize: str = "raw"
) -> Estimate:
    """Π_l ‖W_l‖_F² / γ²."""
    return product(model, squared_norms(model, fold), fold, normalize, over_margin=True)


def sum_of_frobenius_norms(
    model: TrainedModel, key: jax.Array, *, fold: bool = True, normalize: str = "raw"
) -> Estimate:
    """d (Π_l ‖W_l‖_F²)^{1/d}: the sum that equal norms with that product would have."""
    return product(model, squared_norms(model, fold), fold, normalize, as_sum=True)


def sum_of_frobenius_norms_over_margin(
    model: TrainedModel, key: jax.Array, *, fold: bool = True, normalize: str = "raw"
) -> Estimate:
    """d (Π_l ‖W_l‖_F² / γ²)^{1/d}."""
    return product(model, squared_norms(model, fold), fold, normalize, as_sum=True, over_margin=True)


def path_norm(
    model: TrainedModel, key: jax.Array, *, power: float = 2.0, root: bool = False, fold: bool = True,
    normalize: str = "raw",
) -> Estimate:  # fmt: skip
    """Σ_c f_{|w|^p}(1)[c]: logits of an all-ones input, every weight (biases too) replaced by |w|^p, p = `power`.

    The affine steps of batch norm count with their effective scale and shift, folded or not. On a network with residual
    sums it is the sum over all paths, shortcuts among them. Not applicable with activations that are not homogeneous.

    Args:
        model: any.
        key: not used.
        power: p.
        root: take the power 1/p of it, as the code of Neyshabur (2017) does.
        fold: fold batch norm into the weights first.
        normalize: see `estimates.normalized_estimate`.

    Raises:
        ValueError: if p is not positive.
    """
    log_norm = _log_path_norm(model, power, fold)
    details = {"folded": structure.is_folded(model, fold=fold)}
    return normalized_estimate(
        log_value=log_norm / power if root else log_norm, size=len(model.train), normalize=normalize, details=details
    )


def path_norm_over_margin(
    model: TrainedModel, key: jax.Array, *, fold: bool = True, normalize: str = "raw"
) -> Estimate:
    """Σ_c f_{w∘w}(1)[c] / γ²."""
    log_norm = _log_path_norm(model, 2.0, fold)
    over, details = log_inverse_squared_margin(model)
    details["folded"] = structure.is_folded(model, fold=fold)
    return normalized_estimate(log_value=log_norm + over, size=len(model.train), normalize=normalize, details=details)


def squared_norms(model: TrainedModel, fold: bool) -> dict[str, float]:
    """‖W_l‖_F² of every kernel by name, in float64."""
    return {
        name: trees.squared_norm(w)
        for name, w in structure.named_kernels(structure.select_network(model, fold=fold)).items()
    }


def differences(model: TrainedModel, fold: bool) -> dict[tuple[str, ...], np.ndarray] | Estimate:
    """W_l − W_l⁰ of every kernel by path, float64; the answer "not applicable" without initial weights."""
    network = structure.select_network(model, fold=fold)
    if network.init_params is None:
        return structure.NO_INITIAL_WEIGHTS
    initial = dict(trees.named_leaves(network.init_params))
    return {
        path: np.asarray(kernel, np.float64) - np.asarray(initial[path], np.float64)
        for path, kernel in structure.kernels_of(network).items()
    }


def squared_distances(model: TrainedModel, fold: bool) -> dict[str, float] | Estimate:
    """‖W_l − W_l⁰‖_F² of every kernel by name, or the answer "not applicable"."""
    by_path = differences(model, fold)
    if isinstance(by_path, Estimate):
        return by_path
    return {"/".join(path): float(np.sum(np.square(difference))) for path, difference in by_path.items()}


def product(
    model: TrainedModel,
    squares: dict[str, float],
    fold: bool,
    normalize: str,
    *,
    over_margin: bool = False,
    as_sum: bool = False,
    times: float = 1.0,
    details: dict[str, Any] | None = None,
) -> Estimate:
    """`times` · Π_l squares_l, over γ² if `over_margin`; with `as_sum` d (that)^{1/d}. All in log space.

    Args:
        model: the model, for its margins and the number of its training examples.
        squares: the squared norm of every kernel, by name.
        fold: whether the squares are of the folded network; for the details.
        normalize: see `estimates.normalized_estimate`.
        over_margin: divide by γ².
        as_sum: return the sum that equal squares with that product would have.
        times: a factor.
        details: of the estimate, besides its own.
    """
    sequential = structure.program_of(structure.select_network(model, fold=fold)).sequential
    details = {"folded": structure.is_folded(model, fold=fold), "sequential": sequential, **(details or {})}
    zeros = [name for name, square in squares.items() if square == 0.0]
    if zeros:
        details["zero_layers"] = zeros
    log_value = sum(log(square) for square in squares.values()) + log(times)
    if over_margin:
        over, margin = log_inverse_squared_margin(model)
        log_value, details = log_value + over, {**details, **margin}
    if as_sum:
        log_value = math.log(len(squares)) + log_value / len(squares)
    return normalized_estimate(log_value=log_value, size=len(model.train), normalize=normalize, details=details)


def _sum(model: TrainedModel, squares: dict[str, float], fold: bool, normalize: str, *, root: bool = False) -> Estimate:
    value = math.sqrt(sum(squares.values())) if root else sum(squares.values())
    details = {"folded": structure.is_folded(model, fold=fold), "layers": squares}
    return normalized_estimate(value=value, size=len(model.train), normalize=normalize, details=details)


@lockstep.jit
def _path_sum(powered: Any, params: PyTree, ones: jax.Array, power: jax.Array) -> jax.Array:
    with jax.default_matmul_precision("highest"):
        return jnp.sum(powered(params, ones, power))


def _log_path_norm(model: TrainedModel, power: float, fold: bool) -> float:
    check_positive(power=power)
    network = structure.select_network(model, fold=fold)
    program = structure.program_of(network)
    structure.layer_geometry(network)  # NotApplicableError for a kernel that is no layer
    structure.require_real_inputs(network)
    inputs, _ = network.train.take(np.arange(1))
    if nonlinear := sorted(program.operations & {"exp", "tanh", "logistic", "erf"}):
        raise NotApplicableError(f"needs a network that is homogeneous between layers; it has {', '.join(nonlinear)}")
    return log(float(_path_sum(program.powered, network.params, jnp.ones_like(inputs), jnp.float32(power))))


_RELU = ("permutation", "neuron_scaling", "layer_scaling")
_LAYER = ("permutation", "layer_scaling")
_INIT = ("init_params",)
_JIANG = "Jiang et al. 2020"

MEASURES = {
    "parameter_norm": Measure(parameter_norm, +1, "norms", 0.0, f"{_JIANG} (42)", (), ("permutation",)),
    "l2_norm": Measure(l2_norm, +1, "norms", 0.0, "Dziugaite et al. 2020", (), ("permutation",)),
    "distance_from_initialization": Measure(
        distance_from_initialization, +1, "norms", 0.0, f"{_JIANG} (40)", _INIT, ("permutation",)
    ),
    "l2_distance_from_initialization": Measure(
        l2_distance_from_initialization, +1, "norms", 0.0, "Dziugaite et al. 2020", _INIT, ("permutation",)
    ),
    "product_of_frobenius_norms": Measure(product_of_frobenius_norms, +1, "norms", 0.0, f"{_JIANG} (37)", (), _LAYER),
    "product_of_frobenius_norms_over_margin": Measure(
        product_of_frobenius_norms_over_margin, +1, "norms", 1.0, f"{_JIANG} (36)", (), _LAYER
    ),
    "sum_of_frobenius_norms": Measure(sum_of_frobenius_norms, +1, "norms", 0.0, f"{_JIANG} (39)", (), _LAYER),
    "sum_of_frobenius_norms_over_margin": Measure(
        sum_of_frobenius_norms_over_margin, +1, "norms", 1.0, f"{_JIANG} (38)", (), _LAYER
    ),
    "path_norm": Measure(path_norm, +1, "norms", 0.0, f"{_JIANG} (44)", (), _RELU),
    "path_norm_over_margin": Measure(path_norm_over_margin, +1, "norms", 1.0, f"{_JIANG} (43)", (), _RELU),
}
