"""PAC-Bayes flatness against a plain NumPy loop and its bounds."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from prunegen_jax.measures import bounds, measure, objective, pac_bayes, perturbation
from prunegen_jax.types import Dataset
from tests.support.noise_cases import KEY, apply, network, normals, numpy_losses


@pytest.mark.parametrize("magnitude", [False, True])
def test_sigma_against_a_numpy_loop(magnitude):
    model = network(examples=500)
    weights = {name: np.asarray(leaf, np.float64) for name, leaf in objective.weight_function(model).weights.items()}
    found, sem = pac_bayes.noise_scale(model, KEY, magnitude=magnitude)
    drop = 0.0
    for r in range(10):
        u = normals(model, r)
        std = {n: np.sqrt((found.scale * w) ** 2 + 1e-6) if magnitude else found.scale for n, w in weights.items()}
        drop += numpy_losses(model, {n: w + std[n] * u[n] for n, w in weights.items()})[1].mean() / 10
    assert found.converged
    assert abs(drop - 0.1) <= 0.01 + 1e-9  # the network itself makes no error
    assert drop == pytest.approx(found.response, abs=1e-3)
    assert 0 < sem < found.scale


def test_the_six_measures_share_their_scales_and_use_the_kernels_alone():
    model = network()
    names = list(pac_bayes.MEASURES)
    found = measure(model, names, key=KEY)
    scales = {name: e.details["scale"] for name, e in found.items()}
    assert len(set(scales.values())) == 2
    w = np.concatenate([np.asarray(model.params[k]["kernel"], np.float64).ravel() for k in "ab"])
    w0 = np.concatenate([np.asarray(model.init_params[k]["kernel"], np.float64).ravel() for k in "ab"])
    s, t, m = scales["pac_bayes_flatness"], scales["pac_bayes_mag_flatness"], 40
    expected = {
        "pac_bayes_flatness": 1 / s**2,
        "pac_bayes_mag_flatness": 1 / t**2,
        "pac_bayes_init": bounds.pac_bayes(np.sum((w - w0) ** 2), s, m),
        "pac_bayes_orig": bounds.pac_bayes(np.sum(w**2), s, m),
        "pac_bayes_mag_init": bounds.pac_bayes_magnitude(w - w0, np.sum((w - w0) ** 2), t, m),
        "pac_bayes_mag_orig": bounds.pac_bayes_magnitude(w - w0, np.sum(w**2), t, m),
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, rel=1e-6), name
        assert found[name].sem > 0
        one = measure(dataclasses.replace(model), [name], key=KEY)[name]  # alone: the same answer
        assert one.value == found[name].value
    root = measure(model, ["pac_bayes_init"], key=KEY, options={"pac_bayes_init": {"normalize": "sqrt_m"}})
    assert root["pac_bayes_init"].value == pytest.approx(math.sqrt(expected["pac_bayes_init"] / m))


def test_what_is_missing_or_unknown():
    model = dataclasses.replace(network(), init_params=None)
    assert pac_bayes.pac_bayes_mag_orig(model, KEY).status == "not_applicable"
    assert pac_bayes.pac_bayes_orig(model, KEY).status == "ok"
    with pytest.raises(ValueError, match="compat='paper' is unknown; choose among None, none, rgm"):
        pac_bayes.pac_bayes_orig(model, KEY, compat="paper")


def test_rgm_compatibility_returns_the_root_of_the_standard_deviation():
    model = network(examples=500)
    ours, _ = pac_bayes.noise_scale(model, KEY, magnitude=False)
    rgm, _ = pac_bayes.noise_scale(model, KEY, magnitude=False, compat="rgm")
    assert rgm.converged
    assert rgm.scale**2 == pytest.approx(ours.scale, rel=0.25)


def test_compat_none_means_no_compatibility():
    """Each on another copy of the model: results are kept with the model."""
    model = network()
    plain, none, rgm = (
        pac_bayes.noise_scale(dataclasses.replace(model), KEY, False, compat=compat) for compat in (None, "none", "rgm")
    )
    assert none == plain
    assert rgm[0].history != plain[0].history


def test_signs():
    """The same function with twice the logits tolerates more noise before a label changes."""
    assert {name: row.sign for name, row in perturbation.MEASURES.items()} == {
        "perturbation_robustness": -1,
        "perturbation_robustness_magnitude": -1,
    }
    assert all(row.sign == +1 for row in pac_bayes.MEASURES.values())
    # narrow margins: examples near the boundary are lost to less noise
    robust = network(examples=300)
    logits = np.sort(np.asarray(apply(robust.params, robust.train.inputs)), axis=1)
    far = np.argsort(logits[:, -2] - logits[:, -1])
    halves = [
        dataclasses.replace(robust, train=Dataset(robust.train.inputs[part], robust.train.labels[part]))
        for part in (far[:150], far[150:])
    ]
    for name, row in pac_bayes.MEASURES.items():
        assert row(halves[0], KEY).value < row(halves[1], KEY).value, name
    for name, row in perturbation.MEASURES.items():
        options = {"tolerance": "absolute", "delta": 0.05}
        assert row(halves[0], KEY, **options).value > row(halves[1], KEY, **options).value, name
