"""Normalized and constrained margins against NumPy: closed forms of a linear and a two-layer network."""

from __future__ import annotations

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunegen_jax.measures import input_margins, layer_margins
from prunegen_jax.types import Dataset, TrainedModel

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
W, V = RNG.normal(size=(6, 5)), RNG.normal(size=(5, 3))  # input [6] → hidden [5], ReLU → logits [3]


def apply(params, images):
    return jax.nn.relu(images.reshape(images.shape[0], -1) @ params["first"]) @ params["second"]


def two_layers(m=703, seed=1, scale=1.0):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(m, 1, 2, 3))
    params = {"first": jnp.asarray(W, jnp.float32), "second": jnp.asarray(scale * V, jnp.float32)}
    logits = np.maximum(images.reshape(m, -1) @ W, 0.0) @ V
    labels = np.where(rng.uniform(size=m) < 0.9, logits.argmax(axis=1), 0)
    data = Dataset(jnp.asarray(images, jnp.float32), jnp.asarray(labels, jnp.int32))
    return TrainedModel(apply, params, data)


def gaps_and_gradients(model):
    """f_y − f_c and its gradients with respect to input and hidden pre-activation, by hand."""
    x = np.asarray(model.train.inputs, np.float64).reshape(len(model.train), -1)
    labels = np.asarray(model.train.labels)
    second = np.asarray(model.params["second"], np.float64)
    hidden = x @ W
    logits = np.maximum(hidden, 0.0) @ second
    rest = logits.copy()
    rest[np.arange(len(x)), labels] = -np.inf
    other = rest.argmax(axis=1)
    gaps = logits[np.arange(len(x)), labels] - logits[np.arange(len(x)), other]
    at_hidden = (second[:, labels] - second[:, other]).T * (hidden > 0)
    return gaps, {"input": at_hidden @ W.T, "first": at_hidden}, {"input": x, "first": hidden}


def by_hand(model):
    gaps, gradients, values = gaps_and_gradients(model)
    return {
        name: gaps / np.sqrt(1e-6 + (gradients[name] ** 2).sum(axis=1)) / np.sqrt(values[name].var(axis=0).sum())
        for name in gradients
    }


def test_normalized_margins():
    model = two_layers()  # 703 examples: two batches, the second with a tail that is filled up
    estimate = layer_margins.normalized_margins(model, KEY)
    assert estimate.details["layers"] == ["input", "first"]
    medians = []
    for name, margins in by_hand(model).items():
        q1, median, q3 = np.percentile(margins, [25, 50, 75])
        medians.append(median)
        expected = {
            "lower": q1 - 1.5 * (q3 - q1), "q1": q1, "median": median, "q3": q3, "upper": q3 + 1.5 * (q3 - q1),
        }  # fmt: skip
        for statistic, value in expected.items():
            assert estimate.details["features"][f"{name}/{statistic}"] == pytest.approx(value, rel=1e-4, abs=1e-6)
    assert estimate.value == pytest.approx(np.mean(medians), rel=1e-4)
    json.dumps(estimate.details)


def test_options_of_normalized_margins():
    model = two_layers()
    margins = by_hand(model)["first"]
    assert (margins < 0).any()

    def found(**options):
        return layer_margins.normalized_margins(model, KEY, layers=("first",), **options).details["features"]

    positive = margins[margins > 0]
    assert found(keep="positive")["first/q1"] == pytest.approx(np.percentile(positive, 25), rel=1e-4)
    assert found(log=True)["first/q1"] == pytest.approx(np.percentile(np.log(positive), 25), rel=1e-4)
    assert found(compat="demogen")["first/q3"] == pytest.approx(703 * np.percentile(margins, 75), rel=1e-4)
    moments = found(signature="moments")
    assert moments["first/moment1"] == pytest.approx(margins.mean(), rel=1e-4)
    assert moments["first/moment2"] == pytest.approx(margins.std(), rel=1e-4)
    third = ((margins - margins.mean()) ** 3).mean()
    assert moments["first/moment3"] == pytest.approx(math.copysign(abs(third) ** (1 / 3), third), rel=1e-3)
    skewed = layer_margins.SIGNATURES["moments"](np.array([-3.0, 1.0, 1.0, 1.0]))
    assert skewed["moment3"] == pytest.approx(-(6.0 ** (1 / 3)))  # the root of a negative moment keeps its sign
    assert found(signature="deciles")["first/decile3"] == pytest.approx(np.percentile(margins, 30), rel=1e-4)
    q1, q3 = np.percentile(margins, [25, 75])
    above = margins[margins > q3 + 1.5 * (q3 - q1)]
    below = margins[margins < q1 - 1.5 * (q3 - q1)]
    observed = found(signature="observed")
    assert observed["first/upper"] == pytest.approx(above.min() if above.size else margins.max(), rel=1e-4)
    assert observed["first/lower"] == pytest.approx(below.max() if below.size else margins.min(), rel=1e-4)
    with pytest.raises(ValueError, match=r"layers='block7'.*input, first"):
        layer_margins.normalized_margins(model, KEY, layers=("block7",))


