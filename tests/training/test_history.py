"""The history of a training loop of one's own."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from prunegen_jax import Dataset, History, HistoryRecorder, TrainedModel, measure


def test_a_loop_is_recorded():
    recorder = HistoryRecorder(batch_size=20, target=0.1)
    for losses, whole in (((3.0, 1.0), 1.5), ((0.5, jnp.float32(0.25)), 0.75)):
        for loss in losses:
            recorder.update(loss)
        recorder.end_epoch()
        history = recorder.check(whole)
    assert history == History((2.0, 0.375), (2, 4), (1.5, 0.75), 4, 20, 0.1)
    assert history.examples == 80
    recorder.update(0.1)
    assert recorder.check(0.5) == History((2.0, 0.375), (2, 4, 5), (1.5, 0.75, 0.5), 5, 20, 0.1)


def test_wrong_calls():
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
        HistoryRecorder(batch_size=0)
    with pytest.raises(ValueError, match=r"end_epoch\(\) was called without update"):
        HistoryRecorder(batch_size=1).end_epoch()


def test_a_loop_without_a_target_loss_has_no_time_to_it():
    recorder = HistoryRecorder(batch_size=4)
    recorder.update(1.0)
    model = TrainedModel(lambda p, x: x @ p, jnp.ones((2, 3)), Dataset(jnp.ones((4, 2)), jnp.zeros(4, int)),
                         history=recorder.check(0.5))  # fmt: skip
    estimate = measure(model, ["updates_to_target"])["updates_to_target"]
    assert estimate.status == "not_applicable" and "did not stop at a loss" in estimate.reason
