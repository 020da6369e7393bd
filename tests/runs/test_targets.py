"""Targets beside the losses: added to networks trained before, equal to what the network says, unseen by measures."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from etils import epath

from configs import default
from prunegen_jax import data
from prunegen_jax.data import shifts
from prunegen_jax.runs import checkpoint, files, pipeline, record, restore, task
from prunegen_jax.runs.tables import read_csv

SHIFTS = ("gaussian_noise_5", "contrast_4")


def get_config():
    config = default.get_config()
    config.data.train_size = 100
    config.model = {"name": "mlp"}
    config.train.target, config.train.max_epochs = 0.0, 3
    config.run.workers, config.judge.draws = 1, 20
    config.measures.names = ("num_parameters", "parameter_norm")
    config.sweep.axes = (("seed", (0, 1, 2, 3)),)
    return config


def test_a_workdir_of_an_older_version_is_extended(tmp_path, monkeypatch):
    config = get_config()
    pipeline.run(config, tmp_path, stages=("train", "measure"))
    before = {}
    for known in record.read_all(tmp_path):
        assert list(known.targets) == ["test"]
        content = known.to_json()
        del content["targets"]
        files.write_json(epath.Path(tmp_path) / "records" / f"{known.name}.json", content)
        before[known.name] = content
    config.data.shifts = SHIFTS
    monkeypatch.setattr(checkpoint, "save", lambda *_: pytest.fail("a network is trained again"))
    pipeline.run(config, tmp_path, stages=("train", "measure", "judge"))
    raw = data.load("digits")
    for known in record.read_all(tmp_path):
        content = known.to_json()
        assert sorted(content.pop("targets")) == sorted(["test", *SHIFTS])
        assert content == before[known.name]
        model = restore.load_model(tmp_path, known.name)
        for name, found in known.targets.items():
            images = raw.test_images if name == "test" else shifts.corrupt(raw.test_images, name)
            logits = np.asarray(model.apply(model.params, model.train.standardise(jax.numpy.asarray(images))))
            assert found["errors"] == (logits.argmax(1) != raw.test_labels).sum() and found["size"] == 797
            p = np.exp(logits - logits.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            assert found["loss"] == pytest.approx(-np.log(p[np.arange(797), raw.test_labels]).mean(), rel=1e-4)
            wanted = np.square(p - np.eye(10)[raw.test_labels]).sum(1).mean()
            assert found["brier"] == pytest.approx(wanted, rel=1e-4)
        assert known.targets["test"]["loss"] == pytest.approx(known.test["loss"])
    further = {f"{kind}_on_{name}" for name in SHIFTS for kind in ("error", "loss")}
    table = read_csv(tmp_path / "results.csv")
    assert set(table.targets) == {"gap", "test_error", "test_loss", "loss_gap", "ece", "brier"} | further
    assert set(table.measures) == {"num_parameters", "parameter_norm"}
    assert json.loads((tmp_path / "verdict.json").read_text())["rows"][-1]["target"] in further


def test_wrong_names_are_refused_before_anything_is_trained(tmp_path):
    config = get_config()
    for names, reason in ((("blur_9",), "or choose a corruption"), (("blur_1", "blur_1"), "must be distinct names")):
        config.data.shifts = names
        with pytest.raises(ValueError, match=reason):
            pipeline.run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "records").exists()
    assert task.test_sets(get_config()) == ("test",)
