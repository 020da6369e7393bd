"""Measures of the Hessian against dense matrices; what holds for all measures of curvature."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from prunegen_jax.measures import curvature
from prunegen_jax.measures.curvature import MEASURES
from prunegen_jax.types import Dataset
from tests.support.curvature_cases import KEY, dense_problem, network, parts


@pytest.fixture(scope="module")
def dense():
    return dense_problem()


def test_top_eigenvalue(dense):
    model, (matrix, *_) = dense
    expected = np.linalg.eigvalsh(matrix)
    with jax.enable_x64():
        found = curvature.hessian_top_eigenvalue(model, KEY, count=3, tolerance=1e-8, batch_size=7)
        rough = curvature.hessian_top_eigenvalue(model, KEY)
    np.testing.assert_allclose(found.details["eigenvalues"], expected[::-1][:3], rtol=1e-8)
    assert found.value == found.details["eigenvalues"][0]
    assert found.details["smallest"] == pytest.approx(expected[0], rel=0.01)  # not iterated to the tolerance
    assert rough.value == pytest.approx(expected[-1], rel=1e-4)
    assert rough.details["products"] < found.details["products"]
    assert found.details["folded"] is False
    assert found.details["parameters"] == len(matrix)


def exact(name, dense):
    matrix, jacobian, p, _, w, _ = dense
    gauss_newton = np.einsum("nkp,nk,nkp->p", jacobian, p, jacobian) - np.sum(
        np.einsum("nk,nkp->np", p, jacobian) ** 2, axis=0
    )
    return {
        "hessian_trace": np.trace(matrix),
        "hessian_weighted_trace": np.sum(np.diag(matrix) * w**2),
        "gauss_newton_trace": gauss_newton.sum() / len(p),
        "hessian_frobenius_norm": np.linalg.norm(matrix),
    }[name]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("hessian_trace", {"method": "hutchinson", "relative_error": 0.0, "budget": 64}),
        ("hessian_trace", {"relative_error": 0.0, "budget": 48, "sketch": 8}),
        ("hessian_weighted_trace", {"relative_error": 0.0, "budget": 48, "sketch": 8, "parameters": "all"}),
        ("gauss_newton_trace", {"relative_error": 0.0, "budget": 48, "sketch": 8}),
        ("hessian_frobenius_norm", {"probes": 32, "steps": 6, "budget": 192}),
    ],
)
def test_estimates_over_seeds(dense, name, options):
    """50 seeds: each within four standard errors, their mean unbiased, the standard errors right within 20 %."""
    model, reference = dense
    expected = exact(name, reference)
    with jax.enable_x64():
        runs = [MEASURES[name](model, jax.random.key(seed), batch_size=23, **options) for seed in range(50)]
    values, sems = np.array([r.value for r in runs]), np.array([r.sem for r in runs])
    assert np.all(np.abs(values - expected) < 4 * sems)
    assert np.sqrt(np.mean(sems**2)) == pytest.approx(values.std(ddof=1), rel=0.2)
    assert abs(values.mean() - expected) < 4 * values.std() / np.sqrt(50)


def test_the_traces_of_a_relu_network_are_one():
    """tr H = tr G where the logits are piecewise linear in each layer's weights, far from a minimum too."""
    with jax.enable_x64():
        rng = np.random.default_rng(0)
        one, two = (jnp.asarray(rng.normal(size=shape)) for shape in ((4, 6), (6, 3)))
        inputs, labels = jnp.asarray(rng.normal(size=(9, 4))), jnp.arange(9, dtype=jnp.int32) % 3

        def traces(activation):
            def logits(w):
                return activation(inputs @ w[:24].reshape(4, 6)) @ w[24:].reshape(6, 3)

            def loss(w):
                return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits(w)), labels[:, None], axis=1))

            w = jnp.concatenate([one.ravel(), two.ravel()])
            p, jacobian = jax.nn.softmax(logits(w)), jax.jacobian(logits)(w)
            fisher = jax.vmap(lambda q: jnp.diag(q) - jnp.outer(q, q))(p)
            gauss_newton = jnp.einsum("nkp,nkl,nlp->", jacobian, fisher, jacobian) / 9
            return float(jnp.trace(jax.hessian(loss)(w))), float(gauss_newton)

        hessian, gauss_newton = traces(jax.nn.relu)
        assert hessian == pytest.approx(gauss_newton, rel=1e-12)
        smooth, other = traces(jnp.tanh)
        assert abs(smooth - other) > 0.01 * abs(other)


