"""Spectral norms, path norm and layer margins of residual networks against dense computations in NumPy."""

from __future__ import annotations

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from prunegen_jax.measures import layer_margins, norms, spectral, structure
from prunegen_jax.types import Dataset, TrainedModel
from tests.support.reading_cases import ResNet, images, linen

SHAPE, WIDTH = (4, 4, 2), 2
STEM, FIRST, SECOND = "Conv_0", "Block_0", "Block_1"
# Convolutions in the order of the program: kernel, its batch norm in the post-activation form, stride, input size.
CONVOLUTIONS = {
    "Conv_0": ("Norm_0", 1, (4, 4, 2)),
    "Block_0/Conv_0": ("Block_0/Norm_0", 1, (4, 4, 2)),
    "Block_0/Conv_1": ("Block_0/Norm_1", 1, (4, 4, 2)),
    "Block_1/Conv_0": ("Block_1/Norm_0", 2, (4, 4, 2)),
    "Block_1/Conv_1": ("Block_1/Norm_1", 1, (2, 2, 4)),
    "Block_1/Conv_2": ("Block_1/Norm_2", 2, (4, 4, 2)),
}


def get(tree, path):
    for name in path.split("/"):
        tree = tree[name]
    return tree


def float64(leaf):
    return np.asarray(leaf, np.float64)


def network(*, first):
    """A residual network of two blocks, the second with a shortcut of stride 2: (model, parameters, statistics)."""
    x = images(7, SHAPE)
    apply, params = linen(ResNet(WIDTH, (1, 1), False, first), x)
    model = TrainedModel(apply, params, Dataset(x, jnp.arange(7, dtype=jnp.int32) % 4))
    return model, params, apply.args[0]


def norm_of(params, stats, path):
    """Scale and shift of a batch norm, γ / √(v + 1e-5) and β − μ γ / √(v + 1e-5)."""
    own, seen = get(params, path)["BatchNorm_0"], get(stats, path)["BatchNorm_0"]
    scale = float64(own["scale"]) / np.sqrt(float64(seen["var"]) + 1e-5)
    return scale, float64(own["bias"]) - float64(seen["mean"]) * scale


def fold(params, stats):
    """Kernel and bias of every layer of the post-activation network, folded by the formula."""
    folded = {}
    for name, (norm, *_) in CONVOLUTIONS.items():
        scale, shift = norm_of(params, stats, norm)
        folded[name] = float64(get(params, name)["kernel"]) * scale, shift
    folded["Dense_0"] = float64(params["Dense_0"]["kernel"]), float64(params["Dense_0"]["bias"])
    return folded


