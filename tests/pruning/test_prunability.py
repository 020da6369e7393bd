"""Prunability against the definition written in plain NumPy and against golden values."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from prunegen_jax import pruning
from prunegen_jax.compute.evaluation import loss_and_accuracy
from prunegen_jax.types import Dataset
from tests.support.compilations import counting_compilations
from tests.support.pruning_cases import G1, G1_WEIGHTS, X, logistic, trained

MODELS = [{"seed": s} for s in range(7)] + [
    {"seed": 7, "rate": 0.1},
    {"seed": 8, "width": 16},
    {"seed": 9, "weight_decay": 1e-4},
]


def plain_losses(apply, params, train, grid):
    """The loss at every kept count of `grid`, by another sort and other masks; kernels are arrays of four axes."""
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


@pytest.mark.parametrize("lanes", [None, 8, 1])
@pytest.mark.parametrize("model", MODELS[6:9], ids=lambda m: "-".join(f"{k}{v}" for k, v in m.items()))
def test_accelerators_find_the_same_masks(model, lanes, monkeypatch):
    """There, candidates that pass the first examples are evaluated several at a time, vmapped."""
    apply, params, train = trained(**model)
    ours = pruning.prunability(apply, params, train, beta=0.5)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    theirs = pruning.prunability(apply, params, train, beta=0.5, lanes=lanes)
    assert (theirs.fraction, theirs.loss) == (ours.fraction, pytest.approx(ours.loss, rel=1e-5))


def test_accelerators_find_the_same_rate_of_random_drops(monkeypatch):
    apply, params, train = trained(**MODELS[6])
    options = {"masks": 4, "drops": 50}
    ours = pruning.random_prunability(jax.random.key(0), apply, params, train, **options)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    theirs = pruning.random_prunability(jax.random.key(0), apply, params, train, **options)
    assert theirs.fraction == pytest.approx(ours.fraction, rel=1e-6)


def test_both_criteria_share_their_programs():
    apply, params, train = trained(**MODELS[6])
    pruning.prunability(apply, params, train, beta=0.5)
    with counting_compilations() as compiled:
        pruning.prunability(apply, params, train, criterion="error")
    assert compiled() == 0


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


def test_larger_tolerance_never_needs_more():
    apply, params, train = trained(seed=0)
    fractions = [pruning.prunability(apply, params, train, beta=beta).fraction for beta in (0.0, 0.05, 0.1, 0.5, 2.0)]
    assert fractions == sorted(fractions, reverse=True)
    assert fractions[0] > fractions[-1]


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
    with pytest.raises(ValueError, match="masks=0 must be at least 2"):
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
    with pytest.raises(ValueError, match="selects none"):
        pruning.prunability(apply, params, train, prunable=lambda path, leaf: False)
