"""The types of the whole package: data set, layer, history, trained network, estimate, measure."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from prunegen_jax.compute import trees

PyTree = Any
_STATISTICS = {"mean", "var", "running_mean", "running_var"}
Apply = Callable[[PyTree, jax.Array], jax.Array]


@functools.partial(jax.tree_util.register_dataclass, data_fields=["images", "labels", "mean", "std"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Dataset:
    """Labelled images, `images [N, H, W, C]` and `labels [N]` (integers).

    With `mean [C]` and `std [C]` the images are stored unchanged (uint8, a quarter of the memory) and `inputs`
    standardises a batch of them. Without, the images are the inputs of the network.
    """

    images: jax.Array
    labels: jax.Array
    mean: jax.Array | None = None
    std: jax.Array | None = None

    def __len__(self) -> int:
        return self.labels.shape[0]

    def inputs(self, images: jax.Array) -> jax.Array:
        """The network's inputs `[n, H, W, C]` for stored images of this set, `[n, H, W, C]`."""
        if self.mean is None or self.std is None:
            return jnp.asarray(images)
        return (images.astype(jnp.float32) - self.mean.reshape(1, 1, 1, -1)) / self.std.reshape(1, 1, 1, -1)

    def take(self, indices: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The examples at `indices [n]`: inputs `[n, H, W, C]` and labels `[n]`. Works under jit."""
        return self.inputs(jnp.take(self.images, indices, axis=0)), jnp.take(self.labels, indices, axis=0)


@dataclasses.dataclass(frozen=True)
class Layer:
    """The key path of a kernel in the parameters, and the geometry of the linear map that it defines."""

    path: tuple[str, ...]  # keys from the root of `params` to the kernel
    kind: Literal["conv", "dense"]
    stride: int = 1
    padding: int | str = 0  # pixels on each side, or "SAME" / "VALID"
    input_shape: tuple[int, ...] = ()  # (H, W, C) before the convolution, (C,) before a dense layer


@dataclasses.dataclass(frozen=True)
class History:
    """How a network was trained. Losses in nats."""

    epoch_loss: tuple[float, ...]  # mean mini-batch loss of each epoch, taken while the weights moved
    check_update: tuple[int, ...]  # updates done when the whole training set was evaluated
    check_loss: tuple[float, ...]  # its cross-entropy then, evaluation mode
    updates: int  # optimizer updates in all
    batch_size: int
    target: float  # training stops once a check falls below this

    @property
    def examples(self) -> int:
        """Training examples processed, counted with repetition."""
        return self.updates * self.batch_size

    def to_json(self) -> dict[str, Any]:
        """The history as plain lists and numbers, by field."""
        values = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> History:
        """The history in what `to_json` gave. Losses may stand as the words "nan", "inf" and "-inf"."""
        lists = {key: tuple(map(float, content[key])) for key in ("epoch_loss", "check_loss")}
        numbers = {"check_update": tuple(content["check_update"]), "target": float(content["target"])}
        return cls(**content | lists | numbers)


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A trained network and its training set: all that a measure gets. Never the test set.

    `apply(params, images [n, H, W, C]) -> logits [n, K]`, in evaluation mode. Arrays that differ between networks but
    are not parameters (running statistics of batch norm, for example) are bound with `functools.partial` or
    `jax.tree_util.Partial`, so that networks of equal shape share compiled programs. Some measures need the optional
    fields; without them their status is "not applicable".

    Raises:
        ValueError: if `params` holds running statistics, or `init_params` has another structure or other shapes.
    """

    apply: Apply
    params: PyTree
    train: Dataset
    init_params: PyTree | None = None  # the parameters before training
    history: History | None = None
    layers: tuple[Layer, ...] | None = None
    # features(params, images, offsets={}) -> (logits, {name: activation [n, ...]}); offsets of the same names are
    # added to the activations, so that gradients with respect to activations are gradients at offsets of zero.
    features: Callable[..., tuple[jax.Array, dict[str, jax.Array]]] | None = None
    folded: TrainedModel | None = None  # the same function with batch norm folded into the kernels and biases
    first_epoch: TrainedModel | None = None  # the network as it was after the first epoch
    name: str = ""

    def __post_init__(self) -> None:
        for path, _ in jax.tree_util.tree_leaves_with_path(self.params):
            name = "/".join(trees.path_names(path))
            if "batch_stats" in name or name.rpartition("/")[2] in _STATISTICS:
                raise ValueError(
                    f"params holds the running statistics {name!r}, which are not parameters: give the parameters "
                    "alone and bind the statistics, functools.partial(apply, batch_stats)"
                )
        if self.init_params is not None:
            shapes = [jax.tree.map(jnp.shape, params) for params in (self.params, self.init_params)]
            if shapes[0] != shapes[1]:
                raise ValueError("init_params must have the structure and the shapes of params; they have others")
        for field in ("apply", "features"):
            function = getattr(self, field)
            if function is not None:
                object.__setattr__(self, field, as_partial(function))


def as_partial(function: Callable[..., Any]) -> Partial:
    """`function` as a pytree: bound arrays become traced arguments of the jitted function to which it is passed."""
    if isinstance(function, Partial):
        return function
    if isinstance(function, functools.partial):
        return Partial(function.func, *function.args, **function.keywords)
    return Partial(function)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The result of a measure.

    Attributes:
        value: the value.
        sem: standard error of an estimate by sampling; None for an exact value.
        status: "ok", "not_applicable" (the model lacks what the measure needs) or "failed".
        reason: of a status other than "ok".
        details: plain numbers, strings, lists and dicts.
    """

    value: float
    sem: float | None = None
    status: Literal["ok", "not_applicable", "failed"] = "ok"
    reason: str = ""
    details: dict[str, Any] = dataclasses.field(default_factory=dict)


def not_applicable(reason: str) -> Estimate:
    """The estimate of a measure for a network that lacks what the measure needs."""
    return Estimate(float("nan"), status="not_applicable", reason=reason)


@dataclasses.dataclass(frozen=True)
class Measure:
    """A row of `MEASURES`: a function of a trained network, and what one must know to interpret its value."""

    function: Callable[..., Estimate]  # (model, key, **options) -> Estimate
    sign: Literal[-1, 1]  # +1: a larger value should predict a larger generalization gap; -1: a smaller one
    family: str  # "pruning", "size", "norms", "margins", "flatness", "speed", "noise", "beyond"
    cost: float  # passes over the training set, roughly; a gradient counts as three
    source: str  # where the quantity comes from
    needs: tuple[str, ...] = ()  # optional fields of TrainedModel without which it does not apply
    invariant: tuple[str, ...] = ()  # what leaves it unchanged: "permutation", "neuron_scaling", "layer_scaling"
    stream: str = ""  # measures of one stream get the same randomness, so that they can share a search

    def __call__(self, model: TrainedModel, key: jax.Array, **options: Any) -> Estimate:
        """The estimate for `model`; its status is "not_applicable" if a field that the measure needs is missing."""
        missing = [name for name in self.needs if getattr(model, name) is None]
        if missing:
            return not_applicable(f"needs {', '.join(missing)} of the model")
        return self.function(model, key, **options)
