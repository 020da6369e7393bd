"""Networks of six kinds with random weights and statistics, and short searches, for the tests of all measures."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from prunegen_jax.networks import as_trained_model, build
from prunegen_jax.types import Dataset, History, TrainedModel
from tests.support import reading_cases as cases

HISTORY = History((2.0, 0.5, 0.05), (2, 4, 6), (1.5, 0.3, 0.005), 6, 8, 0.01)
# Searches and samples as short as they can be: what is tested is that there is an answer.
SHORT = {
    **dict.fromkeys(("hessian_trace", "hessian_weighted_trace", "gauss_newton_trace"), {"budget": 20, "sketch": 4}),
    "hessian_frobenius_norm": {"budget": 8, "probes": 2, "steps": 2},
    "hessian_top_eigenvalue": {"budget": 12},
    **dict.fromkeys(("average_sharpness", "average_sharpness_adaptive"), {"budget": 4}),
    **dict.fromkeys(("worst_sharpness", "worst_sharpness_adaptive", "keskar_sharpness"), {"steps": 2, "starts": 1}),
    "pac_bayes_dropout": {"rates": (0.1,), "sigmas": (0.1,), "lambdas": (2.0,), "draws": 4},
    **dict.fromkeys(("prunability_random", "prunability_bernoulli"), {"masks": 2}),
    **dict.fromkeys(("davies_bouldin", "davies_bouldin_mixup"), {"draws": 2}),
}


def images(n=16, shape=(8, 8, 3)):
    return cases.images(n, shape)


def linen(module, inputs):
    apply, params = cases.linen(module, inputs)
    initial, first = cases.linen(module, inputs, 5)
    return apply, params, initial, first


def equinox(inputs):
    apply, params = cases.equinox_cnn(0)
    return apply, params, apply, cases.equinox_cnn(5)[1]


def nnx(inputs):
    apply, params = cases.nnx_cnn(0)
    return apply, params, *cases.nnx_cnn(5)


def ours(name, inputs, **fields):
    """A model of the registry, its parameters and statistics random."""
    network = build(name, input_shape=inputs.shape[1:], classes=3, **fields)
    params, stats = jax.eval_shape(network.init, jax.random.key(0))
    found = []
    for seed in (0, 5):
        statistics = cases.randomize(stats, seed + 1, positive=True)
        found += [Partial(network.apply, statistics), cases.randomize(params, seed)]
    return tuple(found)


TOKENS = functools.partial(cases.tokens, 16)
TABLE = functools.partial(images, 24, (6,))
NETWORKS = {
    "Linen residual network": (lambda x: linen(cases.ResNet(4, (1, 1)), x), images),
    "Linen residual network with biases": (lambda x: linen(cases.ResNet(4, (1, 1), bias=True), x), images),
    "ResNet-18, post-activation": (lambda x: ours("resnet", x, width=2, preactivation=False), images),
    "ResNet-18, pre-activation": (lambda x: ours("resnet", x, width=2), images),
    "NNX CNN": (nnx, images),
    "Equinox CNN": (equinox, images),
    "MLP on a table": (lambda x: ours("mlp", x, width=12, batch_norm=True), TABLE),
    "transformer on tokens": (lambda x: linen(cases.Transformer(), x), TOKENS),
}


@functools.cache
def network(kind, complete):
    """A network of `NETWORKS`; `complete`: with initial state, first epoch and history.

    Its labels are mostly its own predictions, so that there is something to lose.
    """
    make, inputs = NETWORKS[kind][0], NETWORKS[kind][1]()
    apply, params, init_apply, init_params = make(inputs)
    logits = np.asarray(jax.jit(apply)(params, inputs), np.float64)
    logits = logits - logits.mean(axis=0)  # so that several classes are there
    labels = jnp.asarray(logits.argmax(axis=1), jnp.int32)
    return apply, params, init_apply, init_params, Dataset(inputs, labels)


def trained(kind, complete):
    """The `TrainedModel` of a network of `NETWORKS`."""
    apply, params, init_apply, init_params, data = network(kind, complete)
    if not complete:
        return TrainedModel(apply, params, data, name=kind)
    initial = {"init_params": init_params, "init_apply": init_apply}
    early = TrainedModel(init_apply, init_params, data, **initial)
    return TrainedModel(apply, params, data, history=HISTORY, first_epoch=early, name=kind, **initial)
