"""A `TrainedModel` of a network written with Flax Linen, Flax NNX or Equinox, in evaluation mode.

Each network becomes one function of (bound arrays, params, inputs) that is equal for networks of equal shape, so that
they share their compiled programs. All arrays that are not parameters, such as running statistics, are bound.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx

from prunegen_jax.compute.checks import advice_for, check_network, library_of
from prunegen_jax.compute.closures import Static
from prunegen_jax.types import Dataset, History, Partial, PyTree, TrainedModel

# Arguments of a module's call, or fields of a Linen module, that select evaluation mode → their value in that mode.
EVALUATION = {
    "train": False,
    "training": False,
    "is_training": False,
    "deterministic": True,
    "use_running_average": True,
    "inference": True,
}
_RECORDED = {"params", "intermediates", "perturbations"}  # collections of Linen that are not state
Call = Callable[..., jax.Array]


@dataclasses.dataclass(frozen=True)
class _Parts:
    """The parts of a network.

    Attributes:
        function: (bound, params, inputs) → logits.
        params: the parameters.
        bound: all other arrays.
    """

    function: Callable[..., jax.Array]
    params: PyTree
    bound: PyTree


Split = Callable[[Any, str], _Parts]  # (network as its user gives it, name of the argument) → its parts


@dataclasses.dataclass(frozen=True)
class _LinenFunction:
    module: Static
    mode: tuple[tuple[str, bool], ...]
    call: Call | None

    def __call__(self, collections: PyTree, params: PyTree, inputs: jax.Array) -> jax.Array:
        variables = {"params": params, **collections}
        if self.call is not None:
            return self.call(self.module.value, variables, inputs)
        return self.module.value.apply(variables, inputs, **dict(self.mode))


@dataclasses.dataclass(frozen=True)
class _NnxFunction:
    graph: Any
    mode: tuple[tuple[str, bool], ...]
    call: Call | None

    def __call__(self, state: PyTree, params: PyTree, inputs: jax.Array) -> jax.Array:
        model = nnx.merge(self.graph, params, state)
        return model(inputs, **dict(self.mode)) if self.call is None else self.call(model, inputs)


@dataclasses.dataclass(frozen=True)
class _EquinoxFunction:
    tree: Any
    leaves: tuple[Static, ...]
    mode: tuple[tuple[str, Any], ...]
    call: Call | None

    def __call__(self, bound: tuple[PyTree, PyTree], params: PyTree, inputs: jax.Array) -> jax.Array:
        import equinox as eqx  # noqa: PLC0415 - an extra

        arrays, state = bound
        static = jax.tree.unflatten(self.tree, [leaf.value for leaf in self.leaves])
        model = eqx.combine(params, arrays, static)

        def one(example: jax.Array, state: PyTree) -> jax.Array:
            given = (example,) if state is None else (example, state)
            if self.call is not None:
                return self.call(model, *given)
            result = model(*given, **dict(self.mode))
            return result if state is None else result[0]

        return jax.vmap(one, in_axes=(0, None))(inputs, state)


def split_linen(module: nn.Module, call: Call | None) -> Split:
    """How `TrainedModel.from_linen` takes variables of `module` apart."""
    _check_kind(module, "a Flax Linen module", "from_linen")
    mode, module = _mode(type(module).__call__), _in_evaluation_mode(module)
    function = _LinenFunction(Static(module), mode if call is None else (), call)

    def split(variables: Any, argument: str) -> _Parts:
        collections = _check_variables(variables, argument)
        bound = {key: value for key, value in collections.items() if key not in _RECORDED}
        return _Parts(function, collections["params"], bound)

    return split


def split_nnx(call: Call | None) -> Split:
    """How `TrainedModel.from_nnx` takes a model apart."""

    def split(model: nnx.Module, argument: str) -> _Parts:
        del argument
        _check_kind(model, "an NNX module", "from_nnx")
        mode = () if call is not None else _mode(type(model).__call__)
        copy = nnx.clone(model)
        copy.eval()
        graph, params, state = nnx.split(copy, nnx.Param, ...)
        return _Parts(_NnxFunction(graph, mode, call), _as_arrays(nnx.to_pure_dict(params)), state)

    return split


def split_equinox(call: Call | None, *, has_state: bool) -> Split:
    """How `TrainedModel.from_equinox` takes a model, or (model, state), apart."""
    import equinox as eqx  # noqa: PLC0415 - an extra

    def split(given: Any, argument: str) -> _Parts:
        del argument
        model, state = given if isinstance(given, tuple) else (given, None)
        _check_kind(model, "an Equinox module", "from_equinox")
        mode = () if call is not None else _mode(type(model).__call__, others={"key": None})
        params, rest = eqx.partition(_as_arrays(eqx.nn.inference_mode(model)), eqx.is_inexact_array)
        arrays, static = eqx.partition(rest, eqx.is_array)
        leaves, tree = jax.tree.flatten(static)
        function = _EquinoxFunction(tree, tuple(map(Static, leaves)), mode, call)
        return _Parts(function, params, (arrays, state) if state is not None or not has_state else None)

    return split


def build(
    split: Split, final: Any, train: Dataset, initial: Any, first_epoch: Any, history: History | None, name: str
) -> TrainedModel:
    """The `TrainedModel` of a network that `split` takes apart: trained, before training and after the first epoch.

    Raises:
        ValueError: if `initial` or `first_epoch` is a network of another shape, or lacks statistics that it needs.
    """
    last = split(final, "variables")
    start = None if initial is None else split(initial, "initial")
    early = None if first_epoch is None else split(first_epoch, "first_epoch")
    for argument, other in (("initial", start), ("first_epoch", early)):
        if other is not None and other.function != last.function:
            raise ValueError(f"{argument} is not the same network: pass a copy of it from before or during training")
    fields: dict[str, Any] = {} if start is None else {"init_params": start.params}
    if start is not None and _same_shapes(start.bound, last.bound):
        fields["init_apply"] = Partial(start.function, start.bound)
    elif start is not None and jax.tree.leaves(start.bound):
        raise ValueError("the statistics of initial and of the trained network differ in shape")
    if early is not None and not _same_shapes(early.bound, last.bound):
        raise ValueError("first_epoch must include its own statistics (batch_stats or state)")

    def model(parts: _Parts, **more: Any) -> TrainedModel:
        return TrainedModel(Partial(parts.function, parts.bound), parts.params, train, name=name, **fields, **more)

    found = model(last, history=history, first_epoch=None if early is None else model(early))
    check_network(found.apply, found.params, train, needs_call=True)
    return found


def _mode(function: Callable[..., Any], others: Mapping[str, Any] | None = None) -> tuple[tuple[str, Any], ...]:
    """The keywords in a call's signature that select evaluation mode, and those of `others` that have no default."""
    parameters = inspect.signature(function).parameters
    found = [(name, value) for name, value in EVALUATION.items() if name in parameters]
    required = [p.name for p in parameters.values() if p.default is p.empty]
    return (*found, *((name, value) for name, value in (others or {}).items() if name in required))


