"""McAllester's dropout bound against NumPy, numerical optimization, and the certificate's own promise."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

from prunegen_jax.measures import pac_bayes_dropout as dropout
from prunegen_jax.networks import as_trained_model, build
from prunegen_jax.types import Dataset, TrainedModel

KEY = jax.random.key(0)


def apply(params, images):
    return images.reshape(images.shape[0], -1) @ params["kernel"] + params["bias"].reshape(1, -1)


def model(examples=400, scale=1.0):
    """Separable classes at unit axes, so that the weights of the true rule do well."""
    labels = np.arange(examples) % 3
    x = np.eye(3)[labels] + 0.1 * np.random.default_rng(0).normal(size=(examples, 3))
    params = {"kernel": jnp.asarray(scale * 6 * np.eye(3), jnp.float32), "bias": jnp.zeros(3)}
    data = Dataset(jnp.asarray(x.reshape(-1, 1, 1, 3), jnp.float32), jnp.asarray(labels, jnp.int32))
    return TrainedModel(apply, params, data, init_params=jax.tree.map(jnp.ones_like, params))


def test_the_formula():
    """(1 / (1 − 1/(2λ))) [L̂ + (λ L / m) (KL + ln 1/δ)] and its minimum over λ in closed form."""
    assert dropout.mcallester(0.3, 12.0, 2.0, 4.0, 100) == pytest.approx((0.3 + 2 * 4 / 100 * 12) / (1 - 0.25))
    a, c = 0.3, 4 * 12.0 / 100
    best = 0.5 * (1 + math.sqrt(1 + 2 * a / c))
    assert dropout.mcallester(a, 12.0, best, 4.0, 100) == pytest.approx(a + c + math.sqrt(c * c + 2 * a * c))
    found = optimize.minimize_scalar(lambda x: dropout.mcallester(a, 12.0, x, 4.0, 100), bounds=(0.51, 50))
    assert found.x == pytest.approx(best, rel=1e-4)


def test_inverse_of_the_binary_kl():
    for mean, budget in ((0.0, 0.1), (0.02, 0.05), (0.3, 0.01), (0.9, 0.5)):
        q = dropout.inverse_kl(mean, budget)
        assert stats.entropy([mean, 1 - mean], [q, 1 - q]) == pytest.approx(budget, rel=1e-8)
        assert mean < q < 1
    assert dropout.inverse_kl(0.0, 0.1) == pytest.approx(1 - math.exp(-0.1))
    assert dropout.inverse_kl(1.0, 0.1) == 1.0
    assert dropout.inverse_kl(0.4, 0.0) == pytest.approx(0.4)


def test_the_confidence_limit_holds_for_unequal_parts():
    parts = np.array_split(np.arange(13), 5)
    exact = dropout.upper_limit(0.5, np.array_split(np.arange(10), 5), 4.0, 0.05)
    assert exact == pytest.approx(4 * dropout.inverse_kl(0.125, 0.05))
    scale = 13 / (5 * 3)  # parts of 3, 3, 3, 2, 2
    assert dropout.upper_limit(0.5, parts, 4.0, 0.05) == pytest.approx(
        4 * dropout.inverse_kl(0.125 * scale, 0.05) / scale
    )
    assert dropout.upper_limit(4.0, parts, 4.0, 0.05) == 4.0


def test_against_the_bound_written_out():
    network, rates, sigmas, lambdas = model(), (0.0, 0.5), (0.1, 1.0), (1.0, 2.0)
    found = dropout.pac_bayes_dropout(
        network, KEY, rates=rates, sigmas=sigmas, lambdas=lambdas, clip=3.0, confidence=0.1, draws=100
    )
    square, candidates = 3 * 36.0, {}
    for a in rates:
        for sigma in sigmas:
            rng = np.random.default_rng(1)
            losses = []
            for draw in range(2000):
                mask, noise = rng.random(12) >= a, sigma * rng.normal(size=12)
                w = mask * (np.r_[np.asarray(network.params["kernel"]).ravel(), np.zeros(3)] + noise)
                i = draw % 400
                f = np.asarray(network.train.inputs[i]).ravel() @ w[:9].reshape(3, 3) + w[9:]
                losses.append(min(np.logaddexp.reduce(f) - f[i % 3], 3.0))
            limit = 3 * dropout.inverse_kl(np.mean(losses) / 3, math.log(2 * 4 / 0.1) / 100)
            for lam in lambdas:
                penalty = (1 - a) * square / (2 * sigma**2) + math.log(2 * 8 / 0.1)
                candidates[a, sigma, lam] = (limit + lam * 3 / 400 * penalty) / (1 - 1 / (2 * lam))
    best = min(candidates, key=candidates.get)
    assert (found.details["rate"], found.details["sigma"], found.details["lambda"]) == best
    assert found.value == pytest.approx(candidates[best], abs=4 * found.sem)
    assert found.details["kl"] == pytest.approx((1 - best[0]) * square / (2 * best[1] ** 2))
    assert found.details["plugged_in"] < found.value
    assert not found.details["vacuous"]


def test_the_standard_error_over_seeds():
    network = model(examples=60)
    options = {"rates": (0.2,), "sigmas": (0.5,), "lambdas": (2.0,), "draws": 30}
    runs = [dropout.pac_bayes_dropout(network, jax.random.key(s), **options) for s in range(200)]
    values = np.array([r.value for r in runs])
    assert np.sqrt(np.mean([r.sem**2 for r in runs])) == pytest.approx(values.std(), rel=0.25)


def test_draws_of_the_posterior():
    """Dropped with probability a, else w plus noise of σ; every parameter, biases too."""
    params = {"kernel": jnp.full((100, 100), 2.0), "bias": jnp.full((1000,), -3.0)}
    drawn = dropout._draw(params, KEY, jnp.float32(0.3), jnp.float32(0.1))
    for name, mean in (("kernel", 2.0), ("bias", -3.0)):
        values = np.asarray(drawn[name]).ravel()
        kept = values[values != 0]
        assert len(kept) / len(values) == pytest.approx(0.7, abs=4 * math.sqrt(0.21 / len(values)))
        assert kept.mean() == pytest.approx(mean, abs=4 * 0.1 / math.sqrt(len(kept)))
        assert kept.std() == pytest.approx(0.1, rel=0.1)


def test_larger_weights_and_fewer_examples_have_larger_bounds():
    assert dropout.MEASURES["pac_bayes_dropout"].sign == +1
    value = dropout.pac_bayes_dropout(model(), KEY).value
    assert value < dropout.pac_bayes_dropout(model(examples=100), KEY).value
    assert value < dropout.pac_bayes_dropout(model(scale=4.0), KEY).value
    near = dropout.pac_bayes_dropout(model(), KEY, prior="init", rates=(0.2,), sigmas=(2.0,), lambdas=(2.0,))
    assert near.details["kl"] == pytest.approx(0.8 * (3 * 25 + 6 + 3) / (2 * 2**2))


def test_refuses_what_is_not_covered():
    net = build("nin", input_shape=(4, 4, 1), classes=3, depth=1, width=2)
    data = Dataset(jnp.ones((5, 4, 4, 1)), jnp.zeros(5, jnp.int32))
    normalized = as_trained_model(net, *net.init(KEY), data)
    assert "fold them" in dropout.pac_bayes_dropout(normalized, KEY, fold=False).reason
    assert dropout.pac_bayes_dropout(normalized, KEY, rates=(0.1,), sigmas=(1.0,)).details["folded"] is True
    for options, words in (
        ({"lambdas": (0.5, 1.0)}, r"lambdas=\(0.5, 1.0\) must be above 1/2"),
        ({"rates": (1.0,)}, r"rates=\(1.0,\) must be in \[0, 1\)"),
        ({"sigmas": ()}, r"sigmas=\(\) must be positive"),
        ({"prior": "data"}, "prior='data' is unknown; choose among zero, init"),
    ):
        with pytest.raises(ValueError, match=words):
            dropout.pac_bayes_dropout(model(), KEY, **options)
