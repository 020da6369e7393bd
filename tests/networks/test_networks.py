"""Our models: training against Flax's layers, folding, shapes, dropout, running statistics, wrong names."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from prunegen_jax.compute import evaluation
from prunegen_jax.compute.planes import FORMS
from prunegen_jax.measures import structure
from prunegen_jax.networks import as_trained_model, build
from prunegen_jax.networks.blocks import batch_norm, dropout
from prunegen_jax.networks.reading import read
from prunegen_jax.types import Dataset, Partial

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def in_flax(depth, width, classes):
    """The same network by Flax's own layers, NHWC, differentiated by JAX alone."""

    class Reference(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            for block in range(depth):
                for i, window in enumerate((3, 1, 1)):
                    size, pad = (window, window), ((window // 2,) * 2,) * 2
                    init = nn.initializers.he_normal()
                    name = f"block{block}_conv{i}"
                    stride = 2 if i == 0 else 1
                    x = nn.Conv(width, size, strides=stride, padding=pad, kernel_init=init, name=name)(x)
                    x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name=f"block{block}_norm{i}")(x)
                    x = nn.relu(x)
            head = nn.Conv(classes, (1, 1), kernel_init=nn.initializers.he_normal(), name="head")
            return head(x).mean(axis=(1, 2))

    return Reference()


@functools.cache
def of_flax(size):
    """A batch, and of the network in Flax's layers: initial variables, others, and what they give.

    That is the loss, logits, new statistics and gradients in training, and logits in evaluation.
    """
    reference, keys = in_flax(2, 5, 3), jax.random.split(jax.random.key(7), 3)
    batch = jax.random.normal(keys[0], (6, size, size, 2)), jnp.asarray([0, 1, 2, 0, 1, 2])
    initial = reference.init(keys[1], batch[0], train=False)
    params, stats = noisy((initial["params"], initial["batch_stats"]), keys[2])

    def loss(params):
        variables = {"params": params, "batch_stats": stats}
        logits, new = reference.apply(variables, batch[0], train=True, mutable=["batch_stats"])
        return evaluation.cross_entropy(logits, batch[1]).mean(), (logits, new["batch_stats"])

    with jax.default_matmul_precision("highest"):
        trained = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        later = reference.apply({"params": params, "batch_stats": stats}, batch[0], train=False)
    return batch, (initial["params"], initial["batch_stats"]), (params, stats), trained, later


@pytest.mark.parametrize("form", FORMS[1:])
@pytest.mark.parametrize("size", [8, 7])
def test_training_agrees_with_flax_layers(form, size):
    """Initial weights, logits, running statistics and gradients, of a batch in training and then in evaluation."""
    (images, labels), initial, (params, stats), expected, later = of_flax(size)
    network = build("nin", input_shape=(size, size, 2), classes=3, depth=2, width=5, convolutions=form)
    keys = jax.random.split(jax.random.key(7), 3)
    jax.tree.map(np.testing.assert_array_equal, network.init(keys[1]), initial)

    @jax.jit
    def train(params):
        logits, new = network.train_apply(params, stats, images, jnp.float32(0.0), keys[0])
        return evaluation.cross_entropy(logits, labels).mean(), (logits, new)

    with jax.default_matmul_precision("highest"):
        found = jax.value_and_grad(train, has_aux=True)(params)
        np.testing.assert_allclose(network.apply(stats, params, images), later, rtol=1e-4, atol=1e-4)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5)
    assert not np.any(found[1]["block0_conv1"]["bias"])  # batch norm takes it out: exactly zero, not rounding


def test_dropout_does_not_depend_on_the_form():
    images, keys = jax.random.normal(jax.random.key(0), (4, 8, 8, 1)), jax.random.split(jax.random.key(1), 2)
    found = []
    for form in FORMS[1:]:
        network = build("nin", input_shape=(8, 8, 1), classes=3, depth=2, width=6, convolutions=form)
        params, stats = network.init(keys[0])
        found.append(network.train_apply(params, stats, images, jnp.float32(0.4), keys[1])[0])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[0], found[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axis", [0, -1])
def test_the_gradient_of_batch_norm_in_float64(axis):
    """Central differences of Σ c · batch_norm(x, γ, β)."""
    with jax.enable_x64(True):
        random = np.random.default_rng(0)
        shape = (3, 4, 2, 5) if axis == 0 else (5, 4, 2, 3)
        x, c = jnp.asarray(random.normal(2.0, 3.0, shape)), jnp.asarray(random.normal(size=shape))
        scale, beta = jnp.asarray(random.normal(size=3)), jnp.asarray(random.normal(size=3))

        def value(x, scale, beta):
            return (c * batch_norm(x, scale, beta, axis)[0]).sum()

        jax.test_util.check_grads(value, (x, scale, beta), order=1, modes=["rev"], rtol=1e-6)


def noisy(variables, key):
    """Parameters and running statistics as training might leave them: nothing at its initial value."""
    leaves, structure = jax.tree.flatten(variables)
    keys = jax.random.split(key, len(leaves))
    noise = [w + 0.3 * jnp.abs(jax.random.normal(k, w.shape)) for w, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, noise)


def worn(network, key):
    return noisy(network.init(key), key)


@pytest.mark.parametrize("head", ["gap", "rgm"])
def test_folding_batch_norm_changes_nothing(head):
    network = build("nin", input_shape=(9, 9, 3), classes=4, depth=2, width=6, head=head)
    params, stats = worn(network, jax.random.key(1))
    images = jax.random.normal(jax.random.key(2), (5, 9, 9, 3))
    train = Dataset(images, jnp.zeros(5, jnp.int32))
    model = as_trained_model(network, params, stats, train, init=network.init(jax.random.key(3)))
    logits = model.apply(params, images)
    assert float(jnp.abs(logits).max()) > 0.1
    folded = structure.folded_network(model)
    np.testing.assert_allclose(folded.apply(folded.params, images), logits, rtol=2e-5, atol=2e-5)
    initial, blank = network.init(jax.random.key(3))
    before = network.apply(blank, initial, images)
    np.testing.assert_allclose(folded.apply(folded.init_params, images), before, rtol=2e-5, atol=2e-5)
    assert not any("norm" in name for name in folded.params)
    assert {layer.path[0] for layer in structure.program_of(model).layers} == set(folded.params)


def test_fold_by_hand():
    """W ← sW and b ← β + s(b − μ) with s = γ / √(v + ε)."""
    network = build("nin", input_shape=(4, 4, 1), classes=2, depth=1, width=2)
    params, stats = worn(network, jax.random.key(4))
    train = Dataset(jnp.ones((2, 4, 4, 1)), jnp.zeros(2, jnp.int32))
    folded = structure.folded_network(as_trained_model(network, params, stats, train)).params["block0_conv1"]
    conv, norm, seen = params["block0_conv1"], params["block0_norm1"], stats["block0_norm1"]
    s = np.asarray(norm["scale"]) / np.sqrt(np.asarray(seen["var"]) + 1e-5)
    np.testing.assert_allclose(folded["kernel"][0, 0], np.asarray(conv["kernel"])[0, 0] * s, rtol=1e-6)
    np.testing.assert_allclose(folded["bias"], norm["bias"] + s * (np.asarray(conv["bias"]) - seen["mean"]), rtol=1e-5)


def test_without_batch_norm_there_is_nothing_to_fold():
    network = build("nin", input_shape=(8, 8, 1), classes=3, depth=1, width=4, batch_norm=False)
    params, stats = network.init(jax.random.key(0))
    assert jax.tree.leaves(stats) == []
    model = as_trained_model(network, params, stats, Dataset(jnp.ones((2, 8, 8, 1)), jnp.zeros(2, jnp.int32)))
    assert structure.folded_network(model) is model


@pytest.mark.parametrize(
    ("name", "fields", "layers", "shapes"),
    [
        ("nin", {"depth": 3, "width": 5}, 10, [(8, 8, 1)]),
        ("nin", {"depth": 1, "width": 5, "batch_norm": False}, 4, [(8, 8, 1), (12, 10, 3)]),
        ("resnet", {"width": 2}, 21, [(8, 8, 1)]),
        ("resnet", {"width": 2, "preactivation": False}, 21, [(12, 10, 3)]),
        ("cnn", {"width": 2}, 5, [(8, 8, 1), (12, 10, 3)]),
        ("mlp", {"depth": 3, "width": 6, "batch_norm": True}, 4, [(8, 8, 1), (12, 10, 3)]),
    ],
    ids=str,
)
def test_shapes(name, fields, layers, shapes):
    """Logits of every family, and as many layers as its papers count (shortcuts of a ResNet-18: three more)."""
    for shape in shapes:
        network = build(name, input_shape=shape, classes=7, **fields)
        params, stats = network.init(jax.random.key(0))
        images = jnp.ones((4, *shape))
        assert network.apply(stats, params, images).shape == (4, 7)
        logits, after = network.train_apply(params, stats, images, jnp.float32(0.1), jax.random.key(1))
        assert logits.shape == (4, 7)
        assert jax.tree.structure(after) == jax.tree.structure(stats)
        assert len(read(Partial(network.apply, stats), params, images).layers) == layers


def test_resnet_18_has_the_parameters_of_the_standard_one():
    """11.17 million at k = 64 on CIFAR-10, as PyTorch implementations of the post-activation form count."""
    network = build("resnet", input_shape=(32, 32, 3), classes=10, width=64, preactivation=False)
    params, _ = jax.eval_shape(network.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 11_173_962


def test_running_statistics_follow_the_batches():
    """A batch norm's statistics move a tenth of the way to the batch's mean and (biased) variance."""
    network = build("nin", input_shape=(6, 6, 2), classes=3, depth=1, width=4)
    params, stats = network.init(jax.random.key(0))
    images = 2 + 3 * jax.random.normal(jax.random.key(1), (16, 6, 6, 2))
    _, after = network.train_apply(params, stats, images, jnp.float32(0.0), jax.random.key(2))
    conv = params["block0_conv0"]
    out = lax.conv_general_dilated(images, conv["kernel"], (2, 2), [(1, 1)] * 2, dimension_numbers=DIMENSIONS)
    out = np.asarray(out, np.float64).reshape(-1, 4)
    np.testing.assert_allclose(after["block0_norm0"]["mean"], 0.1 * out.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(after["block0_norm0"]["var"], 0.9 + 0.1 * out.var(0), rtol=1e-4)


def test_dropout():
    x = jnp.ones((10, 10, 10, 20))
    dropped = dropout(jax.random.key(0), x, jnp.float32(0.25))
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.75)}
    assert float((dropped == 0).mean()) == pytest.approx(0.25, abs=0.02)
    np.testing.assert_array_equal(dropout(jax.random.key(0), x, jnp.float32(0.0)), x)


def test_equal_shapes_share_one_network():
    options = {"input_shape": (8, 8, 1), "classes": 10, "depth": 2, "width": 8}
    assert build("nin", **options) is build("nin", **options)
    assert build("nin", **options) is not build("nin", **(options | {"width": 9}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "nim"}, "model.name='nim' is unknown; choose among nin"),
        ({"head": "fc"}, "model.head='fc' is unknown; choose among gap, rgm"),
        ({"convolutions": "fft"}, "convolutions='fft' is unknown; choose among auto, planes, patches, xla"),
        ({"dept": 2}, "model.dept is unknown to model.name='nin'; its fields are depth, width, batch_norm, head"),
        ({"name": "resnet", "depth": 2}, "model.depth is unknown to model.name='resnet'; its fields are width, pre"),
        ({"depth": 0}, "must be at least 1"),
    ],
)
def test_wrong_names(options, message):
    with pytest.raises(ValueError, match=message):
        build(**({"name": "nin", "input_shape": (8, 8, 1), "classes": 10} | options))


def test_losses_of_a_whole_set_do_not_depend_on_the_batch():
    """Against softmax by NumPy in float64, with a batch that does not divide the set."""
    keys = jax.random.split(jax.random.key(0), 3)
    weights, images = jax.random.normal(keys[0], (6, 4)), jax.random.normal(keys[1], (37, 6))
    labels = jax.random.randint(keys[2], (37,), 0, 4)
    train = Dataset(images, labels)
    logits = np.asarray(images, np.float64) @ np.asarray(weights, np.float64)
    expected = np.log(np.exp(logits).sum(1)) - logits[np.arange(37), labels]

    def apply(params, x):
        return x @ params

    for batch_size in (5, 37, 500):
        losses, errors = evaluation.example_losses(apply, weights, train, batch_size=batch_size)
        np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(errors, logits.argmax(1) != labels)
    loss, accuracy = evaluation.loss_and_accuracy(apply, weights, train)
    assert loss == pytest.approx(expected.mean(), rel=1e-6)
    assert accuracy == pytest.approx((logits.argmax(1) == labels).mean())
