"""What is read from NiN's program against names and geometry written down here, and formulas in NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from prunegen_jax.measures import structure
from prunegen_jax.networks import as_trained_model, build
from prunegen_jax.networks.reading import read
from prunegen_jax.types import Dataset
from tests.support.reading_cases import images, randomize

SHAPE = (9, 8, 3)
# Input of each layer, strides, padding on both sides, positions of the output.
GEOMETRY = {
    "block0_conv0": ((9, 8, 3), 2, 1, (5, 4)),
    "block0_conv1": ((5, 4, 6), 1, 0, (5, 4)),
    "block0_conv2": ((5, 4, 6), 1, 0, (5, 4)),
    "block1_conv0": ((5, 4, 6), 2, 1, (3, 2)),
    "block1_conv1": ((3, 2, 6), 1, 0, (3, 2)),
    "block1_conv2": ((3, 2, 6), 1, 0, (3, 2)),
}
HEADS = {"gap": ((1, 1, 6), 1, 0, (1, 1)), "rgm": ((3, 2, 6), 1, 0, (3, 2))}
PLACES = ("block0_conv2/kernel", "block1_conv2/kernel")  # the last pre-activation before each fall of spatial size


def network(head="gap", batch_norm=True, form="xla", seed=0):
    net = build(
        "nin", input_shape=SHAPE, classes=4, depth=2, width=6, batch_norm=batch_norm, head=head, convolutions=form
    )
    params, stats = jax.eval_shape(net.init, jax.random.key(0))
    return net, randomize(params, seed), randomize(stats, seed + 1, positive=True)


def trained(net, params, stats):
    return as_trained_model(net, params, stats, Dataset(images(shape=SHAPE), jnp.zeros(5, jnp.int32)))


def norm_of(layer):
    """The batch norm behind a layer."""
    return "head_norm" if layer == "head" else layer.replace("conv", "norm")


def fold_in_numpy(params, stats):
    """W ← sW and b ← β + s(b − μ) with s = γ / √(v + 1e-5), float64, of every layer that has a batch norm."""
    folded = {}
    for name, layer in params.items():
        if "norm" in name:
            continue
        kernel, bias = (np.asarray(layer[leaf], np.float64) for leaf in ("kernel", "bias"))
        if norm_of(name) in stats:
            norm, seen = params[norm_of(name)], stats[norm_of(name)]
            scale, beta, mean, var = (
                np.asarray(value, np.float64) for value in (norm["scale"], norm["bias"], seen["mean"], seen["var"])
            )
            slope = scale / np.sqrt(var + 1e-5)
            kernel, bias = kernel * slope, beta + slope * (bias - mean)
        folded[name] = {"bias": bias, "kernel": kernel}
    return folded


def numpy_activations(folded, x, head, offsets=None):
    """Logits and pre-activations by name of a folded NiN, float64; `offsets` are added to the pre-activations."""
    offsets = offsets or {}
    hidden, found = np.asarray(x, np.float64), {}
    for name, (_, stride, padding, _) in GEOMETRY.items():
        hidden = np.maximum(convolve(hidden, folded[name], stride, padding) + offsets.get(name, 0.0), 0.0)
        found[name] = hidden
    if head == "rgm":
        return np.maximum(convolve(hidden, folded["head"], 1, 0), 0.0).mean(axis=(1, 2)), found
    return convolve(hidden.mean(axis=(1, 2), keepdims=True), folded["head"], 1, 0)[:, 0, 0], found


def convolve(x, layer, stride, padding):
    window = layer["kernel"].shape[0]
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    patches = np.lib.stride_tricks.sliding_window_view(x, (window, window), axis=(1, 2))[:, ::stride, ::stride]
    return np.einsum("nhwcij,ijco->nhwo", patches, layer["kernel"]) + layer["bias"]


@pytest.mark.parametrize("head", ["gap", "rgm"])
@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("form", ["xla", "patches", "planes"])
def test_layers_activations_and_folding(head, batch_norm, form):
    """Names, geometry, pre-activations, logits and folded parameters, whatever form the convolutions run in."""
    net, params, stats = network(head, batch_norm, form)
    program, x = read(Partial(net.apply, stats), params, images(shape=SHAPE)), images(shape=SHAPE)
    geometry = GEOMETRY | {"head": HEADS[head]}
    assert [layer.path for layer in program.layers] == [(name, "kernel") for name in geometry]
    assert program.kernels == tuple((name, "kernel") for name in geometry)
    assert program.sequential and not program.problems and not program.no_activation
    for layer, (shape, stride, padding, positions) in zip(program.layers, geometry.values(), strict=True):
        assert (layer.kind, layer.input_shape, layer.strides) == ("conv", shape, (stride,) * 2)
        assert layer.padding == ((padding, padding),) * 2 and layer.groups == 1
        assert layer.output_shape == (*positions, 4 if layer.path[0] == "head" else 6)
    expected = fold_in_numpy(params, stats)
    logits, activations = program.features(params, x)
    expected_logits, hidden = numpy_activations(expected, x, head)
    np.testing.assert_allclose(logits, expected_logits, atol=1e-4)
    np.testing.assert_array_equal(activations["input"], x)
    for name, after_relu in hidden.items():
        np.testing.assert_allclose(np.maximum(activations[f"{name}/kernel"], 0), after_relu, atol=1e-4)
    if not batch_norm:
        assert program.folded is None
        return
    folded = program.fold(params)
    assert jax.tree.structure(folded) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(folded), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(program.folded(folded, x), expected_logits, atol=1e-4)


@pytest.mark.parametrize("head", ["gap", "rgm"])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_default_places(head, batch_norm):
    """Layer margins: the input and the end of each block. Davies-Bouldin: the first layer."""
    model = trained(*network(head, batch_norm))
    assert structure.margin_activations(model) == ("input", *PLACES)
    assert structure.first_activation(model) == "block0_conv0/kernel"
    if batch_norm:
        folded = structure.folded_network(model)
        assert structure.margin_activations(folded) == ("input", *PLACES)


def test_places_of_a_deep_network_are_the_first_the_middle_and_the_last():
    net = build("nin", input_shape=(64, 64, 1), classes=3, depth=5, width=2)
    params, stats = net.init(jax.random.key(0))
    model = as_trained_model(net, params, stats, Dataset(jnp.ones((2, 64, 64, 1)), jnp.zeros(2, jnp.int32)))
    assert structure.margin_activations(model) == ("input", *(f"block{i}_conv2/kernel" for i in (0, 2, 4)))


def test_gradients_at_offsets():
    """Of the sum of squared logits, by central differences of the network in NumPy."""
    net, params, stats = network()
    x = images(shape=SHAPE)
    program, folded = read(Partial(net.apply, stats), params, x), fold_in_numpy(params, stats)
    activations = program.features(params, x)[1]
    zeros = {name: jnp.zeros_like(activations[name]) for name in PLACES}
    with jax.default_matmul_precision("highest"):
        found = jax.grad(lambda offsets: jnp.sum(program.features(params, x, offsets=offsets)[0] ** 2))(zeros)
    rng = np.random.default_rng(0)
    for name in PLACES:
        direction, step = rng.normal(size=zeros[name].shape), 1e-5
        values = [
            np.sum(numpy_activations(folded, x, "gap", {name.split("/")[0]: sign * step * direction})[0] ** 2)
            for sign in (1, -1)
        ]
        slope = (values[0] - values[1]) / (2 * step)
        assert np.vdot(found[name], direction) == pytest.approx(slope, rel=1e-3, abs=1e-4)
        assert abs(slope) > 1e-2


def test_the_folded_network_is_read_again_with_the_same_layers():
    net, params, stats = network("rgm")
    x = images(shape=SHAPE)
    program = read(Partial(net.apply, stats), params, x)
    folded_params = program.fold(params)
    folded = read(program.folded, folded_params, x)
    names = (*GEOMETRY, "head")
    assert [layer.path for layer in folded.layers] == [(name, "kernel") for name in names]
    assert [layer.bias for layer in folded.layers] == [(name, "bias") for name in names]
    assert folded.folded is None and len(folded.weights) == len(jax.tree.leaves(folded_params))
    one, other = program.features(params, x)[1], folded.features(folded_params, x)[1]
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], atol=1e-5)


def test_biases_before_batch_norm_are_weights_and_its_own_parameters_are_not():
    net, params, stats = network("rgm")
    program = read(Partial(net.apply, stats), params, images(shape=SHAPE))
    names = sorted((*GEOMETRY, "head"))
    assert program.weights == tuple((name, leaf) for name in names for leaf in ("bias", "kernel"))
