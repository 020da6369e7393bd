"""The structure of a network as measures need it: what `networks.reading` reads from its program, and its answers.

What a network lacks for a measure is raised as `NotApplicableError`, with the reason.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from prunegen_jax.compute import trees
from prunegen_jax.measures.cache import cached
from prunegen_jax.networks.reading import Program, read
from prunegen_jax.networks.reading.layers import Layer, Path, standard_kernel
from prunegen_jax.types import NotApplicableError, PyTree, TrainedModel, not_applicable

NO_INITIAL_WEIGHTS = not_applicable(
    "needs init_params and, to fold batch norm into them, init_apply: the network with its statistics before training"
)
# Largest difference of folded and original logits, over the largest logit, that rounding explains.
FOLDING_TOLERANCE = {"float64": 1e-9, "float32": 1e-4}
LOW_PRECISION_TOLERANCE = 0.1
CHECKED = 32  # examples on which they are compared


def program_of(model: TrainedModel) -> Program:
    """What is read from the program of a network.

    Raises:
        NotApplicableError: if the network cannot be traced with abstract inputs.
    """
    try:
        return cached(model, "program", lambda: read(model.apply, model.params, _example(model)))
    except (TypeError, jax.errors.ConcretizationTypeError) as error:
        raise NotApplicableError(f"the program of the network cannot be read: {str(error).splitlines()[0]}") from error


def folded_network(model: TrainedModel) -> TrainedModel:
    """The same function with batch norm folded into the weights; `model` itself if there is nothing to fold.

    Its initial parameters are those of the initial network, folded with the initial statistics.

    Raises:
        NotApplicableError: if the folded network is not the same function, beyond rounding, on a batch of examples.
    """
    return cached(model, "folded network", lambda: _fold(model))


def _fold(model: TrainedModel) -> TrainedModel:
    program = program_of(model)
    if program.folded is None:
        return model
    params = program.fold(model.params)
    inputs, _ = model.train.take(np.arange(min(CHECKED, len(model.train))))
    dtype = str(jax.numpy.result_type(*jax.tree.leaves(model.params)))
    difference = program.difference(model.params, inputs)
    if np.isnan(difference):
        raise NotApplicableError("its logits are not finite; look for NaN and infinity in its weights and inputs")
    if not difference <= FOLDING_TOLERANCE.get(dtype, LOW_PRECISION_TOLERANCE):
        raise NotApplicableError(f"folding batch norm changes the logits by {difference:.2g} of the largest")
    return TrainedModel(
        program.folded,
        params,
        model.train,
        init_params=_fold_initial(model, program),
        history=model.history,
        name=model.name,
    )


def _fold_initial(model: TrainedModel, program: Program) -> PyTree | None:
    """The folded initial parameters; None if they, or the initial statistics, are not given."""
    if model.init_params is None or (model.init_apply is None and any(map(len, program.bound))):
        return None
    apply = model.apply if model.init_apply is None else model.init_apply
    return read(apply, model.init_params, _example(model)).fold(model.init_params)


def is_folded(model: TrainedModel, *, fold: bool) -> bool:
    """Whether `select_network` returns another network than `model`, with batch norm folded."""
    return fold and folded_network(model) is not model


def select_network(model: TrainedModel, *, fold: bool) -> TrainedModel:
    """The network whose weights a measure takes: the folded one if `fold`, else `model`."""
    return folded_network(model) if fold else model


def kernels_of(network: TrainedModel) -> dict[Path, Any]:
    """The kernels of a network by path, in the order of the parameters: what convolutions and products multiply with.

    Raises:
        NotApplicableError: if there is none.
    """
    leaves = dict(trees.named_leaves(network.params))
    kernels = {path: leaves[path] for path in program_of(network).kernels}
    if not kernels:
        raise NotApplicableError("no convolution and no product with a parameter was found in the network's program")
    return kernels


def named_kernels(network: TrainedModel) -> dict[str, Any]:
    """The kernels of a network, by name: the keys of their paths joined by slashes."""
    return {"/".join(path): kernel for path, kernel in kernels_of(network).items()}


def layer_geometry(network: TrainedModel) -> dict[Path, Layer]:
    """The layers by the path of their kernels.

    Raises:
        NotApplicableError: naming the first kernel that is not a layer whose geometry could be read.
    """
    program = program_of(network)
    if program.problems:
        path, reason = next(iter(program.problems.items()))
        raise NotApplicableError(f"the layer of {'/'.join(path)} cannot be read: {reason}")
    return {layer.path: layer for layer in program.layers}


def standard_kernels(network: TrainedModel) -> dict[Path, np.ndarray]:
    """The kernels as `[*window, inputs / groups, outputs]` (dense: `[inputs, outputs]`) in float64, by path.

    Raises:
        NotApplicableError: as `layer_geometry` does.
    """
    kernels = kernels_of(network)
    layers = layer_geometry(network)
    return {path: np.asarray(standard_kernel(layers[path], kernels[path]), np.float64) for path in kernels}


def last_layer(network: TrainedModel) -> tuple[Path, jax.Array]:
    """Path and kernel, as `standard_kernel` has it, of the layer that makes the logits.

    Raises:
        NotApplicableError: if several layers make them, or it cannot be read.
    """
    program = program_of(network)
    last = [edge.source for edge in program.edges if edge.target == "output"]
    layers = {layer.name: layer for layer in program.layers}
    if len(last) != 1 or last[0] not in layers:
        raise NotApplicableError(f"needs one last layer; the logits are computed by {', '.join(last) or 'none'}")
    layer = layers[last[0]]
    return layer.path, standard_kernel(layer, dict(trees.named_leaves(network.params))[layer.path])


def first_activation(network: TrainedModel) -> str:
    """The name of the pre-activation of the first layer that has one.

    Raises:
        NotApplicableError: if no layer before the logits has one.
    """
    return next(iter(hidden_activations(network)))


def hidden_activations(network: TrainedModel) -> dict[str, int]:
    """Name of each pre-activation that can be taken, the logits' excepted → number of its positions.

    Raises:
        NotApplicableError: if there is none.
    """
    program = program_of(network)
    last = {edge.source for edge in program.edges if edge.target == "output"}
    layers = [layer for layer in program.layers if layer.path not in program.no_activation and layer.name not in last]
    if not layers:
        raise NotApplicableError("no activation between input and logits can be read")
    return {layer.name: int(np.prod(layer.output_shape[:-1])) for layer in layers}


def margin_activations(network: TrainedModel) -> tuple[str, ...]:
    """The default places of layer margins: the input, and the first, middle and last of the hidden places.

    Inputs that are integers (token ids), from which there is no distance to a boundary, are left out.
    Hidden places are the last pre-activation before each fall of the number of positions (the last one before the
    logits among them), every hidden pre-activation where that number never falls.
    """
    names, sizes = zip(*hidden_activations(network).items(), strict=True)
    falls = [name for name, size, after in zip(names, sizes, (*sizes[1:], 1), strict=True) if after < size]
    places = falls or names
    hidden = tuple(places[i] for i in sorted({round(i) for i in np.linspace(0, len(places) - 1, 3)}))
    return ("input", *hidden) if _has_real_inputs(network) else hidden


def require_real_inputs(network: TrainedModel) -> None:
    """For measures that move the inputs.

    Raises:
        NotApplicableError: if the inputs are integers (token ids).
    """
    if not _has_real_inputs(network):
        raise NotApplicableError(f"needs inputs that are real numbers; these are {_example(network).dtype}")


def normalized_kernels(model: TrainedModel) -> tuple[str, ...]:
    """Names of the kernels into which `folded_network` folds a batch norm."""
    program = program_of(model)
    return tuple("/".join(path) for path in program.folded_layers)


def affine_leftovers(network: TrainedModel) -> tuple[str, ...]:
    """Names of the parameters of affine steps that stand behind no layer (layer norm, batch norm of a sum)."""
    return tuple("/".join(path) for chain in program_of(network).affine for path in chain)


def _has_real_inputs(network: TrainedModel) -> bool:
    return jax.numpy.issubdtype(_example(network).dtype, np.inexact)


def _example(model: TrainedModel) -> jax.ShapeDtypeStruct:
    """Shape and type of a batch of one input."""
    inputs, _ = jax.eval_shape(model.train.take, jax.ShapeDtypeStruct((1,), np.int32))
    return inputs
