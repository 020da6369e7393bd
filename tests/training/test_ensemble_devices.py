"""The ensemble of slots on eight devices: `pytest -m devices`."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from prunegen_jax import data, training
from prunegen_jax.training import TrainingRequest
from tests.support.ensembles import RECIPE, ends, jobs, network, stacked

pytestmark = pytest.mark.devices


@pytest.fixture(scope="module")
def digits():
    return data.split(data.load("digits"), train_size=200).train


def test_networks_end_as_on_one_device(devices, digits):
    short = [TrainingRequest(job.h, dataclasses.replace(job.recipe, max_epochs=2)) for job in jobs() * 2]
    sharded = ends(training.train_many(network(), digits, short, slots=8, devices=devices))
    whole = ends(training.train_many(network(), digits, short, slots=8))
    assert set(sharded) == set(whole) == set(range(10))
    for i, a in whole.items():
        b = sharded[i]
        assert (a.status, a.updates, a.check_update) == (b.status, b.updates, b.check_update)
        np.testing.assert_allclose(a.check_loss, b.check_loss, rtol=1e-3)


def test_slots_are_divided_and_nothing_passes_between_devices(devices, digits):
    program = training.compile_for(network(), RECIPE, slots=8, devices=devices)
    states, h = stacked((program.init(jobs()[0].h.key), jobs()[0].h), 8)
    numbers = np.zeros((3, 8), np.int32)
    text = program.run.lower(states, h, digits, *numbers).compile().as_text()
    collectives = ("all-reduce", "all-gather", "all-to-all", "collective-permute")
    assert [word for word in collectives if word in text] == []
    states, _ = program.run(states, h, digits, *numbers)
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(states)} == {8}


def test_slots_are_a_multiple_of_the_devices(devices):
    with pytest.raises(ValueError, match="slots=12 must be a positive multiple of the 8 devices"):
        training.compile_for(network(), RECIPE, slots=12, devices=devices)
