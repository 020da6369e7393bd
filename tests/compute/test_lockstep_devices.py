"""Lockstep on eight devices: `pytest -m devices`."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from prunegen_jax.compute import lockstep
from tests.support import searches

pytestmark = pytest.mark.devices


def test_searches_end_as_alone(devices):
    alone = [search() for search in searches.searches(range(11))]
    found = lockstep.run(searches.searches(range(11)), lanes=8, common=searches.DATA, devices=devices)
    assert [calls for calls, _ in found] == [calls for calls, _ in alone]
    for (_, ours), (_, theirs) in zip(found, alone, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_lanes_are_divided_over_the_devices(devices):
    call = functools.partial(searches.moment, searches.start(0), searches.DATA, power=2)
    (answer,) = lockstep.run([call], lanes=8, devices=devices)
    assert len(answer["weights"].sharding.device_set) == 8
