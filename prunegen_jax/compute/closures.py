"""Turns arrays in the closure of a function into arguments.

`lambda params, x: nnx.merge(graph, params, statistics)(x)` is a new function for every network, and a program compiled
for one of them is not used for the next. Lifted, all such functions of one source are one function of the arrays.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial

from prunegen_jax.compute.checks import can_be_traced
from prunegen_jax.compute.planes import as_partial

# Compared by identity, but not changed: what a function may hold in its closure beside arrays and values.
_CONSTANT = (
    type, types.BuiltinFunctionType, types.ModuleType, np.ufunc, jax.custom_jvp, jax.custom_vjp, type(jax.jit(abs))
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Static:
    """A constant, compared by its type and value, or by its identity if it is not hashable."""

    value: Any

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Static) or type(self.value) is not type(other.value):
            return False
        return self.value is other.value or (_has_hash(self.value) and self.value == other.value)

    def __hash__(self) -> int:
        return hash(self.value) if _has_hash(self.value) else id(self.value)


@dataclasses.dataclass(frozen=True)
class Lifted:
    """A function whose closure arrays are its first arguments.

    Attributes:
        code: of the function.
        cells: for each variable of its closure the tree of its value.
        statics: leaves that are not arrays, by position.
        defaults: of the function's arguments, hashable.
        names: the global variables that it refers to, with their values.
        function: one with that code; not compared.
    """

    code: types.CodeType
    cells: tuple[Any, ...]
    statics: tuple[tuple[int, Static], ...]
    defaults: Any
    names: tuple[tuple[str, Static], ...]
    function: Callable[..., Any] = dataclasses.field(compare=False)

    def __hash__(self) -> int:
        return self._hash

    @functools.cached_property
    def _hash(self) -> int:  # every call of a compiled program asks for it
        return hash((self.code, self.cells, self.statics, self.defaults, self.names))

    def __call__(self, arrays: tuple[Any, ...], *args: Any, **keywords: Any) -> Any:
        """The function with `arrays` in its closure."""
        statics, given = {i: leaf.value for i, leaf in self.statics}, iter(arrays)
        count = len(arrays) + len(statics)
        leaves = iter([statics[i] if i in statics else next(given) for i in range(count)])
        values = [tree.unflatten([next(leaves) for _ in range(tree.num_leaves)]) for tree in self.cells]
        function = types.FunctionType(
            self.code,
            self.function.__globals__,
            self.function.__name__,
            self.function.__defaults__,
            tuple(types.CellType(value) for value in values),
        )
        function.__kwdefaults__ = self.function.__kwdefaults__
        return function(*args, **keywords)


def lift(apply: Callable[..., Any]) -> Partial:
    """`as_partial(apply)`, with the arrays of its function's closure bound as well; else unchanged.

    Closures of one source are then equal where their arrays alone differ. One that holds an object which may change
    without becoming another is left as it is, and so is a function that went through `with_convolutions` before.
    """
    partial = as_partial(apply)
    given = apply.func if isinstance(apply, functools.partial) else apply
    lifted = _lift(given, ()) if isinstance(given, types.FunctionType) and given.__closure__ else None
    if lifted is None:
        return partial
    form = dataclasses.replace(partial.func, original=lifted.func)
    return Partial(form, *lifted.args, *partial.args, **partial.keywords)


def _lift(function: types.FunctionType, around: tuple[Any, ...]) -> Partial | None:
    """The lifted function; None if that is impossible. `around`: functions whose closures are being searched."""
    if any(function is other for other in around):
        return None
    try:
        around = (*around, function)
        values = [cell.cell_contents for cell in function.__closure__ or ()]
        if any(isinstance(value, list | dict) and not any(map(_is_array, jax.tree.leaves(value))) for value in values):
            return None  # the function may write to it
        values = jax.tree.map(
            lambda leaf: (isinstance(leaf, types.FunctionType) and _lift(leaf, around)) or leaf, values
        )
        flat = [jax.tree.flatten(value) for value in values]
        leaves = [leaf for part, _ in flat for leaf in part]
        arrays = tuple(leaf for leaf in leaves if _is_array(leaf))
        statics = tuple((i, Static(leaf)) for i, leaf in enumerate(leaves) if not _is_array(leaf))
        defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items()]
        defaults = tuple((type(value), value) for value in defaults)
        trees = tuple(tree for _, tree in flat)
        names = sorted({name for name in _names(function.__code__) if name in function.__globals__})
        variables = tuple((name, Static(function.__globals__[name])) for name in names)
        lifted = Lifted(function.__code__, trees, statics, defaults, variables, function)
        hash(lifted)
    except (TypeError, ValueError):  # an empty cell, or something in it that does not hash
        return None
    if not all(_is_constant(leaf.value) for _, leaf in statics):
        return None
    return Partial(lifted, arrays)


def bind_closure(apply: Callable[..., Any], params: Any, data: Any) -> Partial:
    """`lift(apply)`; `as_partial(apply)` if the values of arrays in its closure decide what it computes.

    Args:
        apply: (params, inputs [n, ...]) → logits [n, K].
        params: the parameters.
        data: a `Dataset`.
    """
    partial, lifted = as_partial(apply), lift(apply)
    if len(jax.tree.leaves(lifted)) == len(jax.tree.leaves(partial)) or can_be_traced(lifted, params, data):
        return lifted
    return partial


def _names(code: types.CodeType) -> Iterator[str]:
    """The names of the global variables that code refers to, and of the attributes."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _is_constant(value: Any) -> bool:
    """Whether a value cannot change and still be equal to what it was."""
    by_identity = (None, object.__hash__, types.MethodType.__hash__)
    return isinstance(value, _CONSTANT) or type(value).__hash__ not in by_identity


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray)


def _has_hash(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
