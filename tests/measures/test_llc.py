"""The local learning coefficient against closed forms and numerical integration of the density that is sampled."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from prunegen_jax.measures import MEASURES
from prunegen_jax.types import Dataset, TrainedModel

KEY = jax.random.key(0)
M = 1000
NBETA = M / math.log(M)


def linear(inputs, weights, loss=lambda outputs, targets: jnp.square(outputs[:, 0]) / 2):
    """x·w with a loss of the output: by default L̂ = ½ wᵀ (XᵀX / m) w."""
    data = Dataset(jnp.asarray(inputs, jnp.float32), jnp.zeros(len(inputs)), loss=loss)
    kernel = jnp.asarray(weights, jnp.float32)[:, None]
    return TrainedModel(lambda params, x: x @ params["kernel"], {"kernel": kernel}, data)


def crossing():
    """L̂ = w₁² w₂², whose minima are two lines that cross at the weights, the origin."""
    data = Dataset(jnp.ones((M, 1)), jnp.zeros(M), loss=lambda outputs, targets: jnp.square(outputs[:, 0]))
    params = {"a": {"kernel": jnp.zeros((1, 1))}, "b": {"kernel": jnp.zeros((1, 1))}}
    return TrainedModel(lambda p, x: x @ p["a"]["kernel"] @ p["b"]["kernel"], params, data)


def quadratic(values, n=M):
    """Inputs whose second moments are diag(values)."""
    inputs = np.zeros((n, len(values)))
    for i, value in enumerate(values):
        rows = np.arange(n) % len(values) == i
        inputs[rows, i] = np.sqrt(value * n / rows.sum())
    return inputs


def answer(model, key=KEY, **options):
    found = MEASURES["llc"](model, key, **options)
    assert found.status == "ok", found.reason
    return found


@pytest.mark.parametrize("localization", [100.0, 1e-3])
def test_quadratic_loss(localization):
    """½ Σ nβ h / (nβ h + γ), which is d/2 as γ → 0, at the minimum."""
    values = np.array([0.3, 1.0, 2.0, 5.0, 9.0])
    found = answer(linear(quadratic(values), np.zeros(5)), localization=localization, chains=8)
    expected = 0.5 * np.sum(NBETA * values / (NBETA * values + localization))
    assert found.details["converged"], found.details["problems"]
    assert found.value == pytest.approx(expected, abs=4 * found.sem)
    assert found.sem < 0.05 * expected
    assert found.details["acceptance"] == pytest.approx(0.574, abs=0.15)
    assert found.details["nbeta"] == pytest.approx(NBETA)


@pytest.mark.parametrize("power", [2, 4, 6])
def test_powers_of_one_weight(power):
    """L̂ = w^p has the learning coefficient 1/p (Watanabe 2009); with γ, by integration."""
    model = linear(np.ones((M, 1)), [0.0], lambda outputs, targets: outputs[:, 0] ** power)
    for localization in (1e-4, 100.0):
        found = answer(model, localization=localization, chains=16)

        def density(w, localization=localization):
            return math.exp(-NBETA * w**power - localization / 2 * w**2)

        mass, moment = (
            scipy.integrate.quad(lambda w, k=k: density(w) * w ** (k * power), -3, 3, limit=200)[0] for k in (0, 1)
        )
        assert found.value == pytest.approx(NBETA * moment / mass, abs=4 * found.sem)
        assert found.sem < 0.15 * found.value  # of w⁶ far from zero, where γ rarely lets w go
        if localization < 1:
            assert NBETA * moment / mass == pytest.approx(1 / power, rel=1e-3)


def test_crossing_lines():
    """L̂ = w₁² w₂²: with w₂ integrated by hand and w₁ by quadrature, below the 1 of two regular weights."""

    def integral(function):
        return scipy.integrate.quad(
            lambda a: function(a) * math.exp(-a * a / 2) / math.sqrt(2 * NBETA * a * a + 1), 0, 10, points=(0.01, 0.1)
        )[0]

    expected = integral(lambda a: NBETA * a * a / (2 * NBETA * a * a + 1)) / integral(lambda a: 1.0)
    found = answer(crossing(), localization=1.0, chains=16, steps=4000)
    assert 0.25 < expected < 0.5
    assert found.value == pytest.approx(expected, abs=4 * found.sem)
    assert found.sem < 0.1 * expected


def test_minibatches():
    """One weight, x² of 1 and 3, without correction: the recursion of E[w²] is solved by hand, noise and step included.

    w' = (1 − (ε/2) (nβ s + γ)) w + √ε ξ with s the mean of x² over 10 examples, of mean 2 and variance 1/10.
    """
    model = linear(np.where(np.arange(M) % 2, 1.0, math.sqrt(3))[:, None], [0.0])
    for share in (0.02, 0.6):
        step = share / (2 * NBETA + 100)
        found = answer(model, step_size=step, minibatch=10, chains=32, burn_in=400, steps=3000)
        contraction = (1 - share / 2) ** 2 + (step / 2 * NBETA) ** 2 / 10
        assert found.value == pytest.approx(NBETA * step / (1 - contraction), abs=4 * found.sem)
        assert found.sem < 0.05 * found.value
        assert found.details["step_size"] == pytest.approx(step, rel=1e-6)


def test_minibatches_have_no_bias_from_the_loss_of_the_examples_drawn():
    """Losses that differ by 1,000 between examples, and not with the weights: the estimate does not see them."""
    model = linear(np.ones((M, 1)), [0.0], lambda outputs, targets: jnp.square(outputs[:, 0]) / 2 + targets)
    train = Dataset(model.train.inputs, jnp.asarray(np.arange(M), jnp.float32), loss=model.train.loss)
    model = TrainedModel(model.apply, model.params, train)
    found = answer(model, step_size=1e-4, minibatch=4, chains=8, burn_in=100)
    assert 0 <= found.value < 1


def test_what_the_diagnostics_find():
    values = np.linspace(0.5, 2, 20)
    model, stiffest = linear(quadratic(values), np.zeros(20)), 2 * NBETA + 100

    def problems(network=model, **options):
        found = answer(network, **options)
        assert found.details["converged"] is (not found.details["problems"])
        return found.value, " ".join(found.details["problems"])

    assert problems()[1] == ""
    assert "chains drift by" in problems(step_size=1e-3 / stiffest, burn_in=0, chains=16)[1]
    assert "chains do not agree: R-hat" in problems(step_size=3e-3 / stiffest, burn_in=100)[1]
    assert "step size is too large: acceptance 0" in problems(step_size=3 / stiffest)[1]
    assert problems(step_size=0.1 / stiffest, minibatch=500, burn_in=500, steps=1000)[1] == ""
    assert "step size is too large: acceptance 0" in problems(step_size=2 / stiffest, minibatch=500)[1]
    value, words = problems(linear(quadratic(values), np.full(20, 0.5)), localization=1.0)
    assert value < 0
    assert "negative: the weights are not a minimum of the training loss" in words


def test_chains_that_diverge_or_do_not_move_have_no_value():
    model = linear(quadratic([1.0, 2.0]), np.zeros(2))
    stuck = MEASURES["llc"](model, KEY, step_size=1e6)
    assert stuck.status == "failed"
    assert stuck.reason.endswith("of the steps are accepted: a smaller step_size is needed")
    found = MEASURES["llc"](model, KEY, step_size=1.0, minibatch=10)
    assert found.status == "failed"
    assert found.reason.startswith("the loss is not finite in 4 of 4 chains: a smaller step_size")


def test_the_function_alone_counts():
    """w → −w of a quadratic loss about another minimum, and inputs in another basis: the same value."""
    values = np.array([0.5, 1.0, 4.0])
    base = answer(linear(quadratic(values), np.zeros(3)))
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = answer(linear(quadratic(values) @ turn, np.zeros(3)), jax.random.key(1))
    assert turned.value == pytest.approx(base.value, abs=4 * math.hypot(base.sem, turned.sem))
    scaled = [answer(linear(s * quadratic(values), np.zeros(3)), localization=1e-3) for s in (1.0, 10.0)]
    assert scaled[1].value == pytest.approx(scaled[0].value, abs=4 * math.hypot(*(e.sem for e in scaled)))


def test_errors():
    model = linear(quadratic([1.0, 2.0]), np.zeros(2))
    for options, words in (
        ({"localization": 0.0}, "localization=0.0 must be positive"),
        ({"step_size": -1.0}, "step_size=-1.0 must be positive"),
        ({"chains": 1}, "chains=1 must be at least 2"),
        ({"steps": 7}, "steps=7 must be at least 8"),
        ({"minibatch": 0}, "minibatch=0 must be at least 1"),
        ({"minibatch": 5}, "step_size=None needs a burn-in .* minibatch=5"),
        ({"burn_in": 0}, "step_size=None needs a burn-in .* burn_in=0"),
    ):
        with pytest.raises(ValueError, match=words):
            MEASURES["llc"](model, KEY, **options)
    one = linear(np.ones((1, 1)), [0.0])
    assert MEASURES["llc"](one, KEY).reason == "nβ = m / ln m needs two training examples"
