"""Prunability against the definition written in plain NumPy, the golden values, and its invariances."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunegen_jax import data, pruning, training
from prunegen_jax.compute.evaluation import loss_and_accuracy
from prunegen_jax.networks import build
from prunegen_jax.pruning import masks
from prunegen_jax.types import Dataset, Partial

X = np.array(
    [
        [1, 0, 0.5, -1],
        [0, 1, 0.2, 0.3],
        [1, 1, -0.4, 0],
        [-1, 0.5, 0.1, 0.7],
        [-0.5, -1, 0.9, 0.2],
        [0.3, -0.8, -0.6, 1],
    ]
)
G1 = Dataset(X.astype(np.float32), np.array([1, 1, 1, 0, 0, 0], np.int32))
G1_WEIGHTS = {"kernel": np.array([[2.0], [1.0], [-0.05], [-0.3]], np.float32)}


def logistic(params, images):
    score = images @ params["kernel"]
    return jnp.concatenate([jnp.zeros_like(score), score], axis=1)


@functools.cache
def trained(seed, *, width=8, depth=2, rate=0.03, weight_decay=0.0):
    """A small network trained to the target on 300 digits, and the set."""
    train = data.split(data.load("digits"), train_size=300, seed=seed).train
    network = build("nin", image_shape=(8, 8, 1), classes=10, depth=depth, width=width)
    h = training.hyper(learning_rate=rate, weight_decay=weight_decay, dropout=0.0, seed=seed)
    *_, last = training.train(network, train, h, training.Recipe())
    assert last.status == "converged"
    return Partial(network.apply, last.state.stats), last.state.params, train


MODELS = [{"seed": s} for s in range(7)] + [
    {"seed": 7, "rate": 0.1},
    {"seed": 8, "width": 16},
    {"seed": 9, "weight_decay": 1e-4},
]


def plain_losses(apply, params, train, grid):
    """The loss at every kept count of `grid`, by a sort and masks of its own; kernels are arrays of four axes."""
    leaves, structure = jax.tree.flatten(params)
    flat = np.concatenate([np.abs(np.asarray(w)).ravel() for w in leaves if w.ndim == 4])
    dropped_first = sorted(range(len(flat)), key=lambda i: (flat[i], i))
    losses = []
    for k in grid:
        keep = np.ones(len(flat), bool)
        keep[dropped_first[: len(flat) - k]] = False
        out, at = [], 0
        for w in leaves:
            if w.ndim == 4:
                out.append(np.where(keep[at : at + w.size].reshape(w.shape), np.asarray(w), np.float32(0)))
                at += w.size
            else:
                out.append(w)
        losses.append(loss_and_accuracy(apply, jax.tree.unflatten(structure, out), train)[0])
    return np.array(losses)


def test_costs_a_tenth_of_the_plain_loop():
    """In examples evaluated, over the ten networks of the next test; the plain loop takes every point of the grid."""
    spent = plain = 0
    for model in MODELS:
        apply, params, train = trained(**model)
        spent += pruning.prunability(apply, params, train).examples
        plain += 1001 * len(train)
    assert 10 * spent <= plain


@pytest.mark.parametrize("model", MODELS, ids=lambda m: "-".join(f"{k}{v}" for k, v in m.items()))
def test_equals_the_definition(model):
    apply, params, train = trained(**model)
    p = sum(w.size for w in jax.tree.leaves(params) if w.ndim == 4)
    kept = [(p * j + 500) // 1000 for j in range(1001)]
    losses = plain_losses(apply, params, train, kept)
    limit = 1.1 * losses[-1]
    found = pruning.prunability(apply, params, train)
    assert found.prunable == p
    j = decided_alike(round(found.fraction * 1000), next(i for i in range(1001) if losses[i] <= limit), losses, limit)
    assert found.kept == kept[j]
    assert found.loss == pytest.approx(losses[j], rel=1e-5)

    coarse = [(p * i + 25) // 50 for i in range(51)]
    losses = plain_losses(apply, params, train, coarse)
    prefix = pruning.prunability_prefix(apply, params, train)
    expected = max(i for i in range(51) if not losses[i] <= limit) + 1
    assert prefix.kept == coarse[decided_alike(round(prefix.fraction * 50), expected, losses, limit)]


def decided_alike(found, expected, losses, limit):
    """`found`, if it is `expected` or all that decides between the two lies within 1e-4 of the limit, which is said."""
    if found != expected:
        deciding = losses[min(found, expected)] / limit - 1
        print(f"points {found} and {expected} differ: the loss is within {deciding:.1e} of the limit")
        assert abs(deciding) < 1e-4
    return found


def test_golden_example():
    curve = pruning.pruned_loss_curve(logistic, G1_WEIGHTS, G1, steps=4)
    golden = [np.log(2), 0.4041134753, 0.2358762014, 0.2071155482, 0.2087699073]
    np.testing.assert_allclose(curve.losses, golden, rtol=1e-6)
    np.testing.assert_array_equal(curve.kept, [0, 1, 2, 3, 4])
    assert not curve.is_monotone
    assert pruning.prunability(logistic, G1_WEIGHTS, G1).kept == 3
    assert pruning.prunability_prefix(logistic, G1_WEIGHTS, G1, steps=4).fraction == 0.75
    assert pruning.prunability_prefix(logistic, G1_WEIGHTS, G1, steps=4, beta=0.13).fraction == 0.5
    assert pruning.prunability(logistic, G1_WEIGHTS, G1, beta=0.13).kept == 2
    assert pruning.prunability(logistic, G1_WEIGHTS, G1, beta=0.12).kept == 3  # keeping 2 costs a factor of 1.1298


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


def test_tie_order():
    weights = {"kernel": np.array([[0.5, -0.1, 0.1, 0], [2, -0.3, 0.1, 0.05]], np.float32)}
    ranks = np.asarray(masks.magnitude_scores(weights).leaves[0]).ravel()
    assert np.argsort(-ranks).tolist() == [3, 7, 1, 2, 6, 5, 0, 4]


def test_every_count_is_exact_and_dense_is_the_identity():
    params = {
        "a": {"kernel": np.zeros((5, 7), np.float32) + 1},
        "b": {"kernel": np.ones((3, 3, 2, 4), np.float32), "bias": np.ones(4, np.float32)},
    }
    scores = masks.magnitude_scores(params)
    chosen = tuple(None if s is None else s[0] for s in scores.leaves)
    for j in range(0, 1001, 37):
        keep = scores.keep(j, 1000)
        pruned = masks.apply_mask(params, chosen, np.asarray(keep, np.int32))
        kernels = [pruned["a"]["kernel"], pruned["b"]["kernel"]]
        assert sum(int((w != 0).sum()) for w in kernels) == round(107 * j / 1000 + 1e-9) == scores.kept(keep)
        assert (pruned["b"]["bias"] == 1).all()
    for got, kept in zip(
        jax.tree.leaves(masks.apply_mask(params, chosen, np.asarray(scores.keep(1000, 1000), np.int32))),
        jax.tree.leaves(params),
        strict=True,
    ):
        np.testing.assert_array_equal(got, kept)


def test_layer_counts_round_within_each_layer():
    params = {
        "a": {"kernel": np.arange(1, 8, dtype=np.float32)[None]},
        "b": {"kernel": 100 * np.arange(1, 6, dtype=np.float32)[None]},
    }
    scores = masks.magnitude_scores(params, scope="layer")
    assert scores.keep(500, 1000) == (4, 3)  # 3.5 and 2.5 round up
    pruned = masks.apply_mask(params, tuple(s[0] for s in scores.leaves), np.array([4, 3], np.int32))
    assert pruned["a"]["kernel"].tolist() == [[0, 0, 0, 4, 5, 6, 7]]
    assert pruned["b"]["kernel"].tolist() == [[0, 0, 300, 400, 500]]


def two_layers(key, *, hidden=12):
    """A two-layer ReLU network and a set it fits rather well."""
    first, second, third = jax.random.split(key, 3)
    params = {
        "one": {"kernel": jax.random.normal(first, (6, hidden)), "bias": 0.1 * jnp.ones(hidden)},
        "two": {"kernel": jax.random.normal(second, (hidden, 3)), "bias": jnp.zeros(3)},
    }
    images = jax.random.normal(third, (40, 6))
    return params, Dataset(images, jnp.argmax(mlp(params, images), axis=-1).astype(jnp.int32))


def mlp(params, images):
    hidden = jax.nn.relu(images @ params["one"]["kernel"] + params["one"]["bias"][None])
    return hidden @ params["two"]["kernel"] + params["two"]["bias"][None]


def scaled(params, scale):
    """Incoming weights and bias of every hidden unit times `scale [hidden]`, outgoing divided by it."""
    return {
        "one": {"kernel": params["one"]["kernel"] * scale[None, :], "bias": params["one"]["bias"] * scale},
        "two": {"kernel": params["two"]["kernel"] / scale[:, None], "bias": params["two"]["bias"]},
    }


def test_scale_invariance():
    """Random pruning is invariant to scaling units, layer-wise magnitude to scaling whole layers, global to neither."""
    params, train = two_layers(jax.random.key(3))
    options = {"beta": 2.0, "masks": 4}
    units = scaled(params, jnp.asarray(2.0 ** np.arange(-6, 6), jnp.float32))
    layers = scaled(params, jnp.full(12, 64.0))
    for draw in ("exact", "bernoulli"):
        base, other = (
            pruning.random_prunability(jax.random.key(0), mlp, w, train, draw=draw, **options) for w in (params, units)
        )
        assert base.fraction == other.fraction < 1
    for keep in (10, 60, 90):
        curves = [
            pruning.Scan(mlp, w, masks.uniform_scores(jax.random.key(1), w, masks=1), train, "loss", 1).exact(
                (keep,) * 2, 0
            )
            for w in (params, units)
        ]
        assert curves[0] == pytest.approx(curves[1], rel=1e-5)
    by_layer = [pruning.pruned_loss_curve(mlp, w, train, scope="layer").losses for w in (params, layers, units)]
    np.testing.assert_allclose(by_layer[0], by_layer[1], rtol=1e-4)
    assert np.abs(by_layer[0] - by_layer[2]).max() > 0.1
    globally = [pruning.pruned_loss_curve(mlp, w, train).losses for w in (params, layers)]
    assert np.abs(globally[0] - globally[1]).max() > 0.1


def test_permuting_units_changes_nothing():
    params, train = two_layers(jax.random.key(4))
    order = np.random.default_rng(0).permutation(12)
    other = {
        "one": {"kernel": params["one"]["kernel"][:, order], "bias": params["one"]["bias"][order]},
        "two": {"kernel": params["two"]["kernel"][order], "bias": params["two"]["bias"]},
    }
    assert pruning.prunability(mlp, params, train).kept == pruning.prunability(mlp, other, train).kept


def test_dead_weights_lower_the_fraction_not_the_count():
    params, train = two_layers(jax.random.key(5))
    base = pruning.prunability(mlp, params, train)
    wider = {
        "one": {
            "kernel": jnp.pad(params["one"]["kernel"], ((0, 0), (0, 12))),
            "bias": jnp.pad(params["one"]["bias"], (0, 12)),
        },
        "two": {"kernel": jnp.pad(params["two"]["kernel"], ((0, 12), (0, 0))), "bias": params["two"]["bias"]},
    }
    padded = pruning.prunability(mlp, wider, train)
    assert padded.prunable == 2 * base.prunable
    assert abs(padded.kept - base.kept) <= 1  # the grid of the wider network is twice as coarse in counts
    assert padded.fraction < 0.6 * base.fraction


def test_larger_tolerance_never_needs_more():
    apply, params, train = trained(seed=0)
    fractions = [pruning.prunability(apply, params, train, beta=beta).fraction for beta in (0.0, 0.05, 0.1, 0.5, 2.0)]
    assert fractions == sorted(fractions, reverse=True)
    assert fractions[0] > fractions[-1]


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


def test_degenerate_tolerances():
    separable = {"kernel": np.array([[400.0], [300.0], [-90.0], [-500.0]], np.float32)}
    assert loss_and_accuracy(logistic, separable, G1)[0] == 0.0
    found = pruning.prunability(logistic, separable, G1)
    assert found.limit == 1e-6
    assert "L̂ = 0" in found.note
    assert pruning.prunability(logistic, G1_WEIGHTS, G1, tolerance="absolute", delta=0.03).kept == 2
    assert pruning.prunability(logistic, G1_WEIGHTS, G1, tolerance="max", beta=0.0, delta=0.03).kept == 2
    with pytest.raises(ValueError, match="finite"):
        pruning.prunability(logistic, {"kernel": np.full((4, 1), np.nan, np.float32)}, G1)
    with pytest.raises(ValueError, match="choose among relative, absolute, max"):
        pruning.prunability(logistic, G1_WEIGHTS, G1, tolerance="none")
    with pytest.raises(ValueError, match="masks=0 must be at least 1"):
        pruning.random_prunability(jax.random.key(0), logistic, G1_WEIGHTS, G1, masks=0)
    with pytest.raises(ValueError, match="steps=0 must be at least 1"):
        pruning.prunability_prefix(logistic, G1_WEIGHTS, G1, steps=0)
    with pytest.raises(ValueError, match="lanes=-1 must be at least 1"):
        pruning.prunability(logistic, G1_WEIGHTS, G1, lanes=-1)
    with pytest.raises(ValueError, match="choose among loss, error"):
        pruning.prunability(logistic, G1_WEIGHTS, G1, criterion="accuracy")


def test_error_criterion_counts_mistakes():
    """With the first weight alone the third and sixth examples decide: predictions by hand."""
    curve = pruning.pruned_loss_curve(logistic, G1_WEIGHTS, G1, steps=4, criterion="error")
    ranked = [0, 1, 3, 2]  # by falling magnitude
    for k in range(5):
        w = np.zeros(4)
        w[ranked[:k]] = G1_WEIGHTS["kernel"][ranked[:k], 0]
        wrong = (X @ w > 0).astype(int) != np.asarray(G1.labels)
        assert curve.losses[k] == pytest.approx(wrong.mean())


@pytest.mark.parametrize("dense", [9, 30, 36, 37])
def test_an_error_equal_to_the_limit_passes(dense):
    """k / 500 + 0.01 falls an ulp short of (k + 5) / 500 in floating point for these k: the count decides."""
    labels = np.zeros(500, np.int32)
    labels[:dense] = 1  # wrong with both weights; five more are wrong with the larger one alone
    images = np.ones((500, 2), np.float32)
    images[dense : dense + 5] = [-1, 3]

    params = {"kernel": np.array([[1.0], [0.9]], np.float32)}
    data = Dataset(images, 1 - labels)
    options = {"criterion": "error", "tolerance": "absolute", "delta": 0.01}
    errors = pruning.pruned_loss_curve(logistic, params, data, steps=2, criterion="error").losses
    assert errors[2] == dense / 500
    assert errors[1] == (dense + 5) / 500
    assert pruning.prunability(logistic, params, data, **options).kept == 1


def test_lanes_and_order_of_evaluation_do_not_matter():
    apply, params, train = trained(seed=1)
    one, many = (pruning.prunability(apply, params, train, lanes=lanes) for lanes in (1, 7))
    assert one.kept == many.kept
    random = [pruning.random_prunability(jax.random.key(0), apply, params, train, masks=4, lanes=n) for n in (1, 8)]
    assert random[0].kept == random[1].kept


def test_unprunable_parameters_stay():
    apply, params, train = trained(seed=2)
    everything = pruning.prunability(apply, params, train, prunable="all")
    assert everything.prunable == sum(w.size for w in jax.tree.leaves(params))
    head = pruning.prunability(apply, params, train, prunable=lambda path, leaf: path[0] == "head" and leaf.ndim > 1)
    assert head.prunable == params["head"]["kernel"].size
    with pytest.raises(ValueError, match="chooses none"):
        pruning.prunability(apply, params, train, prunable=lambda path, leaf: False)
