"""The training loss as a function of the weights that flatness measures perturb: kernels and their biases."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute import lockstep, trees
from prunegen_jax.compute.evaluation import batches, losses_of
from prunegen_jax.compute.options import check_at_least
from prunegen_jax.measures.structure import is_folded, program_of, select_network
from prunegen_jax.types import Dataset, NotApplicableError, Partial, PyTree, TrainedModel

Weights = dict[str, jax.Array]

CPU_VALUES = 30_000  # input values per chunk: what a pass of a small network keeps in a core's cache
OTHER_VALUES = 1_500_000


class Objective(NamedTuple):
    """The training loss L̂(w) = (1/N) Σ_i ℓ_i(w) in chunks: a pytree, an argument of compiled programs.

    `indices [chunks, B]` cover the examples; `scale [chunks, B]` is 1/N, and 0 where an index only fills up.
    """

    apply: Partial
    data: Dataset
    indices: jax.Array
    scale: jax.Array


class WeightFunction(NamedTuple):
    """A network as a function of the weights that are perturbed.

    Attributes:
        apply: (weights, inputs [n, ...]) → logits [n, K].
        weights: kernels and biases by name, p scalars in all.
        initial: the same before training, None if the model does not have them.
        data: the training set.
        folded: whether batch norm has been folded into these weights.
        kernels: names of the kernels among the weights.
    """

    apply: Partial
    weights: Weights
    initial: Weights | None
    data: Dataset
    folded: bool
    kernels: tuple[str, ...]

    def kernel_names(self) -> list[str]:
        """Names of the kernels among the weights: what bounds count as w, ω scalars in all."""
        return list(self.kernels)

    def details(self) -> dict[str, Any]:
        """What the details of every flatness measure say about the weights that it perturbs."""
        return {"folded": self.folded, "parameters": trees.count(self.weights)}

    def objective(self, batch_size: int | None = None) -> Objective:
        """The training loss in chunks of `batch_size`; None for a size that suits backend and images.

        Raises:
            ValueError: for a batch size below 1.
        """
        size = len(self.data)
        length = chunk_size(self.data) if batch_size is None else batch_size
        check_at_least(1, batch_size=length)
        indices = jnp.asarray(batches(size, batch_size=length), jnp.int32)
        position = jnp.arange(indices.size).reshape(indices.shape)
        dtype = jnp.result_type(*self.weights.values())
        scale = jnp.where(position < size, jnp.asarray(1 / size, dtype), jnp.asarray(0, dtype))
        return Objective(self.apply, self.data, indices, scale)


def weight_function(model: TrainedModel, *, fold: bool = True) -> WeightFunction:
    """The network, with batch norm folded if `fold` and if the model has that, as a function of kernels and biases.

    Kernels and their biases, those before a batch norm too, are found in the network's program. The scales and shifts
    of normalization layers left in the network stay as they are.

    Raises:
        NotApplicableError: if there is no kernel, the network cannot be folded, or its weights are of lower precision
            than float32, which rounds small changes of them away.
    """
    network = select_network(model, fold=fold)
    program = program_of(network)
    names = {"/".join(path) for path in program.weights}
    if not names:
        raise NotApplicableError("no convolution and no product with a parameter was found in the network's program")
    weights = _pick(network.params, names)
    low = next((leaf.dtype for leaf in weights.values() if leaf.dtype.itemsize < 4), None)
    if low is not None:
        raise NotApplicableError(f"small changes of weights are rounded away in {low}: give the network in float32")
    initial = network.init_params
    return WeightFunction(
        Partial(_apply, network.apply, network.params),
        weights,
        None if initial is None else _pick(initial, names),
        network.train,
        is_folded(model, fold=fold),
        tuple("/".join(path) for path in program.kernels),
    )


def chunk_size(data: Dataset) -> int:
    """Examples per chunk by default: few on a CPU, for its caches, many elsewhere, to launch few kernels."""
    values = CPU_VALUES if jax.default_backend() == "cpu" else OTHER_VALUES
    return max(8, min(500, values // math.prod(data.inputs.shape[1:])))


def chunk_loss(objective: Objective, weights: Weights, indices: jax.Array, scale: jax.Array) -> jax.Array:
    """Σ scale_i ℓ_i(w) over one chunk of examples."""
    logits, labels = chunk_logits(objective, weights, indices)
    return jnp.vdot(scale, losses_of(objective.data, logits, labels))


def mean_loss(objective: Objective, weights: Weights) -> float:
    """L̂(w), summed in float64 on the host."""
    losses = np.asarray(_losses(objective, weights), np.float64).reshape(-1)[: len(objective.data)]
    return float(losses.mean())


@lockstep.jit
def _losses(objective: Objective, weights: Weights) -> jax.Array:
    with jax.default_matmul_precision("highest"):
        return jax.lax.map(lambda i: losses_of(objective.data, *chunk_logits(objective, weights, i)), objective.indices)


def chunk_logits(objective: Objective, weights: Weights, indices: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits `[B, K]` (of another loss: outputs `[B, ...]`) and labels of one chunk, in the weights' own precision."""
    inputs, labels = objective.data.take(indices)
    if jnp.issubdtype(inputs.dtype, jnp.floating):  # token ids stay integers
        inputs = inputs.astype(jnp.result_type(*weights.values()))
    return objective.apply(weights, inputs), labels


def _apply(apply: Partial, params: PyTree, weights: Weights, images: jax.Array) -> jax.Array:
    replaced = jax.tree_util.tree_map_with_path(
        lambda path, leaf: weights.get("/".join(trees.path_names(path)), leaf), params
    )
    return apply(replaced, images)


def _pick(params: PyTree, names: set[str]) -> Weights:
    return {"/".join(path): leaf for path, leaf in trees.named_leaves(params) if "/".join(path) in names}
