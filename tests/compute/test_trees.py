"""Names of leaves, whichever library made the tree: what is a kernel, a bias or a running statistic depends on them."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import pytest
from flax import linen, nnx

from prunegen_jax import Dataset, TrainedModel, measure
from prunegen_jax.compute import trees


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 4, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.head = nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, images):
        hidden = nnx.relu(self.norm(self.conv(images)))
        return self.head(hidden.reshape(len(images), -1))


class Linen(linen.Module):
    @linen.compact
    def __call__(self, images):
        hidden = linen.Conv(4, (3, 3), strides=2, name="conv")(images)
        hidden = linen.relu(linen.BatchNorm(use_running_average=True, name="norm")(hidden))
        return linen.Dense(3, name="head")(hidden.reshape(len(images), -1))


@pytest.fixture(scope="module")
def train():
    images = jax.random.normal(jax.random.key(0), (60, 4, 4, 1))
    return Dataset(images, jax.random.randint(jax.random.key(1), (60,), 0, 3))


def in_nnx():
    net = Nnx(nnx.Rngs(0))
    net.eval()
    graph, params, rest = nnx.split(net, nnx.Param, ...)
    return params, rest, lambda rest, params, images: nnx.merge(graph, params, rest)(images)


def test_an_nnx_state_names_its_leaves_as_linen_does():
    params, _, _ = in_nnx()
    expected = Linen().init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))["params"]
    assert [name for name, _ in trees.named_leaves(params)] == [name for name, _ in trees.named_leaves(expected)]
    assert {"/".join(name) for name in trees.kernels(params)} == {"conv/kernel", "head/kernel"}


def test_the_same_weights_give_the_same_measures_in_nnx_and_linen(train):
    params, rest, apply = in_nnx()
    net = Linen()
    variables = net.init(jax.random.key(0), train.inputs[:1])
    pure = nnx.to_pure_dict(params)

    def linen_apply(stats, params, images):
        return net.apply({"params": params, "batch_stats": stats}, images)

    ours = TrainedModel(functools.partial(apply, rest), params, train)
    other = TrainedModel(functools.partial(linen_apply, variables["batch_stats"]), pure, train)
    names = ["prunability", "num_parameters", "hessian_trace", "sam_sharpness", "path_norm"]
    found, expected = measure(ours, names), measure(other, names)
    assert found["path_norm"].status == "ok"  # batch norm counts with its effective scale and shift
    for name in names:
        assert found[name].status == expected[name].status
        if found[name].status == "ok":
            assert found[name].value == pytest.approx(expected[name].value, rel=1e-4)


def test_running_statistics_of_nnx_are_no_parameters(train):
    net = Nnx(nnx.Rngs(0))
    _, state = nnx.split(net)
    with pytest.raises(ValueError, match="running statistics 'norm/mean'"):
        TrainedModel(lambda params, images: images, state, train)
