"""Layers, their geometry and linear maps, edges: of many kinds of networks."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from prunegen_jax.compute import trees
from prunegen_jax.networks.reading import read
from prunegen_jax.networks.reading.edges import Edge
from prunegen_jax.networks.reading.layers import linear_map, standard_kernel
from tests.support.reading_cases import ResNet, Transformer, equinox_cnn, images, linen, mlp, nnx_cnn, randomize, tokens


def leaf(params, path):
    return next(value for name, value in trees.named_leaves(params) if name == path)


CONVS = {
    "strided": {"strides": 2, "padding": ((1, 0), (2, 1))},
    "depthwise": {"feature_group_count": 4},
    "grouped": {"feature_group_count": 2, "padding": "VALID"},
    "dilated": {"kernel_dilation": 2},
    "transposed": {"input_dilation": (2, 2), "padding": ((1, 1), (0, 1))},
    "lower": {"use_bias": True, "strides": (1, 2)},
}


@pytest.mark.parametrize("kind", CONVS)
def test_the_linear_map_is_the_convolution(kind):
    module = nn.Conv(8, (3, 2), **{"use_bias": False, **CONVS[kind]})
    x = images(2, (7, 6, 4))
    apply, params = linen(module, x)
    (layer,) = read(lambda p, x: apply(p, x).reshape(x.shape[0], -1), params, x).layers
    assert layer.kind == "conv" and layer.input_shape == (7, 6, 4) and layer.window == (3, 2)
    expected = apply({**params, "bias": jnp.zeros(8)} if "bias" in params else params, x)[0]
    assert layer.output_shape == expected.shape
    np.testing.assert_allclose(linear_map(layer, params["kernel"], x[0]), expected, atol=1e-5)
    assert layer.matrix_shape == (8, 3 * 2 * 4 // layer.groups)


@pytest.mark.parametrize("layout", [("NCHW", "OIHW", "NCHW"), ("CHWN", "HWIO", "CHWN"), ("NHWC", "IHWO", "CNHW")])
def test_any_layout_has_the_same_geometry_and_activations(layout):
    x, kernel = images(2, (7, 6, 4)), randomize(jnp.zeros((3, 2, 4, 8)))
    place = lambda array, own, target: array.transpose([own.index(letter) for letter in target])  # noqa: E731

    def convolve(params, x, layout):
        lhs, rhs = place(x, "NHWC", layout[0]), params["kernel"]
        outputs = jax.lax.conv_general_dilated(lhs, rhs, (2, 1), "SAME", dimension_numbers=layout)
        outputs = outputs + params["bias"].reshape([8 if letter == "C" else 1 for letter in layout[2]])
        return jnp.sum(jax.nn.relu(place(outputs, layout[2], "NHWC")), axis=(1, 2))

    def result(layout):
        params = {"kernel": place(kernel, "HWIO", layout[1]), "bias": jnp.arange(8.0)}
        apply = functools.partial(convolve, layout=layout)
        program = read(lambda p, x: apply(p, x), params, x)
        (layer,) = program.layers
        return layer, standard_kernel(layer, params["kernel"]), jax.jit(program.features)(params, x)[1]["kernel"]

    layer, standard, activation = result(layout)
    plain, plain_standard, plain_activation = result(("NHWC", "HWIO", "NHWC"))
    assert (layer.input_shape, layer.output_shape, layer.strides, layer.padding, layer.window, layer.bias) == (
        plain.input_shape,
        plain.output_shape,
        plain.strides,
        plain.padding,
        plain.window,
        ("bias",),
    )
    np.testing.assert_array_equal(standard, plain_standard)
    np.testing.assert_allclose(activation, plain_activation, atol=1e-5)


def test_equinox_and_tables_and_nnx():
    apply, params = equinox_cnn()
    program = read(apply, params, images())
    assert [(layer.name, layer.input_shape, layer.output_shape, layer.groups) for layer in program.layers] == [
        ("conv1/weight", (8, 8, 3), (8, 8, 4), 1),
        ("conv2/weight", (8, 8, 4), (3, 3, 8), 2),
        ("hidden/weight", (72,), (6,), 1),
        ("head/weight", (6,), (3,), 1),
    ]
    assert [layer.bias for layer in program.layers] == [("conv1", "bias"), None, ("hidden", "bias"), ("head", "bias")]
    assert program.sequential
    activations = jax.jit(program.features)(params, images())[1]
    layer = program.layers[2]
    hidden = jax.nn.relu(activations["conv2/weight"]).transpose(0, 3, 1, 2).reshape(5, -1)
    expected = hidden @ standard_kernel(layer, params.hidden.weight) + params.hidden.bias[None]
    np.testing.assert_allclose(activations["hidden/weight"], expected, atol=1e-5)

    apply, params = mlp()
    program = read(apply, params, images(5, (6,)))
    assert [(layer.name, layer.matrix_shape, layer.bias) for layer in program.layers] == [
        ("w1", (7, 6), ("b1",)),
        ("w2", (3, 7), None),
    ]
    assert program.weights == (("b1",), ("w1",), ("w2",))

    apply, params = nnx_cnn()
    program = read(apply, params, images())
    assert [layer.path for layer in program.layers] == [("conv", "kernel"), ("head", "kernel")]


def test_transformer_on_tokens():
    x = tokens()
    apply, params = linen(Transformer(), x)
    program = read(apply, params, x)
    shapes = {layer.name: (layer.matrix_shape, layer.output_shape) for layer in program.layers}
    attention = dict.fromkeys(("query", "key", "value", "out"), ((8, 8), (6, 8)))
    assert shapes == {
        **{f"block0/attention/{name}/kernel": shape for name, shape in attention.items()},
        "block0/up/kernel": ((16, 8), (6, 16)),
        "block0/down/kernel": ((8, 16), (6, 8)),
        "head/kernel": ((3, 8), (3,)),
    }
    assert not program.problems and not program.sequential and "exp" in program.operations
    logits, activations = jax.jit(program.features)(params, x)
    np.testing.assert_allclose(logits, jax.jit(apply)(params, x), atol=1e-5)
    assert activations["input"].dtype == jnp.int32
    query = next(layer for layer in program.layers if "query" in layer.name)
    kernel = leaf(params, query.path)
    assert standard_kernel(query, kernel).shape == (8, 8) and kernel.shape == (8, 2, 4)
    np.testing.assert_array_equal(standard_kernel(query, kernel), kernel.reshape(8, 8))
    out = next(layer for layer in program.layers if "out/" in layer.name)
    np.testing.assert_array_equal(standard_kernel(out, leaf(params, out.path)), leaf(params, out.path).reshape(8, 8))
    assert ("position",) in [path for paths in program.affine for path in paths]


def test_edges_of_a_residual_network():
    x = images()
    apply, params = linen(ResNet(4, (1, 1)), x)
    edges = read(apply, params, x).edges
    stem, a, b = "Conv_0/kernel", "Block_0/Conv_0/kernel", "Block_0/Conv_1/kernel"
    assert edges[:5] == (
        Edge("input", stem, "sequential"),
        Edge(stem, a, "sequential"),
        Edge(a, b, "sequential"),
        Edge(stem, "Block_1/Conv_0/kernel", "sum"),
        Edge(b, "Block_1/Conv_0/kernel", "sum"),
    )
    assert {(edge.source, edge.join) for edge in edges if edge.target == "Dense_0/kernel"} == {
        ("Block_1/Conv_1/kernel", "sum"),
        ("Block_1/Conv_2/kernel", "sum"),
    }


def test_edges_of_a_concatenation():
    def apply(params, x):
        hidden = jax.nn.relu(x @ params["a"])
        return jnp.concatenate([hidden, x], axis=1) @ params["b"]

    params = {"a": jnp.ones((6, 4)), "b": jnp.ones((10, 3))}
    program = read(apply, params, images(5, (6,)))
    assert program.edges == (
        Edge("input", "a", "sequential"),
        Edge("input", "b", "concatenation"),
        Edge("a", "b", "concatenation"),
        Edge("b", "output", "sequential"),
    )
    assert not program.sequential


REARRANGED = {
    "transposed": lambda w: w.T,
    "flipped and reshaped": lambda w: jnp.flip(w, 0).reshape(2, 3, 6).transpose(1, 0, 2).reshape(6, 6),
    "cast": lambda w: w.astype(jnp.float16).astype(jnp.float32),
}


@pytest.mark.parametrize("kind", REARRANGED)
def test_a_rearranged_kernel_is_the_layers_kernel(kind):
    def apply(params, x):
        return x @ REARRANGED[kind](params["w"]) * params["scale"][None]

    params, x = randomize({"w": jnp.zeros((6, 6)), "scale": jnp.zeros(6)}), images(4, (6,))
    program = read(apply, params, x)
    (layer,) = program.layers
    np.testing.assert_allclose(standard_kernel(layer, params["w"]), REARRANGED[kind](params["w"]), atol=1e-3)
    assert program.difference(params, x) < (1e-2 if kind == "cast" else 1e-5)
