"""Networks of eight kinds with random weights and statistics, and short searches, for the tests of all measures."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from prunegen_jax.networks import build
from prunegen_jax.types import Dataset, History, TrainedModel
from tests.support import reading_cases as cases

SHARPNESS = [f"sharpness_{kind}" for kind in ("flatness", "init", "orig", "mag_flatness", "mag_init", "mag_orig")]
HISTORY = History((2.0, 0.5, 0.05), (2, 4, 6), (1.5, 0.3, 0.005), 6, 8, 0.01)
# Searches and samples as short as they can be: what is tested is that there is an answer.
SHORT = {
    **{key: {"budget": 20, "sketch": 4} for key in ("hessian_trace", "hessian_weighted_trace", "gauss_newton_trace")},
    "hessian_frobenius_norm": {"budget": 8, "probes": 2, "steps": 2},
    **{key: {"target": 0.3, "steps": 4} for key in SHARPNESS},  # of 16 examples some are near the boundary
    "hessian_top_eigenvalue": {"budget": 12},
    **{key: {"budget": 4} for key in ("average_sharpness", "average_sharpness_adaptive")},
    **{key: {"steps": 2, "starts": 1} for key in ("worst_sharpness", "worst_sharpness_adaptive", "keskar_sharpness")},
    "pac_bayes_dropout": {"rates": (0.1,), "sigmas": (0.1,), "lambdas": (2.0,), "draws": 4},
    **{key: {"masks": 2, "drops": 20} for key in ("prunability_random", "prunability_bernoulli")},
    "llc": {"chains": 2, "burn_in": 0, "steps": 8, "step_size": 1e-6},
    **{key: {"draws": 2} for key in ("davies_bouldin", "davies_bouldin_mixup")},
}


def images(n=16, shape=(8, 8, 3)):
    return cases.images(n, shape)


def ours(name, inputs, seed, **fields):
    """A model of the registry, its parameters and statistics random."""
    network = build(name, input_shape=inputs.shape[1:], classes=3, **fields)
    params, stats = jax.eval_shape(network.init, jax.random.key(0))
    statistics = cases.randomize(stats, seed + 1, positive=True)
    return Partial(network.apply, statistics), cases.randomize(params, seed)


def equinox(inputs, seed):
    del inputs
    apply = cases.equinox_cnn(0)[0]
    return apply, cases.randomize(cases.equinox_cnn(0)[1], seed)


TOKENS = functools.partial(cases.tokens, 16)
TABLE = functools.partial(images, 24, (6,))
NETWORKS = {
    "Linen residual network": (functools.partial(cases.linen, cases.ResNet(4, (1, 1))), images),
    "Linen residual network with biases": (functools.partial(cases.linen, cases.ResNet(4, (1, 1), bias=True)), images),
    "ResNet-18, post-activation": (functools.partial(ours, "resnet", width=2, preactivation=False), images),
    "ResNet-18, pre-activation": (functools.partial(ours, "resnet", width=2), images),
    "NNX CNN": (lambda x, seed: cases.nnx_cnn(seed), images),
    "Equinox CNN": (equinox, images),
    "MLP on a table": (functools.partial(ours, "mlp", width=12, batch_norm=True), TABLE),
    "transformer on tokens": (functools.partial(cases.linen, cases.Transformer()), TOKENS),
}


@functools.cache
def labelled(kind, first_seed):
    """`apply`, parameters and data whose labels are the network's own predictions; four of the second class at least.

    So there is accuracy to lose, and there are pairs of two classes.
    """
    make, inputs = NETWORKS[kind][0], NETWORKS[kind][1]()
    for seed in range(first_seed, first_seed + 40):
        apply, params = make(inputs, seed)
        labels = np.asarray(jax.jit(apply)(params, inputs)).argmax(axis=1)
        if np.sort(np.bincount(labels, minlength=2))[-2] >= 4:
            return apply, params, Dataset(inputs, jnp.asarray(labels, jnp.int32))
    raise AssertionError(f"no {kind} predicts two classes")


@functools.cache
def trained(kind, *, complete, seed=0):
    """The `TrainedModel` of a network of `NETWORKS`; `complete`: with initial state, first epoch and history."""
    apply, params, data = labelled(kind, seed)
    if not complete:
        return TrainedModel(apply, params, data, name=kind)
    init_apply, init_params = NETWORKS[kind][0](data.inputs, 50)
    initial = {"init_params": init_params, "init_apply": init_apply}
    early = TrainedModel(init_apply, init_params, data, **initial)
    return TrainedModel(apply, params, data, history=HISTORY, first_epoch=early, name=kind, **initial)
