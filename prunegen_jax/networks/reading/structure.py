"""A network's function as traced programs, one per shape of its arguments, cached for all networks of that shape."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute import trees
from prunegen_jax.networks.reading.layers import Layer, Path, without_batch
from prunegen_jax.networks.reading.program import Atom, Flat, evaluate, flatten
from prunegen_jax.networks.reading.sites import Reading, read_flat

Bound = tuple[tuple[Any, ...], tuple[Any, ...]]  # arrays bound to `apply`, arrays of its closure
BATCHES = (2, 3)  # two batch sizes tell which axis is the batch's


@dataclasses.dataclass(frozen=True, eq=False)
class Structure:
    """The part that networks of one shape share. Apart from the traced closure, it holds no array of a network.

    Attributes:
        apply_tree: of `apply`, a `Partial`, its arrays taken out.
        statics: leaves of `apply` that are not arrays, by position.
        params_tree: of the parameters.
        keys: key path of every parameter.
        bound: shape and dtype of the arrays bound to `apply`.
        params: shape and dtype of the parameters.
        example: shape and dtype of one input.
    """

    apply_tree: Any
    statics: Mapping[int, Any]
    params_tree: Any
    keys: tuple[Any, ...]
    bound: tuple[jax.ShapeDtypeStruct, ...]
    params: tuple[jax.ShapeDtypeStruct, ...]
    example: jax.ShapeDtypeStruct

    @functools.cached_property
    def paths(self) -> tuple[Path, ...]:
        """The path of every parameter."""
        return tuple(trees.path_names(key) for key in self.keys)

    @functools.cached_property
    def closure(self) -> tuple[Any, ...]:
        """Arrays that the function takes from its closure at any batch size."""
        first, second = (self._flat(size).constants for size in BATCHES)
        same = {id(array) for array in second}
        return tuple(array for array in first if id(array) in same)

    def _flat(self, size: int) -> Flat:
        inputs = jax.ShapeDtypeStruct((size, *self.example.shape), self.example.dtype)
        return self._trace((*self.bound, *self.params, inputs))

    @functools.cached_property
    def _traces(self) -> dict[Any, Flat]:
        return {}

    @functools.cached_property
    def _readings(self) -> dict[Any, Reading]:
        return {}

    def _trace(self, shapes: tuple[jax.ShapeDtypeStruct, ...]) -> Flat:
        key = (tuple((s.shape, s.dtype) for s in shapes), settings())
        if key not in self._traces:
            flat = flatten(jax.make_jaxpr(self._call)(*shapes))
            if any(isinstance(array, jax.core.Tracer) for array in flat.constants):
                raise TypeError(
                    "apply has a traced array in its closure: bind it with jax.tree_util.Partial(apply, array)"
                )
            self._traces[key] = flat
        return self._traces[key]

    def _call(self, *leaves: Any) -> Any:
        bound, params, inputs = leaves[: len(self.bound)], leaves[len(self.bound) : -1], leaves[-1]
        arrays = iter(bound)
        count = len(bound) + len(self.statics)
        filled = [self.statics[i] if i in self.statics else next(arrays) for i in range(count)]
        apply = jax.tree.unflatten(self.apply_tree, filled)
        logits = apply(jax.tree.unflatten(self.params_tree, params), inputs)
        if not isinstance(logits, jax.Array):
            raise TypeError(f"apply(params, inputs) must return one array of logits [n, K]; got {type(logits)}")
        return logits

    def reading(self, shapes: tuple[jax.ShapeDtypeStruct, ...]) -> Reading:
        """The reading of the program for arguments (bound, parameters, inputs) of these shapes."""
        flat = self._trace(shapes)
        if id(flat) not in self._readings:
            parameters = {len(self.bound) + i: path for i, path in enumerate(self.paths)}
            self._readings[id(flat)] = read_flat(flat, parameters, len(shapes) - 1)
        return self._readings[id(flat)]

    @functools.cached_property
    def references(self) -> tuple[Reading, Reading]:
        """The readings at the two sizes of `BATCHES`."""
        first, second = (
            self.reading(
                (*self.bound, *self.params, jax.ShapeDtypeStruct((size, *self.example.shape), self.example.dtype))
            )
            for size in BATCHES
        )
        return first, second

    @functools.cached_property
    def batch_axes(self) -> dict[Path, int | str]:
        """Path of a layer → the batch axis of its pre-activation, or the reason why there is none."""
        first, second = self.references
        axes: dict[Path, int | str] = {}
        for path, layer in first.layers.items():
            if path in first.hidden:
                axes[path] = first.hidden[path]
            elif path in second.layers:
                axis = _batch_axis(first, second, first.chains[path].end, second.chains[path].end)
                axes[path] = axis if axis is not None else f"{layer.name}: its batch axis is merged with another"
        return axes

    @functools.cached_property
    def problems(self) -> dict[Path, str]:
        """Path of each kernel that is not in a layer → the reason."""
        first, second = self.references
        changed = {
            path: f"{layer.name}: the program changes with the batch size"
            for path, layer in first.layers.items()
            if path not in second.layers
        }
        return {**first.problems, **changed}

    @functools.cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The layers in order, with the output shapes of one example."""
        first, second = self.references
        layers = []
        for path, layer in first.layers.items():
            if path not in second.layers:
                continue
            sizes = zip(layer.output_shape[:-1], second.layers[path].output_shape[:-1], strict=True)
            layers.append(without_batch(layer, [one for one, other in sizes if one == other]))
        return tuple(layers)

    def arguments(self, bound: Bound, params: Sequence[Any], inputs: Any) -> tuple[Reading, dict[int, Any]]:
        """The reading for these arguments, and the values to evaluate it from.

        A parameter whose value is not needed may be a `ShapeDtypeStruct`.
        """
        leaves = (*bound[0], *params, inputs)
        leaves = tuple(jnp.asarray(x) if isinstance(x, np.ndarray | np.generic) else x for x in leaves)
        reading = self.reading(tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves))
        missing = [layer.name for layer in self.layers if layer.path not in reading.layers]
        if missing:
            raise ValueError(
                f"the program for inputs of shape {inputs.shape} has other layers: no {', '.join(missing)}"
            )
        given = {id(array): value for array, value in zip(self.closure, bound[1], strict=True)}
        constants = [given.get(id(array), array) for array in reading.flat.constants]
        return reading, dict(enumerate((*leaves, *constants)))

    def flatten_params(self, params: Any) -> list[Any]:
        """The leaves of parameters of this structure."""
        leaves, tree = jax.tree.flatten(params)
        if tree != self.params_tree:
            raise ValueError(f"the parameters have the structure {tree}; the network was read with {self.params_tree}")
        return leaves


def _batch_axis(first: Reading, second: Reading, a: int, b: int) -> int | None:
    shapes = first.flat.shape(a), second.flat.shape(b)
    if len(shapes[0]) != len(shapes[1]):
        return None
    different = [axis for axis, sizes in enumerate(zip(*shapes, strict=True)) if sizes[0] != sizes[1]]
    if len(different) != 1 or tuple(shape[different[0]] for shape in shapes) != BATCHES:
        return None
    return different[0]


def settings() -> tuple[Any, ...]:
    """JAX's settings that a trace depends on."""
    return (jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision, jax.config.jax_default_prng_impl)


def outputs(reading: Reading, known: Mapping[int, Any], more: Sequence[Atom] = (), **changes: Any) -> list[Any]:
    """The logits, and the values `more`, of a reading."""
    return evaluate(reading.flat, known, [reading.flat.outputs[0], *more], **changes)
