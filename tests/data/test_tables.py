"""A data set of tables: scikit-learn's breast cancer, float32 rows instead of images."""

from __future__ import annotations

import numpy as np

from prunegen_jax import data, get_config, pipeline


def test_the_rows_are_standardised_with_the_statistics_of_the_training_set():
    raw = data.load("breast_cancer")
    assert raw.train_images.shape == (400, 30) and raw.test_images.shape == (169, 30)
    assert raw.train_images.dtype == np.float32 and {*raw.train_labels, *raw.test_labels} == {0, 1}
    split = data.split(raw, train_size=300, seed=3)
    inputs, _ = split.train.take(np.arange(300))
    np.testing.assert_allclose(np.mean(inputs, axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(np.std(inputs, axis=0), 1.0, atol=1e-4)
    rows = np.asarray(split.train.inputs)
    assert {row.tobytes() for row in rows} <= {row.tobytes() for row in raw.train_images}
    assert split.fingerprint != data.split(raw, train_size=300, seed=4).fingerprint


def test_a_constant_column_is_left_at_zero():
    raw = data.load("breast_cancer")
    raw.train_images[:, 2] = 7.5
    split = data.split(raw)
    assert split.train.std[2] == 1.0
    np.testing.assert_array_equal(split.train.take(np.arange(9))[0][:, 2], 0.0)


def test_a_sweep_over_a_table(tmp_path):
    config = get_config("sweep:smoke")
    config.data.name, config.data.train_size = "breast_cancer", 200
    config.model = {"name": "mlp", "depth": 1, "width": 8}
    config.measures.names = ("prunability_prefix", "parameter_norm")
    config.sweep.axes = (("train.learning_rate", (0.05, 0.1)), ("seed", (0, 1)))
    config.judge.draws = 10
    verdict = pipeline.run(config, tmp_path / "w", stages=("train", "measure", "judge"))
    lines = (tmp_path / "w" / "results.csv").read_text().splitlines()
    assert len(lines) == 5 and verdict.row("parameter_norm", "gap")["n"] == 2
