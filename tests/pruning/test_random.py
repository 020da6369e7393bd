"""Random pruning against enumeration, a second-order model and a plain loop."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from prunegen_jax import pruning
from prunegen_jax.compute.evaluation import loss_and_accuracy
from prunegen_jax.pruning import masks
from tests.support.pruning_cases import G1, G1_WEIGHTS, X, logistic, mlp, two_layers


def test_golden_random_means():
    """Over all subsets of exactly k of the four weights, and over all 16 masks for the Bernoulli draw."""
    losses, counts = [], []
    for bits in range(16):
        keep = np.array([[bits >> i & 1] for i in range(4)], np.float32)
        losses.append(loss_and_accuracy(logistic, {"kernel": G1_WEIGHTS["kernel"] * keep}, G1)[0])
        counts.append(int(keep.sum()))
    losses, counts = np.array(losses), np.array(counts)
    exact = {4: 0.2087699, 3: 0.3141367, 2: 0.4301450, 1: 0.5565812, 0: 0.6931472}
    scores = masks.uniform_scores(jax.random.key(0), G1_WEIGHTS, masks=4000)
    scan = pruning.Scan(logistic, G1_WEIGHTS, scores, G1, "loss", 500)
    for k, mean in exact.items():
        assert losses[counts == k].mean() == pytest.approx(mean, rel=1e-6)
        drawn = scan._evaluate([(k,)] * 4000, range(4000), np.arange(6)).mean(axis=1)
        assert drawn.mean() == pytest.approx(mean, abs=4 * losses[counts == k].std() / np.sqrt(4000) + 1e-6)
    bernoulli = {0.05: 0.2300028, 0.1: 0.2515543, 0.25: 0.3181136, 0.5: 0.4353536}
    scores = masks.bernoulli_scores(jax.random.key(1), G1_WEIGHTS, masks=4000)
    scan = pruning.Scan(logistic, G1_WEIGHTS, scores, G1, "loss", 500)
    for drop, mean in bernoulli.items():
        weights = drop ** (4 - counts) * (1 - drop) ** counts
        assert weights @ losses == pytest.approx(mean, rel=1e-6)
        drawn = scan._evaluate([(masks.bernoulli_keep(drop),)] * 4000, range(4000), np.arange(6)).mean(axis=1)
        assert drawn.mean() == pytest.approx(mean, abs=4 * drawn.std() / np.sqrt(4000))


def test_second_order_model_of_bernoulli_pruning():
    """E[ΔL] ≈ −a gᵀw + ½a(1−a) Σ H_jj w_j² + ½a² wᵀHw, with the Hessian of a logistic regression by hand."""
    w = G1_WEIGHTS["kernel"][:, 0].astype(np.float64) / 4  # small weights: the third order is small
    y = np.asarray(G1.labels)
    p = 1 / (1 + np.exp(-X @ w))
    gradient, hessian = X.T @ (p - y) / 6, (X.T * (p * (1 - p))) @ X / 6
    dense = -np.log(np.where(y == 1, p, 1 - p)).mean()
    for a in (0.05, 0.1):
        exact = 0.0
        for bits in range(16):
            keep = np.array([bits >> i & 1 for i in range(4)])
            q = 1 / (1 + np.exp(-X @ (keep * w)))
            exact += a ** (4 - keep.sum()) * (1 - a) ** keep.sum() * -np.log(np.where(y == 1, q, 1 - q)).mean()
        model = -a * gradient @ w + 0.5 * a * (1 - a) * (np.diag(hessian) * w**2).sum() + 0.5 * a**2 * w @ hessian @ w
        assert exact - dense == pytest.approx(model, rel=0.02)
        scores = masks.bernoulli_scores(jax.random.key(2), G1_WEIGHTS, masks=4000)
        params = {"kernel": w[:, None].astype(np.float32)}
        scan = pruning.Scan(logistic, params, scores, G1, "loss", 500)
        drawn = scan._evaluate([(masks.bernoulli_keep(a),)] * 4000, range(4000), np.arange(6)).mean(axis=1)
        assert drawn.mean() - dense == pytest.approx(model, abs=4 * drawn.std() / np.sqrt(4000) + 0.02 * abs(model))


def test_random_crossing_is_the_first_that_passes():
    params, train = two_layers(jax.random.key(6))
    key, p = jax.random.key(7), 108
    found = pruning.random_prunability(key, mlp, params, train, masks=5, beta=0.5)
    orders = np.asarray(masks.uniform_scores(key, params, masks=5).leaves[1].reshape(5, -1))  # leaves: bias, kernel, …
    both = np.concatenate(
        [orders, np.asarray(masks.uniform_scores(key, params, masks=5).leaves[3].reshape(5, -1))], axis=1
    )
    kernels = np.concatenate([np.asarray(params["one"]["kernel"]).ravel(), np.asarray(params["two"]["kernel"]).ravel()])
    limit = 1.5 * loss_and_accuracy(mlp, params, train)[0]

    def mean_loss(dropped):
        losses = []
        for order in both:
            w = np.where(order < p - dropped, kernels, np.float32(0))
            pruned = {
                "one": {**params["one"], "kernel": w[:72].reshape(6, 12)},
                "two": {**params["two"], "kernel": w[72:].reshape(12, 3)},
            }
            losses.append(loss_and_accuracy(mlp, pruned, train)[0])
        return np.mean(losses)

    passing = [d for d in pruning.dropped_counts(p) if mean_loss(d) <= limit]
    assert found.kept == p - max(passing)
    assert found.fraction == pytest.approx(found.kept / p)
    assert found.sem > 0
    single = pruning.random_prunability(key, mlp, params, train, masks=5, beta=0.5, aggregate="mean_of_mu")
    assert 0 < single.sem < 0.5
    assert abs(single.fraction - found.fraction) < 0.2


def test_dropped_counts_are_geometric_down_to_one():
    counts = np.array(pruning.dropped_counts(5000))
    assert counts[0] == 5000
    assert counts[-1] == 1
    assert ((counts[:-1] - counts[1:] == 1) | (counts[:-1] / counts[1:] <= 1.1)).all()
