"""What folds and what does not, in architectures that come with traps."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from prunegen_jax.networks.reading import read
from tests.support.reading_cases import Norm, images, linen

Conv = functools.partial(nn.Conv, use_bias=False)


class Gated(nn.Module):
    """Squeeze and excitation: the gate ends the chain behind the convolution."""

    @nn.compact
    def __call__(self, x):
        x = Norm()(Conv(4, (3, 3))(x))
        gate = nn.sigmoid(nn.Dense(4)(nn.relu(nn.Dense(2)(x.mean((1, 2))))))
        return nn.Dense(3)(nn.relu(x * gate[:, None, None]).mean((1, 2)))


class Dense(nn.Module):
    """Concatenations before each norm: no norm stands behind one layer alone."""

    @nn.compact
    def __call__(self, x):
        x = Conv(4, (3, 3))(x)
        for _ in range(2):
            x = jnp.concatenate([x, Conv(4, (3, 3))(nn.relu(Norm()(x)))], axis=-1)
        return nn.Dense(3)(nn.relu(Norm()(x)).mean((1, 2)))


class Pools(nn.Module):
    """A norm behind a maximum does not commute with it, since its scale may be negative."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(Norm()(nn.max_pool(Conv(4, (3, 3))(x), (2, 2), (2, 2))))
        x = nn.relu(Norm()(nn.avg_pool(Conv(4, (3, 3))(x), (2, 2))))
        return nn.Dense(3)(nn.tanh(Norm()(nn.Dense(5)(x.reshape(x.shape[0], -1)))))


class Norms(nn.Module):
    """Norms by statistics of the example do not fold; two batch norms, one on the other, do."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.GroupNorm(2)(Conv(4, (3, 3))(x)))
        x = nn.relu(nn.InstanceNorm()(Conv(4, (3, 3))(x)))
        x = nn.leaky_relu(Norm()(Norm()(Conv(4, (3, 3))(x))))
        return nn.Dense(3)(nn.PReLU()(Conv(4, (3, 3))(x)).mean((1, 2)))


class OneChannel(nn.Module):
    """Axes of size 1 can be mistaken for each other."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(Norm()(Conv(1, (3, 3))(x)))
        x = nn.relu(Norm()(Conv(1, (8, 8), padding="VALID")(x)))
        return Norm()(nn.Dense(3)(x.reshape(x.shape[0], -1)))


class Line(nn.Module):
    """One spatial axis, circular padding."""

    @nn.compact
    def __call__(self, x):
        x = Conv(4, (5,), strides=2, padding="CIRCULAR")(x.reshape(x.shape[0], 64, 3))
        return nn.Dense(3)(nn.relu(Norm()(x)).mean(1))


class BatchStatistics(nn.Module):
    """Normalised by the batch, as in training: depends on the input."""

    @nn.compact
    def __call__(self, x):
        x = Conv(4, (3, 3))(x)
        x = (x - x.mean((0, 1, 2), keepdims=True)) * jax.lax.rsqrt(x.var((0, 1, 2), keepdims=True) + 1e-5)
        scale = self.param("scale", nn.initializers.ones, (4,))
        return nn.Dense(3)(nn.relu(x * scale[None, None, None]).mean((1, 2)))


class BatchGate(nn.Module):
    """A scale of each channel that is the same for all examples, and yet depends on the input."""

    @nn.compact
    def __call__(self, x):
        gate = nn.Dense(4)(x.mean((0, 1, 2), keepdims=True))
        return nn.Dense(3)(nn.relu(Conv(4, (3, 3))(x) * gate).mean((1, 2)))


FOLDED = {
    Gated: ["Conv_0/kernel"],
    Dense: [],
    Pools: ["Dense_1/kernel"],  # Flax counts the outer of two nested calls first
    Norms: ["Conv_2/kernel"],
    OneChannel: ["Conv_0/kernel", "Conv_1/kernel", "Dense_0/kernel"],
    Line: ["Conv_0/kernel"],
    BatchStatistics: [],
    BatchGate: [],
}


@pytest.mark.parametrize("module", FOLDED, ids=lambda module: module.__name__)
@jax.numpy_dtype_promotion("standard")  # Flax's pooling mixes dtypes
def test_exactly_what_can_be_folded_is(module):
    x = images()
    apply, params = linen(module(), x)
    program = read(apply, params, x)
    assert len(program.layers) == len(program.kernels) and not program.problems
    merged = ("Dense_0", "kernel") if module is BatchGate else None  # its output has no batch axis
    assert list(program.no_activation) == ([merged] if merged else [])
    np.testing.assert_allclose(jax.jit(program.features)(params, x)[0], jax.jit(apply)(params, x), atol=1e-6)
    if not FOLDED[module]:
        assert program.folded is None
        return
    folded = program.fold(params)
    changed = [
        layer.name for layer in program.layers if not np.array_equal(_kernel(folded, layer), _kernel(params, layer))
    ]
    assert changed == FOLDED[module]
    assert program.difference(params, x) < 1e-5


def _kernel(params, layer):
    for name in layer.path:
        params = params[name]
    return params
