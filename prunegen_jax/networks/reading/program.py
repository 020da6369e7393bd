"""A traced function as a flat list of equations, and its evaluation with changes.

Calls (`jit`, `remat`) are replaced by their bodies. A call with its own derivative (`custom_jvp`, `custom_vjp`) stays
one equation when the program is evaluated, because the derivative of its body differs: the gradient of ReLU at 0 would
become 0.5. Its body is also listed, for reading only. Loops and conditionals stay one equation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

CALLS = {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"}
OWN_DERIVATIVE = {"custom_jvp_call", "custom_vjp_call"}

Atom = int | Literal  # the number of a value, or a scalar written into the program


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """One equation.

    Attributes:
        name: of the primitive.
        params: of the equation.
        inputs: its operands, values and literals.
        outputs: its results.
        equation: what to evaluate; None for a renaming, which only readers see.
        opened: a call with its own derivative, whose body follows. Evaluated, not read.
        inside: part of such a body. Read, not evaluated.
    """

    name: str
    params: Mapping[str, Any]
    inputs: tuple[Atom, ...]
    outputs: tuple[int, ...]
    equation: JaxprEqn | None
    opened: bool = False
    inside: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Flat:
    """A flat program. Values are numbered: first the inputs, then the constants, then what the nodes make.

    Attributes:
        nodes: in order of evaluation.
        inputs: how many arguments there are.
        constants: arrays that the function took from its closure, in order of appearance.
        outputs: what the function returns.
        avals: shape and dtype of every value.
        consumers: for each value, the positions of the nodes that read it (−1: it is returned), with repetition.
        producers: for each value, the position of the node to read that makes it (−1: an argument or constant).
    """

    nodes: tuple[Node, ...]
    inputs: int
    constants: tuple[Any, ...]
    outputs: tuple[Atom, ...]
    avals: tuple[Any, ...]
    consumers: tuple[tuple[int, ...], ...]
    producers: tuple[int, ...]

    def shape(self, atom: Atom) -> tuple[int, ...]:
        """The shape of a value or literal."""
        return tuple(atom.aval.shape if isinstance(atom, Literal) else self.avals[atom].shape)


def flatten(closed: ClosedJaxpr) -> Flat:
    """The flat program of a closed jaxpr."""
    builder = _Builder()
    inputs = tuple(builder.value(var.aval) for var in closed.jaxpr.invars)
    # Constants must be numbered next, but they are found during the visit: nodes are renumbered at the end.
    outputs = builder.visit(closed.jaxpr, closed.consts, inputs, inside=False)
    constants = [number for number, _ in builder.constants.values()]
    order = [*inputs, *constants]
    order += sorted(set(range(len(builder.avals))) - set(order))
    place = {old: new for new, old in enumerate(order)}
    rename = lambda atoms: tuple(a if isinstance(a, Literal) else place[a] for a in atoms)  # noqa: E731
    nodes = tuple(
        dataclasses.replace(node, inputs=rename(node.inputs), outputs=rename(node.outputs)) for node in builder.nodes
    )
    outputs = rename(outputs)
    return Flat(
        nodes,
        len(inputs),
        tuple(array for _, array in builder.constants.values()),
        outputs,
        tuple(builder.avals[old] for old in order),
        *_uses(nodes, outputs, len(order)),
    )


def _uses(
    nodes: Sequence[Node], outputs: Sequence[Atom], count: int
) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
    consumers: list[list[int]] = [[] for _ in range(count)]
    producers = [-1] * count
    for position, node in enumerate(nodes):
        if node.opened:
            continue
        for atom in node.inputs:
            if not isinstance(atom, Literal):
                consumers[atom].append(position)
        for value in node.outputs:
            producers[value] = position
    for atom in outputs:
        if not isinstance(atom, Literal):
            consumers[atom].append(-1)
    return tuple(map(tuple, consumers)), tuple(producers)


class _Builder:
    """Numbers the values and collects the nodes while jaxprs are visited."""

    def __init__(self) -> None:
        self.avals: list[Any] = []
        self.nodes: list[Node] = []
        self.constants: dict[int, tuple[int, Any]] = {}  # id of the array → its number and the array

    def value(self, aval: Any) -> int:
        self.avals.append(aval)
        return len(self.avals) - 1

    def constant(self, array: Any) -> int:
        if id(array) not in self.constants:
            self.constants[id(array)] = (self.value(jax.typeof(array)), array)
        return self.constants[id(array)][0]

    def visit(self, jaxpr: Jaxpr, consts: Sequence[Any], inputs: Sequence[Atom], *, inside: bool) -> tuple[Atom, ...]:
        atoms: dict[Any, Atom] = dict(zip(jaxpr.invars, inputs, strict=True))
        atoms |= {var: self.constant(array) for var, array in zip(jaxpr.constvars, consts, strict=True)}

        def read(var: Any) -> Atom:
            if isinstance(var, Literal):
                return self.constant(var.val) if np.ndim(var.val) else var
            return atoms[var]

        for equation in jaxpr.eqns:
            name, taken = equation.primitive.name, tuple(map(read, equation.invars))
            if name in CALLS:
                body, body_consts = _body(equation)
                made = self.visit(body, body_consts, taken, inside=inside)
            elif name in OWN_DERIVATIVE:
                made = self._open(equation, taken, inside=inside)
            else:
                made = tuple(self.value(var.aval) for var in equation.outvars)
                self.nodes.append(Node(name, equation.params, taken, made, equation, inside=inside))
            atoms |= dict(zip(equation.outvars, made, strict=True))
        return tuple(map(read, jaxpr.outvars))

    def _open(self, equation: JaxprEqn, taken: tuple[Atom, ...], *, inside: bool) -> tuple[Atom, ...]:
        """A node for the call, then its body for readers. Both make the same values."""
        position = len(self.nodes)
        body, body_consts = _body(equation)
        returned = self.visit(body, body_consts, taken, inside=True)
        made = tuple(self.value(var.aval) for var in equation.outvars)
        for atom, value in zip(returned, made, strict=True):
            self.nodes.append(Node("copy", {}, (atom,), (value,), None, inside=True))
        call = Node(equation.primitive.name, equation.params, taken, made, equation, opened=True, inside=inside)
        self.nodes.insert(position, call)
        return made


def _body(equation: JaxprEqn) -> tuple[Jaxpr, Sequence[Any]]:
    body = equation.params["call_jaxpr"] if "call_jaxpr" in equation.params else equation.params["jaxpr"]
    return (body.jaxpr, body.consts) if isinstance(body, ClosedJaxpr) else (body, ())


def live(flat: Flat, values: Collection[Atom], skip: Mapping[int, int]) -> tuple[frozenset[int], frozenset[int]]:
    """Positions of the nodes to evaluate for `values`, and the values that they read.

    `skip` maps the position of a node to the place of the input that it passes on unchanged.
    """
    needed = {value for value in values if not isinstance(value, Literal)}
    positions = set()
    for position in reversed(range(len(flat.nodes))):
        node = flat.nodes[position]
        if node.inside or not needed.intersection(node.outputs):
            continue
        positions.add(position)
        read = (node.inputs[skip[position]],) if position in skip else node.inputs
        needed.update(atom for atom in read if not isinstance(atom, Literal))
    return frozenset(positions), frozenset(needed)


def evaluate(
    flat: Flat,
    known: Mapping[int, Any],
    values: Sequence[Atom],
    *,
    skip: Mapping[int, int] | None = None,
    change: Mapping[int, Callable[[Any], Any]] | None = None,
) -> list[Any]:
    """`values` from the arguments and constants in `known`.

    Args:
        flat: the program.
        known: the number of a value → the value. Only those that are needed must be there.
        values: what to return.
        skip: position of a node → the place of the input that it passes on unchanged.
        change: the number of a value → a function applied to it before anything reads it.
    """
    skip, change = skip or {}, change or {}
    environment = dict(known)
    for value in change.keys() & known.keys():
        environment[value] = change[value](environment[value])

    def read(atom: Atom) -> Any:
        return atom.val if isinstance(atom, Literal) else environment[atom]

    positions, _ = live(flat, values, skip)
    for position in sorted(positions):
        node = flat.nodes[position]
        made = [read(node.inputs[skip[position]])] if position in skip else _bind(node, map(read, node.inputs))
        for value, result in zip(node.outputs, made, strict=True):
            environment[value] = change[value](result) if value in change else result
    return [read(atom) for atom in values]


def _bind(node: Node, inputs: Any) -> Sequence[Any]:
    equation = node.equation
    assert equation is not None  # readers' nodes are not evaluated
    parameters = equation.primitive.get_bind_params(equation.params)
    with equation.ctx.manager:
        made = equation.primitive.bind(*inputs, **parameters)
    return made if equation.primitive.multiple_results else [made]
