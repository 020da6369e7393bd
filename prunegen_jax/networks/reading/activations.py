"""Computes the pre-activations of a network, adds offsets to them, and sums what its layers get."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from prunegen_jax.networks.reading.chains import precision
from prunegen_jax.networks.reading.edges import INPUT
from prunegen_jax.networks.reading.layers import Path, apply_view
from prunegen_jax.networks.reading.sites import Reading
from prunegen_jax.networks.reading.structure import Bound, Structure, outputs


@dataclasses.dataclass(frozen=True)
class Features:
    """(bound, params, inputs, offsets={}) → (logits, activations), as a function that equal structures share.

    Activations are the pre-activations after each layer, `[n, *positions, features]` for any layout of the program, by
    the layer's name; "input" is the input. Offsets of the same names and shapes are added.
    """

    structure: Structure

    def __call__(
        self, bound: Bound, params: Any, inputs: jax.Array, offsets: Mapping[str, jax.Array] | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        structure, offsets = self.structure, offsets or {}
        reading, known = structure.arguments(bound, structure.flatten_params(params), inputs)
        names = {"/".join(path): path for path, axis in structure.batch_axes.items() if isinstance(axis, int)}
        unknown = offsets.keys() - names.keys() - {INPUT}
        if unknown:
            raise ValueError(f"unknown activation {', '.join(sorted(unknown))}; choose among {', '.join(names)}")
        places = {name: _place(structure, reading, path) for name, path in names.items()}
        change: dict[int, Callable[[Any], Any]] = {
            places[name].value: functools.partial(_add, place=places[name], offset=offset)
            for name, offset in offsets.items()
            if name != INPUT
        }
        if INPUT in offsets:
            if not jnp.issubdtype(inputs.dtype, jnp.floating):
                raise ValueError(f"no offset can be added to inputs of {inputs.dtype}")
            known[len(known) - len(reading.flat.constants) - 1] = inputs = inputs + offsets[INPUT]
        logits, *values = outputs(reading, known, [place.value for place in places.values()], change=change)
        taken = {name: _outward(value, places[name]) for name, value in zip(names, values, strict=True)}
        return logits, {INPUT: inputs, **taken}


@dataclasses.dataclass(frozen=True)
class LayerInput:
    """(bound, params, inputs) → (logits, the input of the layer at `path`), shared by equal structures."""

    structure: Structure
    path: Path

    def __call__(self, bound: Bound, params: Any, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        reading, known = self.structure.arguments(bound, self.structure.flatten_params(params), inputs)
        site = reading.sites[self.path]
        logits, operand = outputs(reading, known, [reading.flat.nodes[site.position].inputs[1 - site.place]])
        return logits, operand


@dataclasses.dataclass(frozen=True)
class InputSquares:
    """(bound, params, inputs, kernels) → Σ over layers and their outputs of the layer at `kernels` and squared inputs.

    The derivative by an entry of `kernels`, `{path: array like the parameter}`, is Σ x² of all values x that this entry
    multiplies, over examples and positions, in any layout of the program. Shared by equal structures.
    """

    structure: Structure

    def __call__(self, bound: Bound, params: Any, inputs: jax.Array, kernels: Mapping[Path, jax.Array]) -> jax.Array:
        reading, known = self.structure.arguments(bound, self.structure.flatten_params(params), inputs)
        nodes = {
            path: (reading.flat.nodes[reading.sites[path].position], reading.sites[path].place) for path in kernels
        }
        _, *values = outputs(reading, known, [node.inputs[1 - place] for node, place in nodes.values()])
        total: jax.Array | float = 0.0
        for (path, (node, place)), value in zip(nodes.items(), values, strict=True):
            assert node.equation is not None  # layers whose program is evaluated
            view = [step for step in reading.layers[path].view if step[0] != "convert"]
            squares = jnp.square(value.astype(precision(value.dtype)))
            operands = [squares, apply_view(view, kernels[path].astype(squares.dtype))]
            changes = {"precision": (lax.Precision.HIGHEST,) * 2, "preferred_element_type": None}
            made = node.equation.primitive.bind(*operands[:: 1 if place == 1 else -1], **{**node.params, **changes})
            total = total + jnp.sum(made)
        return jnp.asarray(total)


@dataclasses.dataclass(frozen=True)
class _Place:
    """A value of the program, the order of its axes as (batch, *positions, *channels), the number of channel axes."""

    value: int
    order: tuple[int, ...]
    channels: int


def _place(structure: Structure, reading: Reading, path: Path) -> _Place:
    chain, batch = reading.chains[path], structure.batch_axes[path]
    assert isinstance(batch, int) and chain.axes is not None  # only such layers have activations
    rank = len(reading.flat.shape(chain.end))
    positions = [axis for axis in range(rank) if axis != batch and axis not in chain.axes]
    return _Place(chain.end, (batch, *positions, *chain.axes), len(chain.axes))


def _outward(value: jax.Array, place: _Place) -> jax.Array:
    value = value.transpose(place.order)
    return value.reshape(*value.shape[: value.ndim - place.channels], math.prod(value.shape[-place.channels :]))


def _add(value: jax.Array, *, place: _Place, offset: jax.Array) -> jax.Array:
    shape = tuple(value.shape[axis] for axis in place.order)
    inverse: Sequence[int] = sorted(range(len(place.order)), key=place.order.__getitem__)
    return value + offset.reshape(shape).transpose(inverse)
