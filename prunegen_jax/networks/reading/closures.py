"""Turns arrays in the closure of a function into arguments.

`lambda params, x: nnx.merge(graph, params, statistics)(x)` is a new function for every network, and a program compiled
for one of them is not used for the next. Lifted, all such functions of one source are one function of the arrays.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial

from prunegen_jax.compute.planes import WithConvolutions, as_partial


@dataclasses.dataclass(frozen=True)
class Lifted:
    """A function whose closure arrays are its first arguments.

    Attributes:
        code: of the function.
        cells: for each variable of its closure the tree of its value.
        statics: leaves that are not arrays, (position, type, value); the types, since True == 1 == 1.0.
        defaults: of the function's arguments, hashable.
        module: where the function was defined.
        function: one with that code; not compared.
    """

    code: types.CodeType
    cells: tuple[Any, ...]
    statics: tuple[tuple[int, type, Any], ...]
    defaults: Any
    module: str
    function: Callable[..., Any] = dataclasses.field(compare=False)

    def __call__(self, arrays: tuple[Any, ...], *args: Any, **keywords: Any) -> Any:
        """The function with `arrays` in its closure."""
        statics, given = {i: leaf for i, _, leaf in self.statics}, iter(arrays)
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
    """`apply` as a `Partial` to which the arrays of its function's closure are bound; else unchanged."""
    partial = as_partial(apply)
    if isinstance(partial.func, WithConvolutions):
        partial = Partial(partial.func.original, *partial.args, **partial.keywords)
    lifted = _lift(partial.func, ())
    if lifted is None or not lifted.args[0]:
        return partial
    return Partial(lifted.func, *lifted.args, *partial.args, **partial.keywords)


def _lift(function: Any, around: tuple[Any, ...]) -> Partial | None:
    """The lifted function; None if that is impossible. `around`: functions whose closures are being searched."""
    if not isinstance(function, types.FunctionType) or any(function is other for other in around):
        return None
    try:
        values = [cell.cell_contents for cell in function.__closure__ or ()]
        values = [_lift(value, (*around, function)) or value for value in values]
        flat = [jax.tree.flatten(value) for value in values]
        leaves = [leaf for part, _ in flat for leaf in part]
        arrays = tuple(leaf for leaf in leaves if _is_array(leaf))
        statics = tuple((i, type(leaf), leaf) for i, leaf in enumerate(leaves) if not _is_array(leaf))
        defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items()]
        defaults = tuple((type(value), value) for value in defaults)
        trees = tuple(tree for _, tree in flat)
        lifted = Lifted(function.__code__, trees, statics, defaults, function.__module__, function)
        hash(lifted)
    except (TypeError, ValueError):  # an empty cell, or something in it that does not hash
        return None
    return Partial(lifted, arrays)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray)
