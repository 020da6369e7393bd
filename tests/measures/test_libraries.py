"""Measures of networks written in plain JAX, Linen, NNX and Equinox."""

from __future__ import annotations

import functools

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from prunegen_jax.measures import measure
from prunegen_jax.types import Dataset, TrainedModel
from tests.support.registry_cases import answer

IMAGES = jax.random.normal(jax.random.key(0), (60, 5, 5, 2))
LABELS = (IMAGES.sum(axis=(1, 2, 3)) > 0).astype(jnp.int32)
DATA = Dataset(IMAGES, LABELS)
NAMES = [
    "prunability",
    "parameter_norm",
    "training_cross_entropy",
    "hessian_trace",
    "average_sharpness",
    "inverse_margin",
]


def assert_measured(model, expected_logits):
    np.testing.assert_allclose(model.apply(model.params, IMAGES), expected_logits, rtol=1e-5, atol=1e-5)
    found = measure(model, NAMES)
    assert {name: estimate.reason for name, estimate in found.items() if estimate.status != "ok"} == {}
    losses = -jax.nn.log_softmax(expected_logits)[jnp.arange(60), LABELS]
    assert found["training_cross_entropy"].value == pytest.approx(float(losses.mean()), rel=1e-5)
    return found


def test_a_plain_function():
    keys = jax.random.split(jax.random.key(1))
    params = [(jax.random.normal(keys[0], (50, 8)), jnp.zeros(8)), (jax.random.normal(keys[1], (8, 2)), jnp.zeros(2))]

    def apply(params, images):
        (w1, b1), (w2, b2) = params
        hidden = jax.nn.relu(images.reshape(len(images), -1) @ w1 + b1[None])
        return hidden @ w2 + b2[None]

    found = assert_measured(TrainedModel(apply, params, DATA), apply(params, IMAGES))
    assert found["parameter_norm"].value == pytest.approx(float((params[0][0] ** 2).sum() + (params[1][0] ** 2).sum()))
    assert found["prunability"].details["prunable"] == 50 * 8 + 8 * 2


def test_a_linen_network_with_batch_statistics_bound():
    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.relu(linen.BatchNorm(use_running_average=True)(linen.Conv(4, (3, 3))(x)))
            return linen.Dense(2)(x.mean(axis=(1, 2)))

    net = Net()
    variables = net.init(jax.random.key(0), IMAGES)
    stats = jax.tree.map(lambda x: x + 0.5, variables["batch_stats"])

    def apply(stats, params, images):
        return net.apply({"params": params, "batch_stats": stats}, images)

    model = TrainedModel(functools.partial(apply, stats), variables["params"], DATA)
    assert_measured(model, apply(stats, variables["params"], IMAGES))


def test_running_statistics_among_the_parameters_are_refused():
    """They are not parameters: pruning or perturbing them would measure something else."""
    params = {"params": {"kernel": jnp.ones((50, 2))}, "batch_stats": {"mean": jnp.zeros(2)}}

    def apply(variables, images):
        return images.reshape(len(images), -1) @ variables["params"]["kernel"] + variables["batch_stats"]["mean"][None]

    with pytest.raises(ValueError, match=r"batch_stats/mean.*functools\.partial"):
        TrainedModel(apply, params, DATA)
    nested = {"one": {"kernel": jnp.ones((50, 2)), "norm": {"scale": jnp.ones(2), "var": jnp.ones(2)}}}
    with pytest.raises(ValueError, match="one/norm/var"):
        TrainedModel(apply, nested, DATA)
    with pytest.raises(ValueError, match="init_params"):
        TrainedModel(apply, {"kernel": jnp.ones((50, 2))}, DATA, init_params={"kernel": jnp.ones((50, 3))})


def test_an_nnx_network():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(2, 4, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)
            self.head = nnx.Linear(4, 2, rngs=rngs)

        def __call__(self, x):
            return self.head(nnx.relu(self.norm(self.conv(x))).mean(axis=(1, 2)))

    net = Net(nnx.Rngs(0))
    graph, params, rest = nnx.split(net, nnx.Param, ...)

    def apply(rest, params, images):
        return nnx.merge(graph, params, rest)(images)

    model = TrainedModel(functools.partial(apply, rest), params, DATA)
    found = assert_measured(model, net(IMAGES))
    assert found["prunability"].details["prunable"] == 3 * 3 * 2 * 4 + 4 * 2


def test_an_equinox_network():
    net = equinox.nn.MLP(50, 2, 8, 1, key=jax.random.key(0))
    params, static = equinox.partition(net, equinox.is_array)

    def apply(params, images):
        return jax.vmap(equinox.combine(params, static))(images.reshape(len(images), -1))

    model = TrainedModel(apply, params, DATA)
    assert_measured(model, jax.vmap(net)(IMAGES.reshape(60, -1)))


def test_geometry_is_read_for_exact_spectral_norms():
    kernel = jax.random.normal(jax.random.key(2), (3, 3, 2, 2))

    def apply(params, images):
        y = jax.lax.conv_general_dilated(
            images, params["conv"]["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y.mean(axis=(1, 2))

    model = TrainedModel(apply, {"conv": {"kernel": kernel}}, DATA)
    matrix = jax.vmap(
        lambda e: jax.lax.conv_general_dilated(
            e.reshape(1, 5, 5, 2), kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ).ravel()
    )(jnp.eye(50))
    largest = np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)[0]
    assert answer("product_of_spectral_norms", model).value == pytest.approx(largest**2, rel=1e-4)
