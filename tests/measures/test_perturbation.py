"""Noise robustness against a plain NumPy loop."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from prunegen_jax.measures import objective, perturbation, structure
from prunegen_jax.networks import as_trained_model, build
from prunegen_jax.types import Dataset
from tests.support.noise_cases import KEY, network, normals, numpy_losses


@pytest.mark.parametrize("magnitude", [False, True])
def test_noise_robustness_against_a_numpy_loop(magnitude):
    model = network()
    weights = {name: np.asarray(leaf, np.float64) for name, leaf in objective.weight_function(model).weights.items()}
    draws = [normals(model, r) for r in range(6)]

    def loss(sigma):
        total = 0.0
        for u in draws:
            size = {name: np.abs(w) if magnitude else np.ones_like(w) for name, w in weights.items()}
            signed = {name: np.sign(w) if magnitude else 1.0 for name, w in weights.items()}
            moved = {name: w + sigma * size[name] * signed[name] * u[name] for name, w in weights.items()}
            total += numpy_losses(model, moved)[0].mean()
        return total / len(draws)

    limit = 1.1 * numpy_losses(model, weights)[0].mean()
    root = optimize.brentq(lambda s: loss(s) - limit, 1e-5, 0.5)
    found = perturbation.noise_robustness(model, KEY, magnitude, draws=6, scale_tolerance=0.002)
    assert found.value <= root * (1 + 1e-4)
    assert found.value == pytest.approx(root, rel=0.0025)
    assert found.details["limit"] == pytest.approx(limit, rel=1e-5)
    assert found.details["converged"]
    if magnitude:
        named = perturbation.perturbation_robustness_magnitude(model, KEY, draws=6, scale_tolerance=0.002)
        assert named.value == found.value


def test_noise_robustness_has_the_tolerance_of_prunability():
    model = network()
    base = perturbation.perturbation_robustness(model, KEY)
    dense = base.details["dense"]
    assert base.details["limit"] == pytest.approx(1.1 * dense)
    absolute = perturbation.perturbation_robustness(model, KEY, tolerance="absolute", delta=0.1 * dense)
    assert absolute.value == base.value
    assert perturbation.perturbation_robustness(model, KEY, beta=0.4).value > base.value
    with pytest.raises(ValueError, match="tolerance='ratio' is unknown"):
        perturbation.perturbation_robustness(model, KEY, tolerance="ratio")
    with pytest.raises(ValueError, match="draws=1 must be at least 2"):
        perturbation.perturbation_robustness(model, KEY, draws=1)


def test_standard_errors_of_the_robustness_over_seeds():
    model = network(examples=12)
    runs = [
        perturbation.perturbation_robustness(model, jax.random.key(s), draws=10, beta=0.3, scale_tolerance=0.02)
        for s in range(50)
    ]
    values = np.array([r.value for r in runs])
    assert np.sqrt(np.mean([r.sem**2 for r in runs])) == pytest.approx(values.std(), rel=0.2)


def test_scaling_units_does_not_change_noise_in_proportion():
    model = network()
    c = jnp.asarray([1.0, 4.0, 0.5, 1.0, 2.0])
    a, b = model.params["a"], model.params["b"]
    scaled = {
        "a": {"kernel": a["kernel"] * c[None, :], "bias": a["bias"] * c},
        "b": {"kernel": b["kernel"] / c[:, None], "bias": b["bias"]},
    }
    other = dataclasses.replace(model, params=scaled)
    for name, row in perturbation.MEASURES.items():
        same = row(other, KEY).value == pytest.approx(row(model, KEY).value, rel=1e-4)
        assert same == ("neuron_scaling" in row.invariant), name


def test_folded_by_default():
    net = build("nin", input_shape=(8, 8, 3), classes=4, depth=1, width=4)
    params, stats = net.init(KEY)
    stats = jax.tree.map(lambda x: 0.25 * jnp.ones_like(x), stats)
    rng = np.random.default_rng(0)
    data = Dataset(jnp.asarray(rng.normal(size=(9, 8, 8, 3)), jnp.float32), jnp.asarray(np.arange(9) % 4, jnp.int32))
    model = as_trained_model(net, params, stats, data)
    found = perturbation.perturbation_robustness(model, KEY, draws=2)
    assert found.details["folded"] is True
    assert found.value == perturbation.perturbation_robustness(structure.folded_network(model), KEY, draws=2).value
    raw = perturbation.perturbation_robustness(model, KEY, draws=2, fold=False)
    assert raw.details["folded"] is False and raw.value != found.value
