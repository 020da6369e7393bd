"""Workdirs: what is not one is said before anything is written."""

from __future__ import annotations

import os

import pytest

from prunegen_jax import load_model, report
from prunegen_jax.runs import pipeline, workdir
from tests.support import experiments


@pytest.mark.parametrize("place", ["", "a\0b"])
def test_no_path(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="is not a path; give a folder"):
        pipeline.run(experiments.get_config(), place)
    for read in (report.write, lambda folder: load_model(folder, "a")):
        with pytest.raises(ValueError, match="is not a path; give a folder"):
            read(place)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("data.cache_dir", "a\0b", "data.cache_dir='a.x00b' is not a path"),
        ("run.compilation_cache", "\0", "run.compilation_cache='.x00' is not a path"),
        ("judge.seed", -1, "seed is -1; it must be 0 or more"),
        ("judge.level", 95.0, "level is 95.0; it must lie between 0 and 1"),
        ("measures.options", {"prunability_random": {"masks": -1}}, "prunability_random.masks=-1 must be at least 2"),
        ("measures.options", {"prunability_random": {"prunable": len}}, "options cannot be written into records"),
    ],
)
def test_wrong_values_are_refused_before_any_work(field, value, sentence, tmp_path):
    config = experiments.get_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=sentence):
        pipeline.run(config, tmp_path / "w")
    assert not list(tmp_path.iterdir())


def test_a_link_to_nowhere(tmp_path):
    os.symlink("nowhere", tmp_path / "w")
    with pytest.raises(ValueError, match=r"w is a link to 'nowhere', which does not exist"):
        pipeline.run(experiments.get_config(), tmp_path / "w")
    assert os.listdir(tmp_path) == ["w"]
    (tmp_path / "nowhere").mkdir()
    assert workdir.locate(tmp_path / "w").is_dir()
