"""Progress of `measure`: a line for a person who waits, and nothing otherwise."""

from __future__ import annotations

import sys
import time

import jax.numpy as jnp
import pytest

from prunegen_jax import Dataset, TrainedModel
from prunegen_jax.measures import MEASURES, measure, progress
from prunegen_jax.types import Estimate, Measure

MODEL = TrainedModel(lambda params, x: x @ params, jnp.ones((4, 3)), Dataset(jnp.ones((6, 4)), jnp.zeros(6, jnp.int32)))


def slow(model, key):
    time.sleep(0.5)
    return Estimate(1.0)


@pytest.fixture(autouse=True)
def slow_measure(monkeypatch):
    """A slow measure, and a line after 0.05 s."""
    monkeypatch.setitem(MEASURES, "slow", Measure(slow, 1, "size", 0.0, "no source"))
    monkeypatch.setattr(progress, "SECONDS", 0.05)


def test_a_single_slow_measure_is_named_while_it_runs(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert measure(MODEL, ["slow"])["slow"].value == 1.0
    shown = capsys.readouterr().err
    assert "0/1" in shown and "slow" in shown
    assert not shown.split("\r")[-1].strip()  # nothing is left on the line


def test_quick_measures_and_pipes_have_no_line(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress, "SECONDS", 60.0)
    measure(MODEL, ["slow"])
    monkeypatch.setattr(progress, "SECONDS", 0.05)
    measure(MODEL, ["slow"], progress=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    measure(MODEL, ["slow"])
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys, "stderr", None)  # closed
    assert measure(MODEL, ["slow"])["slow"].status == "ok"


def test_notebooks_show_it(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    measure(MODEL, ["slow"])
    assert "slow" in capsys.readouterr().err
