"""Measures of curvature, Fisher–Rao norm and relative flatness against dense matrices and closed forms."""

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
from prunegen_jax.networks import as_trained_model, build
from prunegen_jax.types import Dataset, TrainedModel

KEY = jax.random.key(0)
SIZES = (5, 7, 6, 3)


def apply(params, images):
    return features(params, images)[0]


def features(params, images, offsets=None):
    hidden = images.reshape(images.shape[0], -1)
    for name in sorted(params, key=lambda name: (name == "head", name)):
        layer = params[name]
        if name == "head":
            pooled = hidden
        hidden = hidden @ layer["kernel"] + layer.get("bias", jnp.zeros(layer["kernel"].shape[1:])).reshape(1, -1)
        hidden = hidden if name == "head" else jax.nn.relu(hidden)
    return hidden, {"pooled": pooled}


def network(*, bias=True, seed=0, scale=1.0, sizes=SIZES):
    """A ReLU network of double precision if that is on."""
    rng = np.random.default_rng(seed)
    names = [*(f"layer{i}" for i in range(len(sizes) - 2)), "head"]
    params = {}
    for name, shape in zip(names, itertools.pairwise(sizes), strict=True):
        params[name] = {"kernel": jnp.asarray(scale * rng.normal(size=shape))}
        if bias:
            params[name]["bias"] = jnp.asarray(scale * rng.normal(size=shape[1]))
    data = Dataset(jnp.asarray(rng.normal(size=(23, 1, 1, sizes[0]))), jnp.asarray(rng.integers(0, sizes[-1], 23)))
    return TrainedModel(apply, params, data, features=features)


