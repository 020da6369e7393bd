"""The configs of the studies: their variants are whole, and the smallest runs through all stages in seconds."""

from __future__ import annotations

import csv

import pytest

from configs import cifar10, double_descent
from prunegen_jax.runs import pipeline, record
from prunegen_jax.runs import points as sweeps
from tests.conftest import ROOT


@pytest.mark.parametrize("config", [cifar10, double_descent])
def test_variants(config):
    for variant in config.VARIANTS:
        made = config.get_config(variant)
        assert sweeps.points(made)
        names = pipeline._measure_names(made)
        assert set(made.measures.options) <= set(names)
    with pytest.raises(ValueError, match="tiny is unknown; choose among"):
        config.get_config("tiny")


def test_sizes():
    sizes = {(c, v): len(sweeps.points(c.get_config(v))) for c in (cifar10, double_descent) for v in c.VARIANTS}
    assert sizes[cifar10, "laptop"] == 96 and sizes[cifar10, "paper"] >= 324
    for variant in ("digits", "laptop", "paper"):
        assert len(double_descent.get_config(variant).sweep.axes[0][1]) >= 12
        assert sizes[double_descent, variant] == 2 * len(double_descent.get_config(variant).sweep.axes[0][1])


def statuses(folder):
    with (folder / "results.csv").open() as file:
        return [row["status"] for row in csv.DictReader(file)]


def test_double_descent(tmp_path):
    config = double_descent.get_config("smoke")
    config.run.workers = 1
    pipeline.run(config, tmp_path, stages=("train", "measure", "judge"))
    assert statuses(tmp_path) == ["ended"] * 2
    assert all(known.status == "ended" and known.epochs == 3 for known in record.read_all(tmp_path))


def test_cifar10(shared, tmp_path):
    config = cifar10.get_config("smoke")
    config.run.workers = 1
    config.data.dir, config.data.cache_dir = str(shared / "tfds"), str(ROOT / ".cache" / "data")  # decoded once
    pipeline.run(config, tmp_path, stages=("train", "measure", "judge"))
    assert statuses(tmp_path) == ["converged"] * 2
    known = record.read_all(tmp_path)
    assert all(each.measures["prunability_prefix:subset"]["options"] == {"subset": 50} for each in known)
