"""Pruning curves of a workdir, against the networks' own records; the refreshed report of a running sweep."""

from __future__ import annotations

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from prunegen_jax import report
from prunegen_jax.compute.evaluation import loss_and_accuracy
from prunegen_jax.report import curves
from prunegen_jax.runs import files, pipeline, records, tables
from prunegen_jax.runs import points as sweeps
from tests.support import experiments, report_cases


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> pathlib.Path:
    """Two trained networks with their prunability."""
    folder = tmp_path_factory.mktemp("sweep")
    config = experiments.get_config()
    config.sweep.axes = (("seed", (0, 1)),)
    config.measures.names = ("prunability",)
    pipeline.run(config, folder, stages=("train", "measure"))
    return folder


@pytest.fixture(scope="module")
def made(sweep) -> dict[str, dict]:
    assert curves.make(sweep) == {}
    return {path.stem: files.read_json(path) for path in (sweep / "curves").glob("*.json")}


def test_a_curve_ends_at_the_recorded_loss_and_starts_without_kernels(sweep, made):
    assert sorted(made) == ["seed=0", "seed=1"]
    for name, curve in made.items():
        record = records.read(sweep, name)
        assert curve["losses"][-1] == pytest.approx(record["train"]["loss"], rel=1e-5)
        assert curve["fractions"] == [j / 50 for j in range(51)]
        model = records.load_model(sweep, name)
        bare = jax.tree.map(lambda leaf: leaf if leaf.ndim == 1 else 0.0 * leaf, model.params)
        assert curve["losses"][0] == pytest.approx(loss_and_accuracy(model.apply, bare, model.train)[0], rel=1e-5)


def test_no_point_below_the_prunability_is_within_the_tolerance(sweep, made):
    for name, curve in made.items():
        found = records.read(sweep, name)["measures"]["prunability"]
        below = np.array(curve["fractions"]) < found["value"] - 1e-9
        assert below.any() and (np.array(curve["losses"])[below] > found["details"]["limit"]).all()


def test_curves_that_are_there_are_not_made_again(sweep, made, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(sweep, folder)
    shutil.rmtree(folder / "checkpoints")  # nothing can be made any more
    assert curves.make(folder) == {}
    (folder / "curves" / "seed=0.json").write_text("{")
    reasons = curves.make(folder)
    assert list(reasons) == ["seed=0"] and "has no weights of 'seed=0'" in reasons["seed=0"]


def test_other_options_of_prunability_make_another_curve(sweep, made, tmp_path):
    folder = tmp_path / "layerwise"
    shutil.copytree(sweep, folder)
    record = records.read(folder, "seed=0")
    record["measures"]["prunability"]["options"] = {"scope": "layer", "beta": 0.2}
    records.write(folder, record)
    assert curves.make(folder) == {}
    again = files.read_json(folder / "curves" / "seed=0.json")
    assert again["options"] == {"scope": "layer"} and again["losses"] != made["seed=0"]["losses"]


def rewrite(folder, name, **changes):
    """Changes a record as no run does: writing one keeps the measures that are there."""
    files.write_json(records.path(folder, name), records.read(folder, name) | changes)


def test_a_network_whose_data_set_is_not_at_hand_is_named(sweep, tmp_path):
    folder = tmp_path / "elsewhere"
    shutil.copytree(sweep, folder, ignore=shutil.ignore_patterns("curves"))
    rewrite(folder, "seed=0", data="another fingerprint")
    rewrite(folder, "seed=1", status="diverged")
    reasons = curves.make(folder)
    assert sorted(reasons) == ["seed=0", "seed=1"] and reasons["seed=1"] == "the network diverged"
    assert "the data set is not the one that 'seed=0' was trained on" in reasons["seed=0"]


def test_a_workdir_from_a_stranger_runs_no_code(sweep, made, tmp_path, monkeypatch):
    """Its config names a folder of data in itself, and the data's features a module beside them; the report is made."""
    folder = tmp_path / "strange"
    shutil.copytree(sweep, folder, ignore=shutil.ignore_patterns("curves"))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    (folder / "evil_module.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    sets = folder / "data" / "evil_set" / "1.0.0"
    sets.mkdir(parents=True)
    features = {"pythonClassName": "evil_module.Feature", "featuresDict": {"features": {}}}
    (sets / "features.json").write_text(json.dumps(features))
    info = {"name": "evil_set", "version": "1.0.0", "fileFormat": "array_record", "moduleName": "x"}
    (sets / "dataset_info.json").write_text(json.dumps(info))
    config = files.read_json(folder / "config.json")
    places = {"dir": str(folder / "data"), "cache_dir": str(tmp_path / "theirs")}
    files.write_json(folder / "config.json", config | {"data": config["data"] | places})
    for name in ("seed=0", "seed=1"):
        point = records.read(folder, name)["point"] | {"data.name": "evil_set"}
        rewrite(folder, name, point=point, hash=sweeps.Point(name, point, ()).hash)
    reasons = curves.make(folder)
    assert sorted(reasons) == ["seed=0", "seed=1"] and "'evil_set' is not known" in reasons["seed=0"]
    reasons = curves.make(folder, data_dir=str(folder / "data"))
    assert "names the class 'evil_module.Feature', which is not of TFDS" in reasons["seed=0"]
    assert not (tmp_path / "ran").exists() and not (tmp_path / "theirs").exists()


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


def test_a_running_sweep_that_knows_its_trained_networks(sweep, made, tmp_path):
    folder = tmp_path / "running"
    shutil.copytree(sweep, folder)
    clock = Clock()
    refresh = report.Refresher(
        folder, 1.0, total=3, read=lambda place: tables.from_records(records.read_all(place)), clock=clock
    )
    clock.now = 2.0
    assert refresh()
    text = (folder / "report" / "index.html").read_text()
    assert "2 of 3 networks are trained" in text and 'id="training"' in text and 'id="pruning"' in text
    for name in ("seed=0", "seed=1"):
        rewrite(folder, name, measures={})
    clock.now = 1e6
    assert refresh()
    text = (folder / "report" / "index.html").read_text()
    assert "plain facts stand in for them" in text and "train_loss" in text
