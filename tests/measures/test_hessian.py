"""Hessian products, Lanczos, quadrature and traces against dense matrices in float64."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from prunegen_jax.measures import hessian, lanczos, objective, traces
from prunegen_jax.networks import as_trained_model, build
from prunegen_jax.types import Dataset, Partial, TrainedModel

SIZES = (6, 10, 8, 4)  # 194 parameters


def mlp(params, images):
    hidden = images.reshape(images.shape[0], -1)
    for i, layer in enumerate(params):
        hidden = hidden @ layer["kernel"] + layer["bias"].reshape(1, -1)
        hidden = jnp.tanh(hidden) if i < len(params) - 1 else hidden
    return hidden


def problem():
    """A network of 194 parameters in the precision that is on, and its loss as a function of one flat vector."""
    rng = np.random.default_rng(0)
    params = [
        {"kernel": jnp.asarray(rng.normal(size=shape)), "bias": jnp.asarray(rng.normal(size=shape[1]))}
        for shape in itertools.pairwise(SIZES)
    ]
    data = Dataset(jnp.asarray(rng.normal(size=(37, 1, 1, 6))), jnp.asarray(rng.integers(0, 4, 37)))
    network = objective.weight_function(TrainedModel(mlp, params, data))
    flat, unravel = ravel_pytree(network.weights)

    def logits(w):
        return network.apply(unravel(w), data.inputs)

    def loss(w):
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits(w)), data.labels[:, None], axis=1)
        return -jnp.mean(chosen)

    return network, flat, logits, loss


@pytest.fixture(scope="module")
def dense():
    with jax.enable_x64():
        network, flat, logits, loss = problem()
        matrix = np.asarray(jax.jit(jax.hessian(loss))(flat))
        jacobian = np.asarray(jax.jit(jax.jacobian(logits))(flat))
        p = np.asarray(jax.nn.softmax(logits(flat)))
        gauss_newton = sum(j.T @ (np.diag(q) - np.outer(q, q)) @ j for j, q in zip(jacobian, p, strict=True)) / len(p)
        return network, np.asarray(flat), matrix, gauss_newton, np.asarray(jax.jit(jax.grad(loss))(flat))


def times(matrix, vectors):
    return vectors @ matrix


def operator_of(matrix):
    return Partial(times, jnp.asarray(matrix))


@pytest.mark.parametrize("batch_size", [5, 37, 500, None])
def test_products_against_the_dense_hessian(dense, batch_size):
    network, flat, matrix, _, gradient = dense
    with jax.enable_x64():
        goal = network.objective(batch_size)
        vectors = jnp.asarray(np.random.default_rng(1).normal(size=(3, len(flat))))
        expected = np.asarray(vectors) @ matrix
        for memory in (0.0, 1e9):  # recomputed, stored
            operator = hessian.linearized(goal, network.weights, memory=memory)
            np.testing.assert_allclose(jax.jit(operator)(vectors), expected, rtol=0, atol=1e-8 * np.abs(matrix).max())
            np.testing.assert_allclose(hessian.product(operator, vectors[1]), expected[1], rtol=0, atol=1e-12)
        found = ravel_pytree(hessian.gradient(goal, network.weights))[0]
        np.testing.assert_allclose(found, gradient, rtol=0, atol=1e-12)


def test_gauss_newton_and_weighted_products(dense):
    network, flat, matrix, gauss_newton, _ = dense
    with jax.enable_x64():
        goal = network.objective(8)
        vectors = jnp.asarray(np.random.default_rng(1).normal(size=(3, len(flat))))
        found = jax.jit(hessian.gauss_newton(goal, network.weights))(vectors)
        np.testing.assert_allclose(found, np.asarray(vectors) @ gauss_newton, rtol=0, atol=1e-12)
        found = jax.jit(hessian.weighted(hessian.hessian(goal, network.weights), network.weights))(vectors)
        scaled = flat[:, None] * matrix * flat[None, :]
        np.testing.assert_allclose(found, np.asarray(vectors) @ scaled, rtol=0, atol=1e-12)


def test_full_lanczos_against_the_dense_spectrum(dense):
    network, flat, matrix, _, _ = dense
    expected = np.linalg.eigvalsh(matrix)
    with jax.enable_x64():
        operator = hessian.linearized(network.objective(8), network.weights)
        start = jnp.asarray(np.random.default_rng(2).normal(size=len(flat)))
        found = lanczos.largest_eigenvalues(operator, start, count=len(flat), tolerance=0.0, budget=len(flat))
    # shifting all classes changes no probability: 9 eigenvalues are zero, which a Krylov space holds once
    assert len(found.values) == len(flat) - 8
    for a, b in ((found.values, expected), (expected, found.values)):
        assert max(np.abs(b - x).min() for x in a) < 1e-8
    apart = matrix @ found.vectors.T - found.vectors.T * found.values
    np.testing.assert_allclose(apart, 0.0, atol=1e-8)
    assert found.smallest == pytest.approx(expected[0], abs=1e-8)
    assert found.converged


@pytest.mark.parametrize(("count", "tolerance"), [(1, 1e-4), (5, 1e-6)])
def test_lanczos_stops_when_accurate(dense, count, tolerance):
    network, flat, matrix, _, _ = dense
    expected = np.linalg.eigvalsh(matrix)[::-1][:count]
    with jax.enable_x64():
        operator = hessian.hessian(network.objective(8), network.weights)
        start = jnp.asarray(np.random.default_rng(2).normal(size=len(flat)))
        found = lanczos.largest_eigenvalues(operator, start, count=count, tolerance=tolerance)
        low_budget = lanczos.largest_eigenvalues(operator, start, count=1, tolerance=1e-12, budget=5)
    np.testing.assert_allclose(found.values, expected, rtol=tolerance)
    residuals = np.linalg.norm(matrix @ found.vectors.T - found.vectors.T * found.values, axis=0)
    np.testing.assert_allclose(found.residuals, residuals, rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1.0, rtol=1e-10)
    assert found.converged
    assert found.products < 40
    assert (low_budget.products, low_budget.converged) == (5, False)


def test_lanczos_on_a_known_spectrum_with_repeats():
    values = np.array([5.0, 5.0, 2.0, -1.0, -7.0] + [0.0] * 20)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(25, 25)))[0]
    with jax.enable_x64():
        operator = operator_of(rotation * values @ rotation.T)
        found = lanczos.largest_eigenvalues(operator, jnp.ones(25), count=5, tolerance=1e-9, budget=25)
    np.testing.assert_allclose(found.values, [5.0, 2.0, 0.0, -1.0, -7.0], atol=1e-9)
    assert found.converged


def test_lanczos_refuses_impossible_requests():
    operator = operator_of(np.eye(3, dtype=np.float32))
    with pytest.raises(ValueError, match="count=4 must lie between 1 and the dimension 3"):
        lanczos.largest_eigenvalues(operator, jnp.ones(3), count=4)
    with pytest.raises(FloatingPointError, match="not finite"):
        lanczos.largest_eigenvalues(operator_of(np.full((3, 3), np.nan, np.float32)), jnp.ones(3))


def test_quadrature_sums_functions_of_the_spectrum(dense):
    network, flat, matrix, _, _ = dense
    expected = np.linalg.eigvalsh(matrix)
    with jax.enable_x64():
        operator = hessian.hessian(network.objective(37), network.weights)
        found = lanczos.spectral_density(operator, jnp.asarray(flat), jax.random.key(0), probes=60, steps=25)
    np.testing.assert_allclose(found.weights.sum(axis=1), 1.0, rtol=1e-10)
    for function in (lambda x: x, lambda x: x**2, lambda x: np.exp(-(x**2))):
        value, sem = found.sum(function)
        assert abs(value - function(expected).sum()) < 4 * sem
    assert found.sum(np.ones_like)[0] == pytest.approx(len(flat))
    grid = np.linspace(-2, 5, 4001)
    exact = np.exp(-0.5 * ((grid[:, None] - expected[None, :]) / 0.1) ** 2) / (0.1 * np.sqrt(2 * np.pi))
    found_density = found.density(grid, width=0.1)
    assert np.trapezoid(found_density, grid) == pytest.approx(1.0, abs=1e-3)
    assert np.trapezoid(np.abs(found_density - exact.mean(axis=1)), grid) < 0.1


@pytest.mark.parametrize("method", ["hutchinson", "hutch++"])
def test_traces_and_their_standard_errors_over_seeds(method):
    """Known spectrum: 50 seeds within four standard errors, which are right within 20 % (over 200 seeds)."""
    values = np.concatenate([[40.0, 20.0, 10.0, -8.0], 1.0 / np.arange(1, 77)])
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(80, 80)))[0]
    operator = operator_of((rotation * values @ rotation.T).astype(np.float32))
    runs = [
        traces.trace(
            operator, jnp.zeros(80), jax.random.key(seed), method=method, relative_error=0.0, budget=64, sketch=8
        )
        for seed in range(200)
    ]
    found, sems = np.array([r.value for r in runs]), np.array([r.sem for r in runs])
    assert np.all(np.abs(found - values.sum())[:50] < 4 * sems[:50])
    assert np.sqrt(np.mean(sems**2)) == pytest.approx(found.std(), rel=0.2)
    assert abs(found.mean() - values.sum()) < 4 * found.std() / np.sqrt(200)
    assert all(r.products == 64 and not r.converged for r in runs)


def test_hutchinson_variance_is_the_known_one():
    """Var(gᵀAg) = 2 (‖A‖_F² − Σ A_jj²) for Rademacher g."""
    half = np.random.default_rng(3).normal(size=(12, 12)).astype(np.float32)
    matrix = half + half.T
    found = traces.trace(
        operator_of(matrix), jnp.zeros(12), jax.random.key(0), method="hutchinson", relative_error=0.0, budget=4000
    )
    variance = 2 * (np.sum(matrix**2) - np.sum(np.diag(matrix) ** 2))
    assert found.sem == pytest.approx(np.sqrt(variance / 4000), rel=0.05)


def test_hutch_plus_plus_is_exact_on_low_rank():
    half = np.random.default_rng(3).normal(size=(60, 5))
    with jax.enable_x64():
        found = traces.trace(operator_of(half @ half.T), jnp.zeros(60), jax.random.key(0), sketch=6)
    assert found.value == pytest.approx(np.sum(half**2), rel=1e-10)
    assert found.sem < 1e-10
    assert found.products == 12 + 16


def test_traces_stop_at_the_requested_error():
    values = 1.0 / np.arange(1, 201)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(200, 200)))[0]
    operator = operator_of((rotation * values @ rotation.T).astype(np.float32))
    loose, tight = (
        traces.trace(operator, jnp.zeros(200), jax.random.key(0), relative_error=error, budget=3000)
        for error in (0.05, 0.01)
    )
    assert loose.converged and tight.converged
    assert loose.sem <= 0.05 * loose.value and tight.sem <= 0.01 * tight.value
    assert loose.products < tight.products < 3000
    assert tight.value == pytest.approx(values.sum(), rel=0.04)
    with pytest.raises(ValueError, match="at least two samples after 32 products"):
        traces.trace(operator, jnp.zeros(200), jax.random.key(0), budget=33)
    with pytest.raises(ValueError, match="hutchinson, hutch\\+\\+"):
        traces.trace(operator, jnp.zeros(200), jax.random.key(0), method="xtrace")


def test_which_weights_are_moved():
    network = build("nin", input_shape=(8, 8, 3), classes=5, depth=1, width=4)
    params, stats = network.init(jax.random.key(0))
    data = Dataset(jnp.ones((3, 8, 8, 3)), jnp.zeros(3, jnp.int32))
    model = as_trained_model(network, params, stats, data)
    raw, folded = objective.weight_function(model, fold=False), objective.weight_function(model)
    layers = ("block0_conv0", "block0_conv1", "block0_conv2", "head")
    names = {f"{layer}/{leaf}" for layer in layers for leaf in ("kernel", "bias")}
    assert set(raw.weights) == set(folded.weights) == names  # neither scales nor shifts of batch norm
    assert (raw.folded, folded.folded) == (False, True)
    assert folded.kernel_names() == raw.kernel_names() == sorted(f"{layer}/kernel" for layer in layers)
    doubled = {name: 2 * leaf for name, leaf in raw.weights.items()}
    by_hand = {
        name: {leaf: 2 * w if f"{name}/{leaf}" in names else w for leaf, w in layer.items()}
        for name, layer in params.items()
    }
    images = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8, 8, 3)), jnp.float32)
    np.testing.assert_allclose(raw.apply(doubled, images), model.apply(by_hand, images), rtol=1e-6)


def test_a_second_network_of_equal_shape_compiles_nothing():
    def run(seed):
        network, flat, _, _ = problem()
        weights = {name: leaf * (1.0 + 0.1 * seed) for name, leaf in network.weights.items()}
        goal = network.objective(8)
        for memory in (0.0, 1e9):
            operator = hessian.linearized(goal, weights, memory=memory)
            lanczos.largest_eigenvalues(operator, flat, budget=8)
        traces.trace(hessian.hessian(goal, weights), flat, jax.random.key(seed), budget=48)

    run(0)
    programs = (lanczos._tridiagonal, traces._samples, traces._sketch, hessian._linearize)
    before = [program.alone._cache_size() for program in programs]
    run(1)
    assert [program.alone._cache_size() for program in programs] == before


@pytest.mark.parametrize("varied", ["operators", "vectors", "both"])
def test_one_product_under_vmap(varied):
    matrices = jax.random.normal(jax.random.key(0), (3, 4, 4))
    vectors = jax.random.normal(jax.random.key(1), (3, 4))

    def product(matrix, vector):
        return lanczos.apply_one(Partial(lambda a, block: block @ a.T, matrix), vector)

    a, v = (matrices if varied != "vectors" else matrices[0]), (vectors if varied != "operators" else vectors[0])
    found = jax.vmap(product, (None if varied == "vectors" else 0, None if varied == "operators" else 0))(a, v)
    expected = np.einsum("nij,nj->ni", np.broadcast_to(a, (3, 4, 4)), np.broadcast_to(v, (3, 4)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
