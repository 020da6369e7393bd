"""What holds for every measure: contracts over the whole table, networks of other libraries, failures kept apart."""

from __future__ import annotations

import dataclasses
import functools
import json
import math

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from prunegen_jax import data, measures, training
from prunegen_jax.compute import evaluation
from prunegen_jax.measures import MEASURES, measure
from prunegen_jax.networks import as_trained_model, build
from prunegen_jax.types import Dataset, Estimate, Layer, Measure, TrainedModel

FAMILIES = {"pruning", "size", "norms", "margins", "flatness", "speed", "noise", "beyond"}
FIELDS = {field.name for field in dataclasses.fields(TrainedModel)}


@functools.cache
def trained(seed, batch_norm=True):
    """A narrow network trained on 200 digits until most are right."""
    split = data.split(data.load("digits"), train_size=200, seed=seed)
    network = build("nin", image_shape=(8, 8, 1), classes=10, depth=2, width=6, batch_norm=batch_norm)
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


@pytest.mark.parametrize("name", MEASURES)
def test_every_row_is_complete(name):
    row = MEASURES[name]
    assert row.function.__name__ == name
    assert row.function.__doc__
    assert row.sign in {-1, 1}
    assert row.family in FAMILIES
    assert row.cost >= 0
    assert row.source
    assert set(row.needs) <= FIELDS
    assert set(row.invariant) <= {"permutation", "neuron_scaling", "layer_scaling"}


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_answers_and_shares_its_programs(name):
    """A finite (or censored) value whose details are plain; a second network of equal shape compiles nothing."""
    first = answer(name, trained(0))
    assert first.status == "ok", first.reason
    assert math.isfinite(first.value) or first.details.get("censored")
    assert first.sem is None or first.sem >= 0
    json.dumps(first.details)
    other = trained(1)
    with jax.log_compiles(False), counting_compilations() as compiled:
        second = answer(name, other)
    assert second.status == "ok", second.reason
    assert compiled() == 0


class counting_compilations:
    """Counts programs that XLA is asked to compile inside the block."""

    def __enter__(self):
        self.count, self.active = 0, True
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return lambda: self.count

    def _listen(self, event, duration, **_):
        del duration
        if self.active and event == "/jax/core/compile/backend_compile_duration":
            self.count += 1

    def __exit__(self, *_):
        self.active = False


def with_params(model, change):
    """`model`, without batch norm, with `change` applied to its weights now, at the start and after the first epoch."""
    init = change(model.init_params)
    parts = {"params": change(model.params), "init_params": init, "folded": None}
    early = dataclasses.replace(
        model.first_epoch, params=change(model.first_epoch.params), init_params=init, folded=None
    )
    return dataclasses.replace(model, **parts, first_epoch=early)


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


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, row in MEASURES.items() for kind in row.invariant])
def test_declared_invariances_hold(name, kind):
    """Powers of two scale without rounding; what sums in another order agrees to float error."""
    model = trained(0, batch_norm=False)
    model = dataclasses.replace(model, folded=None) if "folded" not in MEASURES[name].needs else model
    base = answer(name, model)
    changed = with_params(model, CHANGES[kind])
    if "folded" in MEASURES[name].needs:
        changed = dataclasses.replace(changed, folded=changed)
    other = answer(name, changed)
    assert base.status == other.status == "ok", (base.reason, other.reason)
    spread = 4 * math.hypot(base.sem or 0, other.sem or 0) if kind == "permutation" else 0
    assert other.value == pytest.approx(base.value, rel=5e-3, abs=max(spread, 1e-6))


BATCHED = {"sam_sharpness_batches"}  # the mean over batches of consecutive examples, by definition
EXACT = [name for name, row in MEASURES.items() if row.cost <= 100 and name not in BATCHED]


@pytest.mark.parametrize("name", EXACT)
def test_the_order_of_the_examples_does_not_matter(name):
    """Not beyond float error for what is exact, nor beyond the standard error for what draws examples."""
    model = trained(0)
    order = np.random.default_rng(0).permutation(len(model.train))
    train = dataclasses.replace(model.train, images=model.train.images[order], labels=model.train.labels[order])
    parts = {field: dataclasses.replace(getattr(model, field), train=train) for field in ("folded", "first_epoch")}
    parts["first_epoch"] = dataclasses.replace(
        parts["first_epoch"], folded=dataclasses.replace(parts["first_epoch"].folded, train=train)
    )
    base, other = answer(name, model), answer(name, dataclasses.replace(model, train=train, **parts))
    spread = 5 * math.hypot(base.sem or 0, other.sem or 0)
    assert other.value == pytest.approx(base.value, rel=2e-3, abs=max(spread, 1e-6))


CHEAP = [name for name in EXACT if 0 < MEASURES[name].cost <= 6] + ["prunability_prefix"]


