"""A loss of one's own: regression and one logit, against values computed by hand in NumPy."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prunegen_jax import MEASURES, Dataset, TrainedModel, measure, prunability, prunability_prefix, random_prunability
from prunegen_jax.pruning import pruned_loss_curve
from prunegen_jax.types import History

HISTORY = History((2.0, 1.0), (5, 10), (1.5, 0.9), 10, 8, 1.0)


def network(params, inputs):
    """Inputs [n, 12] → outputs [n, 2]."""
    return jax.nn.relu(inputs @ params["first"]) @ params["second"]


def squared_error(outputs, targets):
    return jnp.sum(jnp.square(outputs - targets), axis=-1)


@functools.cache
def regression():
    """A network whose outputs miss their targets by noise, and what it was before training."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    params, initial = ({"first": draw(12, 12), "second": draw(12, 2)} for _ in range(2))
    inputs = draw(40, 12)
    targets = network(params, inputs) + 0.3 * draw(40, 2)
    train = Dataset(inputs, targets, loss=squared_error)
    first = TrainedModel(network, initial, train)
    return TrainedModel(network, params, train, init_params=initial, history=HISTORY, first_epoch=first)


def loss_in_numpy(params, data):
    hidden = np.maximum(np.asarray(data.inputs, np.float64) @ np.asarray(params["first"], np.float64), 0)
    outputs = hidden @ np.asarray(params["second"], np.float64)
    return np.square(outputs - np.asarray(data.labels)).sum(-1).mean()


def keep_largest(params, count):
    """The `count` weights of largest magnitude, the others zero; by sorting in NumPy."""
    leaves, tree = jax.tree.flatten(params)
    vector = np.concatenate([np.asarray(leaf).ravel() for leaf in leaves])
    kept = np.zeros_like(vector)
    chosen = np.argsort(-np.abs(vector), kind="stable")[:count]
    kept[chosen] = vector[chosen]
    parts = np.split(kept, np.cumsum([leaf.size for leaf in leaves])[:-1])
    return jax.tree.unflatten(tree, [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)])


