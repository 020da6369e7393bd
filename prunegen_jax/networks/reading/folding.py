"""Folding: batch norm and other affine steps per channel after a layer become part of its kernel and a bias."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal
from jax.tree_util import Partial

from prunegen_jax.compute import trees
from prunegen_jax.networks.reading.chains import Chain, precision, scale_and_shift, spread
from prunegen_jax.networks.reading.layers import Layer, Path, apply_view
from prunegen_jax.networks.reading.program import evaluate, live
from prunegen_jax.networks.reading.sites import Reading
from prunegen_jax.networks.reading.structure import BATCHES, Bound, Structure, outputs

Keys = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What folding does to a structure.

    Attributes:
        biases: path of each layer that is folded → keys of the bias that it gets.
        kept: position of each parameter that is kept → its keys in the folded tree.
        gone: paths of the parameters that folding removes.
    """

    biases: Mapping[Path, Keys]
    kept: Mapping[int, Keys]
    gone: tuple[Path, ...]


@functools.lru_cache(maxsize=256)
def plan(structure: Structure) -> Plan | None:
    """The plan of folding; None if there is nothing to fold."""
    reading = structure.references[0]
    folded = [path for path in reading.layers if _to_fold(reading, path)]
    if not folded:
        return None
    first = len(structure.bound)
    logits = reading.flat.outputs
    before, after = (live(reading.flat, logits, skip)[1] for skip in ({}, _skipped(reading, folded)))
    keys = [_plain(key) for key in structure.keys]
    gone = [i for i in range(len(keys)) if first + i in before and first + i not in after]
    kept = {i: key for i, key in enumerate(keys) if i not in gone}
    free = {keys[i]: reading.flat.shape(first + i) for i in gone}
    biases: dict[Path, Keys] = {}
    for path in folded:
        own = keys[structure.paths.index(path)]
        biases[path] = _bias_keys(own, reading.sites[path].sizes, free, {*kept.values(), *biases.values()})
    return Plan(biases, kept, tuple(structure.paths[i] for i in gone))


def _to_fold(reading: Reading, path: Path) -> bool:
    chain, layer = reading.chains[path], reading.layers[path]
    kernel = next(position for position, other in reading.parameters.items() if other == path)
    floating = jnp.issubdtype(reading.flat.avals[kernel].dtype, jnp.floating)
    return bool(chain.affine) and layer.bias is None and path not in reading.hidden and floating


def _skipped(reading: Reading, folded: Sequence[Path]) -> dict[int, int]:
    return {step.position: step.place for path in folded for step in reading.chains[path].affine}


def _plain(key: Keys) -> Keys:
    """Dictionary keys along a key path; numbers stay numbers, so that they sort as such."""
    names = trees.path_names(key)
    if not names:
        return ("kernel",)  # the only parameter, without a container
    return tuple(
        one.idx if isinstance(one, jax.tree_util.SequenceKey) else getattr(one, "key", name)
        for one, name in zip(key, names, strict=False)
    )


def _bias_keys(kernel: Keys, sizes: Sequence[int], free: Mapping[Keys, Any], taken: set[Keys]) -> Keys:
    """The keys of a bias next to the kernel that folding removed, else new ones."""
    node = kernel[:-1]
    beside = [key for key, shape in free.items() if key[:-1] == node and _count(shape) == _count(sizes)]
    beside = [key for key in beside if key not in taken and str(key[-1]) not in ("scale", "gamma", "mean", "var")]
    if len(beside) == 1:
        return beside[0]
    names = ("bias", f"{kernel[-1]}_bias", f"{kernel[-1]}_folded_bias")
    return next((*node, name) for name in names if (*node, name) not in taken)


