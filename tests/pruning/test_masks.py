"""Pruning masks: the order of ties, exact counts, counts within layers."""

from __future__ import annotations

import jax
import numpy as np

from prunegen_jax.pruning import masks


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
