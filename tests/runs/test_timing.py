"""The seconds of a command: parts inside others are counted once, and networks by their own account."""

from __future__ import annotations

import re

import pytest
from etils import epath

from prunegen_jax.runs import costs, timing


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(timing.time, "monotonic", lambda: now[0])
    return now


def test_parts_and_the_rest_add_up_to_the_whole(clock):
    measured = timing.Timing({"start": 2.0, "imports": 3.0})
    with measured.span("report"):
        clock[0] += 1.0
        with measured.span("curves"):
            clock[0] += 4.0
        clock[0] += 2.0
    clock[0] += 8.0
    with pytest.raises(OSError), measured.span("judge"):
        clock[0] += 5.0
        raise OSError
    lines = measured.table().splitlines()
    assert lines[0] == "timing: 25.0 s"
    found = {line.split()[0]: (float(line.split()[1]), line.split()[3]) for line in lines[1:]}
    assert found == {
        "start": (2.0, "8.0%"),
        "imports": (3.0, "12.0%"),
        "curves": (4.0, "16.0%"),
        "report": (3.0, "12.0%"),
        "judge": (5.0, "20.0%"),
        "other": (8.0, "32.0%"),
    }


def test_networks_count_what_was_added_by_this_command(clock, tmp_path):
    folder = epath.Path(tmp_path)
    costs.add(folder, "a", {"train": 10.0, "compile": 5.0, "update": 4.0, "check": 1.0, "prunability": 3.0})
    measured = timing.Timing(detailed=True)
    with measured.networks(folder):
        clock[0] += 6.0
        costs.add(folder, "a", {"prunability": 0.5, "alpha_hat": 0.25})
        costs.add(folder, "b", {"train": 7.0, "compile": 3.0, "update": 3.5, "check": 0.5})
    assert "networks       6.0 s 100.0%" in measured.table()
    work = re.search("all processes together: (.*)", measured.table()).group(1)
    assert work == "compile 3.0 s, train 4.0 s, measure 0.8 s"