def _in_evaluation_mode(module: nn.Module) -> nn.Module:
    """A Linen module with its fields (`deterministic`, `train`, ...) set to evaluation mode."""
    fields = {field.name for field in dataclasses.fields(module)}
    changed = {name: value for name, value in EVALUATION.items() if name in fields}
    return module.clone(**changed) if changed else module


def _check_variables(variables: Any, argument: str) -> dict[str, PyTree]:
    """The collections of a Linen network, as plain dictionaries of arrays."""
    if not isinstance(variables, Mapping):
        raise ValueError(
            f"{argument} is {type(variables).__name__}: a Linen module holds no parameters, so pass the "
            "trained variables, {'params': ..., 'batch_stats': ...}"
        )
    if "params" not in variables:
        keys = ", ".join(map(str, variables)) or "nothing"
        raise ValueError(f"{argument} has no 'params' (it has {keys}): pass {{'params': params, ...}}")
    plain = nn.meta.unbox(dict(variables))
    return {key: _as_arrays(_as_dict(value)) for key, value in plain.items()}


def _as_dict(tree: PyTree) -> PyTree:
    return {key: _as_dict(value) for key, value in tree.items()} if isinstance(tree, Mapping) else tree


def _as_arrays(tree: PyTree) -> PyTree:
    """Converts NumPy arrays to JAX arrays."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, tree)


def _check_kind(value: Any, kind: str, function: str) -> None:
    if isinstance(value, type):
        raise ValueError(f"{function} takes {kind}, not the class {value.__name__}: create an instance")
    actual = library_of(value)
    if actual == kind:
        return
    advice = f": {advice_for(actual)}" if actual else ""
    raise ValueError(f"{function} takes {kind}, not {actual or type(value).__name__}{advice}")


def _same_shapes(a: PyTree, b: PyTree) -> bool:
    shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (a, b)]
    return jax.tree.structure(a) == jax.tree.structure(b) and shapes[0] == shapes[1]