def test_twenty_features_of_a_deep_network():
    def deep(params, images):
        hidden = images.reshape(images.shape[0], -1)
        for i in range(12):
            hidden = jax.nn.relu(hidden @ params[f"block{i}"])
        return hidden @ params["head"]

    params = {f"block{i}": 1.1 * jnp.eye(6) for i in range(12)} | {"head": jnp.eye(6)[:, :3]}
    data = two_layers(m=50).train
    estimate = layer_margins.normalized_margins(TrainedModel(deep, params, data), KEY)
    assert estimate.details["layers"] == ["input", "block0", "block6", "block11"]  # not in the order of strings
    assert len(estimate.details["features"]) == 20


def test_constrained_margin():
    model = two_layers()
    gaps, gradients, values = gaps_and_gradients(model)
    centred = values["input"] - values["input"].mean(axis=0)
    _, singular, rows = np.linalg.svd(centred, full_matrices=False)
    share = np.cumsum(singular**2) / (singular**2).sum()
    for k in (2, int(np.argmax(share >= 0.9)) + 1):
        norms = np.linalg.norm(gradients["input"] @ rows[:k].T, axis=1)
        expected = (gaps[norms > 0] / norms[norms > 0]).mean()
        options = {"components": 2} if k == 2 else {}
        estimate = input_margins.constrained_margin(model, KEY, **options)
        assert estimate.value == pytest.approx(expected, rel=1e-4)
        assert estimate.details["components"] == k
        assert estimate.details["flat_examples"] == (norms == 0).sum() > 0  # no unit is on: no distance
        assert estimate.sem is None
    json.dumps(estimate.details)


def test_principal_directions_of_few_examples_in_many_dimensions():
    data = Dataset(jnp.asarray(RNG.normal(size=(5, 3, 3, 2)), jnp.float32), jnp.zeros(5, jnp.int32))
    basis = input_margins.principal_directions(data, 3, 0.9)
    flat = np.asarray(data.inputs, np.float64).reshape(5, -1)
    _, _, rows = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    assert np.abs(np.sum(basis * rows[:3].T, axis=0)) == pytest.approx(np.ones(3), rel=1e-5)
    assert input_margins.principal_directions(data, 99, 0.9).shape == (18, 4)  # the rank


def test_principal_directions_of_all_inputs_whatever_the_sample():
    data = Dataset(jnp.asarray(RNG.normal(size=(1203, 2, 2, 1)) * np.arange(1, 5).reshape(2, 2, 1), jnp.float32),
                   jnp.zeros(1203, jnp.int32))  # fmt: skip
    flat = np.asarray(data.inputs, np.float64).reshape(1203, -1)
    _, _, rows = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    basis = input_margins.principal_directions(data, 4, 0.9)  # three batches
    assert np.abs(np.sum(basis * rows.T, axis=0)) == pytest.approx(np.ones(4), rel=1e-6)
    model = two_layers(m=400)
    full = input_margins.constrained_margin(model, KEY)
    some = [input_margins.constrained_margin(model, jax.random.key(i), examples=5) for i in range(4)]
    assert {e.details["components"] for e in some} == {full.details["components"]}


def test_constrained_margin_of_a_sample_has_a_right_standard_error():
    model = two_layers(m=400)
    full = input_margins.constrained_margin(model, KEY, components=6)
    found = [input_margins.constrained_margin(model, jax.random.key(i), components=6, examples=40) for i in range(30)]
    errors = np.array([(e.value - full.value) / e.sem for e in found])
    assert np.abs(errors).max() < 4.5
    assert 0.6 < errors.std() < 1.5


def test_signs():
    """Both shrink when classes are nearer to each other; both are held to grow as the gap shrinks."""
    model = two_layers()
    shifted = Dataset(model.train.inputs, jnp.roll(model.train.labels, 1))  # labels that the network gets wrong
    worse = TrainedModel(model.apply, model.params, shifted)
    for row in (layer_margins.MEASURES["normalized_margins"], input_margins.MEASURES["constrained_margin"]):
        assert row.sign == -1
        assert row(worse, KEY).value < row(model, KEY).value


def test_margins_do_not_depend_on_the_scale_of_the_logits():
    for row in (layer_margins.MEASURES["normalized_margins"], input_margins.MEASURES["constrained_margin"]):
        assert row(two_layers(scale=3.0), KEY).value == pytest.approx(row(two_layers(), KEY).value, rel=1e-4)


def test_what_is_missing_is_named():
    def linear(params, images):
        return images.reshape(images.shape[0], -1) @ params["kernel"]

    bare = TrainedModel(linear, {"kernel": jnp.asarray(W[:, :3], jnp.float32)}, two_layers().train)
    estimate = layer_margins.MEASURES["normalized_margins"](bare, KEY)
    assert (estimate.status, estimate.reason) == (
        "not_applicable",
        "no activation between input and logits can be read",
    )
    assert input_margins.MEASURES["constrained_margin"](bare, KEY).status == "ok"
    constant = TrainedModel(lambda p, x: jnp.zeros((x.shape[0], 3)), {}, bare.train)
    assert input_margins.constrained_margin(constant, KEY).status == "failed"
    with pytest.raises(ValueError, match="variance"):
        input_margins.constrained_margin(bare, KEY, variance=0.0)
