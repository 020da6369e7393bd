"""The estimate of a sweep's cost, against operations counted by hand."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import pytest

from configs import default
from prunegen_jax.compute.operations import count_operations
from prunegen_jax.runs import points as sweeps
from prunegen_jax.runs.estimate import duration, estimate


def test_operations_of_a_convolution_and_a_matrix_product():
    def function(kernel, weights, images):
        hidden = jax.lax.conv_general_dilated(
            images, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2
        )
        return jax.jit(jax.nn.relu)(hidden).reshape(3, -1) @ weights

    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((3, 3, 2, 8), (128, 10), (3, 8, 8, 4))]
    convolution = 3 * 4 * 4 * 8 * (2 * 3 * 3 * 2)  # every output of 4 by 4 by 8 sums 3 · 3 · 2 products
    assert count_operations(function, *shapes) == convolution + 2 * 3 * 128 * 10


def test_estimate_of_a_sweep():
    config = default.get_config()
    config.data.train_size, config.model = 100, {"name": "mlp", "width": 20}
    config.train.max_epochs, config.train.batch_size = 7, 50
    config.sweep.axes = (("model.width", (20, 30)), ("train.max_updates", (4, 1000)))
    config.measures.names = ("prunability", "hessian_trace")
    config.measures.options = {"hessian_trace": {"subset": 10}}
    passes = {width: 2 * (64 * width + width * width + width * 10) for width in (20, 30)}  # of one example
    training = sum(3 * 100 * flops * (2 + 7) for flops in passes.values())  # 4 updates are 2 epochs
    measuring = sum(2 * 100 * flops * (50 + 250 * 0.1) for flops in passes.values())
    words = estimate(sweeps.points(config), config.measures.names, config)
    found = [float(number) for number in re.findall(r"[\d.]+e[+-]\d+", words)]
    assert words.startswith("4 networks to train, at most")
    assert found == pytest.approx([training, measuring], rel=0.05)
    assert training + measuring < 1e12 and ": less than a second at 1 TFLOP/s, without compilation" in words
    config.data.train_size, config.train.max_epochs = 1000, 70
    config.sweep.axes, config.measures.options = (("model.width", (3000,)),), {}
    flops = 2 * (64 * 3000 + 3000**2 + 3000 * 10)
    seconds = 1000 * flops * (3 * 70 + 2 * 150) / 1e12
    assert seconds > 1 and f": {seconds:.0f} s at 1 TFLOP/s" in estimate(
        sweeps.points(config), config.measures.names, config
    )


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "less than a second"), (1.2, "1 s"), (119, "119 s"), (130, "2 min"), (9000, "2 h")]
)
def test_duration(seconds, words):
    assert duration(seconds) == words