def _count(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def fold(structure: Structure, bound: Bound, params: Any) -> Any:
    """The parameters of the folded network, nested dictionaries with the paths of the original.

    Raises:
        ValueError: if there is nothing to fold.
    """
    if plan(structure) is None:
        raise ValueError("nothing to fold: every layer is followed by its own bias at most")
    return _fold(structure, bound, structure.flatten_params(params))


@functools.partial(jax.jit, static_argnums=0)
def _fold(structure: Structure, bound: Bound, leaves: Sequence[Any]) -> Any:
    found = plan(structure)
    assert found is not None  # the caller has asked
    inputs = jnp.zeros((BATCHES[0], *structure.example.shape), structure.example.dtype)
    reading, known = structure.arguments(bound, leaves, inputs)
    operands = {
        step.other
        for path in found.biases
        for step in reading.chains[path].affine
        if step.other is not None and not isinstance(step.other, Literal)
    }
    values = dict(zip(operands, evaluate(reading.flat, known, list(operands)), strict=True))
    flat = {keys: leaves[i] for i, keys in found.kept.items()}
    for path, keys in found.biases.items():
        layer, position = reading.layers[path], structure.paths.index(path)
        kernel, dtype = leaves[position], precision(leaves[position].dtype)
        scale, shift = scale_and_shift(reading.chains[path], values.__getitem__, reading.sites[path].sizes, dtype)
        flat[found.kept[position]] = (kernel.astype(dtype) * _like_kernel(layer, scale)).astype(kernel.dtype)
        flat[keys] = shift.reshape(-1).astype(kernel.dtype)
    return _nest(flat)


def _like_kernel(layer: Layer, scale: jax.Array) -> jax.Array:
    """A scale of the outputs, `[sizes]`, laid out as the parameter of the kernel."""
    view = [step for step in layer.view if step[0] != "convert"]
    parameter = jax.ShapeDtypeStruct(layer.kernel_shape, scale.dtype)
    rearrange = functools.partial(apply_view, view)
    operand = jax.eval_shape(rearrange, parameter).shape
    order, count = layer.operand_axes
    along = jnp.broadcast_to(spread(scale, order[len(order) - count :], len(operand)), operand)
    return jax.linear_transpose(rearrange, parameter)(along)[0]


def _nest(flat: Mapping[Keys, Any]) -> Any:
    tree: dict[Any, Any] = {}
    for keys, leaf in flat.items():
        node = tree
        for key in keys[:-1]:
            node = node.setdefault(key, {})
        node[keys[-1]] = leaf
    return tree


@dataclasses.dataclass(frozen=True)
class Folded:
    """(bound, folded parameters, inputs) → logits, as a function that equal structures share."""

    structure: Structure

    def __call__(self, bound: Bound, params: Any, inputs: jax.Array) -> jax.Array:
        structure, found = self.structure, plan(self.structure)
        assert found is not None  # made only where there is something to fold
        leaves: list[Any] = list(structure.params)
        for i, keys in found.kept.items():
            leaves[i] = _get(params, keys)
        reading, known = structure.arguments(bound, leaves, inputs)
        change = {}
        for path, keys in found.biases.items():
            chain, sizes = reading.chains[path], reading.sites[path].sizes
            change[chain.end] = _adder(chain, _get(params, keys).reshape(sizes))
        return outputs(reading, known, skip=_skipped(reading, list(found.biases)), change=change)[0]


def _adder(chain: Chain, bias: jax.Array) -> Callable[[jax.Array], jax.Array]:
    assert chain.axes is not None  # layers' chains follow the channels
    return lambda value: value + spread(bias, chain.axes, value.ndim).astype(value.dtype)


def _get(tree: Any, keys: Keys) -> Any:
    for key in keys:
        tree = tree[key]
    return tree


def difference(apply: Partial, params: Any, folded: Partial, folded_params: Any, inputs: jax.Array) -> jax.Array:
    """The largest difference of the logits of two networks, over the largest logit of the first."""
    program = _quickly_compiled if jax.default_backend() == "cpu" else _compiled
    return program(apply, params, folded, folded_params, inputs)


def _difference(apply: Partial, params: Any, folded: Partial, folded_params: Any, inputs: jax.Array) -> jax.Array:
    with jax.default_matmul_precision("highest"):
        logits, again = apply(params, inputs), folded(folded_params, inputs)
    largest = jnp.max(jnp.abs(logits))
    return jnp.max(jnp.abs(again - logits)) / jnp.where(largest > 0, largest, jnp.ones_like(largest))


_compiled = jax.jit(_difference)
# It runs once for each network, on few examples: optimizing takes longer than it can save.
_UNOPTIMIZED = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
_quickly_compiled = jax.jit(_difference, compiler_options=_UNOPTIMIZED)
