"""What each value of a program depends on, and where parameters reach an operand of a convolution or a product.

This includes the bodies of loops and conditionals, because the kernels inside them are kernels too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from prunegen_jax.networks.reading.program import Atom, Flat, Node, flatten

LINEAR_MAPS = {"conv_general_dilated", "dot_general"}
_KEEP_ENTRIES = {"reshape", "transpose", "squeeze", "rev", "convert_element_type", "copy", "copy_p", "reduce_precision"}
_PICK_ENTRIES = {"slice", "dynamic_slice", "gather", "split", "broadcast_in_dim", "unstack"}


@dataclasses.dataclass(frozen=True)
class View:
    """A value that holds entries of one parameter, rearranged.

    Attributes:
        leaf: which argument of the program.
        steps: (name, argument) of each rearrangement, see `apply_view`.
        exact: whether every entry occurs exactly once. False for a slice, for instance.
    """

    leaf: int
    steps: tuple[tuple[str, Any], ...] = ()
    exact: bool = True


@dataclasses.dataclass(frozen=True)
class Fact:
    """What is known about a value: the arguments it depends on, as bits, and the parameter of which it is a view."""

    depends: int
    view: View | None = None


@dataclasses.dataclass(frozen=True)
class Use:
    """One operand of a convolution or product that depends on parameters, but not on the network's input.

    Attributes:
        fact: of the operand.
        size: its number of entries.
        position: of the node; within the body, for a loop.
        place: 0 or 1, which operand.
        loop: the name of the loop or conditional around it, "" for none.
        on_data: whether the other operand depends on the network's input.
    """

    fact: Fact
    size: int
    position: int
    place: int
    loop: str
    on_data: bool


def propagate(
    flat: Flat, given: Sequence[Fact], data: int, parameters: int, *, loop: str = "", uses: list[Use] | None = None
) -> list[Fact]:
    """The facts of all values, and the uses of parameters in linear maps, which are appended to `uses`.

    Args:
        flat: the program.
        given: the facts of its arguments and constants.
        data: the bit of the network's input.
        parameters: the bits of the parameters.
        loop: the name of the loop whose body this is.
        uses: what the uses are appended to; None if they are not wanted.
    """
    facts: list[Fact] = [*given, *[Fact(0)] * (len(flat.avals) - len(given))]

    def fact(atom: Atom) -> Fact:
        return Fact(0) if isinstance(atom, Literal) else facts[atom]

    for position, node in enumerate(flat.nodes):
        if node.opened:
            continue
        taken = [fact(atom) for atom in node.inputs]
        if node.name in LINEAR_MAPS and uses is not None and _contracts(node):
            for place in (0, 1):
                own, other = taken[place], taken[1 - place]
                if own.depends & parameters and not own.depends & data:
                    size = int(np.prod(flat.shape(node.inputs[place])))
                    uses.append(Use(own, size, position, place, loop, bool(other.depends & data)))
        made = _through(flat, node, taken, data, parameters, loop, uses)
        for value, result in zip(node.outputs, made, strict=True):
            facts[value] = result
    return facts


def _contracts(node: Node) -> bool:
    """Whether it sums over products: a `dot_general` that only multiplies entries does not."""
    return node.name != "dot_general" or bool(node.params["dimension_numbers"][0][0])


def _through(
    flat: Flat, node: Node, taken: list[Fact], data: int, parameters: int, loop: str, uses: list[Use] | None
) -> list[Fact]:
    inner = (data, parameters, f"{loop} in {node.name}" if loop else node.name, uses)
    if node.name == "scan":
        return _scan(node, taken, *inner)
    if node.name == "while":
        return _while(node, taken, *inner)
    if node.name == "cond":
        branches = [_body(body, taken[1:], *inner) for body in node.params["branches"]]
        return [
            dataclasses.replace(_join(made), depends=_join(made).depends | taken[0].depends)
            for made in zip(*branches, strict=True)
        ]
    depends = 0
    for one in taken:
        depends |= one.depends
    return [Fact(depends, _view(flat, node, taken, data))] * len(node.outputs)


def _view(flat: Flat, node: Node, taken: list[Fact], data: int) -> View | None:
    if not taken or taken[0].view is None or any(other.depends & data for other in taken[1:]):
        return None
    view = taken[0].view
    if node.name in _KEEP_ENTRIES:
        step = _step(flat, node)
        return dataclasses.replace(view, steps=(*view.steps, step)) if step else view
    if node.name in _PICK_ENTRIES:
        size, before = (int(np.prod(flat.shape(atom))) for atom in (node.outputs[0], node.inputs[0]))
        same = node.name == "broadcast_in_dim" and size == before
        steps = (*view.steps, ("reshape", flat.shape(node.outputs[0])))
        return View(view.leaf, steps, view.exact and same)
    return None


def _step(flat: Flat, node: Node) -> tuple[str, Any] | None:
    if node.name == "transpose":
        return ("transpose", tuple(int(axis) for axis in node.params["permutation"]))
    if node.name == "rev":
        return ("rev", tuple(int(axis) for axis in node.params["dimensions"]))
    if node.name == "convert_element_type":
        return ("convert", np.dtype(node.params["new_dtype"]))
    return ("reshape", flat.shape(node.outputs[0])) if node.name in ("reshape", "squeeze") else None


def _join(facts: Sequence[Fact]) -> Fact:
    depends = 0
    for one in facts:
        depends |= one.depends
    views = {one.view for one in facts}
    return Fact(depends, views.pop() if len(views) == 1 else None)


def _body(
    closed: ClosedJaxpr, given: Sequence[Fact], data: int, parameters: int, loop: str, uses: list[Use] | None
) -> list[Fact]:
    flat = flatten(closed)
    facts = propagate(flat, [*given, *[Fact(0)] * len(flat.constants)], data, parameters, loop=loop, uses=uses)
    return [Fact(0) if isinstance(atom, Literal) else facts[atom] for atom in flat.outputs]


def _settle(body: Any, carry: list[Fact]) -> list[Fact]:
    """The facts of a loop's carry that one more round does not change. `body`: facts of carry → of the next carry."""
    while True:
        after = [_join(pair) for pair in zip(carry, body(carry), strict=True)]
        if after == carry:
            return carry
        carry = after


