"""Five small networks for the tests of the ensemble of slots."""

from __future__ import annotations

import itertools

import jax

from prunegen_jax import training
from prunegen_jax.networks import build
from prunegen_jax.training import Recipe, TrainingRequest

RECIPE = Recipe(batch_size=20, target=1.65, max_epochs=12)


def network():
    return build("nin", input_shape=(8, 8, 1), classes=10, depth=1, width=8)


def jobs():
    """Five networks: two that end early, one that diverges, one with dropout, one with a cap of its own."""
    rates = [(0.2, 0.0), (0.1, 0.0), (1e38, 0.0), (0.05, 0.3), (0.01, 0.0)]
    recipes = [RECIPE] * 4 + [Recipe(batch_size=20, target=1.65, max_epochs=3)]
    hypers = [
        training.hyper(learning_rate=rate, weight_decay=1e-4, dropout=dropout, seed=seed)
        for seed, (rate, dropout) in enumerate(rates)
    ]
    return [TrainingRequest(h, recipe) for h, recipe in zip(hypers, recipes, strict=True)]


def ends(found):
    """The last snapshot of each job."""
    return dict(itertools.chain.from_iterable(found))


def stacked(tree, count):
    """`count` copies of every leaf along a new first axis: the states of as many slots."""
    return jax.tree.map(lambda x: jax.numpy.stack([x] * count), tree)
