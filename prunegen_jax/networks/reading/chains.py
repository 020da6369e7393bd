"""Chains of affine steps: y → s y + t, whose s and t depend on parameters and statistics, not on the input.

After a layer, they are its bias and its batch norm, per output channel. A chain continues while its value has exactly
one consumer; scalar constants of the program (1/√d, the 1/n of pooling) end it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Literal

from prunegen_jax.networks.reading.dependence import Fact
from prunegen_jax.networks.reading.program import Atom, Flat, Node

Axes = tuple[int, ...]
_SAME_SHAPE = {"convert_element_type", "copy", "copy_p", "reduce_precision"}
_AFFINE = {"add", "add_any", "sub", "mul", "div", "neg"}


@dataclasses.dataclass(frozen=True)
class Step:
    """One equation of a chain.

    Attributes:
        position: of its node.
        place: which of the node's inputs is the chain's value.
        operation: "add", "sub", "rsub" (c − y), "mul", "div", "neg", or "shape" for a rearrangement.
        other: the other operand c, None if there is none.
        axes: where the channels are in the result of the step; None: c may vary along any axis.
    """

    position: int
    place: int
    operation: str
    other: Atom | None
    axes: Axes | None


@dataclasses.dataclass(frozen=True)
class Chain:
    """Affine steps from the value `start` to the value `end`; `axes`: where the channels are in `end`."""

    start: int
    end: int
    steps: tuple[Step, ...]
    axes: Axes | None

    @property
    def affine(self) -> tuple[Step, ...]:
        """The steps that are not rearrangements."""
        return tuple(step for step in self.steps if step.operation != "shape")


def walk(flat: Flat, facts: Sequence[Fact], data: int, start: int, axes: Axes | None) -> Chain:
    """The longest chain from `start`. `axes`: where the channels are; None: steps may vary along any axis."""
    steps: list[Step] = []
    value, ends = start, (0, start, axes)
    while len(flat.consumers[value]) == 1 and flat.consumers[value][0] >= 0:
        position = flat.consumers[value][0]
        if flat.nodes[position].inside:
            break
        step = affine_step(flat, facts, data, position, value, axes) or _shape_step(flat, position, value, axes)
        if step is None:
            break
        steps.append(step)
        value, axes = flat.nodes[position].outputs[0], step.axes
        if step.operation != "shape":
            ends = (len(steps), value, axes)
    length, end, axes = ends
    return Chain(start, end, tuple(steps[:length]), axes)


def affine_step(
    flat: Flat, facts: Sequence[Fact], data: int, position: int, value: int, axes: Axes | None
) -> Step | None:
    """The node at `position` as an affine step of `value`, or None if it is not one."""
    node = flat.nodes[position]
    if node.name not in _AFFINE or node.inputs.count(value) != 1:
        return None
    place = node.inputs.index(value)
    if node.name == "neg":
        return Step(position, place, "neg", None, axes)
    other = node.inputs[1 - place]
    if isinstance(other, Literal) or not facts[other].depends or facts[other].depends & data:
        return None
    if flat.shape(value) != flat.shape(node.outputs[0]):  # the value itself is broadcast
        return None
    if axes is not None and not varying(flat, other) <= set(axes):
        return None
    if node.name == "div" and place == 1:
        return None
    operation = {"add_any": "add"}.get(node.name, node.name)
    return Step(position, place, "rsub" if operation == "sub" and place == 1 else operation, other, axes)


def _shape_step(flat: Flat, position: int, value: int, axes: Axes | None) -> Step | None:
    node = flat.nodes[position]
    after = None if axes is None else follow(flat, node, axes)
    if axes is not None and after is None:
        return None
    if axes is None and node.name not in _SAME_SHAPE:
        return None
    if node.name == "convert_element_type" and not jnp.issubdtype(node.params["new_dtype"], np.floating):
        return None
    return Step(position, 0, "shape", None, after)


def follow(flat: Flat, node: Node, axes: Axes) -> Axes | None:
    """Where `axes` of the node's first input are in its output; None if the node does more than rearrange."""
    if node.name in _SAME_SHAPE:
        return axes
    if node.name == "transpose":
        permutation = [int(axis) for axis in node.params["permutation"]]
        return tuple(permutation.index(axis) for axis in axes)
    if node.name in ("reshape", "squeeze", "broadcast_in_dim"):
        before, after = flat.shape(node.inputs[0]), flat.shape(node.outputs[0])
        if np.prod(before) != np.prod(after):
            return None
        if node.name == "broadcast_in_dim":
            return tuple(int(node.params["broadcast_dimensions"][axis]) for axis in axes)
        return _follow_reshape(before, after, axes)
    return None


