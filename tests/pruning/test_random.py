"""Random pruning against enumeration, a second-order model and a plain loop."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from prunegen_jax import pruning
from prunegen_jax.compute import trees
from prunegen_jax.compute.evaluation import cross_entropy, loss_and_accuracy
from prunegen_jax.pruning import masks
from prunegen_jax.types import Dataset
from tests.support.pruning_cases import G1, G1_WEIGHTS, X, logistic, mlp, trained, two_layers


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
        drawn = scan._evaluate([(k,)], range(4000), np.arange(6), width=500)[0].mean(axis=1)
        assert drawn.mean() == pytest.approx(mean, abs=4 * losses[counts == k].std() / np.sqrt(4000) + 1e-6)
    bernoulli = {0.05: 0.2300028, 0.1: 0.2515543, 0.25: 0.3181136, 0.5: 0.4353536}
    scores = masks.bernoulli_scores(jax.random.key(1), G1_WEIGHTS, masks=4000)
    scan = pruning.Scan(logistic, G1_WEIGHTS, scores, G1, "loss", 500)
    for drop, mean in bernoulli.items():
        weights = drop ** (4 - counts) * (1 - drop) ** counts
        assert weights @ losses == pytest.approx(mean, rel=1e-6)
        drawn = scan._evaluate([(masks.bernoulli_keep(drop),)], range(4000), np.arange(6), width=500)[0].mean(axis=1)
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
        drawn = scan._evaluate([(masks.bernoulli_keep(a),)], range(4000), np.arange(6), width=500)[0].mean(axis=1)
        assert drawn.mean() - dense == pytest.approx(model, abs=4 * drawn.std() / np.sqrt(4000) + 0.02 * abs(model))


def test_random_crossing_lies_between_the_counts_of_a_plain_loop():
    """With few drops the nested masks alone decide; the mean loss is linear between their counts."""
    params, train = two_layers(jax.random.key(6))
    key, p = jax.random.key(7), 108
    found = pruning.random_prunability(key, mlp, params, train, masks=5, drops=2, beta=0.5)
    leaves = masks.uniform_scores(key, params, masks=5).leaves  # bias, kernel, bias, kernel
    orders = np.concatenate([np.asarray(leaves[i]).reshape(5, -1) for i in (1, 3)], axis=1)
    kernels = np.concatenate([np.asarray(params[name]["kernel"]).ravel() for name in ("one", "two")])
    dense = loss_and_accuracy(mlp, params, train)[0]

    def losses(dropped):
        pruned = [np.where(order < p - dropped, kernels, np.float32(0)) for order in orders]
        return np.array([loss_and_accuracy(mlp, with_kernels(params, w), train)[0] for w in pruned])

    counts = pruning.dropped_counts(p)[::-1]
    means = [losses(d).mean() for d in counts]
    last = max(i for i, mean in enumerate(means) if mean <= 1.5 * dense)
    expected = np.interp(1.5 * dense, means[last : last + 2], counts[last : last + 2])
    assert counts[last] > 1
    assert p * (1 - found.fraction) == pytest.approx(expected, rel=1e-4)
    assert (found.kept, found.loss) == (p - round(expected), found.limit)
    sems = [losses(d).std(ddof=1) / np.sqrt(5) for d in counts[last : last + 2]]
    sem = np.interp(1.5 * dense, means[last : last + 2], sems) * expected / (0.5 * dense) / p
    assert sem < found.sem < 3 * sem  # widened: five draws are few
    single = pruning.random_prunability(key, mlp, params, train, masks=5, beta=0.5, aggregate="mean_of_mu")
    assert 0 < single.sem < 0.5
    assert abs(single.fraction - found.fraction) < 0.2
    with pytest.raises(ValueError, match="masks=1 must be at least 2"):
        pruning.random_prunability(key, mlp, params, train, masks=1)


def with_kernels(params, flat):
    return {
        "one": {**params["one"], "kernel": flat[:72].reshape(6, 12)},
        "two": {**params["two"], "kernel": flat[72:].reshape(12, 3)},
    }


def mean_losses(apply, params, train, subsets):
    """Losses without each of the subsets of positions among the 108 kernel entries."""
    kernels = np.concatenate([np.asarray(params[name]["kernel"]).ravel() for name in ("one", "two")])
    weights = np.tile(kernels, (len(subsets), 1))
    for row, subset in zip(weights, subsets, strict=True):
        row[list(subset)] = 0
    loss = lambda w: cross_entropy(apply(with_kernels(params, w), train.inputs), train.labels).mean()  # noqa: E731
    return np.asarray(jax.jit(functools.partial(jax.lax.map, loss))(weights), np.float64)


def test_below_one_parameter_is_the_slope_of_all_single_drops():
    """Exact where all are evaluated; within three standard errors where some are drawn, and other keys differ."""
    params, train = two_layers(jax.random.key(6))
    dense, p = loss_and_accuracy(mlp, params, train)[0], 108
    rise = mean_losses(mlp, params, train, [(j,) for j in range(p)]).mean() - dense
    beta = 0.3 * rise / dense
    exact = pruning.random_prunability(jax.random.key(1), mlp, params, train, beta=beta)
    assert p * (1 - exact.fraction) == pytest.approx(0.3, rel=1e-3)
    assert (exact.sem, exact.kept, exact.note) == (0.0, 108, "0.3 parameters can be dropped on average")
    drawn = [pruning.random_prunability(jax.random.key(s), mlp, params, train, beta=beta, drops=40) for s in range(20)]
    values, sems = np.array([d.fraction for d in drawn]), np.array([d.sem for d in drawn])
    assert len(set(values)) == 20
    assert (np.abs(values - exact.fraction) <= 3 * sems).all()
    assert values.std(ddof=1) == pytest.approx(np.sqrt(np.mean(sems**2)), rel=0.5)
    assert np.median(sems) * p < 0.3 / 3


def test_bernoulli_below_one_parameter_against_enumeration():
    """Over all subsets of one and two of 108, and the rest as far above two as two is above one: it hardly counts."""
    params, train = two_layers(jax.random.key(6))
    dense, p = loss_and_accuracy(mlp, params, train)[0], 108
    one = mean_losses(mlp, params, train, [(j,) for j in range(p)]).mean() - dense
    two = mean_losses(mlp, params, train, list(itertools.combinations(range(p), 2))).mean() - dense
    chances = scipy.stats.binom.pmf(np.arange(9), p, 0.4 / p)
    beta = (chances @ np.array([0, one, *(two + (two - one) * k for k in range(7))])) / dense
    drawn = [
        pruning.random_prunability(jax.random.key(s), mlp, params, train, beta=beta, draw="bernoulli", drops=100)
        for s in range(20)
    ]
    values, sems = p * (1 - np.array([d.fraction for d in drawn])), p * np.array([d.sem for d in drawn])
    assert (np.abs(values - 0.4) <= 3 * sems).all()
    assert abs(values.mean() - 0.4) <= 3 * values.std(ddof=1) / np.sqrt(20)
    assert values.std(ddof=1) == pytest.approx(np.sqrt(np.mean(sems**2)), rel=0.5)


@pytest.mark.parametrize("draw", ["exact", "bernoulli"])
def test_small_counts_against_all_pairs_and_triples(draw):
    """Between two and three parameters, from subsets of which one member is drawn where it matters."""
    params, train = two_layers(jax.random.key(6))
    dense, p, random = loss_and_accuracy(mlp, params, train)[0], 108, np.random.default_rng(0)
    draws = {"exact": lambda d: d, "bernoulli": lambda d: random.binomial(p, d / p)}
    means = []
    for d in (2, 3):
        subsets = [random.choice(p, draws[draw](d), replace=False) for _ in range(8000)]
        means.append(mean_losses(mlp, params, train, subsets).mean() - dense)
    drawn = [
        pruning.random_prunability(jax.random.key(s), mlp, params, train, beta=sum(means) / 2 / dense, draw=draw)
        for s in range(20)
    ]
    values, sems = p * (1 - np.array([d.fraction for d in drawn])), p * np.array([d.sem for d in drawn])
    assert (np.abs(values - 2.5) <= 3 * sems).all()
    assert abs(values.mean() - 2.5) <= 3 * values.std(ddof=1) / np.sqrt(20) + 0.05


def test_the_estimate_is_continuous_in_the_tolerance():
    """No jump where one, two or the nested masks take over, beyond the standard error."""
    params, train = two_layers(jax.random.key(6))
    for draw in ("exact", "bernoulli"):
        found = [
            pruning.random_prunability(jax.random.key(1), mlp, params, train, draw=draw, drops=60, beta=beta)
            for beta in np.geomspace(0.01, 1, 20)
        ]
        drops = 108 * (1 - np.array([f.fraction for f in found]))
        assert drops[0] < 1 < drops[-1]
        assert (np.diff(drops) > 0).all()
        assert (drops[1:] / drops[:-1] < 2.2).all()  # neighbouring tolerances are a factor 1.27 apart


def test_second_order_model_at_a_minimum():
    """1 − μ = 2 β L̂ / Σ H_jj w_j² where the loss is nearly quadratic: a logistic regression at its minimum."""
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 6))
    y = (random.random(400) < 1 / (1 + np.exp(-x @ (0.15 * random.normal(size=6))))).astype(np.int32)

    def parts(w):
        q = 1 / (1 + np.exp(-x @ w))
        return -np.log(np.where(y == 1, q, 1 - q)).mean(), x.T @ (q - y) / 400, (x.T * (q * (1 - q))) @ x / 400

    w = np.zeros(6)
    for _ in range(20):
        _, gradient, hessian = parts(w)
        w = w - np.linalg.solve(hessian, gradient)
    loss, _, hessian = parts(w)
    curvature = np.diag(hessian) @ w**2
    beta = 0.1 * curvature / 6 / loss  # a fifth of a parameter
    params, data = {"kernel": w[:, None].astype(np.float32)}, Dataset(x.astype(np.float32), y)
    for draw in ("exact", "bernoulli"):
        found = pruning.random_prunability(jax.random.key(0), logistic, params, data, draw=draw, beta=beta)
        expected = 2 * beta * loss / curvature
        assert 1 - found.fraction == pytest.approx(expected, rel=0.03, abs=3 * found.sem)


def test_dropped_counts_are_geometric_down_to_one():
    counts = np.array(pruning.dropped_counts(5000))
    assert counts[0] == 5000
    assert counts[-1] == 1
    assert ((counts[:-1] - counts[1:] == 1) | (counts[:-1] / counts[1:] <= 1.1)).all()


def single_drop_losses(apply, params, train):
    """Losses `[p]` without each kernel entry of a network in turn."""
    kernels = [path[-1] == "kernel" for path, _ in trees.named_leaves(params)]
    leaves, structure = jax.tree.flatten(params)
    sizes = [leaf.size if kernel else 0 for leaf, kernel in zip(leaves, kernels, strict=True)]
    begins = np.cumsum([0, *sizes[:-1]])
    inputs, labels = train.take(np.arange(len(train)))

    @jax.jit
    def losses(params):
        def one(j):
            dropped = [
                jnp.where(jnp.arange(begin, begin + leaf.size).reshape(leaf.shape) == j, 0, leaf) if size else leaf
                for leaf, begin, size in zip(jax.tree.leaves(params), begins, sizes, strict=True)
            ]
            return cross_entropy(apply(jax.tree.unflatten(structure, dropped), inputs), labels).mean()

        return jax.lax.map(one, jnp.arange(sum(sizes)))

    return np.asarray(losses(params), np.float64)


@pytest.mark.parametrize("networks", [2, pytest.param(20, marks=[pytest.mark.networks, pytest.mark.slow])])
def test_digit_networks_differ_and_the_standard_error_covers_enumeration(networks):
    """Width 8: less than one weight can be dropped on average; the mean over all single drops is known exactly."""
    values = []
    for seed in range(networks):
        apply, params, train = trained(seed)
        losses, dense = single_drop_losses(apply, params, train), loss_and_accuracy(apply, params, train)[0]
        expected = 0.1 * dense / (losses.mean() - dense)
        assert expected < 1
        found = pruning.random_prunability(jax.random.key(seed), apply, params, train)
        drops, sem = losses.size * (1 - found.fraction), losses.size * found.sem
        assert 0 < sem < expected  # how far below depends on the network, and so on the processor
        assert abs(drops - expected) <= 3 * sem
        values.append(found.fraction)
    assert len(set(values)) == networks
