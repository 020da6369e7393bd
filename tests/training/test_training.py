"""Training: updates against the optimizers' formulas, the stream of examples, stopping, resuming, compiling once."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunegen_jax import data, training
from prunegen_jax.compute.evaluation import loss_and_accuracy
from prunegen_jax.networks import build
from prunegen_jax.training import Recipe, step, stopping
from prunegen_jax.types import Partial

NETWORK = {"input_shape": (8, 8, 1), "classes": 10, "depth": 1, "width": 8}


@pytest.fixture(scope="module")
def digits():
    return data.split(data.load("digits"), train_size=200).train


def hyper(**changes):
    return training.hyper(**({"learning_rate": 0.1, "weight_decay": 0.0, "dropout": 0.0, "seed": 0} | changes))


def first_updates(recipe, h, digits, count):
    """Parameters before and after each of the first `count` updates, and the mini-batches they saw."""
    # Without batch norm: before it, the gradient of a bias is nothing but rounding, which Adam would blow up.
    network = build("nin", **NETWORK, batch_norm=False)
    compiled = training.compile_for(network, recipe)
    states, hypers = jax.tree.map(lambda x: x[None], (compiled.init(h.key), h))
    seen = [jax.tree.map(lambda x: np.asarray(x[0]), states)]
    for number in range(count):
        states, _ = compiled.run(states, hypers, digits, *np.asarray([[0], [number], [number + 1]], np.int32))
        seen.append(jax.tree.map(lambda x: np.asarray(x[0]), states))
    order = step._order(h.key, jnp.int32(0), len(digits), recipe.batch_size)
    return network, seen, order


def gradient(network, state, batch, h):
    """Gradient of the batch's mean loss plus (λ/2) Σ‖W‖² over kernels, straight from the definition."""

    def loss(params):
        images, labels = batch
        logits, _ = network.train_apply(params, state.stats, images, jnp.float32(0.0), jax.random.key(0))
        log_p = jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels]
        kernels = [w for layer in params.values() for key, w in layer.items() if key == "kernel"]
        return -log_p.mean() + 0.5 * h.weight_decay * sum((w**2).sum() for w in kernels)

    return jax.jit(jax.grad(loss))(state.params)


def momentum(grads, memory, rate, _):
    memory = jax.tree.map(lambda m, g: 0.9 * m + g, memory, grads)
    return jax.tree.map(lambda m: -rate * m, memory), memory


def rmsprop(grads, memory, rate, _):
    memory = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g**2, memory, grads)
    return jax.tree.map(lambda m, g: -rate * g / np.sqrt(m + 1e-8), memory, grads), memory


def adam(grads, memory, rate, t):
    first, second = memory if isinstance(memory, tuple) else (memory, memory)
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, grads)
    second = jax.tree.map(lambda m, g: 0.999 * m + 0.001 * g**2, second, grads)
    change = jax.tree.map(lambda m, v: -rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8), first, second)
    return change, (first, second)


@pytest.mark.parametrize(("name", "formula"), [("momentum", momentum), ("rmsprop", rmsprop), ("adam", adam)])
def test_updates_follow_the_formula(name, formula, digits):
    h = hyper(learning_rate=0.01, weight_decay=0.05)
    recipe = Recipe(optimizer=name, batch_size=16)
    network, states, order = first_updates(recipe, h, digits, 3)
    memory = jax.tree.map(np.zeros_like, states[0].params)
    for t in range(1, 4):
        batch = digits.take(order[16 * (t - 1) : 16 * t])
        grads = jax.tree.map(np.asarray, gradient(network, states[t - 1], batch, h))
        change, memory = formula(grads, memory, 0.01, t)
        for before, after, delta in zip(
            *map(jax.tree.leaves, (states[t - 1].params, states[t].params, change)), strict=True
        ):
            np.testing.assert_allclose(after - before, delta, rtol=1e-2, atol=2e-5)