def parts(model):
    """Dense Hessian, Jacobian of logits [n, K, p], probabilities [n, K], one-hot labels [n, K], weights [p], logits."""
    flat, unravel = ravel_pytree(model.params)
    images, labels = model.train.images, np.asarray(model.train.labels)

    def logits(w):
        return apply(unravel(w), images)

    def loss(w):
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits(w)), model.train.labels[:, None], axis=1))

    f = np.asarray(logits(flat))
    p = np.exp(f - f.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    hess, jac = jax.jit(lambda w: (jax.hessian(loss)(w), jax.jacobian(logits)(w)))(flat)
    return np.asarray(hess), np.asarray(jac), p, np.eye(f.shape[1])[labels], np.asarray(flat), f


@pytest.fixture(scope="module")
def dense():
    with jax.enable_x64():
        model = network()
        return model, parts(model)


def test_top_eigenvalue(dense):
    model, (matrix, *_) = dense
    expected = np.linalg.eigvalsh(matrix)
    with jax.enable_x64():
        found = curvature.hessian_top_eigenvalue(model, KEY, count=3, tolerance=1e-8, batch_size=7)
        rough = curvature.hessian_top_eigenvalue(model, KEY)
    np.testing.assert_allclose(found.details["eigenvalues"], expected[::-1][:3], rtol=1e-8)
    assert found.value == found.details["eigenvalues"][0]
    assert found.details["smallest"] == pytest.approx(expected[0], rel=0.01)  # nobody waited for it
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
    x, y = np.asarray(model.train.images).reshape(23, -1), np.asarray(model.train.labels)

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


@pytest.mark.parametrize("kind", ["empirical", "true"])
def test_fisher_rao_norm_is_the_quadratic_form(dense, kind):
    model, (_, jacobian, p, onehot, w, _) = dense
    along = jacobian @ w
    if kind == "empirical":
        expected = np.mean(np.sum(along * (p - onehot), axis=1) ** 2)
    else:
        expected = np.mean(np.sum(p * along**2, axis=1) - np.sum(p * along, axis=1) ** 2)
    with jax.enable_x64():
        found = MEASURES["fisher_rao_norm"](model, KEY, fisher=kind, batch_size=4)
    assert found.value == pytest.approx(expected, rel=1e-6)


def test_fisher_rao_norm_of_a_homogeneous_network_in_closed_form():
    with jax.enable_x64():
        model = network(bias=False)
        _, _, p, onehot, _, f = parts(model)
        found = MEASURES["fisher_rao_norm"](model, KEY).value
    closed = 3**2 * np.mean((np.sum(p * f, axis=1) - np.sum(onehot * f, axis=1)) ** 2)
    assert found == pytest.approx(closed, rel=1e-6)


def test_empirical_fisher_trace(dense):
    model, (_, jacobian, p, onehot, *_) = dense
    expected = np.mean(np.sum(np.einsum("nkp,nk->np", jacobian, p - onehot) ** 2, axis=1))
    with jax.enable_x64():
        assert MEASURES["empirical_fisher_trace"](model, KEY).value == pytest.approx(expected, rel=1e-6)


def test_relative_flatness_against_its_definition(dense):
    """κ = Σ_{s,s'} ⟨w_s, w_s'⟩ tr H_{ss'} from the dense Hessian of the last kernel."""
    model, (matrix, *_) = dense
    kernel = np.asarray(model.params["head"]["kernel"])
    with jax.enable_x64():
        marks = jax.tree.map(jnp.zeros_like, model.params)
        marks["head"]["kernel"] = 1.0 + jnp.arange(kernel.size, dtype=float).reshape(kernel.shape)
        order = np.asarray(ravel_pytree(marks)[0]).astype(int)
        found = MEASURES["relative_flatness"](model, KEY)
    position = np.array([np.flatnonzero(order == i + 1)[0] for i in range(kernel.size)])
    last = matrix[np.ix_(position, position)].reshape(*kernel.shape, *kernel.shape)  # [C, K, C, K]
    expected = np.einsum("cs,ct,dsdt->", kernel, kernel, last)
    assert found.value == pytest.approx(expected, rel=1e-6)


def test_relative_flatness_of_a_network_that_is_sure_and_of_a_transposed_head():
    """One feature, weights 100 and 100.5, p = (1 − q, q) with q = 1 / (1 + e^{φ/2}): κ = φ² q (1 − q) / 4."""
    kernel, phi = jnp.asarray([[100.5, 100.0]], jnp.float32), 20.0
    data = Dataset(jnp.full((3, 1, 1, 1), phi), jnp.zeros(3, jnp.int32))

    def features(params, images, offsets=None):
        pooled = images.reshape(-1, 1)
        head = params["head"]
        return pooled @ (head["kernel"] if "kernel" in head else head["weight"].T), {"pooled": pooled}

    q = 1 / (1 + np.exp(phi / 2))
    for name, leaf in (("kernel", kernel), ("weight", kernel.T)):
        params = {"head": {name: leaf}}
        model = TrainedModel(lambda p, x: features(p, x)[0], params, data, features=features)
        found = MEASURES["relative_flatness"](model, KEY, head=("head", name))
        assert found.value == pytest.approx(phi**2 * q * (1 - q) / 4, rel=1e-3), name
    square = {"head": {"weight": jnp.asarray([[1.0, 2.0], [-3.0, 0.5]])}}  # whose shape does not tell

    def square_features(params, images, offsets=None):
        pooled = images.reshape(-1, 2)
        return pooled @ params["head"]["weight"].T, {"pooled": pooled}

    data = Dataset(jnp.asarray([[0.3, -0.4], [1.0, 0.2]]).reshape(2, 1, 1, 2), jnp.zeros(2, jnp.int32))
    model = TrainedModel(lambda p, x: square_features(p, x)[0], square, data, features=square_features)
    assert MEASURES["relative_flatness"](model, KEY, head=("head", "weight")).value > 0


def test_relative_flatness_says_what_it_lacks(dense):
    model, _ = dense
    assert MEASURES["relative_flatness"](dataclasses.replace(model, features=None), KEY).status == "not_applicable"
    small = dataclasses.replace(model, params=jax.tree.map(lambda x: x.astype(jnp.float32), model.params))
    small = dataclasses.replace(small, train=Dataset(jnp.ones((3, 1, 1, 5), jnp.float32), jnp.zeros(3, jnp.int32)))
    row = MEASURES["relative_flatness"]
    assert "needs an activation called 'last', has pooled" in row(small, KEY, features="last").reason
    assert "needs a kernel at fc/kernel, has head/kernel" in row(small, KEY, head=("fc", "kernel")).reason
    square = network(sizes=(5, 4, 4, 3))
    data = Dataset(
        jnp.asarray(np.random.default_rng(0).normal(size=(9, 1, 1, 5)), jnp.float32), jnp.zeros(9, jnp.int32)
    )

    def bent(params, images, offsets=None):
        logits, activations = features(params, images)
        return logits + jnp.square(logits), activations

    bent_model = dataclasses.replace(square, train=data, features=bent)
    assert "needs logits linear in 'pooled'" in row(bent_model, KEY).reason


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
        sharp = dataclasses.replace(flat, train=Dataset(3.0 * flat.train.images, flat.train.labels))
        for name, row in MEASURES.items():
            assert row.sign == +1
            if name == "relative_flatness":  # grows with features at fixed probabilities
                continue
            assert row(flat, KEY).value < row(sharp, KEY).value, name


def test_folded_weights_by_default():
    net = build("nin", image_shape=(8, 8, 3), classes=4, depth=1, width=4)
    params, stats = net.init(KEY)
    stats = jax.tree.map(lambda x: 0.25 * jnp.ones_like(x), stats)
    rng = np.random.default_rng(0)
    data = Dataset(jnp.asarray(rng.normal(size=(9, 8, 8, 3)), jnp.float32), jnp.asarray(np.arange(9) % 4, jnp.int32))
    model = as_trained_model(net, params, stats, data)
    for name in ("fisher_rao_norm", "empirical_fisher_trace", "relative_flatness"):
        row = MEASURES[name]
        folded, raw = row(model, KEY), row(model, KEY, fold=False)
        assert folded.value == pytest.approx(row(model.folded, KEY).value, rel=1e-6)
        assert (folded.details["folded"], raw.details["folded"]) == (True, False)
    assert MEASURES["empirical_fisher_trace"](model, KEY).value != pytest.approx(
        MEASURES["empirical_fisher_trace"](model, KEY, fold=False).value, rel=0.01
    )
