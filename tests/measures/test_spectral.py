"""The measures made of spectral norms against NumPy."""

from __future__ import annotations

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from prunegen_jax.measures import convolution_norms, spectral
from prunegen_jax.measures.structure import folded_network
from prunegen_jax.networks import as_trained_model, build
from prunegen_jax.types import Dataset, TrainedModel
from tests.support.convolution_cases import explicit, random_kernel

KEY = jax.random.key(0)


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


def test_rgm_takes_the_size_of_the_images():
    """Its transform of every layer, strided and small ones too, is at the size of the data set's images: 8 × 8 here."""
    model = nin(batch_norm=False)
    norms = [
        np.linalg.svd(np.fft.fft2(k, (8, 8), axes=(0, 1)), compute_uv=False).max() for k in kernels_of(model.params)
    ]
    value = spectral.product_of_spectral_norms(model, KEY, compat="rgm").value
    assert value == pytest.approx(np.prod(np.square(norms)), rel=1e-5)