@pytest.mark.parametrize(("size", "batch"), [(10, 3), (12, 4), (7, 7), (200, 32)])
def test_the_stream_visits_every_example_once_an_epoch(size, batch):
    key = jax.random.key(3)
    stream = []
    for epoch in range(4):
        order = np.asarray(step._order(key, jnp.int32(epoch), size, batch))
        first, last = (step.first_update(e, size=size, batch_size=batch) for e in (epoch, epoch + 1))
        for number in range(first, last):
            begin = number * batch - epoch * size
            assert begin >= 0
            assert begin + batch <= len(order)
            stream += list(order[begin : begin + batch])
    for epoch in range(3):
        assert sorted(stream[epoch * size : (epoch + 1) * size]) == list(range(size))
    assert stream[:size] != stream[size : 2 * size]


def run(recipe, h, train, *, resume=None, network=NETWORK):
    return list(training.train(build("nin", **network), train, h, recipe, resume=resume))


def test_stops_once_the_whole_set_is_below_the_target(digits):
    recipe = Recipe(batch_size=20, target=0.2)
    *_, last = run(recipe, hyper(), digits)
    assert last.status == "converged"
    loss, _ = loss_and_accuracy(Partial(build("nin", **NETWORK).apply, last.state.stats), last.state.params, digits)
    assert loss == last.check_loss[-1] < 0.2
    assert all(before >= 0.2 for before in last.check_loss[:-1])
    assert last.check_update[-1] == last.updates
    history = last.history(recipe)
    assert history.examples == last.updates * 20
    assert len(history.epoch_loss) == last.epochs


def test_epoch_losses_are_means_over_mini_batches(digits):
    recipe, h = Recipe(batch_size=50, max_epochs=1), hyper()
    (last,) = run(recipe, h, digits, network=NETWORK | {"batch_norm": False})
    network, states, order = first_updates(recipe, h, digits, 4)
    losses = []
    for t in range(4):
        images, labels = digits.take(order[50 * t : 50 * t + 50])
        logits = network.apply({}, states[t].params, images)
        losses.append(-jax.nn.log_softmax(logits)[jnp.arange(50), labels].mean())
    assert last.epoch_loss[0] == pytest.approx(np.mean(losses), rel=1e-4)


def test_caps(digits):
    *_, last = run(Recipe(target=1e-9, max_epochs=3), hyper(), digits)
    assert (last.status, last.epochs) == ("not_converged", 3)
    assert "after 3 epochs" in last.reason
    *_, last = run(Recipe(target=1e-9, max_updates=11), hyper(), digits)
    assert (last.status, last.updates) == ("not_converged", 11)
    assert last.check_update[-1] == 11


def test_without_a_target_training_ends_after_all_epochs(digits):
    """Bit for bit as with a target that is never reached, also after an interruption; only the status differs."""
    recipe = Recipe(batch_size=20, target=0.0, max_epochs=12)
    snapshots = run(recipe, hyper(), digits)
    last, other = snapshots[-1], run(dataclasses.replace(recipe, target=1e-30), hyper(), digits)[-1]
    assert (last.status, last.reason, last.epochs) == ("ended", "", 12)
    assert other.status == "not_converged"
    jax.tree.map(np.testing.assert_array_equal, last.state, other.state)
    *_, resumed = run(recipe, hyper(), digits, resume=snapshots[4])
    assert resumed._replace(state=None, first_epoch=None) == last._replace(state=None, first_epoch=None)
    jax.tree.map(np.testing.assert_array_equal, resumed.state, last.state)
    *_, last = run(dataclasses.replace(recipe, max_updates=11), hyper(), digits)
    assert (last.status, last.updates) == ("ended", 11)


def test_diverges_with_a_reason(digits):
    *_, last = run(Recipe(max_epochs=20), hyper(learning_rate=1e38), digits)
    assert last.status == "diverged"
    assert "nan" in last.reason or "inf" in last.reason


