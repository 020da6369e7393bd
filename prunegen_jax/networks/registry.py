"""The registry of models, and `build`, which turns a model into pure functions."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from prunegen_jax.compute.options import check_choice
from prunegen_jax.compute.planes import choose_form, with_convolutions
from prunegen_jax.networks.cnn import CNN
from prunegen_jax.networks.mlp import MLP
from prunegen_jax.networks.nin import NiN
from prunegen_jax.networks.resnet import ResNet
from prunegen_jax.types import PyTree

# Flax modules: `module(classes=K, **fields)(inputs [n, ...], train=False) -> logits [n, K]`. A module whose call takes
# `dropout_rate` gets a traced value, so that networks that differ only in this rate share their programs.
MODELS: dict[str, Callable[..., nn.Module]] = {"nin": NiN, "resnet": ResNet, "cnn": CNN, "mlp": MLP}


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A network as pure functions; `build` returns the same object for the same shape, so programs are shared.

    Attributes:
        init: key → (params, stats): the trained parameters and the running statistics of batch norm ({} without).
        train_apply: (params, stats, inputs, rate, key) → (logits, new stats), with dropout at `rate`.
        apply: (stats, params, inputs) → logits in evaluation mode.
        vmapped: the same network with the convolution that is fast under vmap over parameters; None: this one.
        takes_dropout: whether a rate other than zero has an effect.
    """

    init: Callable[[jax.Array], tuple[PyTree, PyTree]]
    train_apply: Callable[..., tuple[jax.Array, PyTree]]
    apply: Callable[[PyTree, PyTree, jax.Array], jax.Array]
    vmapped: Network | None
    takes_dropout: bool


def build(
    name: str, *, input_shape: tuple[int, ...], classes: int, convolutions: str = "auto", **fields: Any
) -> Network:
    """The network `name` of `MODELS`.

    Args:
        name: a name of `MODELS`.
        input_shape: of one example, (H, W, C) for images.
        classes: K.
        convolutions: a name of `planes.FORMS`.
        **fields: of the module; for others the module's defaults are used.

    Raises:
        ValueError: for an unknown name, field or form, or a value that the module refuses.
    """
    check_choice("model.name", name, MODELS)
    forms = choose_form(convolutions), choose_form(convolutions, vmapped=True)
    return _build(name, MODELS[name], tuple(input_shape), classes, tuple(sorted(fields.items())), *forms)


@functools.lru_cache(maxsize=256)
def _build(
    name: str,
    constructor: Callable[..., nn.Module],
    input_shape: tuple[int, ...],
    classes: int,
    fields: tuple[tuple[str, Any], ...],
    form: str,
    vmapped_form: str,
) -> Network:
    module = _construct(name, constructor, classes, dict(fields))
    options = inspect.signature(type(module).__call__).parameters
    takes_dropout, in_training = "dropout_rate" in options, {"train": True} if "train" in options else {}

    def init(key: jax.Array) -> tuple[PyTree, PyTree]:
        variables = module.init(key, jnp.zeros((1, *input_shape), jnp.float32))
        return variables["params"], variables.get("batch_stats", {})

    def train_apply(
        params: PyTree, stats: PyTree, inputs: jax.Array, rate: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        given = in_training | ({"dropout_rate": rate} if takes_dropout else {})
        variables = {"params": params, "batch_stats": stats}
        logits, updated = module.apply(variables, inputs, rngs={"dropout": key}, mutable=["batch_stats"], **given)
        return logits, updated.get("batch_stats", {})

    def apply(stats: PyTree, params: PyTree, inputs: jax.Array) -> jax.Array:
        return module.apply({"params": params, "batch_stats": stats}, inputs)

    vmapped = None
    if vmapped_form != form:
        vmapped = _build(name, constructor, input_shape, classes, fields, vmapped_form, vmapped_form)
    return Network(init, with_convolutions(train_apply, form), with_convolutions(apply, form), vmapped, takes_dropout)


def _construct(name: str, constructor: Callable[..., nn.Module], classes: int, fields: dict[str, Any]) -> nn.Module:
    known = [p for p in inspect.signature(constructor).parameters if p not in ("classes", "parent", "name")]
    for field in fields:
        if field not in known:
            raise ValueError(f"model.{field} is unknown to model.name={name!r}; its fields are {', '.join(known)}")
    return constructor(classes=classes, **fields)
