"""Spectral norms against explicit matrices, and the measures made of them against NumPy."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import signal

from prunegen_jax.measures import convolution_norms, spectral
from prunegen_jax.measures.structure import folded_network
from prunegen_jax.networks import as_trained_model, build
from prunegen_jax.networks.reading import read
from prunegen_jax.types import Dataset, NotApplicableError, TrainedModel

KEY = jax.random.key(0)


def explicit(kernel, input_shape, *, stride, padding, circular):
    """The matrix of a convolution with `padding` pixels on each side, entry by entry from its definition."""
    rows, columns, channels = input_shape
    kh, kw, _, out = kernel.shape
    heights, widths = ((n + 2 * padding - k) // stride + 1 for n, k in ((rows, kh), (columns, kw)))
    matrix = np.zeros((heights, widths, out, rows, columns, channels))
    for y, x, i, j in itertools.product(range(heights), range(widths), range(kh), range(kw)):
        a, b = y * stride + i - padding, x * stride + j - padding
        if circular:
            a, b = a % rows, b % columns
        if 0 <= a < rows and 0 <= b < columns:
            matrix[y, x, :, a, b, :] += kernel[i, j].T
    return matrix.reshape(heights * widths * out, -1)


def layer_of(kernel, input_shape, *, stride=1, padding=1):
    """The layer of a convolution, or of a dense kernel, read from a program that computes it."""

    def apply(params, inputs):
        if params["kernel"].ndim == 2:
            return inputs @ params["kernel"]
        padded = padding if isinstance(padding, str) else ((padding, padding),) * 2
        if padding == "CIRCULAR":
            padded, wrap = "VALID", [(0, 0), *((n // 2, (n - 1) // 2) for n in params["kernel"].shape[:2]), (0, 0)]
            inputs = jnp.pad(inputs, wrap, mode="wrap")
        return lax.conv_general_dilated(
            inputs, params["kernel"], (stride, stride), padded, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    params = {"kernel": jnp.asarray(kernel, jnp.float32)}
    (layer,) = read(apply, params, jnp.zeros((2, *input_shape))).layers
    return layer


def operator_norm(kernel, input_shape, **options):
    return convolution_norms.operator_norm(kernel, layer_of(kernel, input_shape, **options))


def random_kernel(shape=(3, 3, 3, 4), seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8, 3), (6, 10, 3)])
def test_exact_norm_is_that_of_the_matrix(stride, size):
    kernel = random_kernel()
    expected = np.linalg.norm(explicit(kernel, size, stride=stride, padding=1, circular=False), 2)
    assert operator_norm(kernel, size, stride=stride) == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize("stride", [1, 2])
def test_circular_padding_is_apart_from_the_convolution(stride):
    """The layer is what follows the padding: a convolution without padding of a larger input."""
    kernel = random_kernel()
    layer = layer_of(kernel, (6, 10, 3), stride=stride, padding="CIRCULAR")
    assert layer.input_shape == (8, 12, 3) and layer.padding == ((0, 0), (0, 0))
    expected = np.linalg.norm(explicit(kernel, (8, 12, 3), stride=stride, padding=0, circular=False), 2)
    assert convolution_norms.operator_norm(kernel, layer) == pytest.approx(expected, rel=2e-6)


def test_exact_norm_with_groups_and_dilation():
    """Against the matrix that the convolution makes of unit vectors, in SciPy."""
    kernel = random_kernel((3, 3, 2, 4))

    def apply(params, inputs):
        return lax.conv_general_dilated(
            inputs, params["kernel"], (1, 2), ((2, 1), (0, 2)), rhs_dilation=(2, 1), feature_group_count=2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip

    (layer,) = read(apply, {"kernel": jnp.asarray(kernel, jnp.float32)}, jnp.zeros((2, 6, 5, 4))).layers
    columns = []
    for unit in np.eye(6 * 5 * 4).reshape(-1, 6, 5, 4):
        padded = np.pad(unit, ((2, 1), (0, 2), (0, 0)))
        dilated = np.zeros((5, 3, 2, 4))
        dilated[::2] = kernel
        outputs = [
            sum(signal.correlate2d(padded[..., 2 * (o // 2) + i], dilated[..., i, o], "valid") for i in range(2))
            for o in range(4)
        ]
        columns.append(np.stack(outputs)[:, :, ::2].ravel())
    expected = np.linalg.norm(np.array(columns), 2)
    assert convolution_norms.operator_norm(kernel, layer) == pytest.approx(expected, rel=2e-6)
    assert convolution_norms.spectral_norm(kernel, layer, "exact") == pytest.approx(expected, rel=2e-6)
    with pytest.raises(NotApplicableError, match="kernel is none: use spectral='exact'"):
        convolution_norms.spectral_norm(kernel, layer, "fft_layer")


@pytest.mark.parametrize(
    ("shape", "padding", "pixels"), [((5, 5, 2, 3), 2, 2), ((3, 3, 2, 3), "VALID", 0), ((3, 3, 2, 3), "SAME", 1)]
)
def test_exact_norm_with_other_paddings(shape, padding, pixels):
    kernel = random_kernel(shape)
    expected = np.linalg.norm(explicit(kernel, (7, 7, 2), stride=1, padding=pixels, circular=False), 2)
    found = operator_norm(kernel, (7, 7, 2), padding=padding)
    assert found == pytest.approx(expected, rel=2e-6)


def test_exact_norm_of_degenerate_kernels():
    assert operator_norm(np.zeros((3, 3, 2, 2)), (4, 4, 2)) == 0.0
    delta = np.zeros((3, 3, 2, 2))
    delta[1, 1] = 3e-30 * np.eye(2)  # the identity: every vector is an eigenvector
    assert operator_norm(delta, (4, 4, 2)) == pytest.approx(3e-30, rel=1e-6)
    one = random_kernel((3, 3, 1, 1))
    expected = np.linalg.norm(explicit(one, (1, 1, 1), stride=1, padding=1, circular=False), 2)
    assert operator_norm(one, (1, 1, 1)) == pytest.approx(expected, rel=1e-6)


def test_fourier_norm_is_exact_for_circular_padding_and_stride_one_alone():
    kernel = random_kernel()
    norms = {
        (stride, circular): np.linalg.norm(explicit(kernel, (8, 8, 3), stride=stride, padding=1, circular=circular), 2)
        for stride in (1, 2)
        for circular in (False, True)
    }
    found = convolution_norms.fourier_norm(kernel, (8, 8))
    assert found == pytest.approx(norms[1, True], rel=1e-12)
    assert norms[1, False] < found
    assert norms[2, True] < 0.9 * found
    # against the transform as published: fft2 over the kernel's axes, all frequencies
    singular = np.linalg.svd(np.fft.fft2(kernel, (32, 32), axes=(0, 1)), compute_uv=False)
    assert convolution_norms.fourier_norm(kernel, (32, 32)) == pytest.approx(singular.max(), rel=1e-12)
    # a kernel larger than its input wraps around
    small = np.linalg.norm(explicit(kernel, (2, 2, 3), stride=1, padding=1, circular=True), 2)
    assert convolution_norms.fourier_norm(kernel, (2, 2)) == pytest.approx(small, rel=1e-12)


def test_known_norms():
    """Numbers worked out elsewhere for this kernel on 8 × 8 pixels."""
    kernel = random_kernel()
    for stride, norm in {1: 11.6001, 2: 7.5904}.items():
        assert operator_norm(kernel, (8, 8, 3), stride=stride) == pytest.approx(norm, abs=1e-4)
    assert convolution_norms.fourier_norm(kernel, (8, 8)) == pytest.approx(12.0437, abs=1e-4)
    assert convolution_norms.spectral_norm(kernel, layer_of(kernel, (8, 8, 3)), "reshaped") == pytest.approx(
        6.4106, abs=1e-4
    )


def test_a_spectrum_that_one_round_does_not_resolve():
    kernel = random_kernel((3, 3, 1, 1), seed=5)
    expected = np.linalg.norm(explicit(kernel, (20, 20, 1), stride=1, padding=1, circular=False), 2)
    assert operator_norm(kernel, (20, 20, 1)) == pytest.approx(expected, rel=2e-6)


def test_the_four_methods():
    kernel = random_kernel(seed=5)  # one whose largest frequency is not on the grid of 8 × 8
    layer = layer_of(kernel, (8, 8, 3), stride=2)
    found = {method: convolution_norms.spectral_norm(kernel, layer, method) for method in convolution_norms.METHODS}
    matrix = kernel.transpose(3, 2, 0, 1).reshape(4, -1)  # (out, in·kh·kw)
    assert found["reshaped"] == pytest.approx(np.linalg.svd(matrix, compute_uv=False)[0], rel=1e-12)
    assert found["fft_layer"] == pytest.approx(convolution_norms.fourier_norm(kernel, (8, 8)))
    assert found["fft_rgm"] == pytest.approx(convolution_norms.fourier_norm(kernel, (32, 32)))
    expected = np.linalg.norm(explicit(kernel, (8, 8, 3), stride=2, padding=1, circular=False), 2)
    assert found["exact"] == pytest.approx(expected, rel=2e-6)
    assert found["exact"] <= 3 * found["reshaped"]  # √(kh·kw) times the reshaped norm is a bound
    pointwise, dense = random_kernel((1, 1, 3, 4)), random_kernel((3, 4))
    for method in convolution_norms.METHODS:
        for array, size, matrix in ((dense, (3,), dense), (pointwise, (8, 8, 3), pointwise[0, 0])):
            found = convolution_norms.spectral_norm(array, layer_of(array, size, padding=0), method)
            assert found == pytest.approx(np.linalg.norm(matrix, 2))


def nin(*, batch_norm=True, seed=0, examples=40):
    network = build("nin", input_shape=(8, 8, 3), classes=5, depth=2, width=4, batch_norm=batch_norm)
    rng = np.random.default_rng(seed)

    def noisy(tree):
        return jax.tree.map(lambda x: x + jnp.asarray(rng.uniform(0.1, 0.5, x.shape), x.dtype), tree)

    initial = network.init(jax.random.key(seed))
    data = Dataset(
        jnp.asarray(rng.normal(size=(examples, 8, 8, 3)), jnp.float32), jnp.asarray(np.arange(examples) % 5, jnp.int32)
    )
    return as_trained_model(network, noisy(initial[0]), noisy(initial[1]), data, init=initial)


# Input of each layer, its stride, and padding on both sides.
GEOMETRY = {
    "block0_conv0": ((8, 8, 3), 2, 1), "block0_conv1": ((4, 4, 4), 1, 0), "block0_conv2": ((4, 4, 4), 1, 0),
    "block1_conv0": ((4, 4, 4), 2, 1), "block1_conv1": ((2, 2, 4), 1, 0), "block1_conv2": ((2, 2, 4), 1, 0),
    "head": ((1, 1, 4), 1, 0),
}  # fmt: skip


def kernels_of(params):
    return [np.asarray(params[name]["kernel"], np.float64) for name in GEOMETRY]


def dense_norms(kernels):
    """‖W_l‖₂ of every convolution of a network, from explicit matrices."""
    found = []
    for kernel, (shape, stride, padding) in zip(kernels, GEOMETRY.values(), strict=True):
        matrix = explicit(kernel, shape, stride=stride, padding=padding, circular=False)
        found.append(np.linalg.norm(matrix, 2))
    return np.array(found)


def expected(model):
    folded = folded_network(model)
    kernels = kernels_of(folded.params)
    spec = dense_norms(kernels) ** 2
    moved = [a - b for a, b in zip(kernels, kernels_of(folded.init_params), strict=True)]
    fro, fro_away = (np.array([(w**2).sum() for w in x]) for x in (kernels, moved))
    logits, labels = (
        np.asarray(model.apply(model.params, model.train.inputs), np.float64),
        np.asarray(model.train.labels),
    )
    gaps = sorted(row[y] - np.delete(row, y).max() for row, y in zip(logits, labels, strict=True))
    over, d = 1 / gaps[len(gaps) // 10 - 1] ** 2, len(spec)
    return {
        "product_of_spectral_norms": spec.prod(),
        "product_of_spectral_norms_over_margin": spec.prod() * over,
        "sum_of_spectral_norms": d * spec.prod() ** (1 / d),
        "sum_of_spectral_norms_over_margin": d * (spec.prod() * over) ** (1 / d),
        "frobenius_over_spectral": (fro / spec).sum(),
        "spectral_bound_from_origin": spec.prod() * over * (fro / spec).sum(),
        "spectral_bound_from_initialization": spec.prod() * over * (fro_away / spec).sum(),
        "spectral_distance_from_initialization": (dense_norms(moved) ** 2).sum(),
    }


def test_measures_against_the_formulas():
    model = nin()
    formulas = expected(model)
    assert set(formulas) == set(spectral.MEASURES)
    for name, row in spectral.MEASURES.items():
        estimate = row(model, KEY)
        assert estimate.value == pytest.approx(formulas[name], rel=1e-4), name
        assert row(model, KEY, normalize="sqrt_m").value == pytest.approx(math.sqrt(formulas[name] / 40), rel=1e-4), (
            name
        )
        json.dumps(estimate.details)


def test_compat_takes_the_transform_at_32_by_32():
    model = nin()
    found = spectral.product_of_spectral_norms(model, KEY, compat="rgm", normalize="log")
    log = 0.0
    for kernel in kernels_of(folded_network(model).params):
        log += 2 * np.log(np.linalg.svd(np.fft.fft2(kernel, (32, 32), axes=(0, 1)), compute_uv=False).max())
    assert found.value == pytest.approx(log, rel=1e-6)
    assert found.value != pytest.approx(spectral.product_of_spectral_norms(model, KEY, normalize="log").value, rel=1e-3)


def test_folding_is_an_option():
    model = nin()
    raw = spectral.product_of_spectral_norms(model, KEY, fold=False)
    squares = dense_norms(kernels_of(model.params)) ** 2
    assert raw.value == pytest.approx(squares.prod(), rel=1e-4)
    assert raw.details["folded"] is False


def test_scaling_of_a_layer():
    model = nin(batch_norm=False)
    first = {name: 3.0 * value for name, value in model.params["block0_conv0"].items()}
    second = {**model.params["block0_conv1"], "kernel": model.params["block0_conv1"]["kernel"] / 3.0}
    params = {**model.params, "block0_conv0": first, "block0_conv1": second}
    scaled = dataclasses.replace(model, params=params)
    for name, row in spectral.MEASURES.items():
        before, after = row(model, KEY).value, row(scaled, KEY).value
        assert (after == pytest.approx(before, rel=1e-4)) == ("layer_scaling" in row.invariant), name


def test_signs():
    model = nin(batch_norm=False)
    head = {**model.params["head"], "kernel": 2.0 * model.params["head"]["kernel"]}
    larger = dataclasses.replace(model, params={**model.params, "head": head})
    for name, row in spectral.MEASURES.items():
        assert row.sign == 1
        if "margin" not in name and "bound" not in name and name != "frobenius_over_spectral":
            assert row(model, KEY).value < row(larger, KEY).value, name


def test_a_network_whose_geometry_cannot_be_read():
    def twice(params, images):
        hidden = jax.nn.relu(images.reshape(images.shape[0], -1)[:, :4] @ params["kernel"])
        return hidden @ params["kernel"]

    model = TrainedModel(twice, {"kernel": jnp.diag(jnp.arange(1.0, 5.0))}, nin(batch_norm=False).train)
    for name, row in spectral.MEASURES.items():
        answer = row(dataclasses.replace(model, init_params=model.params), KEY)
        assert answer.status == "not_applicable", name
        assert "the layer of kernel cannot be read" in answer.reason


def test_a_dense_layer():
    data = Dataset(jnp.zeros((12, 2)), jnp.zeros(12, jnp.int32))
    dense = TrainedModel(lambda p, x: x @ p["kernel"], {"kernel": jnp.diag(jnp.array([1.0, 2.0]))}, data)
    assert spectral.product_of_spectral_norms(dense, KEY).value == pytest.approx(4.0)


def test_kernels_with_the_channels_first():
    kernel = random_kernel().astype(np.float32)
    data = Dataset(jnp.zeros((12, 8, 8, 3)), jnp.zeros(12, jnp.int32))

    def convolution(numbers):
        return lambda p, x: lax.conv_general_dilated(x, *jax.tree.leaves(p), (1, 1), "SAME", dimension_numbers=numbers)

    last = TrainedModel(convolution(("NHWC", "HWIO", "NHWC")), {"conv": {"kernel": jnp.asarray(kernel)}}, data)
    turned = {"conv": {"weight": jnp.asarray(kernel.transpose(3, 2, 0, 1))}}
    first = TrainedModel(convolution(("NHWC", "OIHW", "NHWC")), turned, data)
    for method in convolution_norms.METHODS:
        values = [spectral.product_of_spectral_norms(m, KEY, spectral=method).value for m in (last, first)]
        assert values[0] == pytest.approx(values[1], rel=1e-12)


def test_a_layer_of_zeros_is_named():
    model = nin(batch_norm=False)
    head = {**model.params["head"], "kernel": jnp.zeros_like(model.params["head"]["kernel"])}
    zeroed = dataclasses.replace(model, params={**model.params, "head": head})
    estimate = spectral.product_of_spectral_norms(zeroed, KEY, normalize="log")
    assert estimate.value == -math.inf
    assert estimate.details["zero_layers"] == ["head/kernel"]
    undefined = spectral.frobenius_over_spectral(zeroed, KEY)
    assert undefined.status == "failed"
    assert "head/kernel" in undefined.reason


def test_unknown_options_name_the_choices():
    with pytest.raises(ValueError, match=r"spectral='power'.*exact, reshaped, fft_layer, fft_rgm"):
        spectral.sum_of_spectral_norms(nin(), KEY, spectral="power")
    with pytest.raises(ValueError, match=r"compat='torch'.*rgm"):
        spectral.sum_of_spectral_norms(nin(), KEY, compat="torch")
