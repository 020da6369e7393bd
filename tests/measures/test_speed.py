"""Speed measures against the golden values of a four-epoch history and hitting times worked out by hand."""

from __future__ import annotations

import json
import math

import jax
import jax.numpy as jnp
import pytest

from prunegen_jax.measures import speed
from prunegen_jax.types import Dataset, History, TrainedModel

KEY = jax.random.key(0)


def model(*, epoch_loss=(2.0, 1.0, 0.5, 0.25), checks=(), losses=(), updates=10, batch=4, target=0.01, examples=10):
    history = History(tuple(epoch_loss), tuple(checks), tuple(losses), updates, batch, target)
    data = Dataset(jnp.zeros((examples, 2, 2, 1)), jnp.zeros(examples, jnp.int32))
    return TrainedModel(lambda params, images: images, {}, data, history=history)


def test_sums_of_training_losses_are_the_published_ones():
    trained = model()
    assert speed.sum_of_training_losses(trained, KEY).value == pytest.approx(3.75)
    assert speed.sum_of_last_training_losses(trained, KEY).value == pytest.approx(0.25)
    assert speed.sum_of_last_training_losses(trained, KEY, epochs=2).value == pytest.approx(0.75)
    assert speed.sum_of_first_training_losses(trained, KEY).value == pytest.approx(2.0)
    assert speed.sum_of_first_training_losses(trained, KEY, epochs=3).value == pytest.approx(3.5)
    assert speed.averaged_training_loss(trained, KEY).value == pytest.approx(3.741507, abs=1e-6)
    assert speed.averaged_training_loss(trained, KEY, decay=0.9).value == pytest.approx(2.968, abs=1e-6)
    assert speed.averaged_training_loss(trained, KEY, decay=0.1, form="recursive").value == pytest.approx(0.281)
    assert speed.averaged_training_loss(trained, KEY, form="recursive").value == pytest.approx(0.281)  # the default


def test_normalized_by_the_number_of_examples():
    value = speed.sum_of_training_losses(model(), KEY, normalize="sqrt_m").value
    assert value == pytest.approx(math.sqrt(3.75 / 10))


def test_sum_over_updates_weighs_epochs_as_our_runs_have_them():
    # 500 / 32 = 15.625: epochs end with updates 16, 32 (31.25), 47 (46.875) and 63 (62.5)
    ours = {"batch": 32, "examples": 500}
    whole = speed.sum_of_update_losses(model(updates=63, **ours), KEY).value
    assert whole == pytest.approx(16 * 2 + 16 * 1 + 15 * 0.5 + 16 * 0.25)
    cut = speed.sum_of_update_losses(model(updates=50, **ours), KEY).value
    assert cut == pytest.approx(16 * 2 + 16 * 1 + 15 * 0.5 + 3 * 0.25)
    one = speed.sum_of_update_losses(model(updates=5, epoch_loss=(2.0,), **ours), KEY).value
    assert one == pytest.approx(5 * 2)


def test_sum_over_updates_of_runs_with_other_epochs():
    # 10 examples in batches of 4: more than 10 updates in 4 epochs must be 3 an epoch
    assert speed.sum_of_update_losses(model(updates=11), KEY).value == pytest.approx(3 * (2 + 1 + 0.5) + 2 * 0.25)
    # no epochs of equal whole batches make 40 in four
    assert speed.sum_of_update_losses(model(updates=40), KEY).value == pytest.approx(10 * 3.75)
    # whole batches alone make 2 updates an epoch
    assert speed.sum_of_update_losses(model(updates=7), KEY).value == pytest.approx(2 * (2 + 1 + 0.5) + 0.25)


def test_hitting_times_interpolate_in_log_loss():
    checks, losses = (0, 10, 30), (math.exp(0.0), math.exp(-2.0), math.exp(-4.0))
    assert speed.hitting_time(checks, losses, math.exp(-1.0)) == pytest.approx(5.0)
    assert speed.hitting_time(checks, losses, math.exp(-3.5)) == pytest.approx(25.0)
    assert speed.hitting_time(checks, losses, math.exp(-3.5), interpolate=False) == 30.0
    assert speed.hitting_time(checks, losses, math.exp(-2.0)) == 10.0
    assert speed.hitting_time(checks, losses, 1.0) == 0.0
    assert speed.hitting_time(checks, losses, 0.01) == math.inf
    assert speed.hitting_time((5,), (0.01,), 0.1) == 5.0  # nothing is known before the first check


def test_hitting_times_survive_losses_of_zero_and_not_a_number():
    assert speed.hitting_time((0, 10), (1.0, 0.0), 0.1) == 10.0
    assert speed.hitting_time((0, 10, 20), (1.0, math.nan, 0.05), 0.1) == 20.0
    assert speed.hitting_time((0, 10), (math.nan, math.nan), 0.1) == math.inf


def test_updates_in_all_units_and_censored():
    trained = model(checks=(0, 20, 40), losses=(1.0, 0.1, 0.02), target=0.02)
    assert speed.updates_to_loss(trained, KEY).value == pytest.approx(20.0)
    assert speed.updates_to_loss(trained, KEY, unit="examples").value == pytest.approx(80.0)
    assert speed.updates_to_loss(trained, KEY, unit="epochs").value == pytest.approx(8.0)
    assert speed.updates_to_target(trained, KEY).value == pytest.approx(40.0)
    between = speed.updates_between_losses(trained, KEY)
    assert between.value == math.inf
    assert between.details["censored"] is True
    found = speed.updates_between_losses(trained, KEY, start=0.1**0.5, end=0.1)
    assert found.value == pytest.approx(10.0)
    assert found.details["hitting_times"]["0.01"] == math.inf
    assert found.details["hitting_times"]["0.1"] == pytest.approx(20.0)
    json.dumps(found.details)


def test_what_cannot_be_measured_says_so():
    assert speed.sum_of_first_training_losses(model(), KEY, epochs=5).status == "not_applicable"
    with pytest.raises(ValueError, match="epochs=0"):
        speed.sum_of_last_training_losses(model(), KEY, epochs=0)
    with pytest.raises(ValueError, match="updates, examples, epochs"):
        speed.updates_to_loss(model(), KEY, unit="seconds")
    with pytest.raises(ValueError, match="decay"):
        speed.averaged_training_loss(model(), KEY, decay=1.5)
    with pytest.raises(ValueError, match="no epoch"):
        speed.sum_of_training_losses(model(epoch_loss=()), KEY)
    bare = TrainedModel(lambda params, images: images, {}, model().train)
    assert speed.MEASURES["updates_to_loss"](bare, KEY).status == "not_applicable"


def test_a_slower_run_has_the_larger_value_everywhere():
    fast = model(epoch_loss=(1.0, 0.5), checks=(0, 5, 10), losses=(2.3, 0.1, 0.01), updates=6)
    slow = model(epoch_loss=(2.0, 1.0, 0.5), checks=(0, 9, 30), losses=(2.3, 0.1, 0.01), updates=9)
    for name, row in speed.MEASURES.items():
        if name != "sum_of_last_training_losses":
            assert row.sign == 1
            assert row(fast, KEY).value < row(slow, KEY).value, name
