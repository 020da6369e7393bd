"""Pruning curves of a workdir, against the networks' own records; none is computed twice, and no code is run."""

from __future__ import annotations

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from prunegen_jax.compute.evaluation import loss_and_accuracy
from prunegen_jax.runs import curves, files, pipeline, record, restore
from prunegen_jax.runs import points as sweeps
from prunegen_jax.runs.executors.base import RunContext, Unit, attempt
from tests.support import experiments


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
        known = record.read(sweep, name)
        assert curve["losses"][-1] == pytest.approx(known.train["loss"], rel=1e-5)
        assert curve["fractions"] == [j / 50 for j in range(51)]
        model = restore.load_model(sweep, name)
        bare = jax.tree.map(lambda leaf: leaf if leaf.ndim == 1 else 0.0 * leaf, model.params)
        assert curve["losses"][0] == pytest.approx(loss_and_accuracy(model.apply, bare, model.train)[0], rel=1e-5)


def test_no_point_below_the_prunability_is_within_the_tolerance(sweep, made):
    for name, curve in made.items():
        found = record.read(sweep, name).measures["prunability"]
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


def test_the_workers_make_the_curves_that_a_report_needs(sweep, made, tmp_path):
    folder = tmp_path / "work"
    shutil.copytree(sweep, folder, ignore=shutil.ignore_patterns("curves"))
    rewrite(folder, "seed=1", status="diverged")
    points = tuple(record.read(folder, name).point for name in ("seed=0", "seed=1"))
    points = tuple(sweeps.Point(f"seed={i}", point, ()) for i, point in enumerate(points))
    unit = Unit(points, (), ("train",), curves=True)
    assert attempt(RunContext(str(folder), experiments.get_config()), unit).status == "done"
    assert files.read_json(folder / "curves" / "seed=0.json") == made["seed=0"]
    assert not (folder / "curves" / "seed=1.json").exists()  # the report says why


def test_other_options_of_prunability_make_another_curve(sweep, made, tmp_path):
    folder = tmp_path / "layerwise"
    shutil.copytree(sweep, folder)
    measures = record.read(folder, "seed=0").measures
    measures["prunability"]["options"] = {"scope": "layer", "beta": 0.2}
    rewrite(folder, "seed=0", measures=measures)
    assert curves.make(folder) == {}
    again = files.read_json(folder / "curves" / "seed=0.json")
    assert again["options"] == {"scope": "layer"} and again["losses"] != made["seed=0"]["losses"]


def rewrite(folder, name, **changes):
    """Changes a record as no run does: writing one keeps the measures that are there."""
    path = folder / "records" / f"{name}.json"
    files.write_json(path, files.read_json(path) | changes)


def test_a_network_whose_data_set_is_missing_is_named(sweep, tmp_path):
    folder = tmp_path / "elsewhere"
    shutil.copytree(sweep, folder, ignore=shutil.ignore_patterns("curves"))
    rewrite(folder, "seed=0", data="another fingerprint")
    rewrite(folder, "seed=1", status="diverged")
    reasons = curves.make(folder)
    assert sorted(reasons) == ["seed=0", "seed=1"] and reasons["seed=1"] == "the network diverged"
    assert "the data set is not the one that 'seed=0' was trained on" in reasons["seed=0"]


def test_an_untrusted_workdir_runs_no_code(sweep, made, tmp_path, monkeypatch):
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
        point = record.read(folder, name).point | {"data.name": "evil_set"}
        rewrite(folder, name, point=point, hash=sweeps.Point(name, point, ()).hash)
    reasons = curves.make(folder)
    assert sorted(reasons) == ["seed=0", "seed=1"] and "'evil_set' is unknown" in reasons["seed=0"]
    reasons = curves.make(folder, data_dir=str(folder / "data"))
    assert "names the class 'evil_module.Feature', which is not part of TFDS" in reasons["seed=0"]
    assert not (tmp_path / "ran").exists() and not (tmp_path / "theirs").exists()
