"""The layers of a network: convolutions and products with one parameter, their geometry, their matrices."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from prunegen_jax.networks.reading.dependence import Use, View
from prunegen_jax.networks.reading.program import Flat, Node

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A linear map whose kernel is one parameter.

    Attributes:
        path: keys from the root of the parameters to the kernel.
        kind: "conv" or "dense".
        kernel_shape: of the parameter.
        input_shape: of one input of the linear map: (*spatial, C) for a convolution, (C,) for a dense layer, which
            is applied to every position. C counts all groups, or all contracted axes together.
        output_shape: of one example's output: (*positions, features).
        window: sizes of the kernel along the spatial axes; () for a dense layer.
        strides: for each spatial axis.
        padding: (low, high) for each spatial axis.
        input_dilation: for each spatial axis; more than 1 in a transposed convolution.
        kernel_dilation: for each spatial axis.
        groups: of a convolution.
        bias: the parameter added to the output, if nothing else follows; None if there is none, or before a batch norm.
        view: how the parameter is rearranged into the operand, see `dependence.View`.
        operand_axes: axes of the operand, in the order (*spatial, *inputs, *outputs), and the number of outputs.
    """

    path: Path
    kind: Literal["conv", "dense"]
    kernel_shape: tuple[int, ...]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    window: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    padding: tuple[tuple[int, int], ...] = ()
    input_dilation: tuple[int, ...] = ()
    kernel_dilation: tuple[int, ...] = ()
    groups: int = 1
    bias: Path | None = None
    view: tuple[tuple[str, Any], ...] = ()
    operand_axes: tuple[tuple[int, ...], int] = ((), 1)

    @property
    def name(self) -> str:
        """The path as one string."""
        return "/".join(self.path)

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """(outputs, inputs · window) of the kernel as a matrix."""
        outputs = self.output_shape[-1]
        return outputs, math.prod(self.kernel_shape) // outputs


@dataclasses.dataclass(frozen=True)
class Site:
    """Where a layer is in one flat program.

    Attributes:
        position: of its node.
        place: which operand is the kernel.
        output: the number of its result.
        axes: where the kernel's output axes are in that value.
        sizes: their sizes.
    """

    position: int
    place: int
    output: int
    axes: tuple[int, ...]
    sizes: tuple[int, ...]


def apply_view(view: Sequence[tuple[str, Any]], array: jax.Array) -> jax.Array:
    """Computes the operand from the parameter."""
    for name, argument in view:
        if name == "transpose":
            array = jnp.transpose(array, argument)
        elif name == "rev":
            array = jnp.flip(array, argument)
        elif name == "convert":
            array = array.astype(argument)
        else:
            array = array.reshape(argument)
    return array


def standard_kernel(layer: Layer, kernel: jax.Array) -> jax.Array:
    """The kernel as `[*window, inputs / groups, outputs]` in any layout; of a dense layer `[inputs, outputs]`."""
    operand = apply_view([step for step in layer.view if step[0] != "convert"], jnp.asarray(kernel))
    order, outputs = layer.operand_axes
    operand = operand.transpose(order)
    return operand.reshape(*layer.window, -1, math.prod(operand.shape[len(order) - outputs :]))


def linear_map(layer: Layer, kernel: jax.Array, inputs: jax.Array) -> jax.Array:
    """The layer without its bias: `inputs [*input_shape]` → `[*spatial, outputs]` (or `[outputs]` for dense)."""
    standard = standard_kernel(layer, kernel)
    if layer.kind == "dense":
        return jnp.dot(inputs, standard)
    letters = "XYZW"[: len(layer.window)]
    return lax.conv_general_dilated(
        inputs[None],
        standard,
        layer.strides,
        layer.padding,
        lhs_dilation=layer.input_dilation,
        rhs_dilation=layer.kernel_dilation,
        dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
        feature_group_count=layer.groups,
    )[0]


def locate(flat: Flat, use: Use, path: Path, kernel_shape: tuple[int, ...]) -> tuple[Layer, Site] | str:
    """The layer of a use, or why it cannot be read."""
    node, view = flat.nodes[use.position], use.fact.view
    assert view is not None  # the caller reads views alone
    if node.name == "dot_general":
        return _dense(flat, node, use, view, path, kernel_shape)
    if use.place != 1:
        return "it is the left operand of a convolution"
    return _conv(flat, node, use, view, path, kernel_shape)


def _dense(
    flat: Flat, node: Node, use: Use, view: View, path: Path, kernel_shape: tuple[int, ...]
) -> tuple[Layer, Site] | str:
    contracting, batch = node.params["dimension_numbers"]
    if batch[0]:
        return "it multiplies in batches: every index of a batch axis has a matrix of its own"
    operand = flat.shape(node.inputs[use.place])
    inputs = tuple(int(axis) for axis in contracting[use.place])
    outputs = tuple(axis for axis in range(len(operand)) if axis not in inputs)
    shape = flat.shape(node.outputs[0])
    # The output has the free axes of the left operand, then those of the right one.
    first = 0 if use.place == 0 else len(shape) - len(outputs)
    axes = tuple(range(first, first + len(outputs)))
    sizes = tuple(operand[axis] for axis in outputs)
    positions = tuple(size for axis, size in enumerate(shape) if axis not in axes)
    layer = Layer(
        path,
        "dense",
        kernel_shape,
        (math.prod(operand[axis] for axis in inputs),),
        (*positions, math.prod(sizes)),
        view=view.steps,
        operand_axes=((*inputs, *outputs), len(outputs)),
    )
    return layer, Site(use.position, use.place, node.outputs[0], axes, sizes)


def _conv(
    flat: Flat, node: Node, use: Use, view: View, path: Path, kernel_shape: tuple[int, ...]
) -> tuple[Layer, Site] | str:
    params = node.params
    if params["batch_group_count"] != 1:
        return "its convolution has batch groups"
    numbers = params["dimension_numbers"]
    shapes = [flat.shape(node.inputs[0]), flat.shape(node.inputs[1]), flat.shape(node.outputs[0])]
    outputs, inputs, *window = (int(axis) for axis in numbers.rhs_spec)
    axes = tuple(int(axis) for axis in numbers.out_spec)
    layer = Layer(
        path,
        "conv",
        kernel_shape,
        tuple(shapes[0][axis] for axis in (*numbers.lhs_spec[2:], numbers.lhs_spec[1])),
        tuple(shapes[2][axis] for axis in (axes[0], *axes[2:], axes[1])),
        tuple(shapes[1][axis] for axis in window),
        tuple(params["window_strides"]),
        tuple((int(low), int(high)) for low, high in params["padding"]),
        tuple(params["lhs_dilation"]),
        tuple(params["rhs_dilation"]),
        int(params["feature_group_count"]),
        view=view.steps,
        operand_axes=((*window, inputs, outputs), 1),
    )
    return layer, Site(use.position, use.place, node.outputs[0], (axes[1],), (shapes[1][outputs],))


def without_batch(layer: Layer, positions: Sequence[int]) -> Layer:
    """The layer with the positions of one example's output instead of the whole batch's."""
    return dataclasses.replace(layer, output_shape=(*positions, layer.output_shape[-1]))
