"""Norms, their products and the path norm against NumPy, an enumeration of paths, and their invariances."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunegen_jax.measures import norms, pac_bayes_dropout, structure
from prunegen_jax.networks import as_trained_model, build
from prunegen_jax.types import Dataset, TrainedModel

KEY = jax.random.key(0)
SIZES = (3, 4, 5, 2)


def mlp_apply(params, images):
    hidden = images.reshape(images.shape[0], -1)
    for i, layer in enumerate(params):
        hidden = hidden @ layer["kernel"] + layer["bias"].reshape(1, -1)
        hidden = jax.nn.relu(hidden) if i < len(params) - 1 else hidden
    return hidden


def mlp_params(seed):
    rng = np.random.default_rng(seed)
    return [
        {
            "kernel": jnp.asarray(rng.normal(size=shape), jnp.float32),
            "bias": jnp.asarray(rng.normal(size=shape[1]), jnp.float32),
        }
        for shape in itertools.pairwise(SIZES)
    ]


def mlp(*, examples=23, seed=0):
    rng = np.random.default_rng(seed + 10)
    images = jnp.asarray(rng.normal(size=(examples, 1, 1, 3)), jnp.float32)
    params = mlp_params(seed)
    labels = jnp.argmax(mlp_apply(params, images), axis=-1).astype(jnp.int32)
    return TrainedModel(mlp_apply, params, Dataset(images, labels), init_params=mlp_params(seed + 1))


def nin(*, batch_norm=True, seed=0, examples=12):
    network = build("nin", input_shape=(8, 8, 3), classes=5, depth=2, width=4, batch_norm=batch_norm)
    rng = np.random.default_rng(seed)

    def noisy(tree):
        return jax.tree.map(lambda x: x + jnp.asarray(rng.uniform(0.1, 0.5, x.shape), x.dtype), tree)

    initial = network.init(jax.random.key(seed))
    params, stats = noisy(initial[0]), noisy(initial[1])
    data = Dataset(
        jnp.asarray(rng.normal(size=(examples, 8, 8, 3)), jnp.float32), jnp.asarray(np.arange(examples) % 5, jnp.int32)
    )
    return as_trained_model(network, params, stats, data, init=initial)


def values(model, **options):
    return {name: row(model, KEY, **options).value for name, row in norms.MEASURES.items()}


def margin(model):
    logits = np.asarray(model.apply(model.params, model.train.inputs), np.float64)
    labels = np.asarray(model.train.labels)
    gaps = [row[y] - np.delete(row, y).max() for row, y in zip(logits, labels, strict=True)]
    return sorted(gaps)[len(gaps) // 10 - 1]


def expected(model):
    """Every row of the table but the path norms, from its formula, in NumPy."""
    kernels = [np.asarray(layer["kernel"], np.float64) for layer in model.params]
    initial = [np.asarray(layer["kernel"], np.float64) for layer in model.init_params]
    squares = np.array([(w**2).sum() for w in kernels])
    away = sum(((w - v) ** 2).sum() for w, v in zip(kernels, initial, strict=True))
    gamma, d = margin(model), len(kernels)
    return {
        "parameter_norm": squares.sum(),
        "l2_norm": np.sqrt(squares.sum()),
        "distance_from_initialization": away,
        "l2_distance_from_initialization": np.sqrt(away),
        "product_of_frobenius_norms": squares.prod(),
        "product_of_frobenius_norms_over_margin": squares.prod() / gamma**2,
        "sum_of_frobenius_norms": d * squares.prod() ** (1 / d),
        "sum_of_frobenius_norms_over_margin": d * (squares.prod() / gamma**2) ** (1 / d),
    }


def test_against_the_formulas():
    model = mlp()
    found = values(model)
    for name, value in expected(model).items():
        assert found[name] == pytest.approx(value, rel=1e-5), name


def test_transforms():
    model = mlp()
    raw, m = values(model), len(model.train)
    for name, value in values(model, normalize="sqrt_m").items():
        assert value == pytest.approx(math.sqrt(raw[name] / m)), name
    for name, value in values(model, normalize="log_sqrt_m").items():
        assert value == pytest.approx(0.5 * (math.log(raw[name]) - math.log(m))), name
    for name, row in norms.MEASURES.items():
        details = row(model, KEY).details
        assert details["log"] == pytest.approx(math.log(raw[name])), name
        json.dumps(details)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_path_norm_is_the_sum_over_paths(power):
    model = mlp()
    kernels = [np.abs(np.asarray(layer["kernel"], np.float64)) ** power for layer in model.params]
    biases = [np.abs(np.asarray(layer["bias"], np.float64)) ** power for layer in model.params]
    total = 0.0
    for start in range(-1, len(SIZES) - 1):  # paths start at an input, or at the bias of a layer
        for path in itertools.product(*(range(n) for n in SIZES[max(start, 0) + (start >= 0) :])):
            weights = biases[start][path[0]] if start >= 0 else 1.0
            first = start + 1 if start >= 0 else 0
            for kernel, (a, b) in zip(kernels[first:], itertools.pairwise(path), strict=True):
                weights *= kernel[a, b]
            total += weights
    assert norms.path_norm(model, KEY, power=power).value == pytest.approx(total, rel=1e-5)
    rooted = norms.path_norm(model, KEY, power=power, root=True).value
    assert rooted == pytest.approx(total ** (1 / power), rel=1e-5)
    if power == 2.0:
        over = norms.path_norm_over_margin(model, KEY).value
        assert over == pytest.approx(total / margin(model) ** 2, rel=1e-4)


def test_folding_changes_the_weights_measured():
    model = nin()
    folded = values(model)
    assert folded == pytest.approx(values(structure.folded_network(model)), rel=1e-5)
    kernels = [np.asarray(layer["kernel"], np.float64) for name, layer in model.params.items() if "conv" in name]
    kernels.append(np.asarray(model.params["head"]["kernel"], np.float64))
    raw = norms.parameter_norm(model, KEY, fold=False)
    assert raw.value == pytest.approx(sum((w**2).sum() for w in kernels))
    assert raw.details["folded"] is False
    assert norms.parameter_norm(model, KEY).details["folded"] is True
    # the first kernel, folded by hand: W γ / √(var + ε) for each output channel, and the initial one by √(1 + ε)
    scale = np.asarray(model.params["block0_norm0"]["scale"]) / np.sqrt(
        np.asarray(model.apply.args[0]["block0_norm0"]["var"]) + 1e-5
    )
    by_hand = np.asarray(model.params["block0_conv0"]["kernel"], np.float64) * scale
    layers = norms.parameter_norm(model, KEY).details["layers"]
    assert layers["block0_conv0/kernel"] == pytest.approx((by_hand**2).sum(), rel=1e-5)
    initial = np.asarray(model.init_params["block0_conv0"]["kernel"], np.float64) / np.sqrt(1 + 1e-5)
    away = norms.distance_from_initialization(model, KEY).details["layers"]
    assert away["block0_conv0/kernel"] == pytest.approx(((by_hand - initial) ** 2).sum(), rel=1e-5)


def test_path_norm_is_that_of_the_folded_weights_whether_they_are_folded_or_not():
    """Affine steps count with the square of their effective scale and shift, γ / √v and β − γ μ / √v."""
    folded = structure.folded_network(nin()).params
    hidden = np.ones((8, 8, 3))
    for name in (f"block{b}_conv{i}" for b in range(2) for i in range(3)):
        kernel, bias = (np.asarray(folded[name][leaf], np.float64) ** 2 for leaf in ("kernel", "bias"))
        stride, pad = (2, 1) if kernel.shape[0] == 3 else (1, 0)
        padded = np.pad(hidden, ((pad, pad), (pad, pad), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[:2], axis=(0, 1))[::stride, ::stride]
        hidden = np.einsum("yxcij,ijco->yxo", windows, kernel) + bias
    head = {leaf: np.asarray(folded["head"][leaf], np.float64) ** 2 for leaf in ("kernel", "bias")}
    expected = (hidden.mean(axis=(0, 1)) @ head["kernel"][0, 0] + head["bias"]).sum()
    for fold in (True, False):
        estimate = norms.path_norm(nin(), KEY, fold=fold)
        assert estimate.value == pytest.approx(expected, rel=1e-4)
        assert estimate.details["folded"] is fold


def normalized(params, images):
    """A sum of two layers, normalized by the parameters in "norm", which fold into neither of them."""
    flat = images.reshape(images.shape[0], -1)
    hidden = flat @ params["fc"]["w"] + flat @ params["other"]["w"]
    norm = params.get("norm", {})
    norm = norm.get("bn", norm)
    for name in {"scale", "gamma", "weight"} & norm.keys():
        hidden = hidden * norm[name].reshape(1, -1)
    for name in {"bias", "beta"} & norm.keys():
        hidden = hidden + norm[name].reshape(1, -1)
    return jax.nn.relu(hidden) @ params["head"]["kernel"] + params["head"]["bias"].reshape(1, -1)


@pytest.mark.parametrize(
    ("norm", "scale", "shift"),
    [
        ({"scale": jnp.full(4, 2.0)}, 2.0, 0.0),
        ({"gamma": jnp.full(4, 2.0), "beta": jnp.ones(4)}, 2.0, 1.0),
        ({"weight": jnp.full(4, -2.0)}, -2.0, 0.0),
        ({"bias": jnp.full(4, 0.5)}, 1.0, 0.5),
        ({"bn": {"scale": jnp.full(4, 3.0), "bias": jnp.full(4, 2.0)}}, 3.0, 2.0),
    ],
    ids=str,
)
def test_normalization_by_any_name_is_recognised(norm, scale, shift):
    """The path norm squares it; a bound whose noise covers every weight does not apply."""
    params = {"fc": {"w": jnp.ones((3, 4))}, "other": {"w": 2.0 * jnp.ones((3, 4))}}
    params["head"] = {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)}
    data = Dataset(jnp.ones((2, 1, 1, 3)), jnp.zeros(2, jnp.int32))
    options = {"rates": (0.1,), "sigmas": (1.0,), "lambdas": (2.0,), "draws": 2}
    row = pac_bayes_dropout.MEASURES["pac_bayes_dropout"]
    plain, model = (TrainedModel(normalized, p, data) for p in (params, {**params, "norm": norm}))
    assert norms.path_norm(plain, KEY).value == pytest.approx(2 * (4 * 3 * (1 + 4) + 1))
    expected = 2 * (4 * (3 * (1 + 4) * scale**2 + shift**2) + 1)
    assert norms.path_norm(model, KEY).value == pytest.approx(expected)
    assert row(plain, KEY, **options).status == "ok"
    refused = row(model, KEY, **options)
    assert refused.status == "not_applicable" and "norm/" in refused.reason


def test_scaling_of_a_neuron_and_of_a_layer():
    model = mlp()
    before = values(model)
    one, all_ = np.array([1.0, 3.0, 1.0, 1.0], np.float32), np.full(4, 3.0, np.float32)
    for scaling, c in (("neuron_scaling", one), ("layer_scaling", all_)):
        first, second, *rest = model.params
        params = [
            {"kernel": first["kernel"] * c[None, :], "bias": first["bias"] * c},
            {"kernel": second["kernel"] / c[:, None], "bias": second["bias"]},
            *rest,
        ]
        after = values(dataclasses.replace(model, params=params))
        for name, row in norms.MEASURES.items():
            same = after[name] == pytest.approx(before[name], rel=1e-4)
            assert same == (scaling in row.invariant), (scaling, name)


def test_larger_weights_have_larger_values():
    model = mlp()
    larger = dataclasses.replace(model, params=jax.tree.map(lambda w: 1.5 * w, model.params))
    for name, row in norms.MEASURES.items():
        assert row.sign == 1
        if "margin" not in name and "distance" not in name:
            assert row(model, KEY).value < row(larger, KEY).value, name
    # over the margin: the same weights with examples nearer to the boundary
    nearer = Dataset(0.01 * model.train.inputs, model.train.labels)
    no_bias = [{**layer, "bias": 0 * layer["bias"]} for layer in model.params]
    far, near = (dataclasses.replace(model, params=no_bias, train=data) for data in (model.train, nearer))
    for name, row in norms.MEASURES.items():
        if "margin" in name:
            assert row(far, KEY).value < row(near, KEY).value, name


def test_a_layer_of_zeros_is_named():
    model = mlp()
    params = [*model.params[:2], jax.tree.map(jnp.zeros_like, model.params[2])]
    zeroed = dataclasses.replace(model, params=params)
    estimate = norms.product_of_frobenius_norms(zeroed, KEY, normalize="log")
    assert estimate.value == -math.inf
    assert estimate.details["zero_layers"] == ["2/kernel"]
    assert norms.product_of_frobenius_norms(zeroed, KEY).value == 0.0
    undefined = norms.product_of_frobenius_norms_over_margin(zeroed, KEY)  # and all margins are zero: 0 · ∞
    assert undefined.status == "failed"
    assert "2/kernel" in undefined.reason


def test_products_beyond_the_range_of_floats_keep_their_logarithm():
    model = mlp()
    huge = dataclasses.replace(model, params=[{**layer, "kernel": 1e30 * layer["kernel"]} for layer in model.params])

    def four_beside_each_other(params, images):
        return sum(mlp_apply(params[3 * i : 3 * i + 3], images) for i in range(4))

    huge = TrainedModel(four_beside_each_other, huge.params * 4, model.train)
    estimate = norms.product_of_frobenius_norms(huge, KEY)
    assert estimate.value == math.inf
    assert estimate.details["log"] == pytest.approx(
        4 * (math.log(values(model)["product_of_frobenius_norms"]) + 414.465), rel=1e-4
    )


def test_a_network_without_initial_weights():
    model = dataclasses.replace(mlp(), init_params=None)
    assert norms.MEASURES["distance_from_initialization"](model, KEY).status == "not_applicable"
    assert norms.distance_from_initialization(model, KEY).status == "not_applicable"
