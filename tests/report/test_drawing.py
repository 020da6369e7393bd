"""Figures drawn in two processes are those drawn in one, also if the second dies, and it ends with the first."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from prunegen_jax.judging import judge
from prunegen_jax.judging.table import Table
from prunegen_jax.report import drawing, figures, material
from prunegen_jax.runs import processes

# Prints its child, then waits to be killed.
_PARENT = """
import multiprocessing, time
from prunegen_jax.report import drawing
from tests.report.test_drawing import content
drawing._FEW = 0
with drawing.begin(content()) as images:
    list(images())
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(60)
"""


def content():
    """A table of two measures with its verdict: seven figures."""
    rng = np.random.default_rng(0)
    columns = {"a": np.array(["x", "y"], dtype=object)[np.arange(12) % 2], "b": np.arange(12) % 3.0}
    numbers = {name: rng.normal(size=12) for name in ("one", "two")}
    families = dict.fromkeys(numbers, "family")
    table = Table(tuple(map(str, range(12))), columns, numbers, {"gap": rng.normal(size=12)}, families=families)
    verdict = judge(table, reference="one", draws=0, permutations=0, added_permutations=0, baseline_draws=0)
    return material.from_table(table, verdict, title="t")


@pytest.fixture
def two(monkeypatch):
    """A second process however few the figures; returns the processes that were started."""
    monkeypatch.setattr(drawing, "_FEW", 0)
    monkeypatch.setattr(processes, "cores", lambda: 2)
    before = {child.pid for child in psutil.Process().children()}
    return lambda: [child for child in psutil.Process().children() if child.pid not in before]


def wait_until(holds, seconds=60.0):
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return holds()


def test_figures_are_those_of_one_process(two, monkeypatch):
    given = content()
    expected = dict(figures.figures(given))
    with drawing.begin(given) as images:
        assert wait_until(two)
        monkeypatch.setattr(figures, "render", None)  # nothing can be drawn here
        _, second = images.args
        assert wait_until(lambda: not second._left)  # the other process draws all
        assert dict(images()) == expected


def test_figures_that_the_other_process_has_not_begun_are_drawn_here(two):
    given = content()
    with drawing.begin(given) as images:
        assert dict(images()) == dict(figures.figures(given))


def test_figures_are_drawn_though_the_other_process_is_killed(two):
    given = content()
    with drawing.begin(given) as images:
        assert wait_until(two)
        for child in two():
            child.send_signal(signal.SIGKILL)
        assert dict(images()) == dict(figures.figures(given))


def test_no_figure_is_lost_if_the_other_process_dies_between_two(two):
    given, done = content(), concurrent.futures.Future()
    done.set_result([])
    with drawing.begin(given) as images:
        _, second = images.args
        assert wait_until(two)
        for child in two():
            child.send_signal(signal.SIGKILL)
        assert wait_until(lambda: second._pool._broken)
        second._give(done)  # as if it had just drawn one
        assert dict(images()) == dict(figures.figures(given))


def test_a_process_that_was_started_before_draws(two):
    given = content()
    with drawing.second_process() as second:
        assert wait_until(two)
        started = two()
        with drawing.begin(given, second) as images:
            assert wait_until(lambda: not second._left)
            assert dict(images()) == dict(figures.figures(given))
        assert two() == started


def test_one_that_was_killed_before_it_drew_is_not_needed(two):
    given = content()
    with drawing.second_process() as second:
        assert wait_until(two)
        for child in two():
            child.send_signal(signal.SIGKILL)
        assert wait_until(lambda: second._pool._broken)
        with drawing.begin(given, second) as images:
            assert dict(images()) == dict(figures.figures(given))


def test_few_figures_start_no_process(two, monkeypatch):
    monkeypatch.setattr(drawing, "_FEW", 8)
    given = content()
    with drawing.begin(given) as images:
        assert not two()
        assert dict(images()) == dict(figures.figures(given))


def test_the_other_process_ends_with_its_parent():
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        assert children
        parent.kill()
    assert wait_until(lambda: not any(child.is_running() for child in children))
