"""Checks of a network and its examples before anything is computed: each error says what to give instead."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute import trees

_STATISTICS = {"mean", "var", "running_mean", "running_var"}
_CLASSMETHODS = {
    "a Flax Linen module": "TrainedModel.from_linen(module, variables, train)",
    "an NNX module": "TrainedModel.from_nnx(model, train)",
    "an Equinox module": "TrainedModel.from_equinox(model, train)",
}


def library_of(value: Any) -> str:
    """What kind of module a value is ("an NNX module", for example), "" if it is none; imports no library."""
    for base in type(value).__mro__:
        package = base.__module__
        if base.__name__ != "Module":
            continue
        if package.startswith("flax.linen"):
            return "a Flax Linen module"
        if package.startswith("flax.nnx"):
            return "an NNX module"
        if package.startswith("torch.nn"):
            return "a PyTorch module"
        own = type(value).__module__
        is_wrapper = own.startswith("equinox.") and not own.startswith("equinox.nn")  # of eqx.filter_jit, for example
        if package.startswith("equinox") and not is_wrapper:
            return "an Equinox module"
    return ""


def advice_for(kind: str) -> str:
    """What to do with a module of the kind that `library_of` returned."""
    if kind == "a PyTorch module":
        return "port its weights to a JAX network, see docs/bring_your_own.md"
    return f"use {_CLASSMETHODS[kind]}"


def check_function(function: Any) -> None:
    """Checks that a network is a function of (params, inputs).

    Raises:
        ValueError: if it is a module of a library, which has its parameters inside or elsewhere.
        TypeError: if it cannot be called.
    """
    kind = library_of(function)
    if kind:
        raise ValueError(
            f"apply is {kind} ({type(function).__name__}), not a function of (params, inputs): {advice_for(kind)}"
        )
    if not callable(function):
        raise TypeError(f"apply is {type(function).__name__}, not a function of (params, inputs)")


def check_no_lists(**arrays: Any) -> None:
    """Checks that values, given by name, are not lists.

    Raises:
        ValueError: for the first that is.
    """
    for name, value in arrays.items():
        if isinstance(value, list):
            raise ValueError(f"{name} must be an array, not a list: pass jnp.asarray({name})")


def check_params(params: Any, init_params: Any = None) -> None:
    """Checks parameters, and parameters before training.

    Raises:
        ValueError: if there are running statistics among them, or `init_params` has another structure or other shapes.
    """
    for path, _ in jax.tree_util.tree_leaves_with_path(params):
        name = "/".join(trees.path_names(path))
        if "batch_stats" in name or name.rpartition("/")[2] in _STATISTICS:
            raise ValueError(
                f"params holds the running statistics {name!r}, which are not parameters: pass the parameters "
                "alone and bind the statistics, functools.partial(apply, batch_stats)"
            )
    if init_params is not None and jax.tree.map(jnp.shape, params) != jax.tree.map(jnp.shape, init_params):
        raise ValueError("init_params must have the same structure and shapes as params")


def check_finite(**trees_of_arrays: Any) -> None:
    """Checks that trees of arrays, given by name, are finite.

    The logits may be finite all the same: fused programs of a CPU may compute max(NaN, 0) = 0.

    Raises:
        ValueError: for the first that holds NaN or infinity.
    """
    for name, tree in trees_of_arrays.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            isfinite = jnp.isfinite if isinstance(leaf, jax.Array) else np.isfinite
            dtype = leaf.dtype if hasattr(leaf, "dtype") else np.result_type(leaf)  # it may be a Python number
            if jnp.issubdtype(dtype, jnp.floating) and not isfinite(leaf).all():
                where = f" ({'/'.join(trees.path_names(path))})" if path else ""
                raise ValueError(f"{name}{where} must be finite, but NaN or infinity is among the values")


def check_examples(inputs: Any, labels: Any, *, classes: bool = True) -> None:
    """Checks that inputs and labels are arrays of one length, and the labels class numbers.

    Args:
        inputs: `[N, ...]`.
        labels: `[N]`.
        classes: whether labels must be class numbers; else they are targets `[N, ...]` of any type.

    Raises:
        ValueError: if they are not.
    """
    for name, value in (("inputs", inputs), ("labels", labels)):
        if not hasattr(value, "dtype") or not hasattr(value, "shape"):
            raise ValueError(f"{name} must be an array, not a {type(value).__name__}: pass jnp.asarray({name})")
        if not isinstance(value.dtype, np.dtype):
            kind = f"a {type(value).__name__} of dtype {value.dtype}"
            raise ValueError(f"{name} must be a NumPy or JAX array, not {kind}")
    if classes:
        _check_classes(labels)
    if not inputs.shape or not labels.shape or inputs.shape[0] != labels.shape[0]:
        count = labels.shape[0] if labels.shape else 0
        raise ValueError(f"inputs have the shape {inputs.shape}, but there are {count} labels")


def _check_classes(labels: Any) -> None:
    if len(labels.shape) == 2 and labels.shape[1] > 1:
        raise ValueError(f"labels have the shape {labels.shape}; if they are one-hot, pass labels.argmax(axis=1)")
    if len(labels.shape) != 1:
        raise ValueError(f"labels have the shape {labels.shape}, not [N]: pass one class number per example")
    if labels.dtype.kind not in "iu":
        advice = "for regression, pass a loss of your own, Dataset(inputs, targets, loss=...)"
        raise ValueError(
            f"labels are {labels.dtype}, not class numbers: pass class numbers 0 to K - 1, labels.astype(int); "
            f"{'booleans are not class numbers' if labels.dtype.kind == 'b' else advice}"
        )


def check_network(apply: Any, params: Any, data: Any, *, needs_call: bool = False) -> None:
    """Checks a data set, and by abstract evaluation that a network makes logits `[n, K]` of its inputs.

    Args:
        apply: (params, inputs [n, ...]) → logits [n, K], a `jax.tree_util.Partial`; programs of equal shape are traced
            once.
        params: the parameters.
        data: a `Dataset`.
        needs_call: whether other errors of `apply` are raised too, with the advice to give `call=`; else they are left
            to what calls it next.

    Raises:
        ValueError: if the data set is not one for classification, or the network does not return logits `[n, K]` with
            K ≥ 2, or takes inputs of another type; for a data set with a loss of its own, if the network does not
            return one output per example, or the loss one number for each, that depends on no other example.
    """
    if not hasattr(data, "take") or not hasattr(data, "labels"):
        kind = "an array" if hasattr(data, "dtype") else f"a {type(data).__name__}"
        raise ValueError(f"the training set must be a Dataset, not {kind}: pass Dataset(inputs, labels)")
    check_examples(data.inputs, data.labels, classes=data.loss is None)
    if not len(data.labels):
        raise ValueError("the training set is empty")
    examples = min(2, len(data.labels))
    inputs, _ = jax.eval_shape(data.take, jax.ShapeDtypeStruct((examples,), np.int32))
    try:
        logits = _call.eval_shape(apply, params, inputs)
    except Exception as error:  # whatever the network raises
        _explain_dtype(apply, params, inputs, error)
        if needs_call:
            line = (str(error).strip() or "no message").splitlines()[0]
            raise ValueError(
                f"the network cannot be called in evaluation mode on inputs {inputs.dtype}{list(inputs.shape)} "
                f"({type(error).__name__}: {line}). Pass inputs of the shape that it was trained on and all of its "
                "variables; if it must be called differently, pass a function that calls it as call=..."
            ) from error
        return
    if data.loss is None:
        _check_logits(logits, examples, data.labels)
    else:
        _check_loss(data.loss, logits, examples, data.labels)


def can_be_traced(apply: Any, params: Any, data: Any) -> bool:
    """Whether a network, as in `check_network`, can be called with abstract arguments."""
    try:
        inputs, _ = jax.eval_shape(data.take, jax.ShapeDtypeStruct((min(2, len(data.labels)),), np.int32))
        _call.eval_shape(apply, params, inputs)
    except Exception:  # whatever the network raises; it is raised again where its answer is needed
        return False
    return True


@jax.jit
def _call(apply: Any, params: Any, inputs: jax.Array) -> Any:
    return apply(params, inputs)


def _explain_dtype(apply: Any, params: Any, inputs: jax.ShapeDtypeStruct, error: Exception) -> None:
    """Raises a ValueError if the network works on inputs of another type, floats for integers or the reverse."""
    is_float = jnp.issubdtype(inputs.dtype, jnp.floating)
    try:
        other = jax.ShapeDtypeStruct(inputs.shape, np.int32 if is_float else np.float32)
        _call.eval_shape(apply, params, other)
    except Exception:  # another type does not help
        return
    if is_float:
        raise ValueError(
            f"inputs are {inputs.dtype}, but the network takes integers (token ids): pass inputs.astype(int), and a "
            "Dataset without mean and std"
        ) from error
    raise ValueError(
        f"inputs are {inputs.dtype}, but the network takes floats: pass Dataset(inputs, labels, mean, std), or what "
        "the network was trained on, inputs.astype(float)"
    ) from error


def _check_logits(logits: Any, examples: int, labels: Any) -> None:
    if not hasattr(logits, "shape"):
        raise ValueError(f"the network returns a {type(logits).__name__}: it must return only the logits [n, K]")
    if logits.shape in ((examples,), (examples, 1)):
        raise ValueError(
            f"the network returns {list(logits.shape)} for {examples} examples, one logit each: measures need K ≥ 2 "
            "logits. For two classes, return jnp.stack([jnp.zeros_like(z), z], axis=-1) for the logit z [n]; "
            "for regression, pass a loss of your own, Dataset(inputs, targets, loss=...)"
        )
    if len(logits.shape) != 2 or logits.shape[0] != examples:
        raise ValueError(f"the network returns {list(logits.shape)} for {examples} examples, not logits [n, K]")
    if isinstance(labels, jax.core.Tracer) or not isinstance(labels, np.ndarray | jax.Array) or not len(labels):
        return
    values = np.asarray(labels)
    if values.min() < 0 or values.max() >= logits.shape[1]:
        raise ValueError(
            f"labels lie between {values.min()} and {values.max()}, but the network has {logits.shape[1]} logits: "
            f"pass class numbers 0 to {logits.shape[1] - 1}"
        )


def _check_loss(loss: Any, outputs: Any, examples: int, labels: Any) -> None:
    if not hasattr(outputs, "shape") or outputs.shape[:1] != (examples,):
        shape = list(outputs.shape) if hasattr(outputs, "shape") else f"a {type(outputs).__name__}"
        raise ValueError(f"the network returns {shape} for {examples} examples, not outputs [n, ...]")
    if isinstance(labels, jax.core.Tracer) or not len(labels):
        return
    rows = np.asarray(labels).reshape(len(labels), -1)
    other = np.flatnonzero((rows != rows[0]).any(axis=1))[:1]  # equal labels would hide that examples are mixed
    chosen = np.array([*other, 0])
    values = jnp.linspace(0.2, 0.8, len(chosen) * math.prod(outputs.shape[1:]), dtype=outputs.dtype)
    values, targets = values.reshape(len(chosen), *outputs.shape[1:]), jnp.asarray(labels)[chosen]
    together, alone = jnp.asarray(loss(values, targets)), jnp.asarray(loss(values[-1:], targets[-1:]))
    if together.shape != (len(chosen),) or not np.allclose(together[-1:], alone, rtol=1e-3, equal_nan=True):
        raise ValueError(
            f"the loss of the data set must return one number per example, [n], that depends on no other example; for "
            f"outputs {list(values.shape)} and labels {list(targets.shape)} it returns {list(together.shape)}: do "
            "not average over examples, and compare arrays of equal shape (outputs[:, 0] with labels [n])"
        )
