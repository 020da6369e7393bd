"""Which parameters are kernels, for `prunable="kernels"`: read from the network's program."""

from __future__ import annotations

import jax
import numpy as np

from prunegen_jax.compute.checks import check_network
from prunegen_jax.compute.planes import as_partial
from prunegen_jax.networks.reading import read
from prunegen_jax.pruning.masks import Prunable
from prunegen_jax.types import Apply, Dataset, PyTree


def select_prunable(prunable: Prunable, apply: Apply, params: PyTree, data: Dataset) -> Prunable:
    """`prunable`, or for "kernels" a predicate of (path, leaf): what convolutions and products multiply with.

    Embeddings, biases and normalization are not kernels; kernels inside loops are.

    Raises:
        ValueError: if the program has no kernel, or network or data set are not for classification.
    """
    check_network(as_partial(apply), params, data)
    if prunable != "kernels":
        return prunable
    inputs, _ = jax.eval_shape(data.take, jax.ShapeDtypeStruct((1,), np.int32))
    kernels = frozenset(read(apply, params, inputs).kernels)
    if not kernels:
        raise ValueError(
            "prunable='kernels': apply multiplies no parameter with a value that depends on its inputs; choose "
            "prunable='all' or a function of (path, leaf)"
        )
    return lambda path, _: path in kernels
