"""Functions in step: what each computes is what it computes alone, whoever is beside it."""

from __future__ import annotations

import functools
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunegen_jax import compilation, together

ROOT = pathlib.Path(__file__).parent.parent
DATA = jnp.arange(12.0).reshape(4, 3)
_traced: list[str] = []


@functools.partial(together.jit, static_argnames="power")
def _moment(weights, data, scale=2.0, *, power):
    """A program with a default, a static argument and a tree for an answer."""
    _traced.append(str(power))
    return {"sum": scale * jnp.sum((data @ weights) ** power), "weights": weights}


def _halvings(weights, data, limit):
    """A search whose number of calls depends on what they answer."""
    calls = 0
    while float(_moment(weights, data, power=2)["sum"]) > limit:
        weights, calls = _moment(0.5 * weights, data, power=2)["weights"], calls + 1
    return calls, np.asarray(weights)


def _of(seed):
    return jax.random.normal(jax.random.key(seed), (3,)) * 2.0**seed


def _searches(seeds):
    return [functools.partial(_halvings, _of(seed), DATA, 1.0) for seed in seeds]


def test_searches_in_step_end_as_each_does_alone():
    alone = [search() for search in _searches(range(5))]
    found = together.run(_searches(range(5)), lanes=5, common=DATA)
    assert len({calls for calls, _ in alone}) > 2  # they are of different lengths
    assert [calls for calls, _ in found] == [calls for calls, _ in alone]
    for (_, ours), (_, theirs) in zip(found, alone, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_bits_do_not_depend_on_who_is_beside():
    seeds = list(range(7))
    first = dict(zip(seeds, together.run(_searches(seeds), lanes=4, common=DATA), strict=True))
    second = dict(zip([6, 2, 3], together.run(_searches([6, 2, 3]), lanes=4, common=DATA), strict=True))
    for seed, (calls, weights) in second.items():
        assert calls == first[seed][0]
        assert weights.tobytes() == first[seed][1].tobytes()


def test_calls_of_one_kind_are_traced_once_and_vmapped():
    _traced.clear()
    ask = [functools.partial(_moment, _of(seed), DATA, power=3) for seed in range(4)]
    found = together.run([*ask, *ask], lanes=4, common=DATA)
    assert _traced == ["3"]
    for seed, answer in enumerate(found):
        alone = 2.0 * np.sum((np.asarray(DATA) @ np.asarray(_of(seed % 4))) ** 3)
        np.testing.assert_allclose(answer["sum"], alone, rtol=1e-5)


def test_calls_of_different_kinds_go_on_side_by_side():
    def ask(power, shape):
        return together.size(), float(_moment(jnp.ones(shape), jnp.ones((2, *shape)), power=power)["sum"])

    found = together.run([functools.partial(ask, *one) for one in ((2, (3,)), (3, (3,)), (2, (5,)))], lanes=3)
    assert found == [(3, 36.0), (3, 108.0), (3, 100.0)]
    assert together.size() == 1


def test_within_another_program_and_outside_a_group_it_is_plain_jit():
    found = jax.vmap(lambda w: _moment(w, DATA, power=2)["sum"])(jnp.stack([_of(0), _of(1)]))
    inside = together.run([lambda: jax.vmap(lambda w: _moment(w, DATA, power=2)["sum"])(_of(0)[None])] * 2, lanes=2)
    alone = [float(_moment(_of(seed), DATA, power=2)["sum"]) for seed in (0, 1)]
    np.testing.assert_allclose(found, alone, rtol=1e-6)
    np.testing.assert_allclose(inside, [[alone[0]]] * 2, rtol=1e-6)
    assert jax.eval_shape(lambda: _moment(_of(0), DATA, power=2))["weights"].shape == (3,)


def test_what_one_raises_is_raised_when_the_others_have_ended():
    ended = []

    def wrong():
        _moment(_of(0), DATA, power=2)
        raise ValueError("of its own")

    def right():
        for _ in range(3):
            _moment(_of(1), DATA, power=2)
        ended.append("right")

    with pytest.raises(ValueError, match="of its own"):
        together.run([wrong, right], lanes=2)
    assert ended == ["right"]


def test_a_call_that_fails_is_raised_where_it_was_made():
    def careful():
        try:
            _moment(jnp.ones(7), DATA, power=2)  # shapes that do not fit
        except TypeError as error:
            return type(error).__name__
        return "nothing"

    assert together.run([careful, careful], lanes=2) == ["TypeError", "TypeError"]


def test_no_more_lanes_than_memory_holds(monkeypatch):
    @together.jit
    def square(x):
        return x @ x

    counts = []
    real = together._compile
    monkeypatch.setattr(together, "_compile", lambda *a: counts.append(real(*a)) or counts[-1])
    monkeypatch.setattr(compilation, "device_memory", lambda: 3 * 4 * 64 * 64 * 4)
    x = jax.random.normal(jax.random.key(0), (64, 64))
    found = together.run([functools.partial(square, (i + 1.0) * x) for i in range(5)], lanes=8)
    assert 1 <= counts[0].lanes < 8
    for i, answer in enumerate(found):
        np.testing.assert_allclose(answer, (i + 1.0) ** 2 * np.asarray(square(x)), rtol=1e-4, atol=1e-3)


EIGHT = """
import functools, sys, jax, numpy as np
sys.path[:0] = ["tests", "."]
import test_together as t
from prunegen_jax import together
devices = jax.devices()
assert len(devices) == 8, devices
alone = [search() for search in t._searches(range(11))]
found = together.run(t._searches(range(11)), lanes=8, common=t.DATA, devices=devices)
assert [calls for calls, _ in found] == [calls for calls, _ in alone], (found, alone)
for (_, a), (_, b) in zip(found, alone):
    np.testing.assert_allclose(a, b, rtol=1e-6)
(held,) = together.run([functools.partial(t._moment, t._of(0), t.DATA, power=2)], lanes=8, devices=devices)
print(len(held["weights"].sharding.device_set))
"""


def test_eight_devices_share_the_lanes():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    flags["JAX_COMPILATION_CACHE_DIR"] = jax.config.jax_compilation_cache_dir
    done = subprocess.run(
        [sys.executable, "-c", EIGHT], cwd=ROOT, env=os.environ | flags, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "8\n"
    with pytest.raises(ValueError, match="lanes=3 must be a multiple of the 2 devices"):
        together.run([], lanes=3, devices=jax.devices() * 2)
