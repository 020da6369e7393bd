"""What changes of a network leave prunability unchanged."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunegen_jax import pruning
from prunegen_jax.pruning import masks
from tests.support.pruning_cases import mlp, two_layers


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
