"""The ensemble of slots: companions, slots and stops change nothing; one program."""

from __future__ import annotations

import contextlib

import jax
import numpy as np
import pytest

from prunegen_jax import data, training
from prunegen_jax.training import Recipe, TrainingRequest
from tests.support.ensembles import RECIPE, ends, jobs, network, stacked


@pytest.fixture(scope="module")
def digits():
    return data.split(data.load("digits"), train_size=200).train


def assert_equal(a, b):
    assert a._replace(state=None, first_epoch=None) == b._replace(state=None, first_epoch=None)
    for x, y in zip(jax.tree.leaves((a.state, a.first_epoch)), jax.tree.leaves((b.state, b.first_epoch)), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def in_three_slots(digits):
    return list(training.train_many(network(), digits, jobs(), slots=3))


def test_slots_are_refilled(in_three_slots):
    last = ends(in_three_slots)
    assert set(last) == {0, 1, 2, 3, 4}
    assert last[2].status == "diverged"
    assert last[4].status == "not_converged"
    assert {last[0].status, last[1].status, last[3].status} <= {"converged", "not_converged"}
    assert last[0].status == "converged"
    order = [index for now in in_three_slots for index, _ in now]
    assert order[:3] == [0, 1, 2]
    assert 3 in order[order.index(2) : order.index(2) + 5]  # in the slot of the network that diverged


def test_neither_other_networks_nor_slots_change_a_network(in_three_slots, digits):
    expected = ends(in_three_slots)
    reversed_order = ends(training.train_many(network(), digits, jobs()[::-1], slots=3))
    for index, snapshot in reversed_order.items():
        assert_equal(snapshot, expected[4 - index])
    alone = ends(training.train_many(network(), digits, jobs()[3:4], slots=3))
    assert_equal(alone[0], expected[3])


def test_resumes_bit_for_bit(in_three_slots, digits):
    expected = ends(in_three_slots)
    begun = [snapshot for now in in_three_slots for index, snapshot in now if index == 3][1]
    rest = [TrainingRequest(job.h, job.recipe, begun if i == 3 else None) for i, job in enumerate(jobs())]
    found = ends(training.train_many(network(), digits, rest[::-1], slots=3))
    assert_equal(found[1], expected[3])


def test_one_update_is_that_of_a_single_slot(digits):
    """Across numbers of slots a step agrees to float error."""
    recipe = Recipe(batch_size=20, augment=True)
    one, four = (training.compile_for(network(), recipe, slots=slots) for slots in (1, 4))
    h = jobs()[3].h
    state = one.init(h.key)
    singly, loss = one.run(*stacked((state, h), 1), digits, *np.asarray([[0], [0], [2]], np.int32))
    numbers = np.asarray([[0, 0, 0, 0], [0, 0, 0, 0], [0, 2, 1, 0]], np.int32)
    together, losses = four.run(*stacked((state, h), 4), digits, *numbers)
    np.testing.assert_allclose(losses[1], loss[0], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(singly), strict=True):
        np.testing.assert_allclose(a[1], b[0], rtol=1e-4, atol=1e-5)
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(a[3], b)  # this slot had no update to do


def test_the_next_network_of_a_slot_compiles_nothing(in_three_slots, digits):
    compiled = training.compile_for(network(), RECIPE, slots=3)
    before = compiled.run._cache_size()
    list(training.train_many(network(), digits, jobs()[:4], slots=3))
    assert (before, compiled.run._cache_size()) == (1, 1)


def test_spans_tell_updates_from_checks(digits):
    seen = []

    def span(name):
        seen.append(name)
        return contextlib.nullcontext()

    last = ends(training.train_many(network(), digits, jobs()[:2], slots=1, span=span))
    assert seen.count("check") == sum(len(snapshot.check_loss) for snapshot in last.values())
    assert seen.count("update") >= sum(snapshot.epochs for snapshot in last.values())


def test_requests_that_cannot_train_together(digits):
    other = TrainingRequest(jobs()[0].h, Recipe(batch_size=25))
    with pytest.raises(ValueError, match=r"trained together must share .*: \('momentum', 25, False\) is not"):
        next(training.train_many(network(), digits, [jobs()[0], other]))
    with pytest.raises(ValueError, match="slots=0 must be a positive multiple of the 1 devices"):
        next(training.train_many(network(), digits, jobs(), slots=0))
    with pytest.raises(ValueError, match="batch_size=201 is larger"):
        next(training.train_many(network(), digits, [TrainingRequest(jobs()[0].h, Recipe(batch_size=201))]))
