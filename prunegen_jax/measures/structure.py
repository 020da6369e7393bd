"""The structure of a network as measures need it: folded batch norm, geometry of layers, activations, normalization.

Measures ask for the fields `folded`, `layers` and `features` of a `TrainedModel` here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from prunegen_jax.compute import trees
from prunegen_jax.types import Layer, PyTree, TrainedModel, not_applicable

NO_FOLDED_NETWORK = not_applicable("needs folded of the model: the network with batch norm folded into its weights")
NO_INITIAL_WEIGHTS = not_applicable("needs init_params of the network that is measured")
HAS_NORMALIZATION = not_applicable("needs a network without normalization layers: fold them (the model's `folded`)")


def folded_network(model: TrainedModel) -> TrainedModel | None:
    """The same function with batch norm folded into the weights; None if the model does not have it."""
    return model.folded


def is_folded(model: TrainedModel, *, fold: bool) -> bool:
    """Whether `select_network` returns the folded network."""
    return fold and folded_network(model) is not None


def select_network(model: TrainedModel, *, fold: bool) -> TrainedModel:
    """The network whose weights a measure takes: the folded one if `fold` and if the model has one, else `model`."""
    folded = folded_network(model)
    return folded if fold and folded is not None else model


def layer_geometry(network: TrainedModel) -> dict[tuple[str, ...], Layer]:
    """The geometry of the network's layers by the path of their kernels; empty if it is not known."""
    return {layer.path: layer for layer in network.layers or ()}


def activation_function(network: TrainedModel) -> Callable[..., tuple[jax.Array, dict[str, jax.Array]]] | None:
    """(params, images, offsets={}) → (logits, activations by name), see `TrainedModel.features`; None if not known."""
    return network.features


def activation_names(network: TrainedModel) -> list[str]:
    """Names of the activations in the order in which they are computed; none if they are not known."""
    features = activation_function(network)
    names: list[str] = []

    def trace(params: PyTree, images: jax.Array) -> None:  # what JAX returns is sorted by name
        names.extend(features(params, images)[1] if features else ())

    jax.eval_shape(trace, network.params, network.train.take(np.arange(1))[0])
    return names


def has_normalization(params: PyTree) -> bool:
    """Whether there are normalization layers among the parameters, by names and shapes.

    A leaf called "scale" or "gamma", a vector called "weight", or a vector called "bias", "b" or "beta" in a node of
    the tree without a kernel shows one.
    """
    parents = {path[:-1] for path in trees.kernels(params)}
    for path, leaf in trees.named_leaves(params):
        name = path[-1].lower() if path else ""
        if name in ("scale", "gamma") or (leaf.ndim == 1 and name == "weight"):
            return True
        if leaf.ndim == 1 and name in ("bias", "b", "beta") and path[:-1] not in parents:
            return True
    return False


def normalized_kernels(params: PyTree) -> tuple[str, ...]:
    """Names of the kernels that a batch norm follows in the network as it was trained.

    The norm of "…conv…" is called "…norm…", that of any other layer "…_norm", as in our own networks; in a network
    that has norms none of which is called so, all kernels count as followed by one.
    """
    scales = {path[:-1] for path, _ in trees.named_leaves(params) if path[-1:] == ("scale",)}
    kernels = [path for path in trees.kernels(params) if len(path) > 1]

    def norm_path(path: tuple[str, ...]) -> tuple[str, ...]:
        layer = path[-2]
        return (*path[:-2], layer.replace("conv", "norm") if "conv" in layer else f"{layer}_norm")

    normalized = [path for path in kernels if norm_path(path) in scales]
    if not normalized and has_normalization(params):
        normalized = kernels
    return tuple("/".join(path) for path in normalized)


def named_kernels(network: TrainedModel) -> dict[str, Any]:
    """The kernels of a network, by name: the keys of their paths joined by slashes."""
    return {"/".join(path): kernel for path, kernel in trees.kernels(network.params).items()}
