"""Worst-case, average-case and one-step sharpness against plain NumPy loops, second-order forms and brute force."""

from __future__ import annotations

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunegen_jax.measures import bounds, measure, neighbourhood, objective, sam, sharpness, worst_case
from prunegen_jax.types import Dataset, TrainedModel

KEY = jax.random.key(0)


def apply(params, images):
    hidden = jax.nn.relu(
        images.reshape(images.shape[0], -1) @ params["a"]["kernel"] + params["a"]["bias"].reshape(1, -1)
    )
    return hidden @ params["b"]["kernel"] + params["b"]["bias"].reshape(1, -1)


def network(*, seed=0, examples=40, dtype=jnp.float32, hidden=5):
    rng = np.random.default_rng(seed)

    def params():
        return {
            name: {
                "kernel": jnp.asarray(1.5 * rng.normal(size=shape), dtype),
                "bias": jnp.asarray(rng.normal(size=shape[1]), dtype),
            }
            for name, shape in (("a", (3, hidden)), ("b", (hidden, 4)))
        }

    trained, initial = params(), params()
    images = jnp.asarray(2 * rng.normal(size=(examples, 1, 1, 3)), dtype)
    labels = jnp.argmax(apply(trained, images), axis=-1).astype(jnp.int32)
    return TrainedModel(apply, trained, Dataset(images, labels), init_params=initial)


def by_name(model):
    return {name: np.asarray(leaf, np.float64) for name, leaf in objective.weight_function(model).weights.items()}


