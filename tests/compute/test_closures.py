"""Arrays in closures become arguments, so that functions of one source share what is compiled."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunegen_jax.compute.closures import lift
from prunegen_jax.networks.reading import read
from prunegen_jax.types import Dataset, TrainedModel
from tests.support.reading_cases import equinox_cnn, images, nnx_cnn, randomize


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
