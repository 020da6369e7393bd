"""The estimate of a sweep's cost, against operations counted by hand."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import pytest

from configs import default
from prunegen_jax.compute.operations import count_operations
from prunegen_jax.runs import points as sweeps
from prunegen_jax.runs.estimate import estimate


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
    found = [float(number) for number in re.findall(r"[\d.]+e[+-]\d+|(?<=: )[\d.e-]+", words)]
    assert words.startswith("4 networks to train, at most")
    assert found == pytest.approx([training, measuring, (training + measuring) / 3.6e15], rel=0.05)
