"""The same network with convolutions in another form: equal results and derivatives, and no transposes in between."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from prunegen_jax.compute.planes import choose_form, with_convolutions

SHAPE = (6, 8, 8, 3)


@pytest.fixture(autouse=True)
def promotion_of_other_peoples_networks():
    """Flax's own layers mix types and ranks."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


class Residual(nn.Module):
    """Residual sums, pools, concatenation, grouped and dilated convolutions, dropout behind a condition."""

    activation: object = nn.relu

    @nn.compact
    def __call__(self, x):
        norm = functools.partial(nn.BatchNorm, use_running_average=False)
        x = self.activation(norm()(nn.Conv(8, (3, 3), use_bias=False)(x)))
        y = norm()(nn.Conv(8, (3, 3), strides=(2, 2), padding=((1, 1), (0, 2)))(x))
        x = self.activation(y + nn.Conv(8, (1, 1), strides=(2, 2))(x))
        x = jnp.concatenate([x, nn.max_pool(x, (3, 3), padding="SAME"), nn.avg_pool(x, (1, 1))], axis=-1)
        x = nn.Conv(24, (3, 3), feature_group_count=4)(x)
        x = self.activation(nn.Conv(8, (3, 3), kernel_dilation=(2, 2))(x))
        x = lax.cond(x[0, 0, 0, 0] > 9.0, lambda x: 2.0 * x, lambda x: x + 1.0, x)
        x = nn.Conv(12, (2, 2), padding="VALID")(x[:, ::-1, 1:])
        x = jnp.pad(x, ((0, 0), (1, 0), (0, 1), (0, 0)))
        x = x.transpose(0, 3, 1, 2).mean(axis=(2, 3))
        return nn.Dense(5)(nn.LayerNorm()(x))


class Sequential(nn.Module):
    """Convolutions, batch norm and ReLU alone."""

    @nn.compact
    def __call__(self, x):
        for width in (8, 8, 8):
            x = nn.relu(nn.BatchNorm(use_running_average=False)(nn.Conv(width, (3, 3))(x)))
        return x.mean(axis=(1, 2))


def network(module):
    variables = module.init(jax.random.key(0), jnp.zeros(SHAPE))
    params = jax.tree.map(lambda w: jax.random.normal(jax.random.key(w.size), w.shape) * 0.3, variables["params"])
    rest = {name: value for name, value in variables.items() if name != "params"}

    def apply(params, x):
        return module.apply({"params": params, **rest}, x, mutable=["batch_stats"])[0]

    return apply, params, jax.random.normal(jax.random.key(1), SHAPE)


def close(a, b, tolerance=2e-5):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * max(1.0, float(jnp.abs(y).max())))


@pytest.mark.parametrize(
    ("module", "form"), [(Residual(), "planes"), (Residual(activation=nn.gelu), "planes"), (Sequential(), "patches")]
)
def test_results_and_derivatives_are_those_of_the_original(module, form):
    apply, params, x = network(module)
    other = with_convolutions(apply, form)
    with jax.default_matmul_precision("highest"):
        close(jax.jit(other)(params, x), jax.jit(apply)(params, x))

        def loss(apply, params, x):
            return jnp.square(apply(params, x)).sum()

        gradients = [jax.jit(jax.grad(functools.partial(loss, f), argnums=(0, 1)))(params, x) for f in (other, apply)]
        close(*gradients)
        products = [
            jax.jit(lambda p, f=f: jax.jvp(jax.grad(functools.partial(loss, f)), (p, x), (p, x))[1])(params)
            for f in (other, apply)
        ]
        close(*products, tolerance=1e-4)


@pytest.mark.parametrize("form", ["planes", "patches"])
def test_it_goes_under_vmap(form):
    apply, params, x = network(Residual())
    two = jax.tree.map(lambda w: jnp.stack([w, -w]), params)
    other = with_convolutions(apply, form)
    found = jax.jit(jax.vmap(other, in_axes=(0, None)))(two, x)
    close(found, jnp.stack([apply(params, x), apply(jax.tree.map(jnp.negative, params), x)]))


def test_the_gradient_at_exactly_zero_stays_zero():
    """ReLU's own derivative at 0 is 0; that of a maximum with zero would be 1/2."""
    kernel, x = jnp.zeros((3, 3, 3, 4)), jnp.ones(SHAPE)

    def apply(kernel, x):
        return nn.relu(lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")))

    gradient = jax.grad(lambda kernel: with_convolutions(apply, "planes")(kernel, x).sum())(kernel)
    assert float(jnp.abs(gradient).max()) == 0.0


@pytest.mark.parametrize("numbers", [("NCHW", "OIHW", "NCHW"), ("HWNC", "IOHW", "NHWC")])
def test_any_order_of_dimensions(numbers):
    shape = {"N": 5, "C": 3, "H": 7, "W": 6}
    x = jax.random.normal(jax.random.key(0), tuple(shape[c] for c in numbers[0]))
    kernel_shape = {"O": 4, "I": 3, "H": 3, "W": 2}
    kernel = jax.random.normal(jax.random.key(1), tuple(kernel_shape[c] for c in numbers[1]))

    def apply(kernel, x):
        return jnp.tanh(lax.conv_general_dilated(x, kernel, (2, 1), ((0, 1), (1, 0)), dimension_numbers=numbers))

    for form in ("planes", "patches"):
        close(with_convolutions(apply, form)(kernel, x), apply(kernel, x))


def test_nothing_is_transposed_between_layers():
    """Beyond the input, and the small pooled features, all arrays stay in the layout of the convolutions."""
    apply, params, x = network(Sequential())

    def loss(params, x):
        return with_convolutions(apply, "planes")(params, x).sum()

    program = jax.jit(jax.grad(loss)).lower(params, x).as_text()
    shapes = [dims.split("x")[:-1] for dims in re.findall(r"transpose.*-> tensor<([^>]*)>", program)]
    images = [shape for shape in shapes if len(shape) == 4 and "8" in shape[:1] + shape[3:]]  # 8 channels, not 3
    assert not [shape for shape in images if np.prod([int(n) for n in shape]) >= 8 * np.prod(SHAPE[:3])]


def test_a_program_without_convolutions_is_left_alone():
    def apply(params, x):
        return x.reshape(len(x), -1) @ params

    params, x = jnp.ones((192, 2)), jnp.ones(SHAPE)
    assert str(jax.make_jaxpr(with_convolutions(apply, "planes"))(params, x)) == str(jax.make_jaxpr(apply)(params, x))


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="convolutions='fft' is unknown; choose among auto, planes, patches, xla"):
        with_convolutions(lambda x: x, "fft")


@pytest.mark.parametrize(
    ("backend", "alone", "vmapped"),
    [("cpu", "planes", "planes"), ("gpu", "xla", "planes"), ("tpu", "xla", "patches")],
)
def test_the_form_of_each_backend(backend, alone, vmapped):
    """As measured on a CPU and a GPU."""
    assert (choose_form(backend=backend), choose_form(vmapped=True, backend=backend)) == (alone, vmapped)
    assert choose_form("patches", backend=backend) == "patches"
    with pytest.raises(ValueError, match="convolutions='plains' is unknown; choose among auto, planes, patches, xla"):
        choose_form("plains", backend=backend)
