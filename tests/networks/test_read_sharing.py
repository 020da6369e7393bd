"""Networks of equal shape share what is read and what is compiled; nothing is traced twice."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunegen_jax.compute.closures import lift
from prunegen_jax.networks.reading import read
from prunegen_jax.types import Dataset, TrainedModel
from tests.support.reading_cases import ResNet, equinox_cnn, images, linen, nnx_cnn, randomize


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


def closure(array, factor, inner=None):
    def apply(params, x, *, shift=0.0):
        hidden = x @ params["w"] * array[None] * factor + shift
        return hidden if inner is None else inner(hidden)

    return apply


def test_lifted_closures_are_equal_where_their_arrays_alone_differ():
    x, params = images(5, (6,)), {"w": jnp.ones((6, 3))}
    one, other = (closure(value * jnp.ones(3), 2.0, closure_inner(jnp.ones(3))) for value in (1.0, 2.0))
    lifted = lift(one), lift(other)
    assert lifted[0].func == lifted[1].func and len(jax.tree.leaves(lifted[0])) == 2
    for function, made in zip((one, other), lifted, strict=True):
        np.testing.assert_array_equal(made(params, x, shift=1.0), function(params, x, shift=1.0))
    assert lift(closure(jnp.ones(3), 1)).func != lift(closure(jnp.ones(3), 1.0)).func  # though 1 == 1.0
    assert lift(closure(jnp.ones(3), 3.0)).func != lift(closure(jnp.ones(3), 2.0)).func
    assert lift(closure([], {}.keys())).func.original.__name__ == "apply"  # not hashable


def closure_inner(array):
    return lambda hidden: hidden + array[None]


def test_a_traced_array_deep_in_a_closure_is_refused():
    class Holder:
        pass

    def loss(array):
        holder = Holder()
        holder.array = array
        return read(lambda params, x: x @ params["w"] * holder.array[None], {"w": jnp.ones((6, 3))}, images(5, (6,)))

    with pytest.raises(TypeError, match="bind it with"):
        jax.jit(lambda array: loss(array).layers and 0)(jnp.ones(3))


@pytest.mark.parametrize("make", [nnx_cnn, equinox_cnn])
def test_closures_of_one_source_share_the_programs_of_their_evaluation(make):
    """A closure over statistics of NNX, and one over Equinox's static part alone."""
    train = Dataset(images(), jnp.zeros(5, jnp.int32))
    run, results = jax.jit(lambda function, params, x: function(params, x)), []
    for seed in (0, 5):
        apply, params = make(seed)
        model = TrainedModel(apply, randomize(params, seed), train)
        results.append(run(model.apply, model.params, train.inputs))
        np.testing.assert_allclose(results[-1], jax.jit(apply)(model.params, train.inputs), atol=1e-5)
    assert run._cache_size() == 1
    assert np.abs(results[0] - results[1]).max() > 1e-3


def test_an_array_whose_value_decides_what_is_computed_stays_a_constant():
    def model(flags):
        def apply(params, x):
            return x @ params["w"] * (2.0 if flags[0] else 1.0)

        return TrainedModel(apply, {"w": jnp.ones((6, 3))}, Dataset(images(5, (6,)), jnp.zeros(5, jnp.int32)))

    models = [model(np.asarray([value])) for value in (True, False)]
    one, other = (jax.jit(m.apply)(m.params, m.train.inputs) for m in models)
    np.testing.assert_allclose(one, 2.0 * other)
    assert read(models[0].apply, models[0].params, models[0].train.inputs).layers


class Holder:
    """An object of a person's own code, which changes without becoming another."""

    factor = 1.0

    def method(self):
        return self.factor


FACTOR = 1.0


def test_a_changed_object_or_global_variable_is_another_function(monkeypatch):
    def with_object(array, holder):
        return lambda params, x: x @ params["w"] * array[None] * holder.factor

    def with_method(array, method):
        return lambda params, x: x @ params["w"] * array[None] * method()

    def with_global(array):
        def apply(params, x):
            return sum(part * FACTOR for part in (x @ params["w"] * array[None],))  # a function within

        return apply

    run, params, x = jax.jit(lambda function, params, x: function(params, x)), {"w": jnp.ones((6, 3))}, images(5, (6,))
    holder, ones = Holder(), jnp.ones(3)

    def logits():
        functions = with_object(ones, holder), with_method(ones, holder.method), with_global(ones)
        return np.asarray([run(lift(function), params, x) for function in functions])

    before = logits()
    holder.factor = 3.0
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    after = logits()
    np.testing.assert_allclose(after, 3.0 * before, rtol=1e-6)
    assert lift(with_global(ones)).func == lift(with_global(2 * ones)).func
