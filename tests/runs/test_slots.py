"""Slots: of what a workdir keeps, only what might have been chosen counts."""

from __future__ import annotations

import jax
import pytest
from etils import epath

from prunegen_jax.runs import files, slots, task
from prunegen_jax.runs import points as sweeps
from tests.support import experiments


@pytest.fixture(scope="module")
def tasks():
    config = experiments.get_config()
    return [task.build_task(point, config) for point in sweeps.points(config)[:2]]


@pytest.mark.parametrize("kept", [0, -1, True, 2.0, "2", None, 129, 3, 10**9])
@pytest.mark.parametrize("what", ["slots", "lanes"])
def test_a_number_that_cannot_be_ours_is_replaced(tmp_path, monkeypatch, tasks, what, kept):
    folder, find = epath.Path(tmp_path), {"slots": slots.choose, "lanes": slots.lanes_for}[what]
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [jax.devices()[0]] * 2)
    monkeypatch.setattr(slots, "_slots_that_fit", lambda *_: 2)
    assert find(folder, tasks, 0) == 2
    (place,) = files.listing(folder / "slots", ".json")
    for wrong in (kept, 34 if what == "lanes" else 130):
        files.write_json(place, files.read_json(place) | {what: wrong})
        assert find(folder, tasks, 0) == 2
        assert files.read_json(place)[what] == 2
    for right in (1, 4, 32 if what == "lanes" else 128):
        files.write_json(place, files.read_json(place) | {what: right})
        assert find(folder, tasks, 0) == right