def test_prunability_of_a_regression_is_the_definition():
    model = regression()
    size = 12 * 14
    limit = 1.1 * loss_in_numpy(model.params, model.train)
    passing = [
        j
        for j in range(1001)
        if loss_in_numpy(keep_largest(model.params, (size * j + 500) // 1000), model.train) <= limit
    ]
    found = prunability(model.apply, model.params, model.train)
    assert found.fraction == passing[0] / 1000
    assert found.dense == pytest.approx(limit / 1.1, rel=1e-5)
    assert measure(model, ["prunability"])["prunability"].value == found.fraction
    curve = pruned_loss_curve(model.apply, model.params, model.train, steps=4)
    by_hand = [loss_in_numpy(keep_largest(model.params, size * j // 4), model.train) for j in range(5)]
    np.testing.assert_allclose(curve.losses, by_hand, rtol=1e-5)
    assert prunability_prefix(model.apply, model.params, model.train).fraction >= found.fraction
    assert random_prunability(jax.random.key(0), model.apply, model.params, model.train).dense == found.dense


def test_a_loss_of_ones_own_that_is_the_cross_entropy_changes_nothing():
    rng = np.random.default_rng(1)
    model = regression()
    labels = jnp.asarray(rng.integers(0, 2, 40), jnp.int32)
    usual = dataclasses.replace(model, train=Dataset(model.train.inputs, labels))
    loss = optax.softmax_cross_entropy_with_integer_labels
    own = dataclasses.replace(model, train=Dataset(model.train.inputs, labels, loss=loss))
    names = ["prunability_prefix", "average_sharpness", "worst_sharpness", "sam_sharpness_batches", "gradient_noise"]
    expected, found = measure(usual, names), measure(own, names)
    for name in names:
        assert (found[name].status, found[name].reason) == (expected[name].status, expected[name].reason), name
        np.testing.assert_allclose(found[name].value, expected[name].value, rtol=1e-5, err_msg=name)


def test_second_derivatives_of_a_regression():
    """The Hessian in one piece by `jax.hessian`, in float64."""
    model = regression()
    flat, unravel = jax.flatten_util.ravel_pytree(model.params)
    total = lambda vector: squared_error(network(unravel(vector), model.train.inputs), model.train.labels).mean()  # noqa: E731
    hessian = np.asarray(jax.hessian(total)(flat), np.float64)
    gradients = jax.vmap(
        lambda x, y: jax.grad(lambda v: squared_error(network(unravel(v), x[None]), y[None])[0])(flat)
    )(model.train.inputs, model.train.labels)
    names = ["hessian_trace", "hessian_top_eigenvalue", "gradient_noise", "sam_sharpness"]
    found = measure(model, names)
    assert abs(found["hessian_trace"].value - np.trace(hessian)) < 4 * found["hessian_trace"].sem + 1e-3
    assert found["hessian_top_eigenvalue"].value == pytest.approx(np.linalg.eigvalsh(hessian)[-1], rel=1e-3)
    spread = np.square(np.asarray(gradients) - np.asarray(gradients).mean(0)).sum(1).mean()
    assert found["gradient_noise"].value == pytest.approx(spread, rel=1e-4)
    gradient = np.asarray(jax.grad(total)(flat))
    step = jnp.asarray(0.05 * gradient / np.linalg.norm(gradient))
    assert found["sam_sharpness"].value == pytest.approx(float(total(flat + step) - total(flat)), rel=1e-3)
    part = measure(model, ["gradient_noise"], options={"gradient_noise": {"examples": 20}})["gradient_noise"]
    assert part.status == "ok" and part.sem > 0


def test_measures_of_classes_say_so():
    names = [name for name, row in MEASURES.items() if not row.any_loss]
    for name, estimate in measure(regression(), names).items():
        assert (estimate.status, estimate.reason[:19]) == ("not_applicable", "classification only"), name
    assert {"inverse_margin", "training_cross_entropy", "prunability_error", "gauss_newton_trace"} <= set(names)
    assert len(MEASURES) - len(names) >= 35


@pytest.mark.networks
@pytest.mark.slow
def test_all_other_measures_apply():
    names = [name for name, row in MEASURES.items() if row.any_loss]
    assert {name: e.reason for name, e in measure(regression(), names).items() if e.status != "ok"} == {}


def test_one_logit():
    """The network of two logits (0, z) is the same; so are its losses and its prunability."""
    model = regression()
    labels = jnp.arange(40) % 2
    one = lambda params, x: network(params, x)[:, 0]  # noqa: E731
    two = lambda params, x: jnp.stack([jnp.zeros(len(x)), one(params, x)], axis=-1)  # noqa: E731
    loss = lambda z, y: optax.sigmoid_binary_cross_entropy(z, y.astype(z.dtype))  # noqa: E731
    own, usual = Dataset(model.train.inputs, labels, loss=loss), Dataset(model.train.inputs, labels)
    assert prunability(one, model.params, own).fraction == prunability(two, model.params, usual).fraction
    names = ["worst_sharpness", "gradient_noise"]
    found = measure(TrainedModel(one, model.params, own), [*names, "path_norm"])
    expected = measure(TrainedModel(two, model.params, usual), names)
    for name in names:
        assert found[name].value == pytest.approx(expected[name].value, rel=1e-3), name
    squares = [np.square(np.asarray(kernel, np.float64)) for kernel in model.params.values()]
    assert found["path_norm"].value == pytest.approx((np.ones(12) @ squares[0] @ squares[1])[0], rel=1e-4)


@pytest.mark.parametrize(
    ("loss", "message"),
    [(lambda z, y: squared_error(z, y).mean(), r"one number per example, \[n\].*returns \[\]"),
     (lambda z, y: jnp.square(z[:, :1] - y[None, :, 0]).mean(1), "depends on no other example"),
     (lambda z, y: jnp.square(z - y), r"returns \[2, 2\]")],
)  # fmt: skip
def test_losses_that_are_refused(loss, message):
    model = regression()
    train = dataclasses.replace(model.train, loss=loss)
    with pytest.raises(ValueError, match=message):
        prunability(network, model.params, train)
    with pytest.raises(ValueError, match=message):
        measure(dataclasses.replace(model, train=train), ["parameter_norm"])


def test_negative_losses_and_errors_are_refused():
    model = regression()
    train = dataclasses.replace(model.train, loss=lambda z, y: squared_error(z, y) - 1)
    with pytest.raises(ValueError, match="prunability needs losses ≥ 0"):
        prunability(network, model.params, train)
    assert measure(dataclasses.replace(model, train=train), ["hessian_trace"])["hessian_trace"].status == "ok"
    with pytest.raises(ValueError, match="criterion='error' is for classification only"):
        prunability(network, model.params, model.train, criterion="error")
    with pytest.raises(ValueError, match=r"returns \[40\] for 2 examples, not outputs"):
        prunability(lambda params, x: jnp.zeros(40), model.params, model.train)
