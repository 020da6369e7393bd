"""What is read from NiN's program is what the model declares: layers, activations, folding."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from prunegen_jax.models import build
from reading_cases import images, randomize

from prunegen_jax.networks.reading import read

NAMES = {"block0_conv0": "block0_conv0/kernel", "block0": "block0_conv2/kernel", "block1": "block1_conv2/kernel"}


def network(head="gap", batch_norm=True, conv="xla", seed=0):
    net = build("nin", image_shape=(9, 8, 3), classes=4, depth=2, width=6, batch_norm=batch_norm, head=head, conv=conv)
    params, stats = jax.eval_shape(net.init, jax.random.key(0))
    return net, randomize(params, seed), randomize(stats, seed + 1, positive=True)


@pytest.mark.parametrize("head", ["gap", "rgm"])
@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("conv", ["xla", "patches"])
def test_layers_activations_and_folding_are_the_declared_ones(head, batch_norm, conv):
    net, params, stats = network(head, batch_norm, conv)
    program, x = read(Partial(net.apply, stats), params, images(shape=(9, 8, 3))), images(shape=(9, 8, 3))
    assert [layer.path for layer in program.layers] == [layer.path for layer in net.layers]
    assert program.sequential and not program.problems and not program.no_activation
    if conv == "xla":
        for layer, declared in zip(program.layers, net.layers, strict=True):
            assert layer.kind == declared.kind and layer.input_shape == declared.input_shape
            assert layer.strides == (declared.stride,) * 2
            assert layer.padding == ((declared.padding, declared.padding),) * 2
    logits, activations = program.features(params, x)
    declared_logits, declared_activations = net.features(stats, params, x)
    np.testing.assert_allclose(logits, declared_logits, atol=1e-5)
    for old, new in {"input": "input", **NAMES}.items():
        assert activations[new].shape == declared_activations[old].shape
        np.testing.assert_allclose(activations[new], declared_activations[old], atol=1e-5)
    if not batch_norm:
        assert program.folded is None
        return
    folded, expected = program.fold(params), net.fold(params, stats)
    assert jax.tree.structure(folded) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(folded), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(program.folded(folded, x), declared_logits, atol=1e-5)


def test_planes_are_read_without_a_named_call_too():
    net, params, stats = network(conv="planes")
    x = images(shape=(9, 8, 3))
    program = read(Partial(net.apply, stats), params, x)
    declared = net.features(stats, params, x)[1]
    activations = program.features(params, x)[1]
    for old, new in NAMES.items():
        np.testing.assert_allclose(activations[new], declared[old], atol=1e-5)
    assert program.difference(params, x) < 1e-5


def test_gradients_at_offsets_are_the_declared_ones():
    net, params, stats = network()
    x = images(shape=(9, 8, 3))
    program = read(Partial(net.apply, stats), params, x)

    def gradients(features, names):
        shapes = {name: value.shape for name, value in features(params, x)[1].items() if name in names}
        zeros = {name: jnp.zeros(shape) for name, shape in shapes.items()}
        return jax.grad(lambda offsets: jnp.sum(features(params, x, offsets=offsets)[0] ** 2))(zeros)

    found = gradients(program.features, set(NAMES.values()))
    declared = gradients(Partial(net.features, stats), set(NAMES))
    for old, new in NAMES.items():
        np.testing.assert_allclose(found[new], declared[old], atol=1e-4)
        assert np.abs(found[new]).max() > 0


def test_the_folded_network_is_read_again_with_the_same_layers():
    net, params, stats = network("rgm")
    x = images(shape=(9, 8, 3))
    program = read(Partial(net.apply, stats), params, x)
    folded_params = program.fold(params)
    folded = read(program.folded, folded_params, x)
    assert [layer.path for layer in folded.layers] == [layer.path for layer in net.layers]
    assert [layer.bias for layer in folded.layers] == [(*layer.path[:-1], "bias") for layer in net.layers]
    assert folded.folded is None and len(folded.weights) == len(jax.tree.leaves(folded_params))
    one, other = program.features(params, x)[1], folded.features(folded_params, x)[1]
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], atol=1e-5)