def convolve(x, kernel, stride):
    """Padding as "SAME" has it: what is missing, the smaller half in front."""
    window, pads = kernel.shape[:2], []
    for size, k in zip(x.shape[1:3], window, strict=True):
        missing = max((-(-size // stride) - 1) * stride + k - size, 0)
        pads.append((missing // 2, missing - missing // 2))
    padded = np.pad(x, ((0, 0), *pads, (0, 0)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, window, axis=(1, 2))[:, ::stride, ::stride]
    return np.einsum("nhwcij,ijco->nhwo", patches, kernel)


def relu(x):
    return np.maximum(x, 0.0)


def post_activation(folded, x, offsets=None):
    """Logits and pre-activations of the post-activation network; `offsets` by name are added to the latter."""
    seen = {}

    def layer(name, hidden):
        kernel, bias = folded[name]
        stride = CONVOLUTIONS[name][1]
        seen[name] = convolve(hidden, kernel, stride) + bias + (offsets or {}).get(name, 0.0)
        return seen[name]

    hidden = relu(layer(STEM, x + (offsets or {}).get("input", 0.0)))
    hidden = relu(layer(f"{FIRST}/Conv_1", relu(layer(f"{FIRST}/Conv_0", hidden))) + hidden)
    inner = layer(f"{SECOND}/Conv_1", relu(layer(f"{SECOND}/Conv_0", hidden)))
    hidden = relu(inner + layer(f"{SECOND}/Conv_2", hidden))
    kernel, bias = folded["Dense_0"]
    return hidden.mean(axis=(1, 2)) @ kernel + bias, {"input": x, **seen}


def matrix_norm(kernel, size, stride):
    """The largest singular value of the matrix of a convolution, from its columns."""
    units = np.eye(int(np.prod(size))).reshape(-1, *size)
    return np.linalg.norm(convolve(units, kernel, stride).reshape(len(units), -1), 2)


@pytest.mark.parametrize("method", ["exact", "reshaped"])
def test_spectral_norms(method):
    model, params, stats = network(first=False)
    found = spectral.product_of_spectral_norms(model, None, spectral=method)
    squares = 1.0
    for name, (kernel, _) in fold(params, stats).items():
        expected = np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), 2)
        if method == "exact" and name in CONVOLUTIONS:
            expected = matrix_norm(kernel, CONVOLUTIONS[name][2], CONVOLUTIONS[name][1])
        assert found.details["layers"][f"{name}/kernel"] == pytest.approx(expected, rel=1e-5), name
        squares *= expected**2
    assert found.value == pytest.approx(squares, rel=1e-4)
    assert len(found.details["layers"]) == 7
    assert found.details["sequential"] is False and found.details["folded"] is True


def test_path_norm_goes_over_shortcuts():
    model, params, stats = network(first=False)
    squared = {name: (kernel**2, bias**2) for name, (kernel, bias) in fold(params, stats).items()}
    expected = post_activation(squared, np.ones((1, *SHAPE)))[0].sum()
    for options in ({}, {"fold": False}):
        assert norms.path_norm(model, None, **options).value == pytest.approx(expected, rel=1e-5)


def pre_activation(params, stats, x, power):
    """Logits of the pre-activation network of |w|^p, its norms with the p-th power of their scales and shifts."""

    def norm(path, hidden):
        scale, shift = (np.abs(value) ** power for value in norm_of(params, stats, path))
        return relu(hidden * scale + shift)

    def layer(name, hidden):
        return convolve(hidden, np.abs(float64(get(params, name)["kernel"])) ** power, CONVOLUTIONS[name][1])

    hidden = layer(STEM, x)
    inner = layer(f"{FIRST}/Conv_0", norm(f"{FIRST}/Norm_0", hidden))
    hidden = hidden + layer(f"{FIRST}/Conv_1", norm(f"{FIRST}/Norm_1", inner))
    active = norm(f"{SECOND}/Norm_0", hidden)
    # In this form the shortcut is the first convolution of a block.
    names = [f"{SECOND}/Conv_{i}" for i in range(3)]
    kernels = [np.abs(float64(get(params, name)["kernel"])) ** power for name in names]
    inner = norm(f"{SECOND}/Norm_1", convolve(active, kernels[1], 2))
    hidden = convolve(active, kernels[0], 2) + convolve(inner, kernels[2], 1)
    hidden = norm("Norm_0", hidden)
    kernel, bias = (np.abs(float64(params["Dense_0"][leaf])) ** power for leaf in ("kernel", "bias"))
    return hidden.mean(axis=(1, 2)) @ kernel + bias


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_path_norm_squares_the_norms_that_do_not_fold(power):
    model, params, stats = network(first=True)
    expected = pre_activation(params, stats, np.ones((1, *SHAPE)), power).sum()
    for fold_first in (True, False):
        found = norms.path_norm(model, None, power=power, fold=fold_first)
        assert found.value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["input", *CONVOLUTIONS])
def test_layer_margins(name):
    """Gradients at the pre-activation by differences, exact since the network is piecewise linear."""
    model, params, stats = network(first=False)
    folded, x, labels = fold(params, stats), float64(model.train.inputs), np.asarray(model.train.labels)
    rows = np.arange(len(x))
    logits, seen = post_activation(folded, x)
    others = logits.copy()
    others[rows, labels] = -np.inf
    best = others.argmax(axis=1)

    def gaps(offset):
        shifted = post_activation(folded, x, {name: offset})[0]
        return shifted[rows, labels] - shifted[rows, best]

    values, step, square = seen[name], 1e-7, np.zeros(len(x))
    for place in itertools.product(*(range(n) for n in values.shape[1:])):
        offset = np.zeros((1, *values.shape[1:]))
        offset[(0, *place)] = step
        square += ((gaps(offset) - gaps(-offset)) / (2 * step)) ** 2
    variance = values.reshape(len(x), -1).var(axis=0).sum()
    expected = gaps(np.zeros(1)) / np.sqrt(1e-6 + square) / np.sqrt(variance)
    layer = name if name == "input" else f"{name}/kernel"
    found = layer_margins.normalized_margins(model, None, layers=(layer,), signature="deciles")
    deciles = [found.details["features"][f"{layer}/decile{i}"] for i in range(1, 10)]
    np.testing.assert_allclose(deciles, np.percentile(expected, np.arange(10, 100, 10)), rtol=1e-3, atol=1e-5)


def test_default_places_are_the_ends_of_the_stages():
    model, *_ = network(first=False)
    names = [name for name in structure.margin_activations(model) if name != "input"]
    assert set(names) <= {f"{name}/kernel" for name in CONVOLUTIONS}
    sizes = structure.hidden_activations(model)
    assert [sizes[name] for name in names] == sorted((sizes[name] for name in names), reverse=True)