def test_frobenius_norm_stops_at_its_error_or_its_budget(dense):
    model, reference = dense
    expected = exact("hessian_frobenius_norm", reference)
    with jax.enable_x64():
        for error, budget, products, converged in ((10.0, 320, 16, True), (1e-9, 320, 320, False), (10.0, 10, 8, True)):
            found = curvature.hessian_frobenius_norm(model, KEY, relative_error=error, budget=budget, probes=2, steps=4)
            assert (found.details["products"], found.details["converged"]) == (products, converged)
            assert np.shape(found.details["nodes"]) == np.shape(found.details["weights"]) == (products // 4, 4)
        close = curvature.hessian_frobenius_norm(model, KEY, relative_error=0.03, budget=10_000, probes=8, steps=4)
        assert close.details["converged"] and close.sem <= 0.03 * close.value
        assert abs(close.value - expected) < 4 * close.sem
    with pytest.raises(ValueError, match="budget=7 must be at least"):
        curvature.hessian_frobenius_norm(model, KEY, budget=7, probes=2, steps=4)


def test_weighted_trace_of_the_kernels_alone(dense):
    model, (matrix, *_, w, _) = dense
    counts = {name: np.ones(layer["kernel"].shape) for name, layer in model.params.items()}
    with jax.enable_x64():
        is_kernel = ravel_pytree(
            {
                name: {"kernel": counts[name], "bias": np.zeros(layer["bias"].shape)}
                for name, layer in model.params.items()
            }
        )[0]
        found = curvature.hessian_weighted_trace(model, KEY, relative_error=0.0, budget=600, sketch=60)
    assert found.value == pytest.approx(np.sum(np.diag(matrix) * w**2 * np.asarray(is_kernel)), abs=4 * found.sem)
    assert found.sem < 0.05 * abs(found.value)


def test_weighted_trace_is_the_second_order_model_of_random_pruning():
    """E[L̂(s ∘ w)] − L̂ = −a gᵀw + ½ a (1 − a) Σ H_jj w_j² + ½ a² wᵀHw + O(w³) for entries dropped with probability a."""
    with jax.enable_x64():
        model = network(bias=False, sizes=(4, 3), seed=3, scale=0.02)
        matrix, jacobian, p, onehot, w, _ = parts(model)
        value = curvature.hessian_weighted_trace(model, KEY, relative_error=0.0, budget=200, sketch=12).value
    gradient = np.einsum("nkp,nk->p", jacobian, p - onehot) / len(p)
    x, y = np.asarray(model.train.inputs).reshape(23, -1), np.asarray(model.train.labels)

    def loss(flat):
        f = x @ flat.reshape(4, 3)
        return np.mean(np.log(np.exp(f).sum(1)) - f[np.arange(23), y])

    a = 0.1
    expected = 0.0  # over all 2¹² masks
    for mask in itertools.product((0, 1), repeat=12):
        kept = sum(mask)
        expected += (1 - a) ** kept * a ** (12 - kept) * loss(w * np.array(mask))
    predicted = 0.5 * a * (1 - a) * value + 0.5 * a**2 * w @ matrix @ w
    assert expected - loss(w) + a * gradient @ w == pytest.approx(predicted, rel=0.02)


def scaled(model, c):
    """The same function: the units of the second layer scaled by c."""
    first, head = model.params["layer1"], model.params["head"]
    c = jnp.asarray(c, first["bias"].dtype)
    return dataclasses.replace(
        model,
        params={
            **model.params,
            "layer1": {"kernel": first["kernel"] * c[None, :], "bias": first["bias"] * c},
            "head": {"kernel": head["kernel"] / c[:, None], "bias": head["bias"]},
        },
    )


def permuted(model):
    order = jnp.asarray([3, 0, 5, 1, 4, 2])
    first, head = model.params["layer1"], model.params["head"]
    return dataclasses.replace(
        model,
        params={
            **model.params,
            "layer1": {"kernel": first["kernel"][:, order], "bias": first["bias"][order]},
            "head": {"kernel": head["kernel"][order], "bias": head["bias"]},
        },
    )


def test_declared_invariances_hold_and_no_more_scalings(dense):
    model, _ = dense
    with jax.enable_x64():
        changes = {
            "neuron_scaling": scaled(model, [1.0, 3.0, 1.0, 1.0, 0.5, 1.0]),
            "layer_scaling": scaled(model, [3.0] * 6),
            "permutation": permuted(model),
        }
        for name, row in MEASURES.items():
            options = {"tolerance": 1e-10} if name == "hessian_top_eigenvalue" else {}
            before = row(model, KEY, **options).value
            for change, other in changes.items():
                same = row(other, KEY, **options).value == pytest.approx(before, rel=1e-8)
                assert same == (change in row.invariant), (name, change)


def test_sharper_networks_have_larger_values(dense):
    """All signs are +1: the same data shifted so that the loss bends more makes every one larger."""
    with jax.enable_x64():
        flat = network(seed=1)
        sharp = dataclasses.replace(flat, train=Dataset(3.0 * flat.train.inputs, flat.train.labels))
        for name, row in MEASURES.items():
            assert row.sign == +1
            if name == "relative_flatness":  # grows with features at fixed probabilities
                continue
            assert row(flat, KEY).value < row(sharp, KEY).value, name