@pytest.mark.parametrize("changes", [{}, {"dropout": 0.3}], ids=["plain", "dropout"])
@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(batch_size=30, max_epochs=6, target=1e-6, augment=True),
        Recipe(optimizer="adam", batch_size=30, max_epochs=6, target=1e-6),
    ],
    ids=["momentum", "adam"],
)
def test_resumes_bit_for_bit(changes, recipe, digits):
    h, network = hyper(**changes), build("nin", **NETWORK)
    *_, whole = run(recipe, h, digits)
    steps = training.train(network, digits, h, recipe)
    next(steps)
    paused = next(steps)
    next(steps)  # a snapshot stays what it was
    *_, resumed = run(recipe, h, digits, resume=paused)
    plain = [snapshot._replace(state=None, first_epoch=None) for snapshot in (whole, resumed)]
    assert plain[0] == plain[1]
    for a, b in zip(
        *(jax.tree.leaves((snapshot.state, snapshot.first_epoch)) for snapshot in (whole, resumed)), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_dropout_acts_and_seeds_differ(digits):
    recipe = Recipe(max_epochs=2, target=1e-6)
    losses = [
        run(recipe, hyper(**changes), digits)[-1].epoch_loss for changes in ({}, {}, {"dropout": 0.5}, {"seed": 1})
    ]
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3


def test_one_program_serves_every_rate_and_seed(digits):
    recipe = Recipe(batch_size=25, max_epochs=2, target=1e-6)
    network = build("nin", **NETWORK)
    run(recipe, hyper(), digits)
    compiled = training.compile_for(network, recipe)
    before = (compiled.run._cache_size(), compiled.init._cache_size())
    run(recipe, hyper(learning_rate=0.3, weight_decay=0.1, dropout=0.2, seed=5), digits)
    run(dataclasses.replace(recipe, target=1e-5, max_epochs=3), hyper(seed=6), digits)
    assert (compiled.run._cache_size(), compiled.init._cache_size()) == before == (1, 1)


def test_augmentation_mirrors_and_shifts():
    image = jnp.arange(256, dtype=jnp.float32).reshape(1, 16, 16, 1) + 1
    out = np.asarray(step.flip_and_shift(jax.random.key(0), jnp.tile(image, (64, 1, 1, 1))))
    padded = np.pad(np.asarray(image[0, :, :, 0]), 2)
    mirrored = np.pad(np.asarray(image[0, :, ::-1, 0]), 2)
    allowed = {p[i : i + 16, j : j + 16].tobytes() for p in (padded, mirrored) for i in range(5) for j in range(5)}
    drawn = {o[:, :, 0].tobytes() for o in out}
    assert drawn <= allowed
    assert len(drawn) > 20


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recipe(optimizer="sgd"), "train.optimizer='sgd' is unknown; choose among momentum, adam, rmsprop"),
        (lambda: Recipe(batch_size=0), "train.batch_size=0 must be at least 1"),
        (lambda: Recipe(target=-0.1), "train.target=-0.1 must be a positive number of nats, or 0 for a fixed"),
        (lambda: hyper(learning_rate=0.0), "train.learning_rate=0.0 must be a positive number"),
        (lambda: hyper(dropout=1.0), "train.dropout=1.0 must be at least 0 and below 1"),
        (lambda: hyper(weight_decay=-1.0), "train.weight_decay=-1.0 must not be negative"),
        (lambda: Recipe(batch_size=201).check(200), "train.batch_size=201 is larger than the training set of 200"),
    ],
)
def test_wrong_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_checks_become_frequent_near_the_target():
    assert [stopping.checks_per_epoch(loss, 0.01) for loss in (1.0, 0.06, 0.05, 0.025, 0.015)] == [1, 1, 2, 4, 8]
    assert [stopping.part_start(10, 20, i, 4) for i in range(5)] == [10, 12, 15, 17, 20]
    # Whoever looks at every second of eight edges sees those of four.
    assert [stopping.part_start(3, 16, 2 * i, 8) for i in range(5)] == [
        stopping.part_start(3, 16, i, 4) for i in range(5)
    ]


def test_checks_are_made_when_they_may_matter():
    def due(running, since=1.0, runnings=(0.1,), losses=(0.05,)):
        return stopping.worth_checking(running, since, runnings, losses, target=0.01)

    assert stopping.worth_checking(5.0, 1.0, (), (), target=0.01)  # nothing is known yet
    assert not due(0.09)
    assert due(0.0699)  # fallen by 0.7
    assert due(0.09, since=5.0)  # it has been long
    assert not due(0.03, runnings=(0.04,), losses=(0.02,))  # 0.03 · ½ = 0.015 is not within 1.2 of 0.01
    assert due(0.03, runnings=(0.04,), losses=(0.013,))  # 0.03 · 0.325 = 0.00975 is
