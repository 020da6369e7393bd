"""How many floating-point operations a function takes, from its program; nothing is computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr


def count_operations(function: Callable[..., Any], *arguments: Any) -> int:
    """Multiplications and additions of all convolutions and matrix products of a call; loops are counted once.

    Args:
        function: a function that JAX can trace.
        *arguments: arrays, or their shapes and dtypes (`jax.ShapeDtypeStruct`).
    """
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr: Jaxpr) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> int:
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        terms = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    elif equation.primitive.name == "conv_general_dilated":
        kernel = equation.invars[1].aval
        terms = kernel.size // kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
    else:
        return sum(map(_count, _inner(equation.params)))
    return 2 * terms * equation.outvars[0].aval.size


def _inner(params: dict[str, Any]) -> Iterator[Jaxpr]:
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, ClosedJaxpr | Jaxpr):
                yield part.jaxpr if isinstance(part, ClosedJaxpr) else part
