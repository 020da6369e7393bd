"""Trained networks, and changes of a network that leave its function the same, for the tests of all measures."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax import data, training
from prunegen_jax.measures import measure
from prunegen_jax.networks import as_trained_model, build


@functools.cache
def trained(seed, batch_norm=True):
    """A narrow network trained on 200 digits until most are right."""
    split = data.split(data.load("digits"), train_size=200, seed=seed)
    network = build("nin", input_shape=(8, 8, 1), classes=10, depth=2, width=6, batch_norm=batch_norm)
    recipe = training.Recipe(batch_size=20, target=0.05, max_epochs=60)
    h = training.hyper(learning_rate=0.05 if batch_norm else 0.02, weight_decay=0.0, dropout=0.0, seed=seed)
    begin = training.start(network, recipe, h)
    init = jax.tree.map(jnp.copy, (begin.state.params, begin.state.stats))
    *_, last = training.train(network, split.train, h, recipe, resume=begin)
    early, history = last.first_epoch, last.history(recipe)
    return as_trained_model(
        network, last.state.params, last.state.stats, split.train, init=init, first_epoch=early, history=history
    )


def answer(name, model, key=0):
    return measure(model, [name], key=jax.random.key(key))[name]


def with_params(model, change):
    """`model`, without batch norm, with `change` applied to its weights now, at the start and after the first epoch."""
    init = change(model.init_params)
    early = dataclasses.replace(model.first_epoch, params=change(model.first_epoch.params), init_params=init)
    return dataclasses.replace(model, params=change(model.params), init_params=init, first_epoch=early)


def permuted(params):
    """The six units of the first convolution in another order."""
    order = np.array([3, 0, 5, 1, 4, 2])
    return units(params, lambda w, axis: jnp.take(w, order, axis=axis), lambda w, axis: jnp.take(w, order, axis=axis))


def rescaled(params, scale):
    def by(w, axis):
        return w * scale.reshape([-1 if a == axis else 1 for a in range(w.ndim)])

    def over(w, axis):
        return w / scale.reshape([-1 if a == axis else 1 for a in range(w.ndim)])

    return units(params, by, over)


def units(params, incoming, outgoing):
    before, after = params["block0_conv0"], params["block0_conv1"]
    return params | {
        "block0_conv0": {"kernel": incoming(before["kernel"], 3), "bias": incoming(before["bias"], 0)},
        "block0_conv1": {"kernel": outgoing(after["kernel"], 2), "bias": after["bias"]},
    }


CHANGES = {
    "permutation": permuted,
    "neuron_scaling": lambda params: rescaled(params, jnp.asarray([0.5, 2, 4, 0.25, 1, 8], jnp.float32)),
    "layer_scaling": lambda params: rescaled(params, jnp.full(6, 4.0)),
}