def numpy_pass(model, w, examples=slice(None)):
    """Mean loss, error and gradient of the two-layer network, by hand."""
    x = np.asarray(model.train.inputs, np.float64).reshape(len(model.train), -1)[examples]
    y = np.asarray(model.train.labels)[examples]
    pre = x @ w["a/kernel"] + w["a/bias"]
    h = np.maximum(pre, 0)
    f = h @ w["b/kernel"] + w["b/bias"]
    p = np.exp(f - f.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    d = (p - np.eye(4)[y]) / len(y)
    back = (d @ w["b/kernel"].T) * (pre > 0)
    gradient = {"a/kernel": x.T @ back, "a/bias": back.sum(0), "b/kernel": h.T @ d, "b/bias": d.sum(0)}
    return -np.log(p[np.arange(len(y)), y]).mean(), (f.argmax(axis=1) != y).mean(), gradient


def ascend(model, box, steps):
    """The worst loss and error of sign ascent from the network itself, in NumPy."""
    w = by_name(model)
    u = {name: np.zeros_like(leaf) for name, leaf in w.items()}
    losses, errors = [], []
    for _ in range(steps + 1):
        loss, error, gradient = numpy_pass(model, {name: w[name] + u[name] for name in w})
        losses.append(loss)
        errors.append(error)
        u = {n: np.clip(u[n] + box[n] / 4 * np.sign(gradient[n]), -box[n], box[n]) for n in w}
    return max(losses), max(errors)


@pytest.mark.parametrize("magnitude", [False, True])
def test_alpha_against_a_numpy_loop(magnitude):
    with jax.enable_x64():
        model = network(examples=100, dtype=jnp.float64)
        found, _ = sharpness.box_size(model, KEY, magnitude=magnitude, steps=8, starts=1)
    w = by_name(model)

    def drop(alpha):
        box = {n: alpha * np.abs(x) + bounds.FLOOR if magnitude else np.full_like(x, alpha) for n, x in w.items()}
        return ascend(model, box, 8)[1]

    # the largest size of a fine NumPy grid below the first that costs more than ten points, within the tolerance
    assert drop(found.low) <= 0.1 < drop(found.high)
    assert found.high <= 1.02 * found.low
    assert found.scale == found.low
    assert found.converged


def test_ascent_finds_the_worst_corner_of_a_linear_network():
    """Softmax regression of two classes: a convex loss has its maximum at a corner of the box, found by trying all."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 2)), rng.integers(0, 2, 20)
    w = rng.normal(size=(2, 2))

    def linear(params, images):
        return images.reshape(images.shape[0], -1) @ params["kernel"]

    with jax.enable_x64():
        data = Dataset(jnp.asarray(x.reshape(-1, 1, 1, 2)), jnp.asarray(y))
        moved = objective.weight_function(TrainedModel(linear, {"kernel": jnp.asarray(w)}, data))
        box = {"kernel": jnp.full((2, 2), 0.3)}
        found = worst_case.ascend_box(moved.objective(6), moved.weights, box, KEY, steps=12, starts=4)
    corners = []
    for signs in itertools.product((-1, 1), repeat=4):
        f = x @ (w + 0.3 * np.reshape(signs, (2, 2)))
        corners.append(np.mean(np.log(np.exp(f).sum(1)) - f[np.arange(20), y]))
    assert found.loss == pytest.approx(max(corners), rel=1e-10)
    assert found.gradients == 4 * 13


def test_the_bounds_and_the_shared_search():
    model = network()
    found = measure(model, list(sharpness.MEASURES), key=KEY)
    scales = {name: e.details["scale"] for name, e in found.items()}
    assert len(set(scales.values())) == 2
    w = np.concatenate([np.asarray(model.params[k]["kernel"], np.float64).ravel() for k in "ab"])
    w0 = np.concatenate([np.asarray(model.init_params[k]["kernel"], np.float64).ravel() for k in "ab"])
    s, t, m = scales["sharpness_flatness"], scales["sharpness_mag_flatness"], 40
    expected = {
        "sharpness_flatness": 1 / s**2,
        "sharpness_mag_flatness": 1 / t**2,
        "sharpness_init": bounds.sharpness(np.sum((w - w0) ** 2), s, 35, m),
        "sharpness_orig": bounds.sharpness(np.sum(w**2), s, 35, m),
        "sharpness_mag_init": bounds.sharpness_magnitude(w - w0, np.sum((w - w0) ** 2), t, m),
        "sharpness_mag_orig": bounds.sharpness_magnitude(w - w0, np.sum(w**2), t, m),
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, rel=1e-6), name
    without = dataclasses.replace(model, init_params=None)
    assert sharpness.sharpness_mag_orig(without, KEY).status == "not_applicable"
    for name, square in (("sharpness_mag_init", np.sum((w - w0) ** 2)), ("sharpness_mag_orig", np.sum(w**2))):
        row, value = sharpness.MEASURES[name], bounds.sharpness_magnitude(w - w0, square, t, m, delta=0.5)
        own = {"delta": 0.5}
        assert measure(model, [name], key=KEY, options={name: own})[name].value == pytest.approx(value, rel=1e-6)
        with pytest.raises(ValueError, match="delta=1.0 must lie between"):
            row(model, KEY, delta=1.0)
    root = sharpness.sharpness_orig(model, KEY, normalize="sqrt_m").value
    assert root == pytest.approx(math.sqrt(sharpness.sharpness_orig(model, KEY).value / m))


@pytest.mark.parametrize(
    ("name", "box"),
    [
        ("worst_sharpness", lambda w: np.full_like(w, 0.002)),
        ("worst_sharpness_adaptive", lambda w: 0.01 * np.abs(w)),
        ("keskar_sharpness", lambda w: 1e-3 * (np.abs(w) + 1)),
    ],
)
def test_worst_case_against_a_numpy_loop(name, box):
    with jax.enable_x64():
        model = network(dtype=jnp.float64)
        found = {n: neighbourhood.MEASURES[name](model, KEY, steps=n, batch_size=7).value for n in (2, 20)}
        assert neighbourhood.MEASURES[name](model, KEY, batch_size=7).value == found[20]
    w = by_name(model)
    dense = numpy_pass(model, w)[0]
    for steps, value in found.items():
        rise = ascend(model, {n: box(x) for n, x in w.items()}, steps)[0] - dense
        expected = 100 * rise / (1 + dense) if name == "keskar_sharpness" else rise
        assert value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "rho", "adaptive"), [("average_sharpness", 1e-3, False), ("average_sharpness_adaptive", 1e-3, True)]
)
def test_average_case_is_half_the_weighted_trace(name, rho, adaptive):
    """(ρ²/2) Σ c_j² H_jj for small ρ, H from differences of the gradient by hand; standard errors over seeds."""
    model = network(examples=60)
    w = by_name(model)
    expected = 0.0
    for key, leaf in w.items():
        for index in np.ndindex(leaf.shape):
            sides = []
            for sign in (1, -1):
                moved = {n: x.copy() for n, x in w.items()}
                moved[key][index] += sign * 1e-5
                sides.append(numpy_pass(model, moved)[2][key][index])
            expected += rho**2 / 2 * (leaf[index] ** 2 if adaptive else 1.0) * (sides[0] - sides[1]) / 2e-5
    with jax.enable_x64():
        precise = network(examples=60, dtype=jnp.float64)
        runs = [
            neighbourhood.MEASURES[name](precise, jax.random.key(s), rho=rho, relative_error=0.0, budget=128)
            for s in range(25)
        ]
    values, sems = np.array([r.value for r in runs]), np.array([r.sem for r in runs])
    assert abs(values.mean() - expected) < 4 * values.std() / math.sqrt(25) + 0.01 * expected
    assert 0.8 * values.std(ddof=1) < np.sqrt(np.mean(sems**2)) < 1.6 * values.std(ddof=1)
    assert all(r.details["evaluations"] == 128 and not r.details["converged"] for r in runs)
    assert np.all(np.abs(values - expected) < 4 * sems + 0.01 * expected)


def test_average_case_stops_when_accurate():
    found = neighbourhood.average_sharpness(network(), KEY, relative_error=0.2, budget=2000)
    assert found.details["converged"]
    assert found.sem <= 0.2 * found.value
    assert found.details["evaluations"] < 2000
    with pytest.raises(ValueError, match="budget=3 must be at least 4"):
        neighbourhood.average_sharpness(network(), KEY, budget=3)
    with pytest.raises(ValueError, match="rho=0 must be positive"):
        neighbourhood.average_sharpness(network(), KEY, rho=0)


@pytest.mark.parametrize("adaptive", [False, True])
def test_one_step_against_numpy(adaptive):
    model = network()
    w = by_name(model)
    loss, _, gradient = numpy_pass(model, w)
    t = {n: np.abs(x) + 0.01 if adaptive and "kernel" in n else np.ones_like(x) for n, x in w.items()}
    norm = math.sqrt(sum(np.sum((t[n] * g) ** 2) for n, g in gradient.items()))
    rho = 0.5 if adaptive else 0.05
    there = {n: w[n] + rho * t[n] ** 2 * g / norm for n, g in gradient.items()}
    function = sam.asam_sharpness if adaptive else sam.sam_sharpness
    assert function(model, KEY).value == pytest.approx(numpy_pass(model, there)[0] - loss, rel=1e-4)


@pytest.mark.parametrize("size", [1, 7, 16, 40, 128])
def test_batches_against_numpy(size):
    model = network()
    w = by_name(model)
    rises, counts = [], []
    for group in (np.arange(40)[start : start + size] for start in range(0, 40, size)):
        loss, _, gradient = numpy_pass(model, w, group)
        norm = math.sqrt(sum(np.sum(g**2) for g in gradient.values()))
        there = {n: w[n] + 0.05 * g / norm for n, g in gradient.items()}
        rises.append(numpy_pass(model, there, group)[0] - loss)
        counts.append(len(group))
    found = sam.sam_sharpness_batches(model, KEY, size=size)
    assert found.value == pytest.approx(np.average(rises, weights=counts), rel=1e-4)
    if size >= 40:
        assert found.value == pytest.approx(sam.sam_sharpness(model, KEY).value, rel=1e-4)


def test_invariances():
    with jax.enable_x64():
        model = network(dtype=jnp.float64)
        c, order = jnp.asarray([1.0, 4.0, 0.5, 1.0, 2.0]), jnp.asarray([2, 0, 4, 1, 3])
        a, b = model.params["a"], model.params["b"]
        scaled = {
            "a": {"kernel": a["kernel"] * c[None, :], "bias": a["bias"] * c},
            "b": {"kernel": b["kernel"] / c[:, None], "bias": b["bias"]},
        }
        permuted = {
            "a": {"kernel": a["kernel"][:, order], "bias": a["bias"][order]},
            "b": {"kernel": b["kernel"][order], "bias": b["bias"]},
        }
        for name, row in {**neighbourhood.MEASURES, **sam.MEASURES}.items():
            before = row(model, KEY).value
            for change, params in (("neuron_scaling", scaled), ("permutation", permuted)):
                same = row(dataclasses.replace(model, params=params), KEY).value == pytest.approx(before, rel=1e-8)
                assert same == (change in row.invariant), (name, change)


def test_signs():
    """+1: on examples near its boundary the same network is sharper."""
    model = network(examples=300)
    logits = np.sort(np.asarray(apply(model.params, model.train.inputs)), axis=1)
    far = np.argsort(logits[:, -2] - logits[:, -1])
    flat, sharp = (
        dataclasses.replace(model, train=Dataset(model.train.inputs[part], model.train.labels[part]))
        for part in (far[:150], far[150:])
    )
    for name, row in {**neighbourhood.MEASURES, **sam.MEASURES, **sharpness.MEASURES}.items():
        assert row.sign == +1
        options = {"rho": 0.05} if name == "asam_sharpness" else {}  # its default leaps over the boundary
        assert row(flat, KEY, **options).value < row(sharp, KEY, **options).value, name
