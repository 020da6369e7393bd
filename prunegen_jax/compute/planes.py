"""Runs a network's program with the convolutions that the backend computes fastest.

A model is written with ordinary convolutions. `with_convolutions` traces it and evaluates the same program with each
two-dimensional convolution in another form:

* "planes" (on a CPU, and for many networks under `vmap` on a GPU): activations are stored with the channels outermost
  and the examples innermost, `[C, H, W, n]`, and a convolution is a matrix product of patches. Elementwise operations,
  reductions, pools and residual sums keep this layout, so that nothing is transposed between layers; an operation
  without a rule in this module gets its operands in the layout of the model.
* "patches" (many networks under `vmap` on a TPU): patches times kernel, in the layout of the model.
* "xla": the program unchanged.

The numbers differ from those of the original only by rounding. The result can be differentiated to any order and in
both modes, since it only rebinds JAX's own operations. Convolutions inside loops are not changed.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from jax.tree_util import Partial

from prunegen_jax.compute.checks import check_function
from prunegen_jax.compute.convolutions import patches_conv, planes_conv
from prunegen_jax.compute.layouts import Axes, Broadcast, Stored, Value, as_dtype, as_written, in_order, is_plain, rank

FORMS = ("auto", "planes", "patches", "xla")

# Operations that act on each entry separately, and whose parameters contain no axis and no shape.
_ELEMENTWISE = {
    "abs", "add", "and", "ceil", "clamp", "convert_element_type", "copy", "cos", "div", "eq", "erf", "exp", "exp2",
    "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le", "log", "log1p", "logistic", "lt", "max", "min",
    "mul", "ne", "neg", "not", "or", "pow", "rem", "round", "rsqrt", "select_n", "sign", "sin", "sqrt", "square",
    "stop_gradient", "sub", "tan", "tanh", "xor",
}  # fmt: skip
_REDUCTIONS = {"reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_prod", "reduce_sum"}


# Name of a jitted function → the same function of stored values: for functions of this package to which the rules below
# do not apply (custom derivatives) and whose channel axis is known.
NAMED_RULES: dict[str, Callable[..., list[Value]]] = {}


def choose_form(name: str = "auto", *, vmapped: bool = False, backend: str | None = None) -> str:
    """The form for `name`; "auto" is the fastest known, see BENCHMARKS.md.

    That is planes on a CPU; elsewhere "xla" for one network, and under vmap planes on a GPU and patches on a TPU.

    Args:
        name: a name of `FORMS`.
        vmapped: whether the program is vmapped over networks.
        backend: "cpu", "gpu" or "tpu"; None for that of JAX.

    Raises:
        ValueError: for a name that is not in `FORMS`.
    """
    if name not in FORMS:
        raise ValueError(f"convolutions={name!r} is unknown; choose among {', '.join(FORMS)}")
    if name != "auto":
        return name
    backend = backend or jax.default_backend()
    if backend == "cpu" or (backend == "gpu" and vmapped):
        return "planes"
    return "patches" if vmapped else "xla"


@dataclasses.dataclass(frozen=True)
class WithConvolutions:
    """A function whose convolutions are computed in the form `form`. Equal if function and form are equal.

    Attributes:
        original: the unchanged function of arrays and pytrees.
        form: "planes", "patches" or "xla", which is `original` itself.
    """

    original: Callable[..., Any]
    form: str

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """What `original` returns."""
        if self.form == "xla":
            return self.original(*args, **keywords)
        closed, shape = jax.make_jaxpr(self.original, return_shape=True)(*args, **keywords)
        if not _has_convolution(closed.jaxpr):
            return self.original(*args, **keywords)
        results = _evaluate(closed.jaxpr, closed.consts, jax.tree.leaves((args, keywords)), self.form)
        return jax.tree.unflatten(jax.tree.structure(shape), [as_written(value) for value in results])


def with_convolutions(function: Callable[..., Any], form: str = "auto", *, vmapped: bool = False) -> Callable[..., Any]:
    """`function` with its convolutions in another form.

    Args:
        function: a pure function of arrays and pytrees, such as `apply(params, inputs)`.
        form: a name of `FORMS`.
        vmapped: whether it will be called under `vmap` over parameters.

    Raises:
        ValueError: for a form that is not in `FORMS`.
    """
    chosen = choose_form(form, vmapped=vmapped)
    if isinstance(function, WithConvolutions):
        return function
    return WithConvolutions(function, chosen)


def as_partial(function: Callable[..., Any]) -> Partial:
    """`function` as a pytree: bound arrays become traced arguments of the jitted function to which it is passed.

    Its convolutions are computed in the form that is fastest on the backend, see `with_convolutions`.
    """
    args, keywords = (), {}
    if isinstance(function, functools.partial):  # a Partial is one
        function, args, keywords = function.func, function.args, function.keywords
    check_function(function)
    return Partial(with_convolutions(function), *args, **keywords)


def _evaluate(jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Value], form: str) -> list[Value]:
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))

    def read(atom: Any) -> Value:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for eqn in jaxpr.eqns:
        with eqn.ctx.manager:
            results = _evaluate_one(eqn, [read(atom) for atom in eqn.invars], form)
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _evaluate_one(eqn: JaxprEqn, operands: list[Value], form: str) -> list[Value]:
    name, params = eqn.primitive.name, eqn.params
    if name == "conv_general_dilated":
        return [_convolve(eqn, *operands, form)]
    if name in ("jit", "pjit", "closed_call"):
        return _call(eqn, operands, form)
    if name == "broadcast_in_dim" and len(operands) == 1 and len(params["shape"]) == 4 and is_plain(operands[0]):
        return [Broadcast(operands[0], tuple(params["shape"]), tuple(params["broadcast_dimensions"]))]
    order = next((value.order for value in operands if isinstance(value, Stored)), None)
    if order is None:
        return _bind(eqn, operands)
    if name == "cond":
        return _branch(eqn, operands, order, form)
    if name == "custom_jvp_call" and _is_relu(params["call_jaxpr"].jaxpr):
        return [Stored(jax.nn.relu(operands[0].array), order)]
    if name in _ELEMENTWISE and all(rank(value) in (0, len(order)) for value in operands):
        return [Stored(_rebind(eqn, [in_order(value, order) for value in operands]), order)]
    if name in _REDUCTIONS:
        return [_reduce(eqn, operands[0])]
    if name == "transpose":
        return [Stored(operands[0].array, tuple(params["permutation"].index(axis) for axis in order))]
    if name in _AXIS_PARAMETERS:
        changed = {key: tuple(params[key][axis] for axis in order) for key in _AXIS_PARAMETERS[name] if params[key]}
        arrays = [in_order(value, order) for value in operands]
        return [Stored(_rebind(eqn, arrays, **changed), order)]
    if name == "concatenate":
        arrays = [in_order(value, order) for value in operands]
        return [Stored(_rebind(eqn, arrays, dimension=order.index(params["dimension"])), order)]
    return _bind(eqn, operands)


# Operations with parameters that have one entry for each axis.
_WINDOW = ("window_dimensions", "window_strides", "padding", "base_dilation", "window_dilation")
_AXIS_PARAMETERS: dict[str, tuple[str, ...]] = {
    "reduce_window_max": _WINDOW,
    "reduce_window_min": _WINDOW,
    "reduce_window_sum": _WINDOW,
    "pad": ("padding_config",),
    "slice": ("start_indices", "limit_indices", "strides"),
}


def _bind(eqn: JaxprEqn, operands: Sequence[Value]) -> list[Value]:
    """Evaluates the operation in the layout of the model."""
    params = eqn.primitive.get_bind_params(eqn.params)
    results = eqn.primitive.bind(*map(as_written, operands), **params)
    return list(results) if eqn.primitive.multiple_results else [results]


def _rebind(eqn: JaxprEqn, arrays: Sequence[jax.Array], **changed: Any) -> jax.Array:
    """Evaluates the operation on arrays whose axes are in another order."""
    return eqn.primitive.bind(*arrays, **(eqn.params | changed))


def _reduce(eqn: JaxprEqn, value: Stored) -> Value:
    axes = eqn.params["axes"]
    result = _rebind(eqn, [value.array], axes=tuple(i for i, axis in enumerate(value.order) if axis in axes))
    left = [axis for axis in value.order if axis not in axes]
    return Stored(result, tuple(sorted(left).index(axis) for axis in left))


def _call(eqn: JaxprEqn, operands: list[Value], form: str) -> list[Value]:
    """Evaluates a call, by the rule for its name or by its body."""
    inner = eqn.params["jaxpr" if "jaxpr" in eqn.params else "call_jaxpr"]
    stored = any(isinstance(value, Stored) for value in operands)
    rule = NAMED_RULES.get(eqn.params.get("name", ""))
    if rule is not None and stored:
        return rule(*operands)
    jaxpr, consts = (inner.jaxpr, inner.consts) if isinstance(inner, ClosedJaxpr) else (inner, ())
    if stored or _has_convolution(jaxpr):
        return _evaluate(jaxpr, consts, operands, form)
    return _bind(eqn, operands)


def _branch(eqn: JaxprEqn, operands: list[Value], order: Axes, form: str) -> list[Value]:
    """Evaluates `lax.cond` and `lax.switch`, with all branches in the layout of their operands."""
    index, *inputs = operands
    orders = [value.order if isinstance(value, Stored) else None for value in inputs]
    arrays = [value.array if isinstance(value, Stored) else as_written(value) for value in inputs]
    ranks = [len(aval.shape) for aval in eqn.params["branches"][0].out_avals]

    def side(branch: ClosedJaxpr) -> Callable[..., list[jax.Array]]:
        def run(*arrays: jax.Array) -> list[jax.Array]:
            given = [x if o is None else Stored(x, o) for x, o in zip(arrays, orders, strict=True)]
            results = _evaluate(branch.jaxpr, branch.consts, given, form)
            pairs = zip(results, ranks, strict=True)
            return [in_order(x, order) if size == len(order) else as_written(x) for x, size in pairs]

        return run

    results = lax.switch(as_written(index), [side(branch) for branch in eqn.params["branches"]], *arrays)
    return [Stored(x, order) if size == len(order) else x for x, size in zip(results, ranks, strict=True)]


def _convolve(eqn: JaxprEqn, inputs: Value, kernel: Value, form: str) -> Value:
    """Evaluates a convolution of two spatial axes without groups or dilation in `form`; others as in the model."""
    params, numbers = eqn.params, eqn.params["dimension_numbers"]
    dilated = any(d != 1 for d in (*params["lhs_dilation"], *params["rhs_dilation"]))
    grouped = params["feature_group_count"] != 1 or params["batch_group_count"] != 1
    if len(numbers.lhs_spec) != 4 or dilated or grouped or not _same_type(inputs, kernel, params):
        return _bind(eqn, [inputs, kernel])[0]
    out, into, rows, columns = numbers.rhs_spec
    kernel = lax.transpose(as_written(kernel), (rows, columns, into, out))
    options = {"window_strides": params["window_strides"], "padding": params["padding"]}
    options["precision"] = params["precision"]
    n, c, h, w = numbers.lhs_spec
    m, f, y, x = numbers.out_spec
    if form == "planes":
        return Stored(planes_conv(in_order(inputs, (c, h, w, n)), kernel, **options), (f, y, x, m))
    return Stored(patches_conv(in_order(inputs, (n, h, w, c)), kernel, **options), (m, y, x, f))


def _same_type(inputs: Value, kernel: Value, params: dict[str, Any]) -> bool:
    """Whether the result has the type of the inputs, like that of a plain matrix product."""
    return params["preferred_element_type"] in (None, jnp.result_type(as_dtype(inputs), as_dtype(kernel)))


def _is_relu(jaxpr: Jaxpr) -> bool:
    """Whether a function with a custom derivative is `jax.nn.relu`."""
    return len(jaxpr.eqns) == 1 and len(jaxpr.invars) == 1 and jaxpr.eqns[0].params.get("name") == "relu"


def _has_convolution(jaxpr: Jaxpr) -> bool:
    """Whether a program, or a function that it calls, contains a convolution; loops are ignored."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "conv_general_dilated":
            return True
        if eqn.primitive.name in ("scan", "while"):
            continue
        for param in eqn.params.values():
            for inner in param if isinstance(param, tuple | list) else (param,):
                inner = inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner
                if isinstance(inner, Jaxpr) and _has_convolution(inner):
                    return True
    return False