@pytest.mark.parametrize("name", CHEAP)
def test_the_size_of_chunks_does_not_matter(name, monkeypatch):
    """77 examples at a time, and 23 in the last chunk of 200 filled up, against all at once."""
    base = answer(name, trained(0))
    for function in (evaluation.batches, evaluation.example_losses):
        monkeypatch.setitem(function.__kwdefaults__, "batch_size", 77)
    fresh = dataclasses.replace(trained(0), folded=dataclasses.replace(trained(0).folded))
    options = {name: {"batch_size": 77}} if "batch_size" in measures.options_of(name) else {}
    other = measure(fresh, [name], key=jax.random.key(0), options=options)[name]
    assert other.status == "ok", other.reason
    assert other.value == pytest.approx(base.value, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("name", CHEAP)
def test_compiling_does_not_matter(name):
    base = answer(name, trained(0))
    with jax.disable_jit():
        other = answer(name, dataclasses.replace(trained(0), folded=dataclasses.replace(trained(0).folded)))
    assert other.status == "ok", other.reason
    assert other.value == pytest.approx(base.value, rel=1e-3, abs=1e-6)


def test_the_changes_change_the_network_as_they_should():
    model = trained(0, batch_norm=False)
    images = model.train.inputs(model.train.images[:20])
    logits = model.apply(model.params, images)
    for change in CHANGES.values():
        params = change(model.params)
        np.testing.assert_allclose(model.apply(params, images), logits, rtol=1e-4, atol=1e-4)
        assert not np.allclose(params["block0_conv0"]["kernel"], model.params["block0_conv0"]["kernel"])


def test_selecting():
    assert measures.select("all") == list(MEASURES)
    fast = measures.select("fast")
    assert {"num_parameters", "training_cross_entropy", "prunability_prefix"} <= set(fast)
    assert not {"prunability", "hessian_trace"} & set(fast)
    assert measures.select("parameter_norm") == ["parameter_norm"]
    with pytest.raises(ValueError, match="measure 'sharpnes' is not known; choose 'fast', 'all' or among prunability"):
        measures.select(["sharpnes"])
    with pytest.raises(ValueError, match="prunability has no option 'bta'; it has fold, scope, beta"):
        measure(trained(0), ["prunability"], options={"prunability": {"bta": 0.2}})
    with pytest.raises(ValueError, match="prunability_bernoulli has no option 'draw'"):
        measure(trained(0), ["prunability"], options={"prunability_bernoulli": {"draw": "exact"}})
    with pytest.raises(ValueError, match="the options of prunability are 3; they must map names to values"):
        measure(trained(0), ["prunability"], options={"prunability": 3})


def test_options_reach_the_measure_and_keys_fold_the_name():
    model = trained(0)
    loose = measure(model, ["prunability_prefix"], options={"prunability_prefix": {"beta": 10.0}})["prunability_prefix"]
    assert loose.value < answer("prunability_prefix", model).value
    together = measure(model, ["label_wise_mixup", "davies_bouldin"])
    assert together["davies_bouldin"] == answer("davies_bouldin", model)


def test_a_measure_that_fails_says_so_and_leaves_the_others_alone(monkeypatch):
    def breaks(model, key):
        raise ZeroDivisionError("no weight left\nsecond line")

    def nothing(model, key):
        return Estimate(math.nan)

    monkeypatch.setitem(MEASURES, "breaks", Measure(breaks, 1, "size", 0.0, "nobody"))
    monkeypatch.setitem(MEASURES, "nothing", Measure(nothing, 1, "size", 0.0, "nobody"))
    found = measure(trained(0), ["breaks", "num_parameters", "nothing"])
    assert (found["breaks"].status, found["breaks"].reason) == ("failed", "ZeroDivisionError: no weight left")
    assert found["nothing"].status == "failed"
    assert found["num_parameters"].status == "ok"


def test_what_a_network_lacks_makes_a_measure_not_applicable():
    full = trained(0)
    bare = TrainedModel(full.apply, full.params, full.train)
    lacking = [name for name, row in MEASURES.items() if row.needs]
    found = measure(bare, [*lacking, "num_parameters", "prunability"])
    for name in lacking:
        assert found[name].status == "not_applicable"
        assert all(field in found[name].reason for field in MEASURES[name].needs)
        assert math.isnan(found[name].value)
    assert found["num_parameters"].status == "ok"
    assert found["prunability"].value == answer("prunability", full).value


IMAGES = jax.random.normal(jax.random.key(0), (60, 5, 5, 2))
LABELS = (IMAGES.sum(axis=(1, 2, 3)) > 0).astype(jnp.int32)
DATA = Dataset(IMAGES, LABELS)
NAMES = [
    "prunability",
    "parameter_norm",
    "training_cross_entropy",
    "hessian_trace",
    "average_sharpness",
    "inverse_margin",
]


def assert_measured(model, expected_logits):
    np.testing.assert_allclose(model.apply(model.params, IMAGES), expected_logits, rtol=1e-5, atol=1e-5)
    found = measure(model, NAMES)
    assert {name: estimate.reason for name, estimate in found.items() if estimate.status != "ok"} == {}
    losses = -jax.nn.log_softmax(expected_logits)[jnp.arange(60), LABELS]
    assert found["training_cross_entropy"].value == pytest.approx(float(losses.mean()), rel=1e-5)
    return found


def test_a_plain_function():
    keys = jax.random.split(jax.random.key(1))
    params = [(jax.random.normal(keys[0], (50, 8)), jnp.zeros(8)), (jax.random.normal(keys[1], (8, 2)), jnp.zeros(2))]

    def apply(params, images):
        (w1, b1), (w2, b2) = params
        hidden = jax.nn.relu(images.reshape(len(images), -1) @ w1 + b1[None])
        return hidden @ w2 + b2[None]

    found = assert_measured(TrainedModel(apply, params, DATA), apply(params, IMAGES))
    assert found["parameter_norm"].value == pytest.approx(float((params[0][0] ** 2).sum() + (params[1][0] ** 2).sum()))
    assert found["prunability"].details["prunable"] == 50 * 8 + 8 * 2


def test_a_linen_network_with_batch_statistics_bound():
    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.relu(linen.BatchNorm(use_running_average=True)(linen.Conv(4, (3, 3))(x)))
            return linen.Dense(2)(x.mean(axis=(1, 2)))

    net = Net()
    variables = net.init(jax.random.key(0), IMAGES)
    stats = jax.tree.map(lambda x: x + 0.5, variables["batch_stats"])

    def apply(stats, params, images):
        return net.apply({"params": params, "batch_stats": stats}, images)

    model = TrainedModel(functools.partial(apply, stats), variables["params"], DATA)
    assert_measured(model, apply(stats, variables["params"], IMAGES))


def test_running_statistics_among_the_parameters_are_refused():
    """They are no parameters: pruning or perturbing them would measure something else."""
    params = {"params": {"kernel": jnp.ones((50, 2))}, "batch_stats": {"mean": jnp.zeros(2)}}

    def apply(variables, images):
        return images.reshape(len(images), -1) @ variables["params"]["kernel"] + variables["batch_stats"]["mean"][None]

    with pytest.raises(ValueError, match=r"batch_stats/mean.*functools\.partial"):
        TrainedModel(apply, params, DATA)
    nested = {"one": {"kernel": jnp.ones((50, 2)), "norm": {"scale": jnp.ones(2), "var": jnp.ones(2)}}}
    with pytest.raises(ValueError, match="one/norm/var"):
        TrainedModel(apply, nested, DATA)
    with pytest.raises(ValueError, match="init_params"):
        TrainedModel(apply, {"kernel": jnp.ones((50, 2))}, DATA, init_params={"kernel": jnp.ones((50, 3))})


def test_an_nnx_network():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(2, 4, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)
            self.head = nnx.Linear(4, 2, rngs=rngs)

        def __call__(self, x):
            return self.head(nnx.relu(self.norm(self.conv(x))).mean(axis=(1, 2)))

    net = Net(nnx.Rngs(0))
    graph, params, rest = nnx.split(net, nnx.Param, ...)

    def apply(rest, params, images):
        return nnx.merge(graph, params, rest)(images)

    model = TrainedModel(functools.partial(apply, rest), params, DATA)
    found = assert_measured(model, net(IMAGES))
    assert found["prunability"].details["prunable"] == 3 * 3 * 2 * 4 + 4 * 2


def test_an_equinox_network():
    net = equinox.nn.MLP(50, 2, 8, 1, key=jax.random.key(0))
    params, static = equinox.partition(net, equinox.is_array)

    def apply(params, images):
        return jax.vmap(equinox.combine(params, static))(images.reshape(len(images), -1))

    model = TrainedModel(apply, params, DATA)
    assert_measured(model, jax.vmap(net)(IMAGES.reshape(60, -1)))


def test_geometry_given_by_a_person_is_enough_for_exact_spectral_norms():
    kernel = jax.random.normal(jax.random.key(2), (3, 3, 2, 2))

    def apply(params, images):
        y = jax.lax.conv_general_dilated(
            images, params["conv"]["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y.mean(axis=(1, 2))

    layer = Layer(("conv", "kernel"), "conv", 1, 0, (5, 5, 2))
    model = TrainedModel(apply, {"conv": {"kernel": kernel}}, DATA, layers=(layer,))
    matrix = jax.vmap(
        lambda e: jax.lax.conv_general_dilated(
            e.reshape(1, 5, 5, 2), kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ).ravel()
    )(jnp.eye(50))
    largest = np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)[0]
    assert answer("product_of_spectral_norms", model).value == pytest.approx(largest**2, rel=1e-4)
