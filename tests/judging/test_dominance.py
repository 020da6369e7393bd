"""Counts without all pairs, samples of configurations and bounded sets of axes, against the plain counts."""

import dataclasses
import itertools
import threading
import time

import numpy as np
import pytest

from prunegen_jax.judging import added, information, judge, kendall, parallel
from prunegen_jax.judging.case import prepare
from prunegen_jax.judging.dominance import dominance
from prunegen_jax.judging.nulls import nulls_of_k_and_pgdl
from prunegen_jax.judging.parallel import threaded
from prunegen_jax.judging.prepared import prepare_order
from prunegen_jax.judging.table import Table

NONE = {"draws": 0, "permutations": 0, "added_permutations": 0, "baseline_draws": 0}


@pytest.mark.parametrize("n", [1, 2, 17, 130])
@pytest.mark.parametrize("levels", [2, 7, 10_000])
def test_sums_are_those_over_all_pairs(n, levels):
    rng = np.random.default_rng(n)
    first, second = rng.integers(0, levels, (3, n)).astype(float), rng.integers(0, levels, n).astype(float)
    first[0, 0], second[-1] = np.inf, -np.inf
    weights = rng.integers(0, 9, (n, 600)).astype(np.float32)  # wider than one block of columns
    found = dominance(first, second).sums(weights)
    for b, one in enumerate(first):
        smaller = (one[:, None] > one) & (second[:, None] > second)
        np.testing.assert_array_equal(found[:, b], smaller.astype(np.float32) @ weights)


@pytest.mark.parametrize(("digits", "tied"), [(0, 0), (0, 9), (9, 0), (9, 9)])
def test_many_models_are_counted_like_few(monkeypatch, digits, tied):
    """Pair counts and nulls of either way are the same numbers."""
    rng = np.random.default_rng(0)
    codes = np.array(list(itertools.product(range(3), range(2), range(4), range(3))))
    given = information.conditions(codes)
    m, g = np.round(rng.normal(size=72), digits), np.round(rng.normal(size=72), tied)
    pgdl = information.conditions(codes, smallest=2)

    def counted():
        nulls = nulls_of_k_and_pgdl(m, g, given, permutations=7, seed=0, pgdl=pgdl)
        counts = information.pair_counts(m, g, given), prepare_order(g, given).counts(m)
        return [*counts, nulls["k"].draws, nulls["pgdl"].draws]

    few = counted()
    for module in ("information", "prepared", "nulls"):
        monkeypatch.setattr(f"prunegen_jax.judging.{module}.FEW", 10)
    for one, two in zip(few, counted(), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-12)


def test_weighted_tau_of_many_models_is_that_of_few():
    rng = np.random.default_rng(0)
    m, g = np.round(rng.normal(size=90), 1), np.round(rng.normal(size=90), 1)
    weights = rng.exponential(size=(4, 90))
    for few, many in zip(kendall.weighted_tau(m, g, weights), kendall.weighted_tau(m, g, weights, few=0), strict=True):
        np.testing.assert_allclose(few, many, rtol=1e-12)


def make_table(levels, measures=3, *, seed=0):
    rng = np.random.default_rng(seed)
    codes = np.array(list(itertools.product(*map(range, levels))), dtype=np.float64)
    g = codes @ rng.normal(size=len(levels)) + rng.normal(size=len(codes))
    columns = {f"m{i}": g + (i + 1) * rng.normal(size=len(g)) for i in range(measures)}
    axes = {f"axis{a}": codes[:, a] for a in range(len(levels))}
    return Table(tuple(map(str, range(len(g)))), axes, columns, {"gap": g})


def test_the_error_of_a_sample_is_what_it_says():
    """Matrices on 300 of 1,500 configurations lie about as far from the exact ones as the halves say."""
    case = prepare(make_table((5, 5, 5, 4, 3), 4))
    names = list(case.table.measures)

    def matrices(one):
        plain = added.shared(one, names)["shared"].values
        return plain, added.added(one, "gap", names, permutations=0, seed=0)["added_gap"].values

    exact = matrices(case)
    samples = [added.sample(case, seed=seed, most=300) for seed in range(3)]
    assert added.sample(case, seed=0, most=1500).halves == ()
    for place in range(2):
        stated = [s.error(lambda half, p=place: matrices(half)[p]) for s in samples]
        found = [np.sqrt(np.nanmean((matrices(s.case)[place] - exact[place]) ** 2)) for s in samples]
        assert 0.4 < np.mean(found) / np.mean(stated) < 2.5


def test_a_sample_is_stated(monkeypatch):
    monkeypatch.setattr("prunegen_jax.judging.composition.MOST", 20)
    verdict = judge(make_table((4, 3, 3)), **NONE)
    assert any("computed on 20 of 36 configurations drawn at random" in note for note in verdict.notes)
    assert verdict.settings["in_matrices"] == 20 and set(verdict.settings["matrix_errors"]) == {"shared", "added_gap"}


def test_sixty_axes_do_not_hang():
    rng = np.random.default_rng(0)
    table = make_table((2,) * 5, 2)
    table = table.take(np.arange(64) % 32)
    axes = {f"x{i}": rng.integers(0, 2, 64).astype(float) for i in range(60)}
    axes["best"] = np.argsort(np.argsort(table.targets["gap"])) // 8.0
    table = dataclasses.replace(table, hyperparameters=axes)
    verdict = judge(table, **NONE | {"permutations": 5})
    note = next(note for note in verdict.notes if note.startswith("K conditions"))
    assert "on pairs of 18 of the 61 axes" in note and "best" in note
    assert np.isfinite(verdict.row("m0", "gap")["k"])


def test_progress_comes_before_the_work():
    seen = []
    assert threaded(lambda i: i * i, range(3), what="w", progress=lambda *args: seen.append(args)) == [0, 1, 4]
    assert seen == [("w", done, 3) for done in range(4)]
    seen.clear()
    judge(make_table((3, 3)), **NONE, progress=lambda *args: seen.append(args))
    assert seen[0] == ("statistics of gap", 0, 3) and ("shared information", 3, 3) in seen


def test_threads_are_for_pieces_that_take_long(monkeypatch):
    def ident(_):
        time.sleep(0.05)  # or one thread might do them all
        return threading.get_ident()

    monkeypatch.setattr(parallel, "_SHORT_SECONDS", 60.0)
    assert set(threaded(ident, range(4))) == {threading.get_ident()}
    monkeypatch.setattr(parallel, "_SHORT_SECONDS", 0.01)
    here, *others = threaded(ident, range(4))
    assert here == threading.get_ident() not in others
