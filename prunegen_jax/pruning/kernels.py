"""Which parameters are kernels and in which layers they are: read from the network's program."""

from __future__ import annotations

import jax
import numpy as np

from prunegen_jax.compute import trees
from prunegen_jax.compute.checks import check_finite, check_network
from prunegen_jax.compute.planes import as_partial
from prunegen_jax.networks.reading import Program, read
from prunegen_jax.networks.reading.layers import Layer, Path
from prunegen_jax.pruning.masks import Prunable
from prunegen_jax.types import Apply, Dataset, NotApplicableError, PyTree


def select_prunable(prunable: Prunable, apply: Apply, params: PyTree, data: Dataset) -> Prunable:
    """`prunable`, or for "kernels" a predicate of (path, leaf): what convolutions and products multiply with.

    Embeddings, biases and normalization are not kernels; kernels inside loops are.

    Raises:
        ValueError: if the program has no kernel, network or data set are not for classification, or weights or inputs
            are not finite.
    """
    check_network(as_partial(apply), params, data)
    check_finite(params=params, inputs=data.inputs)
    if prunable != "kernels":
        return prunable
    kernels = frozenset(_read(apply, params, data).kernels)
    if not kernels:
        raise ValueError(
            "prunable='kernels': apply multiplies no parameter with a value that depends on its inputs; choose "
            "prunable='all' or a function of (path, leaf)"
        )
    return lambda path, _: path in kernels


def prunable_layers(
    prunable: Prunable, apply: Apply, params: PyTree, data: Dataset
) -> tuple[Program, dict[Path, Layer]]:
    """The network's program, and the layers whose kernels `prunable` selects, in the order of the parameters.

    Raises:
        ValueError: if `prunable` is "all" or unknown, or selects no kernel.
        NotApplicableError: if one of these kernels is not in a layer that can be read, with the reason.
    """
    if prunable != "kernels" and not callable(prunable):
        raise ValueError(
            f"prunable={prunable!r}: this order is for kernels only; choose 'kernels' or a function of (path, leaf)"
        )
    is_prunable = select_prunable(prunable, apply, params, data)
    assert callable(is_prunable)
    program = _read(apply, params, data)
    chosen = [path for path, leaf in trees.named_leaves(params) if path in program.kernels and is_prunable(path, leaf)]
    if not chosen:
        names = ", ".join("/".join(path) for path in program.kernels)
        raise ValueError(f"prunable={prunable!r} selects none of the kernels: {names}")
    reasons = {**program.hidden, **program.problems}
    for path in chosen:
        if path in reasons:
            raise NotApplicableError(f"the layer of {'/'.join(path)} cannot be read: {reasons[path]}")
    layers = {layer.path: layer for layer in program.layers}
    return program, {path: layers[path] for path in chosen}


def _read(apply: Apply, params: PyTree, data: Dataset) -> Program:
    inputs, _ = jax.eval_shape(data.take, jax.ShapeDtypeStruct((1,), np.int32))
    return read(apply, params, inputs)
