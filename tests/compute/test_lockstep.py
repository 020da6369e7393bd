"""Functions in lockstep: each computes what it computes alone, whatever the other functions of its group are."""

from __future__ import annotations

import functools
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunegen_jax.compute import lockstep, memory
from tests.support.searches import DATA, moment, searches, start, traced


def test_searches_in_lockstep_return_what_each_returns_alone():
    alone = [search() for search in searches(range(5))]
    found = lockstep.run(searches(range(5)), lanes=5, common=DATA)
    assert len({calls for calls, _ in alone}) > 2  # they are of different lengths
    assert [calls for calls, _ in found] == [calls for calls, _ in alone]
    for (_, ours), (_, theirs) in zip(found, alone, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_bits_do_not_depend_on_the_other_functions():
    seeds = list(range(7))
    first = dict(zip(seeds, lockstep.run(searches(seeds), lanes=4, common=DATA), strict=True))
    second = dict(zip([6, 2, 3], lockstep.run(searches([6, 2, 3]), lanes=4, common=DATA), strict=True))
    for seed, (calls, weights) in second.items():
        assert calls == first[seed][0]
        assert weights.tobytes() == first[seed][1].tobytes()


def test_calls_of_one_kind_are_traced_once_and_vmapped():
    traced.clear()
    ask = [functools.partial(moment, start(seed), DATA, power=3) for seed in range(4)]
    found = lockstep.run([*ask, *ask], lanes=4, common=DATA)
    assert traced == ["3"]
    for seed, answer in enumerate(found):
        alone = 2.0 * np.sum((np.asarray(DATA) @ np.asarray(start(seed % 4))) ** 3)
        np.testing.assert_allclose(answer["sum"], alone, rtol=1e-5)


def test_calls_of_different_kinds_in_one_group():
    def ask(power, shape):
        return lockstep.size(), float(moment(jnp.ones(shape), jnp.ones((2, *shape)), power=power)["sum"])

    found = lockstep.run([functools.partial(ask, *one) for one in ((2, (3,)), (3, (3,)), (2, (5,)))], lanes=3)
    assert found == [(3, 36.0), (3, 108.0), (3, 100.0)]
    assert lockstep.size() == 1


def test_within_another_program_and_outside_a_group_it_is_plain_jit():
    found = jax.vmap(lambda w: moment(w, DATA, power=2)["sum"])(jnp.stack([start(0), start(1)]))
    inside = lockstep.run([lambda: jax.vmap(lambda w: moment(w, DATA, power=2)["sum"])(start(0)[None])] * 2, lanes=2)
    alone = [float(moment(start(seed), DATA, power=2)["sum"]) for seed in (0, 1)]
    np.testing.assert_allclose(found, alone, rtol=1e-6)
    np.testing.assert_allclose(inside, [[alone[0]]] * 2, rtol=1e-6)
    assert jax.eval_shape(lambda: moment(start(0), DATA, power=2))["weights"].shape == (3,)


def test_an_exception_is_raised_once_the_others_have_returned():
    returned = []

    def wrong():
        moment(start(0), DATA, power=2)
        raise ValueError("raised by one")

    def right():
        for _ in range(3):
            moment(start(1), DATA, power=2)
        returned.append("right")

    with pytest.raises(ValueError, match="raised by one"):
        lockstep.run([wrong, right], lanes=2)
    assert returned == ["right"]


def test_a_failing_call_raises_in_the_function_that_made_it():
    def careful():
        try:
            moment(jnp.ones(7), DATA, power=2)  # shapes that do not fit
        except TypeError as error:
            return type(error).__name__
        return "nothing"

    assert lockstep.run([careful, careful], lanes=2) == ["TypeError", "TypeError"]


def test_no_more_lanes_than_memory_holds(monkeypatch):
    @lockstep.jit
    def square(x):
        return x @ x

    counts = []
    real = lockstep._program
    monkeypatch.setattr(lockstep, "_program", lambda *a: counts.append(real(*a)) or counts[-1])
    monkeypatch.setattr(memory, "device_memory", lambda: 3 * 4 * 64 * 64 * 4)
    x = jax.random.normal(jax.random.key(0), (64, 64))
    found = lockstep.run([functools.partial(square, (i + 1.0) * x) for i in range(5)], lanes=8)
    assert 1 <= counts[0].lanes < 8
    for i, answer in enumerate(found):
        np.testing.assert_allclose(answer, (i + 1.0) ** 2 * np.asarray(square(x)), rtol=1e-4, atol=1e-3)


def test_a_call_that_fails_does_not_affect_the_others():
    jitted = lockstep.jit(lambda x: jnp.log(x))

    def ask(x):
        try:
            return float(jitted(jnp.float32(x)))
        except FloatingPointError:
            return "failed"

    jax.config.update("jax_debug_nans", True)
    try:
        assert lockstep.run([functools.partial(ask, x) for x in (1.0, -1.0, 1.0)], lanes=3) == [0.0, "failed", 0.0]
    finally:
        jax.config.update("jax_debug_nans", False)


def test_which_shared_array_it_is_counts():
    total = lockstep.jit(jnp.sum)
    first, second = jnp.zeros(3), jnp.full(3, 7.0)
    asks = [functools.partial(total, x) for x in (first, second, jnp.ones(3), second)]
    assert list(map(float, lockstep.run(asks, lanes=4, common=(first, second)))) == [0.0, 21.0, 3.0, 21.0]


def test_static_values_are_distinguished_by_type():
    times = functools.partial(lockstep.jit, static_argnames="by")(lambda x, by: jnp.full_like(x, by, dtype=type(by)))
    found = lockstep.run([functools.partial(times, jnp.int32(3), by=by) for by in (2, 2.0)], lanes=2)
    assert [answer.dtype for answer in found] == [jnp.int32, jnp.float32]


def test_an_unhashable_static_argument_raises_in_the_caller():
    times = functools.partial(lockstep.jit, static_argnames="by")(lambda x, by: x * by[0])

    def ask(by):
        try:
            return float(times(jnp.float32(3), by=by))
        except TypeError as error:
            return str(error)

    found = lockstep.run([functools.partial(ask, by) for by in ([2], (2,))], lanes=2)
    assert ("unhashable" in found[0], found[1]) == (True, 6.0)


def test_every_signature():
    program = lockstep.jit(lambda x, /, *xs, y=1.0, **more: x + sum(xs) + y * more["z"])
    asks = [functools.partial(program, jnp.float32(i), 1.0, 2.0, y=3.0, z=4.0) for i in range(2)]
    assert list(map(float, lockstep.run(asks, lanes=2))) == [15.0, 16.0]


def test_within_another_program_that_all_make():
    constant = jnp.arange(3.0)
    outer = jax.jit(lambda x: x + lockstep.jit(jnp.sum)(constant))
    assert list(map(float, lockstep.run([functools.partial(outer, 1.0)] * 2, lanes=2))) == [4.0, 4.0]


def test_a_compiler_out_of_memory_gets_fewer_lanes(monkeypatch):
    real = jax.stages.Lowered.compile
    refused = []

    def compile(self, *args, **kwargs):
        if "tensor<8x5xf32>" in self.as_text():
            refused.append(1)
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(jax.stages.Lowered, "compile", compile)
    square = lockstep.jit(lambda x: jnp.sum(x * x))
    found = lockstep.run([functools.partial(square, jnp.full(5, float(i))) for i in range(6)], lanes=8)
    assert list(map(float, found)) == [5.0 * i * i for i in range(6)]
    assert refused == [1]


def test_no_program_keeps_the_arrays_that_it_was_called_with():
    square = lockstep.jit(lambda x: jnp.sum(x * x))
    held = weakref.ref(x := jnp.ones(5))
    lockstep.run([functools.partial(square, x)] * 2, lanes=2)
    del x
    gc.collect()
    assert held() is None


def test_lanes_are_a_multiple_of_the_devices():
    with pytest.raises(ValueError, match="lanes=3 must be a positive multiple of the 2 devices"):
        lockstep.run([], lanes=3, devices=jax.devices() * 2)
