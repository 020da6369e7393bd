"""Fisher–Rao norm, empirical Fisher trace and relative flatness against dense matrices and closed forms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from prunegen_jax.measures.curvature import MEASURES
from prunegen_jax.measures.structure import folded_network
from prunegen_jax.networks import as_trained_model, build
from prunegen_jax.types import Dataset, TrainedModel
from tests.support.curvature_cases import KEY, apply, dense_problem, network, parts


@pytest.fixture(scope="module")
def dense():
    return dense_problem()


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


def test_relative_flatness_of_confident_predictions_and_of_a_transposed_head():
    """One feature, weights 100 and 100.5, p = (1 − q, q) with q = 1 / (1 + e^{φ/2}): κ = φ² q (1 − q) / 4."""
    kernel, phi = jnp.asarray([[100.5, 100.0]], jnp.float32), 20.0
    data = Dataset(jnp.full((3, 1, 1, 1), phi), jnp.zeros(3, jnp.int32))

    def apply(params, images):
        head = params["head"]
        return images.reshape(-1, 1) @ (head["kernel"] if "kernel" in head else head["weight"].T)

    q = 1 / (1 + np.exp(phi / 2))
    for name, leaf in (("kernel", kernel), ("weight", kernel.T)):
        params = {"head": {name: leaf}}
        found = MEASURES["relative_flatness"](TrainedModel(apply, params, data), KEY)
        assert found.value == pytest.approx(phi**2 * q * (1 - q) / 4, rel=1e-3), name
    square = {"head": {"weight": jnp.asarray([[1.0, 2.0], [-3.0, 0.5]])}}  # whose shape does not tell
    x = np.array([[0.3, -0.4], [1.0, 0.2]])
    data = Dataset(jnp.asarray(x, jnp.float32).reshape(2, 1, 1, 2), jnp.zeros(2, jnp.int32))
    model = TrainedModel(lambda p, x: x.reshape(-1, 2) @ p["head"]["weight"].T, square, data)
    w = np.asarray(square["head"]["weight"], np.float64)  # [K, C]
    p = np.exp(x @ w.T)
    p /= p.sum(axis=1, keepdims=True)
    spread = (p * ((w[None] - (p @ w)[:, None]) ** 2).sum(axis=2)).sum(axis=1)
    assert MEASURES["relative_flatness"](model, KEY).value == pytest.approx(
        ((x**2).sum(axis=1) * spread).mean(), rel=1e-5
    )


def test_relative_flatness_names_what_is_missing():
    row = MEASURES["relative_flatness"]
    square = network(sizes=(5, 4, 4, 3))
    data = Dataset(
        jnp.asarray(np.random.default_rng(0).normal(size=(9, 1, 1, 5)), jnp.float32), jnp.zeros(9, jnp.int32)
    )

    def bent(params, images):
        logits = apply(params, images)
        return logits + jnp.square(logits)

    def two_heads(params, images):
        main = {name: layer for name, layer in params.items() if name != "beside"}
        return apply(main, images) + images.reshape(images.shape[0], -1) @ params["beside"]["kernel"]

    curved = row(TrainedModel(bent, square.params, data), KEY)
    assert curved.status == "not_applicable"
    assert "needs logits linear in the input of head/kernel" in curved.reason
    beside = {"kernel": jnp.ones((5, 3))}
    several = row(TrainedModel(two_heads, {**square.params, "beside": beside}, data), KEY)
    assert several.status == "not_applicable"
    assert "needs one last layer; the logits are computed by" in several.reason
    assert "head/kernel" in several.reason and "beside/kernel" in several.reason


def test_folded_weights_by_default():
    net = build("nin", input_shape=(8, 8, 3), classes=4, depth=1, width=4)
    params, stats = net.init(KEY)
    stats = jax.tree.map(lambda x: 0.25 * jnp.ones_like(x), stats)
    rng = np.random.default_rng(0)
    data = Dataset(jnp.asarray(rng.normal(size=(9, 8, 8, 3)), jnp.float32), jnp.asarray(np.arange(9) % 4, jnp.int32))
    model = as_trained_model(net, params, stats, data)
    for name in ("fisher_rao_norm", "empirical_fisher_trace", "relative_flatness"):
        row = MEASURES[name]
        folded, raw = row(model, KEY), row(model, KEY, fold=False)
        assert folded.value == pytest.approx(row(folded_network(model), KEY).value, rel=1e-6)
        assert (folded.details["folded"], raw.details["folded"]) == (True, False)
    assert MEASURES["empirical_fisher_trace"](model, KEY).value != pytest.approx(
        MEASURES["empirical_fisher_trace"](model, KEY, fold=False).value, rel=0.01
    )
