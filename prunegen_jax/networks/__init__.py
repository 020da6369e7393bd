"""Networks as pure functions: `build` gives init, apply, features and batch-norm folding for a name in `MODELS`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from prunegen_jax.compute.options import check_at_least, check_choice
from prunegen_jax.networks.blocks import BATCH_NORM_EPSILON
from prunegen_jax.networks.convolutions import select_convolution
from prunegen_jax.networks.nin import NiN
from prunegen_jax.types import History, Layer, Partial, PyTree, TrainedModel

# Flax modules with the fields, the call and the `layers` of `NiN`.
MODELS: dict[str, Any] = {"nin": NiN}
HEADS = ("gap", "rgm")


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A network as pure functions; `build` returns the same object for the same shape, so programs are shared.

    Attributes:
        init: key → (params, stats): the trained parameters and the running statistics of batch norm ({} without).
        train_apply: (params, stats, images, rate, key) → (logits, new stats), with dropout at `rate`.
        apply: (stats, params, images) → logits in evaluation mode.
        features: (stats, params, images, offsets={}) → (logits, activations), see `TrainedModel.features`.
        layers: the geometry of every kernel.
        fold: (params, stats) → the parameters of `folded` that make it the same function in evaluation mode.
        folded: the network without batch norm; None if this one has none.
        vmapped: the same network with the convolution that is fast under vmap over parameters; None: this one.
    """

    init: Callable[[jax.Array], tuple[PyTree, PyTree]]
    train_apply: Callable[..., tuple[jax.Array, PyTree]]
    apply: Callable[[PyTree, PyTree, jax.Array], jax.Array]
    features: Callable[..., tuple[jax.Array, dict[str, jax.Array]]]
    layers: tuple[Layer, ...]
    fold: Callable[[PyTree, PyTree], PyTree]
    folded: Network | None
    vmapped: Network | None


def build(
    name: str,
    *,
    image_shape: tuple[int, int, int],
    classes: int,
    depth: int = 2,
    width: int = 16,
    batch_norm: bool = True,
    head: str = "gap",
    conv: str = "auto",
) -> Network:
    """The network `name` of `MODELS`.

    Args:
        name: a name of `MODELS`.
        image_shape: (H, W, C).
        classes: K.
        depth: number of blocks.
        width: number of channels.
        batch_norm: whether the network has batch norm.
        head: a name of `HEADS`.
        conv: a name of `convolutions.CONVOLUTIONS`, or "auto" for the one that suits the backend.

    Raises:
        ValueError: for an unknown name, head or convolution, a depth or width below 1.
    """
    check_choice("model.name", name, MODELS)
    check_choice("model.head", head, HEADS)
    check_at_least(1, **{"model.depth": depth, "model.width": width})
    convs = (select_convolution(conv), select_convolution(conv, vmapped=True))
    return _build(name, tuple(image_shape), classes, depth, width, head, batch_norm, *convs)


@functools.cache
def _build(
    name: str,
    image_shape: tuple[int, int, int],
    classes: int,
    depth: int,
    width: int,
    head: str,
    batch_norm: bool,
    conv: str,
    vmapped_conv: str,
) -> Network:
    same_shape = functools.partial(_build, name, image_shape, classes, depth, width, head)
    module = MODELS[name](depth=depth, width=width, classes=classes, batch_norm=batch_norm, head=head, conv=conv)

    def init(key: jax.Array) -> tuple[PyTree, PyTree]:
        variables = module.init(key, jnp.zeros((1, *image_shape), jnp.float32))
        return variables["params"], variables.get("batch_stats", {})

    def train_apply(
        params: PyTree, stats: PyTree, images: jax.Array, rate: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        variables = {"params": params, "batch_stats": stats}
        (logits, _), updated = module.apply(variables, images, train=True, rate=rate, key=key, mutable=["batch_stats"])
        return logits, updated.get("batch_stats", {})

    def features(
        stats: PyTree, params: PyTree, images: jax.Array, offsets: Mapping[str, jax.Array] | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        return module.apply({"params": params, "batch_stats": stats}, images, offsets=offsets)

    def apply(stats: PyTree, params: PyTree, images: jax.Array) -> jax.Array:
        return features(stats, params, images)[0]

    return Network(
        init=init,
        train_apply=train_apply,
        apply=apply,
        features=features,
        layers=module.layers(image_shape),
        fold=fold_batch_norm if batch_norm else lambda params, stats: params,
        folded=same_shape(False, conv, vmapped_conv) if batch_norm else None,
        vmapped=None if vmapped_conv == conv else same_shape(batch_norm, vmapped_conv, vmapped_conv),
    )


def fold_batch_norm(params: PyTree, stats: PyTree) -> PyTree:
    """Kernels and biases that alone compute what convolution and batch norm (running statistics μ, v) do together.

    With s = γ / √(v + ε), per output channel: W ← s W and b ← β + s (b − μ). Exact, since the batch norm is then
    left out, not neutralised. A layer `X` of the folded network takes `X` and `X` with "conv" (or, for the head,
    nothing) replaced by "norm". Source: the code of Neyshabur (2017) and Dziugaite et al. (2020).
    """
    folded = {}
    for name, layer in params.items():
        if "norm" in name:
            continue
        norm = name.replace("conv", "norm") if "conv" in name else f"{name}_norm"
        if norm in params:
            gamma, beta = params[norm]["scale"], params[norm]["bias"]
            scale = gamma / jnp.sqrt(stats[norm]["var"] + BATCH_NORM_EPSILON)
            layer = {
                "kernel": layer["kernel"] * scale.reshape(1, 1, 1, -1),
                "bias": beta + scale * (layer["bias"] - stats[norm]["mean"]),
            }
        folded[name] = dict(layer)
    return folded


def as_trained_model(
    network: Network,
    params: PyTree,
    stats: PyTree,
    train: Any,
    *,
    init: tuple[PyTree, PyTree] | None = None,
    first_epoch: tuple[PyTree, PyTree] | None = None,
    history: History | None = None,
    name: str = "",
) -> TrainedModel:
    """The `TrainedModel` of one of our networks, with every optional field for which there is an argument.

    Args:
        network: from `build`.
        params: the trained parameters.
        stats: running statistics of batch norm.
        train: the training set.
        init: parameters and statistics before training.
        first_epoch: parameters and statistics after the first epoch.
        history: of the training.
        name: of the model.
    """
    folded = network.folded or network

    def wrap(params: PyTree, stats: PyTree, initial: PyTree | None, **more: Any) -> TrainedModel:
        return TrainedModel(
            Partial(network.apply, stats),
            params,
            train,
            init_params=initial,
            layers=network.layers,
            features=Partial(network.features, stats),
            folded=TrainedModel(
                Partial(folded.apply, {}),
                network.fold(params, stats),
                train,
                init_params=None if init is None else network.fold(*init),
                history=history,
                layers=folded.layers,
                features=Partial(folded.features, {}),
                name=name,
            ),
            name=name,
            **more,
        )

    initial = None if init is None else init[0]
    after_first_epoch = None if first_epoch is None else wrap(*first_epoch, initial)
    return wrap(params, stats, initial, history=history, first_epoch=after_first_epoch)