def _scan(node: Node, taken: list[Fact], data: int, parameters: int, loop: str, uses: list[Use] | None) -> list[Fact]:
    first, count = node.params["num_consts"], node.params["num_carry"]
    rows = [
        dataclasses.replace(fact, view=fact.view and dataclasses.replace(fact.view, exact=False))
        for fact in taken[first + count :]
    ]

    def body(carry: list[Fact], uses: list[Use] | None = None) -> list[Fact]:
        return _body(node.params["jaxpr"], [*taken[:first], *carry, *rows], data, parameters, loop, uses)

    carry = _settle(lambda carry: body(carry)[:count], taken[first : first + count])
    return [*carry, *[Fact(fact.depends) for fact in body(carry, uses)[count:]]]


def _while(node: Node, taken: list[Fact], data: int, parameters: int, loop: str, uses: list[Use] | None) -> list[Fact]:
    tests, consts = node.params["cond_nconsts"], node.params["body_nconsts"]

    def body(carry: list[Fact], uses: list[Use] | None = None) -> list[Fact]:
        return _body(node.params["body_jaxpr"], [*taken[tests : tests + consts], *carry], data, parameters, loop, uses)

    carry = _settle(body, taken[tests + consts :])
    body(carry, uses)
    stop = _body(node.params["cond_jaxpr"], [*taken[:tests], *carry], data, parameters, loop, uses)[0]
    return [dataclasses.replace(fact, depends=fact.depends | stop.depends) for fact in carry]
