"""Further orders in which parameters are dropped: by magnitude times input, within blocks, and whole channels.

Each needs the layers of the network, which are read from its program.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute import lockstep, trees
from prunegen_jax.compute.evaluation import batches, default_batch_size
from prunegen_jax.compute.options import check_at_least, check_choice
from prunegen_jax.networks.reading import Program
from prunegen_jax.networks.reading.layers import Layer, Path, standard_kernel
from prunegen_jax.pruning.kernels import prunable_layers
from prunegen_jax.pruning.masks import Prunable, Scores
from prunegen_jax.pruning.prunability import GRID, Pruned, smallest_fraction
from prunegen_jax.pruning.scan import Scan
from prunegen_jax.pruning.tolerance import Criterion, Tolerance
from prunegen_jax.types import Apply, Dataset, NotApplicableError, Partial, PyTree


def input_norm_prunability(
    apply: Apply,
    params: PyTree,
    data: Dataset,
    *,
    beta: float = 0.1,
    tolerance: Tolerance = "relative",
    delta: float = 1e-6,
    criterion: Criterion = "loss",
    prunable: Prunable = "kernels",
    lanes: int | None = None,
) -> Pruned:
    """The smallest fraction j / 1000 that passes when each output of each layer keeps its largest |w_j| ‖x_j‖₂.

    x_j has the values that w_j multiplies, over all examples and positions of the unpruned network; in a convolution
    one for each position of the window, zeros where it lies in the padding. As in Wanda (Sun et al. 2023), weights are
    compared within one output: of its n weights (n j + 500) // 1000 stay. Of equal scores the earlier goes first, in
    the order (window, inputs).

    Args:
        apply: (params, inputs [n, ...]) → logits [n, K], in evaluation mode.
        params: the trained parameters.
        data: the training set.
        beta: as in `prunability`.
        tolerance: as in `prunability`.
        delta: as in `prunability`.
        criterion: as in `prunability`.
        prunable: "kernels", or a predicate of (path, leaf) that selects among them.
        lanes: as in `prunability`.

    Raises:
        ValueError: for unknown options, or a network whose own loss is not finite.
        NotApplicableError: if a kernel is not in a layer that can be read.
    """
    program, layers = prunable_layers(prunable, apply, params, data)
    scores = input_norm_scores(params, layers, squared_inputs(program, params, data, layers))
    scan = Scan(apply, params, scores, data, criterion, lanes)
    return smallest_fraction(scan, GRID, criterion, tolerance=tolerance, beta=beta, delta=delta)


def block_prunability(
    apply: Apply,
    params: PyTree,
    data: Dataset,
    *,
    block: int = 4,
    beta: float = 0.1,
    tolerance: Tolerance = "relative",
    delta: float = 1e-6,
    criterion: Criterion = "loss",
    prunable: Prunable = "kernels",
    lanes: int | None = None,
) -> Pruned:
    """The smallest N / M, N = 0 … M, that passes when the N largest |w| of every M stay (N:M sparsity, such as 2:4).

    The M weights are neighbours along the input channels of a layer, for the same output and position of the window.
    Channels that M does not divide are filled up with zeros, which are dropped first: of r < M weights min(N, r) stay,
    and of the details `kept` / `prunable` is then more than N / M. Of equal magnitudes the earlier goes first.

    Args:
        apply: as in `input_norm_prunability`.
        params: as in `input_norm_prunability`.
        data: as in `input_norm_prunability`.
        block: M.
        beta: as in `prunability`.
        tolerance: as in `prunability`.
        delta: as in `prunability`.
        criterion: as in `prunability`.
        prunable: as in `input_norm_prunability`.
        lanes: as in `prunability`.

    Raises:
        ValueError: for unknown options, or a network whose own loss is not finite.
        NotApplicableError: if a kernel is not in a layer that can be read.
    """
    check_at_least(1, block=block)
    _, layers = prunable_layers(prunable, apply, params, data)
    scan = Scan(apply, params, block_scores(params, layers, block), data, criterion, lanes)
    return smallest_fraction(scan, block, criterion, tolerance=tolerance, beta=beta, delta=delta)


def channel_prunability(
    apply: Apply,
    params: PyTree,
    data: Dataset,
    *,
    scope: str = "layer",
    beta: float = 0.1,
    tolerance: Tolerance = "relative",
    delta: float = 1e-6,
    criterion: Criterion = "loss",
    prunable: Prunable = "kernels",
    lanes: int | None = None,
) -> Pruned:
    """The smallest fraction of the output channels that passes when those of the smallest ‖w_c‖₁ are dropped first.

    w_c has the weights into channel c of a layer. A dropped channel loses them and its bias, so that it is zero before
    the activation for every input; where the activation of 0 is 0, as of a ReLU, it is gone. Layers whose output
    reaches the logits without another layer in between are not pruned and not counted, nor are the weights that read a
    dropped channel. On the grid j / 1000 each layer of C channels keeps (C j + 500) // 1000 (Li et al. 2017). The
    fraction is that of all channels; `kept` and `prunable` count scalars. Of equal norms the earlier goes first.

    Args:
        apply: as in `input_norm_prunability`, without batch norm behind a layer: that would not leave it zero.
        params: as in `input_norm_prunability`.
        data: as in `input_norm_prunability`.
        scope: "layer", or "global": one order of the channels of all layers by ‖w_c‖₁.
        beta: as in `prunability`.
        tolerance: as in `prunability`.
        delta: as in `prunability`.
        criterion: as in `prunability`.
        prunable: as in `input_norm_prunability`; the layers of the logits are never pruned.
        lanes: as in `prunability`.

    Raises:
        ValueError: for unknown options, or a network whose own loss is not finite.
        NotApplicableError: if a kernel is not in a layer that can be read, batch norm or another affine step follows a
            layer, two layers share a bias, or no layer is left.
    """
    check_choice("scope", scope, ("global", "layer"))
    program, layers = prunable_layers(prunable, apply, params, data)
    layers = _before_another(program, layers)
    scores, channels = channel_scores(params, layers, scope)
    scan = Scan(apply, params, scores, data, criterion, lanes)
    steps = len(channels) - 1
    found = smallest_fraction(scan, steps, criterion, tolerance=tolerance, beta=beta, delta=delta)
    kept = channels[round(found.fraction * steps)]
    note = f"{kept} of {channels[-1]} channels"
    return dataclasses.replace(
        found, fraction=kept / channels[-1], note=f"{found.note}; {note}" if found.note else note
    )


def _before_another(program: Program, layers: Mapping[Path, Layer]) -> dict[Path, Layer]:
    """Those of `layers` whose channels are zero without their weights and biases, the layers of the logits left out."""
    last = {edge.source for edge in program.edges if edge.target == "output"}
    chosen = {path: layer for path, layer in layers.items() if layer.name not in last}
    if not chosen:
        raise NotApplicableError("needs a layer whose output another layer reads; all layers compute the logits")
    for path in program.folded_layers:
        if path in chosen:
            raise NotApplicableError(f"an affine step such as a batch norm follows {'/'.join(path)}: fold it first")
    biases = [layer.bias for layer in chosen.values() if layer.bias is not None]
    if len(set(biases)) < len(biases):
        raise NotApplicableError("two layers share a bias")
    return chosen


def squared_inputs(
    program: Program, params: PyTree, data: Dataset, layers: Mapping[Path, Layer]
) -> dict[Path, np.ndarray]:
    """Σ x² of the values that each entry of a kernel multiplies, over examples and positions; shaped as the kernel."""
    kernels = {path: leaf for path, leaf in trees.named_leaves(params) if path in layers}
    totals = {path: np.zeros(np.shape(leaf)) for path, leaf in kernels.items()}
    size, done = len(data), 0
    rows = batches(size, batch_size=default_batch_size(data))
    length = len(rows[0])
    surplus = length * len(rows) - size  # the last row repeats the last example
    if surplus:
        rows.append(np.full(length, size - 1))
    for indices in rows:
        weight = 1.0 if done < size else -surplus / length
        parts = _squared_inputs(program.input_squares, params, kernels, data, indices.astype(np.int32))
        for path in totals:
            totals[path] += weight * np.asarray(parts[path], np.float64)
        done += length
    return totals


@lockstep.jit
def _squared_inputs(
    function: Partial, params: PyTree, kernels: Mapping[Path, jax.Array], data: Dataset, indices: jax.Array
) -> Mapping[Path, jax.Array]:
    with jax.default_matmul_precision("highest"):
        inputs, _ = data.take(indices)
        zeros = {
            path: jnp.zeros(leaf.shape, jnp.promote_types(leaf.dtype, jnp.float32)) for path, leaf in kernels.items()
        }
        return jax.grad(lambda at: function(params, inputs, at))(zeros)


def input_norm_scores(params: PyTree, layers: Mapping[Path, Layer], squares: Mapping[Path, np.ndarray]) -> Scores:
    """For each weight the largest j of the grid at which its output drops it, see `input_norm_prunability`."""
    leaves = dict(trees.named_leaves(params))
    scores = {}
    for path, layer in layers.items():
        places = _places(layer)
        value = np.abs(np.asarray(leaves[path], np.float64)) * np.sqrt(np.maximum(squares[path], 0.0))
        by_output = value.reshape(-1)[places.reshape(-1, places.shape[-1])]
        dropped_at = _last_dropped(_ranks(by_output, axis=0), len(by_output), GRID)
        scores[path] = _scatter(places, dropped_at.reshape(places.shape), layer.kernel_shape)
    return _scores(params, scores, GRID)


def block_scores(params: PyTree, layers: Mapping[Path, Layer], block: int) -> Scores:
    """The rank of each weight within its block, see `block_prunability`."""
    leaves = dict(trees.named_leaves(params))
    scores = {}
    for path, layer in layers.items():
        places = _places(layer)
        inputs, outputs = places.shape[-2:]
        value = np.abs(np.asarray(leaves[path], np.float64)).reshape(-1)[places].reshape(-1, inputs, outputs)
        filled = np.pad(value, ((0, 0), (0, -inputs % block), (0, 0)), constant_values=-1)
        ranks = _ranks(filled.reshape(len(value), -1, block, outputs), axis=2).reshape(filled.shape)
        scores[path] = _scatter(places, ranks[:, :inputs], layer.kernel_shape)
    return _scores(params, scores, block)


def channel_scores(params: PyTree, layers: Mapping[Path, Layer], scope: str) -> tuple[Scores, tuple[int, ...]]:
    """Scores of `layers`' kernels and biases, and the numbers of channels that stay below the bounds 0, 1, ….

    Bounds that keep the same channels are one.
    """
    leaves = dict(trees.named_leaves(params))
    places = {path: _places(layer) for path, layer in layers.items()}
    norms = [
        np.abs(np.asarray(leaves[path], np.float64)).reshape(-1)[at].reshape(-1, at.shape[-1]).sum(axis=0)
        for path, at in places.items()
    ]
    groups = norms if scope == "layer" else [np.concatenate(norms)]
    dropped_at = np.concatenate([_last_dropped(_ranks(group, axis=0), len(group), GRID) for group in groups])
    bounds, scores = np.unique(dropped_at, return_inverse=True)
    by_path = {}
    for (path, layer), own in zip(
        layers.items(), np.split(scores, np.cumsum([len(n) for n in norms])[:-1]), strict=True
    ):
        by_path[path] = _scatter(places[path], np.broadcast_to(own, places[path].shape), layer.kernel_shape)
        if layer.bias is not None:
            by_path[layer.bias] = own.reshape(np.shape(leaves[layer.bias]))
    channels = (0, *np.cumsum(np.bincount(scores)).tolist())
    return _scores(params, by_path, len(bounds)), channels


def _scores(params: PyTree, by_path: Mapping[Path, np.ndarray], steps: int) -> Scores:
    """One order of the leaves in `by_path`, whose scores are 0 … steps − 1."""
    named = trees.named_leaves(params)
    leaves = tuple(jnp.asarray(by_path[path][None], jnp.int32) if path in by_path else None for path, _ in named)
    counts = sum(np.bincount(scores.reshape(-1), minlength=steps) for scores in by_path.values())
    sizes = tuple(leaf.size for leaf in leaves if leaf is not None)
    return Scores(leaves, sizes, True, (0, *np.cumsum(counts).tolist()))


def _last_dropped(ranks: np.ndarray, size: int, steps: int) -> np.ndarray:
    """The largest j for which (size · j + steps // 2) // steps ≤ rank, in integers."""
    first_kept = -((steps // 2 - (ranks.astype(np.int64) + 1) * steps) // size)
    return first_kept - 1


def _ranks(values: np.ndarray, axis: int) -> np.ndarray:
    """Position from the largest along `axis` in a stable ascending sort."""
    order = np.argsort(values, axis=axis, kind="stable")
    return values.shape[axis] - 1 - np.argsort(order, axis=axis, kind="stable")


def _places(layer: Layer) -> np.ndarray:
    """Where the entries of the kernel `[*window, inputs / groups, outputs]` are in the flattened parameter."""
    count = int(np.prod(layer.kernel_shape))
    return np.asarray(standard_kernel(layer, np.arange(count, dtype=np.int32).reshape(layer.kernel_shape)))


def _scatter(places: np.ndarray, values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The inverse of taking a parameter at `places`."""
    flat = np.empty(places.size, values.dtype)
    flat[places.reshape(-1)] = values.reshape(-1)
    return flat.reshape(shape)
