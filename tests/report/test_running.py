"""The report of a sweep that still runs: refreshed when it is time, and never in the way of the sweep."""

from __future__ import annotations

import pathlib
import shutil

import pytest

from prunegen_jax import report
from prunegen_jax.runs import curves, files, pipeline, tables
from tests.support import experiments, report_cases


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> pathlib.Path:
    """Two trained networks with their prunability and its curves."""
    folder = tmp_path_factory.mktemp("sweep")
    config = experiments.get_config()
    config.sweep.axes = (("seed", (0, 1)),)
    config.measures.names = ("prunability",)
    pipeline.run(config, folder, stages=("train", "measure"))
    assert curves.make(folder) == {}
    return folder


class Clock:
    """A clock that goes on by what it is told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def _refresher(folder: pathlib.Path, clock: Clock, *, took: float = 0.0, models: int = 8) -> report.Refresher:
    def read(_: pathlib.Path) -> tables.Table:
        clock.now += took
        return report_cases.table(models, 3)

    return report.Refresher(folder, 60.0, total=48, read=read, clock=clock)


def test_refreshes_when_it_is_time_and_not_before(tmp_path):
    clock = Clock()
    refresh = _refresher(tmp_path, clock)
    assert not refresh() and not (tmp_path / "report").exists()
    clock.now = 61.0
    assert refresh() and not refresh()
    text = (tmp_path / "report" / "index.html").read_text()
    assert "8 of 48 networks are trained" in text
    assert [p.name for p in (tmp_path / "report").iterdir()] == ["index.html"]
    assert not (tmp_path / "verdict.json").exists()


def test_refreshing_takes_a_tenth_of_the_time_at_most(tmp_path):
    clock = Clock()
    refresh = _refresher(tmp_path, clock, took=30.0)
    clock.now = 60.0
    assert refresh()
    clock.now = 90.0 + 299.0
    assert not refresh()
    clock.now = 90.0 + 300.0
    assert refresh()


def test_trouble_with_the_report_does_not_stop_the_sweep(tmp_path, capsys):
    clock = Clock()
    refresh = _refresher(tmp_path, clock, models=1)
    clock.now = 61.0
    assert refresh() and "1 networks can be judged so far" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_never_and_nonsense(tmp_path):
    clock = Clock()
    refresh = report.Refresher(tmp_path, 0, total=1, read=lambda folder: report_cases.table(8, 3), clock=clock)
    clock.now = 1e9
    assert not refresh()
    with pytest.raises(ValueError, match="report_every is -1"):
        report.Refresher(tmp_path, -1, total=1, read=lambda folder: report_cases.table(8, 3))


def test_a_running_sweep_that_knows_its_trained_networks(sweep, tmp_path):
    folder = tmp_path / "running"
    shutil.copytree(sweep, folder)
    clock = Clock()
    refresh = report.Refresher(folder, 1.0, total=3, read=pipeline.read_table, clock=clock)
    clock.now = 2.0
    assert refresh()
    text = (folder / "report" / "index.html").read_text()
    assert "2 of 3 networks are trained" in text and 'id="training"' in text and 'id="pruning"' in text
    for name in ("seed=0", "seed=1"):
        path = folder / "records" / f"{name}.json"
        files.write_json(path, files.read_json(path) | {"measures": {}})
    clock.now = 1e6
    assert refresh()
    text = (folder / "report" / "index.html").read_text()
    assert "the table shows quantities known from training instead" in text and "train_loss" in text
