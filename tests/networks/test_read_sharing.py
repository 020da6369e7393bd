"""Networks of equal shape share what is read and what is compiled; nothing is traced twice."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunegen_jax.networks.reading import read
from tests.support.reading_cases import ResNet, images, linen, nnx_cnn, randomize


def pair(kind):
    """Two networks of one shape, and inputs."""
    x = images()
    if kind == "nnx":
        return nnx_cnn(0), nnx_cnn(5), x
    return linen(ResNet(4, (1,)), x, 0), linen(ResNet(4, (1,)), x, 5), x


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_two_networks_share_one_compiled_program(kind):
    *networks, x = pair(kind)
    run = jax.jit(lambda function, params, x: function(params, x))
    results = []
    for apply, params in networks:
        program = read(apply, params, x)
        logits = run(program.apply, params, x)
        np.testing.assert_allclose(logits, jax.jit(apply)(params, x), atol=1e-5)
        np.testing.assert_allclose(run(program.folded, program.fold(params), x), logits, atol=1e-5)
        np.testing.assert_allclose(run(program.features, params, x)[0], logits, atol=1e-5)
        results.append(logits)
    assert run._cache_size() == 3  # apply, folded, features: once each for both networks
    assert np.abs(results[0] - results[1]).max() > 1e-3


def test_a_second_reading_traces_nothing():
    calls = []

    def apply(statistics, params, x):
        calls.append(x.shape)
        return x @ params["w"] * statistics[None]

    params, x = {"w": jnp.ones((6, 3))}, images(5, (6,))
    first = read(functools.partial(apply, jnp.ones(3)), params, x)
    assert first.layers and len(calls) == 2
    second = read(functools.partial(apply, 2 * jnp.ones(3)), {"w": 3 * jnp.ones((6, 3))}, x[:1])
    assert second.layers is first.layers and len(calls) == 2
    jax.jit(second.features)(params, x)
    jax.jit(first.features)(params, x)
    assert len(calls) == 3  # the batch of five


def test_other_batch_sizes_dtypes_and_precisions_are_traced_again():
    apply, params = linen(ResNet(4, (1,)), images())
    program = read(apply, params, images())
    for n in (1, 2, 7):
        found = jax.jit(program.features)(params, images(n))[0]
        np.testing.assert_allclose(found, jax.jit(apply)(params, images(n)), atol=1e-5)
    with jax.default_matmul_precision("highest"):
        text = str(jax.make_jaxpr(program.features)(params, images()))
    assert "HIGHEST" in text and "HIGHEST" not in str(jax.make_jaxpr(program.features)(params, images()))


def test_under_vmap_over_parameters_and_inside_jit():
    apply, params = linen(ResNet(4, (1,)), images())
    other = randomize(params, 8)
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), params, other)

    @jax.jit
    def both_ways(both, x):
        program = read(apply, params, x)
        folded = jax.vmap(program.fold)(both)
        return jax.vmap(lambda p: program.folded(p, x))(folded), jax.vmap(lambda p: program.features(p, x)[0])(both)

    for found in both_ways(both, images()):
        for logits, own in zip(found, (params, other), strict=True):
            np.testing.assert_allclose(logits, jax.jit(apply)(own, images()), atol=1e-5)


def test_a_traced_array_deep_in_a_closure_is_refused():
    class Holder:
        pass

    def loss(array):
        holder = Holder()
        holder.array = array
        return read(lambda params, x: x @ params["w"] * holder.array[None], {"w": jnp.ones((6, 3))}, images(5, (6,)))

    with pytest.raises(TypeError, match="bind it with"):
        jax.jit(lambda array: loss(array).layers and 0)(jnp.ones(3))
