"""Folded networks compute what the originals compute, on random statistics."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.tree_util import Partial

from prunegen_jax.compute import trees
from prunegen_jax.networks.reading import read
from tests.support.reading_cases import (
    EquinoxCNN,
    Norm,
    ResNet,
    Transformer,
    equinox_cnn,
    images,
    linen,
    mlp,
    nnx_cnn,
    randomize,
    tokens,
)

NESTED = (1, 1)


def names(tree):
    return ["/".join(path) for path, _ in trees.named_leaves(tree)]


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-10)])
def test_residual_networks(first, bias, dtype, tolerance):
    with jax.enable_x64(dtype == "float64"):
        x = images(dtype=jnp.dtype(dtype))
        apply, params = linen(ResNet(4, NESTED, bias, first), x)
        program = read(apply, params, x)
        assert jax.tree.leaves(params)[0].dtype == dtype
        assert program.difference(params, x) < tolerance
        folded = program.fold(params)
        assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(folded))
        kernels = [name for name in names(params) if name.endswith("kernel")]
        assert [name for name in names(folded) if name.endswith("kernel")] == kernels


@pytest.mark.parametrize("first", [False, True])
def test_resnet18(first):
    x = images(2, (16, 16, 3))
    apply, params = linen(ResNet(2, first=first), x)
    program = read(apply, params, x)
    assert len(program.layers) == len(program.kernels) == 21  # 17 3×3, 3 1×1 in shortcuts, 1 dense
    assert not program.problems and not program.sequential
    assert program.difference(params, x) < 1e-5


def test_post_activation_keeps_nothing_but_kernels_and_biases():
    x = images()
    apply, params = linen(ResNet(4, NESTED), x)
    program = read(apply, params, x)
    folded = program.fold(params)
    assert {name.rpartition("/")[2] for name in names(folded)} == {"kernel", "bias"}
    assert not any("Norm" in name for name in names(folded)) and program.affine == ()
    assert set(read(program.folded, folded, x).weights) == {path for path, _ in trees.named_leaves(folded)}
    # The first convolution, by hand.
    norm, statistics = params["Norm_0"]["BatchNorm_0"], apply.args[0]["Norm_0"]["BatchNorm_0"]
    scale = np.asarray(norm["scale"]) / np.sqrt(np.asarray(statistics["var"]) + 1e-5)
    np.testing.assert_allclose(folded["Conv_0"]["kernel"], np.asarray(params["Conv_0"]["kernel"]) * scale, rtol=1e-5)
    expected = np.asarray(norm["bias"]) - scale * np.asarray(statistics["mean"])
    np.testing.assert_allclose(folded["Conv_0"]["bias"], expected, rtol=1e-5, atol=1e-6)


def test_pre_activation_keeps_its_norms_in_the_function_and_out_of_the_weights():
    x = images()
    apply, params = linen(ResNet(4, NESTED, first=True), x)
    program = read(apply, params, x)
    folded = program.fold(params)
    weights = read(program.folded, folded, x).weights
    kept = [name for name in names(folded) if "Norm" in name]
    assert kept and not any("Norm" in "/".join(path) for path in weights)
    # In each block the second norm folds into the first convolution; the others, and the last one, stay.
    assert sorted("/".join(path) for paths in program.affine for path in paths) == sorted(kept)
    assert len(program.affine) == 3 and "Norm_0/BatchNorm_0/scale" in kept


def test_other_parameters_fold_with_their_own_statistics():
    x = images()
    module = ResNet(4, NESTED)
    (apply, params), (other, initial) = linen(module, x, seed=0), linen(module, x, seed=5)
    program, before = read(apply, params, x), read(other, initial, x)
    assert program.structure is before.structure
    np.testing.assert_allclose(before.folded(before.fold(initial), x), jax.jit(other)(initial, x), atol=1e-5)
    assert np.abs(program.folded(program.fold(initial), x) - jax.jit(other)(initial, x)).max() > 1e-2


def test_nnx():
    apply, params = nnx_cnn()
    program, x = read(apply, params, images()), images()
    assert names(program.fold(params)) == ["conv/bias", "conv/kernel", "head/bias", "head/kernel"]
    assert program.difference(params, x) < 1e-5


def test_layouts_groups_and_transposed_convolutions():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(Norm()(nn.Conv(6, (3, 3), feature_group_count=3, kernel_dilation=2)(x)))
            x = nn.relu(Norm()(nn.ConvTranspose(4, (3, 3), strides=(2, 2), use_bias=False)(x)))
            return nn.DenseGeneral((2, 3))(x.mean((1, 2))).reshape(x.shape[0], -1)

    x = images()
    apply, params = linen(Net(), x)
    assert read(apply, params, x).difference(params, x) < 1e-5


def test_equinox_with_a_norm_by_hand():
    net, x = EquinoxCNN(jax.random.key(0)), images()
    gains = randomize({"scale": jnp.zeros(4), "shift": jnp.zeros(4), "out": jnp.zeros(3)}, 3)

    def apply(params, x):
        net, gains = params

        def one(x):
            h = net.conv1(jnp.transpose(x, (2, 0, 1)))
            h = jax.nn.relu(gains["shift"][:, None, None] - h / gains["scale"][:, None, None])
            h = jax.nn.relu(net.conv2(h)).reshape(-1)
            return -net.head(jax.nn.gelu(net.hidden(h))) * gains["out"]

        return jax.vmap(one)(x)

    params, static = eqx.partition(net, eqx.is_array)
    program = read(lambda p, x: apply((eqx.combine(p[0], static), p[1]), x), (params, gains), x)
    assert program.difference((params, gains), x) < 1e-5
    assert names(program.fold((params, gains))) == [
        "0/conv1/bias", "0/conv1/weight", "0/conv2/weight", "0/head/bias", "0/head/weight", "0/hidden/bias",
        "0/hidden/weight",
    ]  # fmt: skip


def test_equinox_batch_norm():
    class Net(eqx.Module):
        conv: eqx.nn.Conv2d
        norm: eqx.nn.BatchNorm
        head: eqx.nn.Linear

        def __init__(self, key):
            self.conv = eqx.nn.Conv2d(3, 4, 3, use_bias=False, key=key)
            self.norm = eqx.nn.BatchNorm(4, axis_name="batch", mode="batch")
            self.head = eqx.nn.Linear(4, 3, key=key)

        def __call__(self, x, state):
            hidden, state = self.norm(self.conv(x), state)
            return self.head(jax.nn.relu(hidden).mean((1, 2)))

    net, state = eqx.nn.make_with_state(Net)(jax.random.key(0))
    params, static = eqx.partition(eqx.nn.inference_mode(net), eqx.is_inexact_array)
    params = randomize(params)
    leaves, tree = jax.tree.flatten(state)
    moved = [leaf + 0.5 if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf for leaf in leaves]

    def apply(moved, params, x):
        net, state = eqx.combine(params, static), jax.tree.unflatten(tree, moved)
        return jax.vmap(net, in_axes=(0, None), axis_name="batch")(x.transpose(0, 3, 1, 2), state)

    with jax.numpy_dtype_promotion("standard"):  # Equinox mixes dtypes
        program = read(Partial(apply, moved), params, images())
        assert names(program.fold(params)) == ["conv/bias", "conv/weight", "head/bias", "head/weight"]
        assert program.difference(params, images()) < 1e-5


def test_one_array_and_lists_as_parameters():
    x, (w, v, scale) = images(4, (6,)), (randomize(jnp.zeros(shape)) for shape in ((6, 6), (6, 3), (6,)))
    program = read(Partial(lambda scale, w, x: x @ w * scale[None], scale), w, x)
    assert names(program.fold(w)) == ["bias", "kernel"] and program.difference(w, x) < 1e-5

    def apply(params, x):
        for w, scale in params[:-1]:
            x = jax.nn.relu(x @ w * scale[None])
        return x @ params[-1]

    params = [(w, scale)] * 11 + [v]
    program = read(apply, params, x)
    folded = program.fold(params)
    assert [layer.path[0] for layer in program.layers] == [str(i) for i in range(12)]
    assert [path[0] for path, _ in trees.named_leaves(folded)][::2] == [str(i) for i in range(12)]  # 10 after 9
    assert program.difference(params, x) < 1e-5


def test_numpy_parameters():
    x, params = np.ones((4, 6)), {"w": np.ones((6, 3)), "scale": np.full(3, 2.0)}
    program = read(lambda params, x: x @ params["w"] * params["scale"][None], params, x)
    assert program.difference(params, x) < 1e-6


def test_nothing_to_fold():
    for (apply, params), x in [
        (mlp(), images(5, (6,))),
        (equinox_cnn(), images()),
        (linen(Transformer(), tokens()), tokens()),
    ]:
        program = read(apply, params, x)
        assert program.folded is None
        with pytest.raises(ValueError, match="nothing to fold"):
            program.fold(params)


def test_constants_are_not_folded():
    def apply(params, x):
        return (x @ params["w"]) / jnp.sqrt(6.0) * 0.5

    x = images(4, (6,))
    assert read(apply, {"w": jnp.ones((6, 3))}, x).folded is None


def test_bfloat16():
    x = images(dtype=jnp.bfloat16)
    apply, params = linen(ResNet(4, NESTED), x)
    program = read(apply, params, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(program.fold(params))} == {jnp.dtype("bfloat16")}
    assert program.difference(params, x) < 0.1  # 8 bits of precision


def test_a_value_with_two_consumers_is_not_folded_through():
    def apply(params, x):
        hidden = x @ params["w"]
        scaled = hidden * params["scale"][None]
        return jax.nn.relu(scaled) + hidden

    x = images(4, (6,))
    params = randomize({"w": jnp.zeros((6, 3)), "scale": jnp.zeros(3)})
    program = read(apply, params, x)
    assert program.folded is None and [list(paths) for paths in program.affine] == [[("scale",)]]
    assert [path for path, _ in trees.named_leaves(params)] == [("scale",), ("w",)]


def test_shared_norm_parameters_fold_into_both_layers():
    def apply(params, x):
        hidden = jax.nn.relu((x @ params["w"]) * params["scale"][None])
        return (hidden @ params["v"]) * params["scale"][None]

    x = images(4, (6,))
    params = randomize({"w": jnp.zeros((6, 3)), "v": jnp.zeros((3, 3)), "scale": jnp.zeros(3)})
    program = read(apply, params, x)
    assert program.difference(params, x) < 1e-5 and "scale" not in program.fold(params)


def test_what_differs_from_place_to_place_is_not_folded():
    def apply(params, x):
        hidden = jnp.einsum("ntc,cd->ntd", x, params["w"]) * params["scale"][None, None]
        return jax.nn.relu(hidden + params["position"][None, :, None]).sum(1)

    params, x = randomize({"w": jnp.zeros((6, 3)), "scale": jnp.zeros(3), "position": jnp.zeros(3)}), images(4, (3, 6))
    program = read(apply, params, x)
    assert names(program.fold(params)) == ["bias", "position", "w"]
    assert [list(paths) for paths in program.affine] == [[("position",)]]
    assert program.difference(params, x) < 1e-5


def normalized_by_hand(params, x):
    hidden = x @ params["w"] + params["b"][None]
    return jax.nn.relu(hidden * params["gamma"][None] + params["beta"][None]) @ params["v"]


def test_the_bias_in_front_of_a_norm_is_a_weight_wherever_its_parameters_are():
    """In one flat tree, and in Linen's own layers; without a bias there is none."""
    shapes = {"w": (6, 4), "b": (4,), "gamma": (4,), "beta": (4,), "v": (4, 3)}
    params = randomize({name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()})
    assert read(normalized_by_hand, params, images(4, (6,))).weights == (("b",), ("v",), ("w",))
    for bias in (True, False):
        apply, params = linen(ResNet(2, (1,), bias=bias), images())
        leaves = {path[-1] for path in read(apply, params, images()).weights if "Norm" not in "/".join(path)}
        assert leaves == {"kernel", "bias"}
        names = ["/".join(path) for path in read(apply, params, images()).weights]
        assert not any("Norm" in name for name in names)
        assert sum(name.endswith("Conv_0/bias") for name in names) == (2 if bias else 0)
