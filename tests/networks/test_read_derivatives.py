"""First and second derivatives through read and folded programs are the original's, at units that are zero too."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunegen_jax.networks.reading import read
from tests.support.reading_cases import ResNet, images, linen, randomize


def dead(params):
    """Every kernel's first output zero, so that units without a shift are exactly zero."""
    return jax.tree.map(lambda leaf: leaf.at[..., 0].set(0.0) if leaf.ndim > 1 else leaf, params)


def network(first=False):
    x = images(3, dtype=jnp.float64)
    apply, params = linen(ResNet(3, (1, 1), first=first), x)
    statistics = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.at[0].set(0.0) if "mean" in str(path[-1]) else leaf, apply.args[0]
    )
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.at[0].set(0.0) if leaf.ndim == 1 and "bias" in str(path[-1]) else leaf, dead(params)
    )
    return jax.tree_util.Partial(apply.func, statistics), params, x


def derivatives(function, params, tangent):
    """Gradient, and Hessian times `tangent` (forward over reverse), of Σ f²."""
    gradient = jax.grad(lambda p: jnp.sum(function(p) ** 2))
    return jax.jvp(gradient, (params,), (tangent,))


def close(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-8 * max(1.0, float(np.abs(b).max())))


@pytest.mark.parametrize("first", [False, True])
def test_features_have_the_derivatives_of_apply(first):
    with jax.enable_x64(True):
        apply, params, x = network(first)
        program = read(apply, params, x)
        activations = program.features(params, x)[1]
        assert any((np.asarray(a)[..., 0] == 0).all() for name, a in activations.items() if name != "input")
        tangent = randomize(params, 7)
        close(
            derivatives(lambda p: program.features(p, x)[0], params, tangent),
            derivatives(lambda p: apply(p, x), params, tangent),
        )


def test_the_folded_network_has_the_derivatives_of_the_same_network_without_norms():
    with jax.enable_x64(True):
        apply, params, x = network()
        program = read(apply, params, x)
        folded = program.fold(params)
        tangent = randomize(folded, 7)
        close(
            derivatives(lambda p: program.folded(p, x), folded, tangent),
            derivatives(lambda p: without_norms(p, x), folded, tangent),
        )
        close(
            derivatives(lambda x: program.folded(folded, x), x, randomize(x, 8)),
            derivatives(lambda x: apply(params, x), x, randomize(x, 8)),
        )


def without_norms(params, x):
    """The folded network written by hand."""

    def conv(p, x, stride=1):
        y = jax.lax.conv_general_dilated(
            x, p["kernel"], (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y + p["bias"][None, None, None]

    x = jax.nn.relu(conv(params["Conv_0"], x))
    for i, stride in enumerate((1, 2)):
        block = params[f"Block_{i}"]
        hidden = conv(block["Conv_1"], jax.nn.relu(conv(block["Conv_0"], x, stride)))
        x = jax.nn.relu(hidden + (conv(block["Conv_2"], x, stride) if stride > 1 else x))
    return x.mean((1, 2)) @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"][None]


def test_relu_at_zero_has_the_gradient_zero():
    def apply(params, x):
        return jax.nn.relu(x @ params["w"]) @ params["v"]

    params, x = {"w": jnp.zeros((4, 3)), "v": jnp.ones((3, 2))}, images(2, (4,))
    program = read(apply, params, x)
    gradient = jax.grad(lambda p: jnp.sum(program.features(p, x)[0]))(params)
    assert not gradient["w"].any()


def test_derivatives_of_the_networks_own_are_kept():
    @jax.custom_vjp
    def clipped(x):
        return x

    clipped.defvjp(lambda x: (x, None), lambda _, g: (jnp.clip(g, -0.1, 0.1),))

    def apply(params, x):
        return clipped(x @ params["w"] + params["b"][None]) * 3.0

    params, x = randomize({"w": jnp.zeros((4, 3)), "b": jnp.zeros(3)}), images(2, (4,))
    program = read(apply, params, x)
    assert program.layers[0].bias == ("b",)
    close(
        jax.grad(lambda p: jnp.sum(program.features(p, x)[0]))(params), jax.grad(lambda p: jnp.sum(apply(p, x)))(params)
    )
    offset = {"w": jnp.zeros((2, 3))}
    gradient = jax.grad(lambda o: jnp.sum(program.features(params, x, offsets=o)[0]))(offset)["w"]
    np.testing.assert_allclose(gradient, 0.1, rtol=1e-6)