def _follow_reshape(before: Sequence[int], after: Sequence[int], axes: Axes) -> Axes | None:
    """An axis is kept if its size and the product of the sizes before it are unchanged."""
    places = []
    for axis in axes:
        ahead = int(np.prod(before[:axis]))
        same = [i for i in range(len(after)) if after[i] == before[axis] and np.prod(after[:i]) == ahead]
        same = [i for i in same if i not in places]
        if not same:
            return None
        places.append(same[-1])
    return tuple(places)


def varying(flat: Flat, atom: Atom) -> set[int]:
    """Axes along which a value may vary; along the others it is constant."""
    if isinstance(atom, Literal):
        return set()
    shape = flat.shape(atom)
    wide = {axis for axis, size in enumerate(shape) if size > 1}
    producer = flat.producers[atom]
    if producer < 0 or not wide:
        return wide
    node = flat.nodes[producer]
    if node.name == "broadcast_in_dim":
        dimensions = node.params["broadcast_dimensions"]
        return {int(dimensions[axis]) for axis in varying(flat, node.inputs[0])}
    if node.name == "transpose":
        inner = varying(flat, node.inputs[0])
        return {axis for axis, old in enumerate(node.params["permutation"]) if int(old) in inner}
    if node.name in ("reshape", "squeeze"):
        inner = follow(flat, node, tuple(sorted(varying(flat, node.inputs[0]))))
        return wide if inner is None else set(inner)
    if node.name in _ENTRYWISE and all(len(flat.shape(a)) in (0, len(shape)) for a in node.inputs):
        return set().union(*(varying(flat, a) for a in node.inputs if flat.shape(a)))
    return wide


_ENTRYWISE = {*_AFFINE, *_SAME_SHAPE, "rsqrt", "sqrt", "exp", "square", "integer_pow", "pow", "max", "min", "log"}


def channels_of(array: jax.Array, axes: Axes, sizes: Sequence[int]) -> jax.Array:
    """The entries `[sizes]` of a value that varies only along its channel axes."""
    if array.ndim:
        array = array[tuple(slice(None) if axis in axes else 0 for axis in range(array.ndim))]
        order = sorted(axes)
        array = array.transpose([order.index(axis) for axis in axes])
    return jnp.broadcast_to(array.reshape((1,) * len(sizes)) if not array.ndim else array, tuple(sizes))


def spread(vector: jax.Array, axes: Axes, rank: int) -> jax.Array:
    """The inverse of `channels_of`: `vector [sizes]` with axes of size 1 between, to go along a value of `rank`."""
    order = np.argsort(axes)
    vector = vector.transpose([int(i) for i in order])
    return lax.expand_dims(vector, [axis for axis in range(rank) if axis not in axes])


def precision(dtype: Any) -> Any:
    """The dtype in which scales and shifts of values of `dtype` are computed: at least float32."""
    return np.dtype(dtype) if np.dtype(dtype).itemsize >= 4 else np.dtype(np.float32)


def scale_and_shift(
    chain: Chain, read: Callable[[Atom], jax.Array], sizes: Sequence[int], dtype: Any
) -> tuple[jax.Array, jax.Array]:
    """s and t of the whole chain, y → s y + t, `[sizes]`; for a chain without axes, of shapes that broadcast.

    Args:
        chain: its steps.
        read: the value of an operand.
        sizes: of the channel axes; for a chain without axes, as many ones as the value has axes.
        dtype: in which s and t are computed.
    """
    scale, shift = jnp.ones(tuple(sizes), dtype), jnp.zeros(tuple(sizes), dtype)
    for step in chain.affine:
        if step.operation == "neg":
            scale, shift = -scale, -shift
            continue
        assert step.other is not None  # every other operation has one
        other = jnp.asarray(read(step.other)).astype(dtype)
        if step.axes is not None:
            other = channels_of(other, step.axes, sizes)
        elif not other.ndim:
            other = other.reshape((1,) * len(sizes))
        if step.operation == "add":
            shift = shift + other
        elif step.operation == "sub":
            shift = shift - other
        elif step.operation == "rsub":
            scale, shift = -scale, other - shift
        elif step.operation == "mul":
            scale, shift = scale * other, shift * other
        else:
            scale, shift = scale / other, shift / other
    return scale, shift
