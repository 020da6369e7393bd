"""The types of the whole package: data set, layer, history, trained network, estimate, measure."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.tree_util import Partial  # noqa: F401 - the package imports it from here, beside what it is bound in

from prunegen_jax.compute import trees
from prunegen_jax.compute.checks import check_function, check_no_lists, check_params
from prunegen_jax.compute.closures import bind_closure
from prunegen_jax.compute.removed import refuse

PyTree = Any
Apply = Callable[[PyTree, jax.Array], jax.Array]
Loss = Callable[[jax.Array, jax.Array], jax.Array]
_READ = "since version 0.3, layers, activations and the folded network are read from the program of apply"


@jax.tree_util.register_dataclass
@refuse(images="renamed to inputs in version 0.3")
@dataclasses.dataclass(frozen=True)
class Dataset:
    """Labelled examples, and the loss that compares a network's outputs with the labels.

    Attributes:
        inputs: `[N, ...]`: images `[N, H, W, C]`, rows of a table `[N, d]`, token ids `[N, T]` (integers).
        labels: `[N]`, class numbers. With a `loss` of your own: targets `[N, ...]` of any type.
        mean: `[C]`. With `mean` and `std` the inputs are stored unchanged (images as uint8, a quarter of the memory)
            and standardised along their last axis when they are taken. Without, they are what the network gets.
        std: `[C]`.
        loss: (outputs [n, ...], labels [n, ...]) → losses [n], not negative, for regression or one logit. None:
            cross-entropy in nats of logits [n, K].

    Raises:
        ValueError: if it is made with `images=`, the name of version 0.1, or of lists.
    """

    inputs: jax.Array
    labels: jax.Array
    mean: jax.Array | None = None
    std: jax.Array | None = None
    loss: Loss | None = dataclasses.field(default=None, metadata={"static": True})

    def __post_init__(self) -> None:
        check_no_lists(inputs=self.inputs, labels=self.labels)

    def __len__(self) -> int:
        return self.labels.shape[0]

    def standardise(self, inputs: jax.Array) -> jax.Array:
        """What the network gets for stored inputs of this set, both `[n, ...]`."""
        if self.mean is None or self.std is None:
            return jnp.asarray(inputs)
        units = (1,) * (inputs.ndim - 1)
        return (inputs.astype(jnp.float32) - self.mean.reshape(*units, -1)) / self.std.reshape(*units, -1)

    def take(self, indices: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What the network gets `[n, ...]`, and the labels `[n]`, of the examples at `indices [n]`. Works under jit."""
        return self.standardise(jnp.take(self.inputs, indices, axis=0)), jnp.take(self.labels, indices, axis=0)


@dataclasses.dataclass(frozen=True)
class History:
    """How a network was trained. Losses in nats."""

    epoch_loss: tuple[float, ...]  # mean mini-batch loss of each epoch, taken while the weights moved
    check_update: tuple[int, ...]  # updates done when the whole training set was evaluated
    check_loss: tuple[float, ...]  # its cross-entropy then, evaluation mode
    updates: int  # optimizer updates in all
    batch_size: int
    target: float  # training stops once a check falls below this; 0: it does not stop at a loss

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


