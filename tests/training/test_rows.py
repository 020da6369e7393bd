"""Training from inputs stored in rows gives the same bits."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from prunegen_jax import data, training
from prunegen_jax.runs import slots as slots_of_sweeps
from prunegen_jax.training import Recipe
from prunegen_jax.training.losses import mean_losses
from prunegen_jax.training.rows import in_rows, stored
from tests.support.ensembles import network, stacked

RECIPE = Recipe(batch_size=16, augment=True)


@pytest.fixture(scope="module")
def digits():
    return data.split(data.load("digits"), train_size=40).train


def assert_equal(found, expected):
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_row_holds_one_input(digits):
    rows, chosen = in_rows(digits), np.array([3, 0, 39, 3])
    assert rows.inputs.shape == (40, 64)
    assert len(rows) == 40
    np.testing.assert_array_equal(rows.inputs[3], np.asarray(digits.inputs[3]).ravel())
    assert_equal(rows.take(chosen), digits.take(chosen))
    assert rows.take(chosen)[0].shape == (4, 8, 8, 1)


@pytest.mark.parametrize("slots", [1, 2])
def test_updates_and_losses_are_the_same(slots, digits):
    program = training.compile_for(network(), RECIPE, slots=slots)
    h = training.hyper(learning_rate=0.1, weight_decay=1e-4, dropout=0.2, seed=0)
    numbers = np.array([[0], [0], [3]], np.int32).repeat(slots, axis=1)

    def train(given):
        states, losses = program.run(*stacked((program.init(h.key), h), slots), given, *numbers)
        return states, losses, mean_losses(network(), states, given, list(range(slots)))

    assert_equal(train(in_rows(digits)), train(digits))


def test_only_images_for_an_accelerator_are_stored_in_rows(monkeypatch, digits):
    table = data.split(data.load("breast_cancer"), train_size=40).train
    assert stored(digits) is digits
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert stored(table) is table
    assert stored(digits).shape == (8, 8, 1)


def test_the_memory_of_a_slot_leaves_out_the_data(monkeypatch, digits):
    one = slots_of_sweeps.bytes_of_slot(network(), RECIPE, digits)
    more = data.split(data.load("digits"), train_size=1000).train
    few = slots_of_sweeps.bytes_of_slot(network(), RECIPE, more) - one
    assert few < 0.5 * (more.inputs.nbytes - digits.inputs.nbytes)
