"""Which network a measure takes, folded or not, and which of its kernels batch norm follows."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunegen_jax.measures import structure
from prunegen_jax.networks.reading import Program
from prunegen_jax.types import Dataset, NotApplicableError, Partial, TrainedModel

IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32)
DATA = Dataset(IMAGES, jnp.zeros(6, jnp.int32))


def normalized(scale, params, images):
    hidden = jax.nn.relu(images @ params["first"] * scale[None])
    return hidden @ params["second"]


def model(**fields):
    params = {"first": jnp.ones((4, 3)), "second": jnp.ones((3, 2))}
    return TrainedModel(Partial(normalized, 2.0 * jnp.ones(3)), params, DATA, **fields)


def test_folded_weights_are_a_choice():
    whole = model()
    folded = structure.folded_network(whole)
    assert structure.select_network(whole, fold=True) is folded  # computed once
    assert structure.select_network(whole, fold=False) is whole
    assert structure.select_network(folded, fold=True) is folded  # nothing is left to fold
    assert structure.is_folded(whole, fold=True) and not structure.is_folded(whole, fold=False)
    np.testing.assert_allclose(structure.kernels_of(folded)[("first",)], 2.0 * np.ones((4, 3)))
    np.testing.assert_allclose(structure.kernels_of(whole)[("first",)], np.ones((4, 3)))
    assert structure.normalized_kernels(whole) == ("first",)


def test_initial_weights_are_folded_by_their_own_statistics():
    initial = {"first": 3.0 * jnp.ones((4, 3)), "second": jnp.ones((3, 2))}
    given = model(init_params=initial, init_apply=Partial(normalized, 5.0 * jnp.ones(3)))
    np.testing.assert_allclose(structure.folded_network(given).init_params["first"], 15.0 * np.ones((4, 3)))
    assert structure.folded_network(model(init_params=initial)).init_params is None  # whose statistics are not known


def test_a_folding_that_changes_the_function_is_refused(monkeypatch):
    monkeypatch.setattr(Program, "difference", lambda *_: 0.5)
    with pytest.raises(NotApplicableError, match="folding batch norm changes the logits by 0.5 of the largest"):
        structure.folded_network(model())


def test_logits_that_are_not_finite_are_said(monkeypatch):
    monkeypatch.setattr(Program, "difference", lambda *_: float("nan"))
    with pytest.raises(NotApplicableError, match="its logits are not finite; look for NaN"):
        structure.folded_network(model())


def test_a_network_that_cannot_be_traced():
    def stubborn(params, images):
        return images @ params["w"] * float(images.sum())

    with pytest.raises(NotApplicableError, match="the program of the network cannot be read"):
        structure.program_of(TrainedModel(stubborn, {"w": jnp.ones((4, 2))}, DATA))
