"""Counts of parameters against arithmetic."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import pytest

from prunegen_jax.measures import size
from prunegen_jax.networks import as_trained_model, build
from prunegen_jax.types import Dataset, TrainedModel

KEY = jax.random.key(0)


def nin(*, depth=2, width=4, examples=12):
    network = build("nin", input_shape=(8, 8, 3), classes=5, depth=depth, width=width)
    params, stats = jax.eval_shape(network.init, KEY)  # shapes are enough
    data = Dataset(jnp.zeros((examples, 8, 8, 3)), jnp.zeros(examples, jnp.int32))
    return as_trained_model(network, params, stats, data)


OMEGA = (9 * 3 * 4 + 4 * 4 * 2) + (9 * 4 * 4 + 4 * 4 * 2) + 4 * 5  # two blocks and the head


def test_num_parameters_counts_kernels_alone():
    assert size.num_parameters(nin(), KEY).value == OMEGA
    assert size.num_parameters(nin(), KEY, normalize="sqrt_m").value == pytest.approx(math.sqrt(OMEGA / 12))
    assert size.num_parameters(nin(), KEY, normalize="log").value == pytest.approx(math.log(OMEGA))
    assert size.num_parameters(nin(), KEY, normalize="log_sqrt_m").value == pytest.approx(0.5 * math.log(OMEGA / 12))


def test_vc_dimension():
    assert size.vc_dimension(nin(), KEY).value == pytest.approx(7 * math.log2(6 * 7 * 8) ** 3 * OMEGA)


def test_larger_networks_have_larger_values():
    for row in size.MEASURES.values():
        assert row.sign == 1
        assert row(nin(), KEY).value < row(nin(width=5), KEY).value
        assert row(nin(), KEY).value < row(nin(depth=3), KEY).value


def test_an_unknown_transform_names_the_choices():
    with pytest.raises(ValueError, match=r"normalize='sqrt'.*raw, sqrt_m, log, log_sqrt_m"):
        size.num_parameters(nin(), KEY, normalize="sqrt")


def test_inputs_that_are_no_images():
    data = Dataset(jnp.zeros((12, 7)), jnp.zeros(12, jnp.int32))
    model = TrainedModel(lambda p, x: x @ p["kernel"], {"kernel": jnp.ones((7, 3))}, data)
    assert size.num_parameters(model, KEY).value == 21
    assert size.vc_dimension(model, KEY).status == "not_applicable"
