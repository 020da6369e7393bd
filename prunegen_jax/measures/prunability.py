"""Prunability and its variants as measures of a trained network."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

from prunegen_jax import pruning
from prunegen_jax.measures.cache import cached
from prunegen_jax.measures.structure import select_network
from prunegen_jax.types import Estimate, Measure, TrainedModel

SOURCE = "Kuhn et al. 2021"


def prunability(model: TrainedModel, key: jax.Array, *, fold: bool = False, **options: Any) -> Estimate:
    """Smallest kept fraction within the tolerance under global magnitude pruning: `pruning.prunability`.

    `fold` takes the network with batch norm folded into its weights. The other options are those of
    `pruning.prunability`.
    """
    network = select_network(model, fold=fold)
    scan = functools.partial(pruning.prunability, network.apply, network.params, network.train, **options)
    return _estimate(cached(network, f"prunability, {sorted(options.items())}", scan))


def prunability_layerwise(model: TrainedModel, key: jax.Array, *, fold: bool = False, **options: Any) -> Estimate:
    """Smallest kept fraction within the tolerance when every layer keeps the same fraction of its largest weights."""
    return prunability(model, key, fold=fold, scope="layer", **options)


def prunability_error(model: TrainedModel, key: jax.Array, *, fold: bool = False, **options: Any) -> Estimate:
    """Smallest kept fraction that keeps the training error within the tolerance, by default one point above."""
    defaults = {"criterion": "error", "tolerance": "absolute", "delta": 0.01}
    return prunability(model, key, fold=fold, **(defaults | options))


def prunability_folded(model: TrainedModel, key: jax.Array, **options: Any) -> Estimate:
    """`prunability` of the network with batch norm folded into its weights."""
    return prunability(model, key, fold=True, **options)


def prunability_prefix(model: TrainedModel, key: jax.Array, *, fold: bool = False, **options: Any) -> Estimate:
    """Smallest kept fraction before the first failure, as the fraction falls from 1: `pruning.prunability_prefix`."""
    network = select_network(model, fold=fold)
    return _estimate(pruning.prunability_prefix(network.apply, network.params, network.train, **options))


def prunability_random(model: TrainedModel, key: jax.Array, *, fold: bool = False, **options: Any) -> Estimate:
    """One minus the drop rate at which the mean loss under random pruning reaches the limit of `prunability`.

    The rate may be below one weight in all. Details and options: `pruning.random_prunability`.
    """
    network = select_network(model, fold=fold)
    return _estimate(pruning.random_prunability(key, network.apply, network.params, network.train, **options))


def prunability_bernoulli(model: TrainedModel, key: jax.Array, *, fold: bool = False, **options: Any) -> Estimate:
    """`prunability_random` with every weight dropped independently, as in McAllester's (2013) bound."""
    return prunability_random(model, key, fold=fold, draw="bernoulli", **options)


def prunability_input_norm(model: TrainedModel, key: jax.Array, *, fold: bool = False, **options: Any) -> Estimate:
    """Smallest kept fraction that passes when each output keeps its largest |w_j| ‖x_j‖₂, x_j what w_j multiplies.

    ‖x_j‖₂ is over the training set. Details and options: `pruning.input_norm_prunability`.
    """
    network = select_network(model, fold=fold)
    return _estimate(pruning.input_norm_prunability(network.apply, network.params, network.train, **options))


def prunability_channels(model: TrainedModel, key: jax.Array, **options: Any) -> Estimate:
    """Smallest fraction of channels that passes when each layer drops those of the smallest ‖w_c‖₁, w_c their weights.

    The weights into channel c, batch norm folded, and its bias become 0. The layers that make the logits stay whole and
    do not count. Details and options: `pruning.channel_prunability`.
    """
    network = select_network(model, fold=True)
    return _estimate(pruning.channel_prunability(network.apply, network.params, network.train, **options))


def prunability_blocks(model: TrainedModel, key: jax.Array, *, fold: bool = False, **options: Any) -> Estimate:
    """Smallest N / 4 that passes when the N largest weights of every 4 neighbouring input channels of an output stay.

    Details and options, such as a `block` of another size: `pruning.block_prunability`.
    """
    network = select_network(model, fold=fold)
    return _estimate(pruning.block_prunability(network.apply, network.params, network.train, **options))


def kept_parameters(model: TrainedModel, key: jax.Array, *, fold: bool = False, **options: Any) -> Estimate:
    """The number of parameters kept at `prunability`: what compression bounds count, and it grows with the network."""
    fraction = prunability(model, key, fold=fold, **options)
    if fraction.status != "ok":
        return fraction
    return dataclasses.replace(fraction, value=float(fraction.details["kept"]))


def _estimate(pruned: pruning.Pruned) -> Estimate:
    details = dataclasses.asdict(pruned)
    return Estimate(details.pop("fraction"), details.pop("sem"), details=details)


def _row(function: Any, cost: float, *invariant: str, version: int = 1, source: str = SOURCE) -> Measure:
    return Measure(function, +1, "pruning", cost, source, (), ("permutation", *invariant), version=version)


# The functions whose options a measure takes besides its own.
FORWARDS_OPTIONS_TO: dict[str, Callable[..., pruning.Pruned]] = {
    "prunability": pruning.prunability,
    "prunability_prefix": pruning.prunability_prefix,
    "prunability_layerwise": pruning.prunability,
    "prunability_error": pruning.prunability,
    "prunability_folded": pruning.prunability,
    "prunability_random": pruning.random_prunability,
    "prunability_bernoulli": pruning.random_prunability,
    "prunability_input_norm": pruning.input_norm_prunability,
    "prunability_channels": pruning.channel_prunability,
    "prunability_blocks": pruning.block_prunability,
    "kept_parameters": pruning.prunability,
}

# Options of those functions that a measure sets itself.
FIXED_OPTIONS = {
    "prunability_layerwise": ("scope",),
    "prunability_folded": ("fold",),
    "prunability_bernoulli": ("draw",),
}

MEASURES = {
    "prunability": _row(prunability, 50.0),
    "prunability_prefix": _row(prunability_prefix, 15.0),
    "prunability_layerwise": _row(prunability_layerwise, 50.0, "layer_scaling"),
    "prunability_error": _row(prunability_error, 50.0),
    "prunability_folded": _row(prunability_folded, 50.0),
    "prunability_random": _row(prunability_random, 350.0, version=2),
    "prunability_bernoulli": _row(prunability_bernoulli, 350.0, version=2),
    "prunability_input_norm": _row(
        prunability_input_norm, 50.0, "neuron_scaling", "layer_scaling", source=f"{SOURCE}; order of Sun et al. 2023"
    ),
    "prunability_channels": _row(
        prunability_channels, 5.0, "layer_scaling", source=f"{SOURCE}; order of Li et al. 2017"
    ),
    "prunability_blocks": Measure(  # which inputs are neighbours depends on the order of the units
        prunability_blocks, +1, "pruning", 4.0, f"{SOURCE}; pattern of Mishra et al. 2021", (), ("layer_scaling",)
    ),
    "kept_parameters": _row(kept_parameters, 50.0),
}
