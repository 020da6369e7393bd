"""What cannot be read has a named reason, and is a kernel all the same."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from prunegen_jax.networks.reading import read
from tests.support.reading_cases import Transformer, images, linen, randomize, tokens

SQUARE = {"w": jnp.zeros((6, 6))}


def twice(params, x):
    return jax.nn.relu(x @ params["w"]) @ params["w"]


def standardised(params, x):
    kernel = params["w"]
    return x @ ((kernel - kernel.mean(0, keepdims=True)) / kernel.std(0, keepdims=True))


def tied(params, x):
    return (x @ params["w"]) * jnp.sum(params["w"])


def sliced(params, x):
    return x @ params["w"][:, :3]


def low_rank(params, x):
    return x @ (params["w"] @ params["w"])


def batched(params, x):
    return jnp.einsum("ngi,gio->ngo", x.reshape(-1, 2, 3), params["w"].reshape(2, 3, 6)).reshape(-1, 12)


def looped(params, x):
    return lax.fori_loop(0, 2, lambda _, h: jax.nn.relu(h @ params["w"]), x)


def while_looped(params, x):
    return lax.while_loop(lambda h: jnp.sum(h) > 0, lambda h: -jnp.abs(h @ params["w"]), x)


def conditional(params, x):
    return lax.cond(jnp.sum(x) > 0, lambda: x @ params["w"], lambda: x)


@jax.custom_vjp
def _product(x, w):
    return jax.nn.relu(x @ w)


_product.defvjp(lambda x, w: (_product(x, w), (x, w)), lambda kept, g: (g @ kept[1].T, kept[0].T @ g))


def own_derivative(params, x):
    return _product(x, params["w"])


PROBLEMS = {
    twice: "used 2 times",
    standardised: "computed from it",
    tied: "also read by",
    sliced: "only a part",
    low_rank: "computed from it",
    batched: "in batches",
    looped: r"inside a loop or conditional \(scan\)",
    while_looped: r"inside a loop or conditional \(while\)",
    conditional: r"inside a loop or conditional \(cond\)",
}


@pytest.mark.parametrize("apply", PROBLEMS, ids=lambda apply: apply.__name__)
def test_reasons(apply):
    params, x = randomize(SQUARE), images(4, (6,))
    program = read(apply, params, x)
    assert program.kernels == (("w",),) and program.layers == () and not program.sequential
    with pytest.raises(AssertionError, match="w: .*" + PROBLEMS[apply]):
        raise AssertionError(program.problems[("w",)])
    logits, activations = jax.jit(program.features)(params, x)
    np.testing.assert_allclose(logits, jax.jit(apply)(params, x), rtol=1e-5, atol=1e-5)
    assert list(activations) == ["input"] and program.folded is None


def test_inside_a_function_with_its_own_derivative():
    params, x = randomize(SQUARE), images(4, (6,))
    program = read(own_derivative, params, x)
    (layer,) = program.layers
    assert layer.matrix_shape == (6, 6) and not program.problems
    assert "its own derivative" in program.no_activation[("w",)]
    np.testing.assert_allclose(program.features(params, x)[0], own_derivative(params, x))


def test_a_problem_of_one_kernel_leaves_the_others():
    def apply(params, x):
        return twice(params, x) @ params["v"] * params["scale"][None]

    params, x = randomize({**SQUARE, "v": jnp.zeros((6, 3)), "scale": jnp.zeros(3)}), images(4, (6,))
    program = read(apply, params, x)
    assert [layer.name for layer in program.layers] == ["v"] and list(program.problems) == [("w",)]
    assert program.difference(params, x) < 1e-5


def test_scanned_and_tied_transformer():
    x = tokens()
    apply, params = linen(Transformer(2, scanned=True, tied=True), x)
    program = read(apply, params, x)
    names = {"/".join(path) for path in program.kernels}
    inside = {f"blocks/attention/{name}/kernel" for name in ("query", "key", "value", "out")}
    assert names == inside | {"blocks/up/kernel", "blocks/down/kernel", "embed/embedding"}
    assert set(program.problems) == set(program.kernels)
    assert "gather" in program.problems[("embed", "embedding")]
    assert all("scan" in reason for path, reason in program.problems.items() if path[0] == "blocks")
    np.testing.assert_allclose(jax.jit(program.features)(params, x)[0], jax.jit(apply)(params, x), atol=1e-5)


def test_a_merged_batch_axis_is_named():
    def apply(params, x):
        hidden = x.reshape(-1, 6) @ params["w"]
        return jax.nn.relu(hidden).reshape(x.shape[0], -1).sum(1, keepdims=True)

    program = read(apply, randomize(SQUARE), images(4, (5, 6)))
    assert [layer.name for layer in program.layers] == ["w"]
    assert "merged" in program.no_activation[("w",)]


def test_a_remat_and_nested_jits_are_looked_into():
    @jax.checkpoint
    @jax.jit
    def apply(params, x):
        return jax.jit(lambda h: jax.nn.relu(h @ params["w"]))(x)

    params, x = randomize(SQUARE), images(4, (6,))
    program = read(apply, params, x)
    assert [layer.name for layer in program.layers] == ["w"]


def test_misuse():
    params, x = randomize(SQUARE), images(4, (6,))
    program = read(twice, params, x)
    with pytest.raises(ValueError, match="structure"):
        program.features({"v": params["w"]}, x)
    with pytest.raises(ValueError, match="unknown activation other"):
        program.features(params, x, offsets={"other": x})
    with pytest.raises(TypeError, match="must return one array"):
        read(lambda params, x: (x, x), params, x)
    with pytest.raises(ValueError, match="no offset can be added to inputs of int32"):
        apply, params = linen(Transformer(), tokens())
        read(apply, params, tokens()).features(params, tokens(), offsets={"input": jnp.ones((5, 6))})