@refuse(layers=_READ, features=_READ, folded=_READ)
@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A trained network and its training set: all that a measure gets. Never the test set.

    Layers, activations and the network with folded batch norm are read from the program of `apply`.

    Attributes:
        apply: (params, inputs [n, ...]) → logits [n, K], in evaluation mode. Arrays that differ between networks but
            are not parameters (running statistics of batch norm, for example) are bound with `functools.partial` or
            `jax.tree_util.Partial`, or are in its closure. It runs with the convolutions that the backend computes
            fastest, whatever it was written with.
        params: the parameters.
        train: the training set.
        init_params: the parameters before training.
        init_apply: `apply` with the statistics before training; needed only where `apply` has bound arrays.
        first_epoch: the network as it was after the first epoch.
        history: how it was trained.
        name: for messages.

    Raises:
        ValueError: if `apply` is a module, `params` holds running statistics, or `init_params` has other shapes.
    """

    apply: Apply
    params: PyTree
    train: Dataset
    init_params: PyTree | None = None
    history: History | None = None
    init_apply: Apply | None = None
    first_epoch: TrainedModel | None = None
    name: str = ""

    def __post_init__(self) -> None:
        function = self.apply.func if isinstance(self.apply, functools.partial) else self.apply
        check_function(function)  # first: with the two exchanged, this says so
        check_params(self.params, self.init_params)
        object.__setattr__(self, "apply", bind_closure(self.apply, self.params, self.train))
        if self.init_apply is not None:
            object.__setattr__(self, "init_apply", bind_closure(self.init_apply, self.params, self.train))

    @classmethod
    def from_linen(
        cls,
        module: Any,
        variables: Mapping[str, PyTree],
        train: Dataset,
        *,
        initial: Mapping[str, PyTree] | None = None,
        first_epoch: Mapping[str, PyTree] | None = None,
        history: History | None = None,
        call: Callable[..., jax.Array] | None = None,
        name: str = "",
    ) -> TrainedModel:
        """A trained Flax Linen network, in evaluation mode.

        Args:
            module: the module.
            variables: its variables, `{"params": ..., "batch_stats": ...}`; collections other than "params" are bound.
            train: the training set.
            initial: its variables before training; without statistics of their own, distances between networks with
                folded batch norm are not applicable.
            first_epoch: its variables after the first epoch.
            history: how it was trained.
            call: (module, variables, inputs) → logits, where evaluation mode is not switched on by an argument or field
                `train`, `training`, `is_training`, `deterministic` or `use_running_average`.
            name: for messages.

        Raises:
            ValueError: if these are not a Linen module and its variables, or it makes no logits of the inputs.
        """
        from prunegen_jax.networks import adapters  # noqa: PLC0415 - Flax, and it imports this module

        return adapters.build(adapters.split_linen(module, call), variables, train, initial, first_epoch, history, name)

    @classmethod
    def from_nnx(
        cls,
        model: Any,
        train: Dataset,
        *,
        initial: Any = None,
        first_epoch: Any = None,
        history: History | None = None,
        call: Callable[..., jax.Array] | None = None,
        name: str = "",
    ) -> TrainedModel:
        """A trained Flax NNX network, in evaluation mode; the model itself is not changed.

        Args:
            model: the model.
            train: the training set.
            initial: a copy from before training, `nnx.clone(model)`.
            first_epoch: a copy from after the first epoch.
            history: how it was trained.
            call: (model, inputs) → logits, where `model.eval()` or an argument does not switch evaluation mode on.
            name: for messages.

        Raises:
            ValueError: if this is not an NNX module, or it makes no logits of the inputs.
        """
        from prunegen_jax.networks import adapters  # noqa: PLC0415 - Flax, and it imports this module

        return adapters.build(adapters.split_nnx(call), model, train, initial, first_epoch, history, name)

    @classmethod
    def from_equinox(
        cls,
        model: Any,
        train: Dataset,
        *,
        state: Any = None,
        initial: Any = None,
        first_epoch: Any = None,
        history: History | None = None,
        call: Callable[..., jax.Array] | None = None,
        name: str = "",
    ) -> TrainedModel:
        """A trained Equinox network of one example, in inference mode and under `vmap`.

        Args:
            model: the model; its floating-point arrays are the parameters.
            train: the training set.
            state: its `eqx.nn.State`, if it has one; the model is then called as `model(example, state)`.
            initial: the model before training, or (model, state).
            first_epoch: the model after the first epoch, or (model, state).
            history: how it was trained.
            call: (model, example) or (model, example, state) → logits [K], where inference mode is not enough.
            name: for messages.

        Raises:
            ValueError: if this is not an Equinox module, or it makes no logits of the inputs.
        """
        from prunegen_jax.networks import adapters  # noqa: PLC0415 - Equinox, and it imports this module

        split = adapters.split_equinox(call, has_state=state is not None)
        return adapters.build(split, (model, state), train, initial, first_epoch, history, name)

    def __repr__(self) -> str:
        sizes = f"{trees.count(self.params)} parameters, {len(self.train)} training examples"
        return f"TrainedModel({self.name!r}: {sizes})" if self.name else f"TrainedModel({sizes})"


class NotApplicableError(ValueError):
    """Raised by a measure's parts where the network lacks what it needs; the measure answers "not applicable"."""


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
    version: int = 1  # of the definition: one more whenever the same network gets a number of another meaning
    any_loss: bool = False  # whether it applies with a loss of one's own (`Dataset.loss`); else it needs classes

    def __call__(self, model: TrainedModel, key: jax.Array, **options: Any) -> Estimate:
        """The estimate for `model`; its status is "not_applicable" if something that the measure needs is missing."""
        missing = self.missing(model)
        if missing:
            return not_applicable(missing)
        try:
            return self.function(model, key, **options)
        except NotApplicableError as error:
            return not_applicable(str(error))

    def missing(self, model: TrainedModel) -> str:
        """Why the measure cannot apply to `model`, as far as its fields tell; else ""."""
        missing = [name for name in self.needs if getattr(model, name) is None]
        if missing:
            return f"needs {', '.join(missing)} of the model"
        needs_classes = model.train.loss is not None and not self.any_loss
        return "classification only: the training set has a loss of its own" if needs_classes else ""
