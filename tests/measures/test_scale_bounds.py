"""Where magnitude-aware measures are defined: linear networks, in closed form."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from prunegen_jax.measures import measure, pac_bayes, sharpness
from prunegen_jax.types import Dataset, TrainedModel

KEY = jax.random.key(0)


def linear(params, inputs):
    return inputs.reshape(len(inputs), -1) @ params["kernel"]


@pytest.mark.parametrize("margin", [1.9, 2.002, 2.1])
def test_magnitude_of_a_linear_network_is_undefined_where_the_floor_alone_costs_the_target(margin):
    """Logits 0 and −margin of every example: the box takes α' Σ|w_j||x_j| + 2 ε Σ|x_j| off the margin, 2 of it by ε."""
    x = jnp.full((12, 1, 1, 10), 100.0)
    w = jnp.concatenate([jnp.zeros((10, 1)), jnp.full((10, 1), -margin / 1000)], axis=1)
    data = Dataset(x, jnp.zeros(12, jnp.int32))
    model = TrainedModel(linear, {"kernel": w}, data, init_params={"kernel": 2 * w})
    found = measure(model, list(sharpness.MEASURES), key=KEY)
    for name, estimate in found.items():
        if "_mag_" in name and margin < 2:
            assert estimate.status == "not_applicable", name
            assert "ε = 0.001" in estimate.reason and estimate.reason.endswith("1 > 0.1"), name
            assert estimate.details["evaluations"] == 2, name
        else:
            alpha = (margin - 2) / margin if "_mag_" in name else margin / 2000
            assert estimate.status == "ok", name
            assert alpha / 1.021 <= estimate.details["scale"] <= alpha * 1.001, name


def test_no_scale_where_noise_of_the_floor_alone_costs_the_target():
    """A margin of 0.01 under noise of standard deviation ε √2 ‖x‖ = 1.4 in it: half of the draws change the label."""
    x = jnp.full((12, 1, 1, 100), 100.0)
    kernel = jnp.concatenate([jnp.zeros((100, 1)), jnp.full((100, 1), -1e-6)], axis=1)
    data = Dataset(x, jnp.zeros(12, jnp.int32))
    model = TrainedModel(linear, {"kernel": kernel}, data, init_params={"kernel": 2 * kernel})
    for name, estimate in measure(model, list(pac_bayes.MEASURES), key=KEY).items():
        assert estimate.status == ("not_applicable" if "_mag_" in name else "ok"), name
        assert ("ε = 0.001" in estimate.reason) == ("_mag_" in name), name
