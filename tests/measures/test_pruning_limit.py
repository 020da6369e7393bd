"""The second-order prediction of prunability against a dense Hessian, and against prunability where it is exact."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunegen_jax import pruning
from prunegen_jax.measures.pruning_limit import predicted_prunability
from prunegen_jax.types import Dataset, TrainedModel
from tests.support.curvature_cases import KEY, dense_problem


def test_rises_are_those_of_the_dense_matrix():
    model, (matrix, jacobian, p, onehot, w, _) = dense_problem()
    gradient = np.einsum("nkp,nk->p", jacobian, p - onehot) / len(p)
    loss = -np.log((p * onehot).sum(axis=1)).mean()
    kernel = np.concatenate([np.full(leaf.size, path[-1].key == "kernel")
                             for path, leaf in jax.tree_util.tree_leaves_with_path(model.params)])  # fmt: skip
    order = np.flatnonzero(kernel)[np.argsort(np.abs(w[kernel]))]
    expected = []
    for j in range(20):
        move = np.zeros_like(w)
        dropped = order[: kernel.sum() - (kernel.sum() * j + 10) // 20]
        move[dropped] = -w[dropped]
        expected.append(gradient @ move + move @ matrix @ move / 2)
    with jax.enable_x64():
        found = predicted_prunability(model, KEY, steps=20, beta=0.3, batch_size=7)
    np.testing.assert_allclose(found.details["rises"], expected, rtol=1e-6, atol=1e-12)
    assert found.value == next(j for j, rise in enumerate([*expected, 0.0]) if rise <= 0.3 * loss) / 20
    assert 0 < found.value < 1


def test_small_weights_are_pruned_as_predicted():
    """A logistic regression with a few small weights beside large ones: the loss is nearly quadratic in the small."""
    random = np.random.default_rng(0)
    w = np.concatenate([0.02 * random.normal(size=30), [1.5, -1.0, 1.2, -0.8]])
    x = random.normal(size=(300, w.size))
    y = (random.random(300) < 1 / (1 + np.exp(-x @ w))).astype(np.int32)
    data, params = (
        Dataset(jnp.asarray(x, jnp.float32), jnp.asarray(y)),
        {"kernel": jnp.asarray(w[:, None], jnp.float32)},
    )

    def apply(params, inputs):
        score = inputs @ params["kernel"]
        return jnp.concatenate([jnp.zeros_like(score), score], axis=1)

    for beta in (0.002, 0.005, 0.01):
        predicted = predicted_prunability(TrainedModel(apply, params, data), KEY, steps=34, beta=beta).value
        assert predicted == pytest.approx(pruning.prunability(apply, params, data, beta=beta).kept / 34, abs=1.01 / 34)
