"""Orders of pruning within convolutions of any layout against loops in NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prunegen_jax.pruning import orders
from prunegen_jax.pruning.kernels import prunable_layers
from prunegen_jax.types import Dataset


def convolutions(params, inputs):
    """A strided, a grouped and a pointwise convolution in PyTorch's layout, then a product, its kernel on the left."""
    hidden = jnp.transpose(inputs, (0, 3, 1, 2))
    for name, options in CONVOLUTIONS.items():
        hidden = lax.conv_general_dilated(hidden, params[name], dimension_numbers=("NCHW", "OIHW", "NCHW"), **options)
        hidden = jax.nn.relu(hidden)
    return jax.vmap(lambda x: params["head"] @ x.mean(axis=(1, 2)))(hidden)


CONVOLUTIONS = {
    "one": {"window_strides": (2, 1), "padding": ((1, 0), (1, 1))},
    "two": {"window_strides": (1, 1), "padding": "VALID", "feature_group_count": 2},
    "three": {"window_strides": (1, 1), "padding": ((0, 0), (0, 0))},
}


def conv_problem(n=23):
    rng = np.random.default_rng(0)
    shapes = {"one": (4, 3, 3, 3), "two": (6, 2, 2, 2), "three": (5, 6, 1, 1), "head": (3, 5)}
    params = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    inputs = jnp.asarray(rng.normal(size=(n, 5, 6, 3)), jnp.float32)
    logits = convolutions(params, inputs)
    return params, Dataset(inputs, jnp.argmax(logits + rng.normal(size=logits.shape).astype(np.float32), axis=1))


def literal_squares(inputs, kernel, stride, padding, groups):
    """Σ x² over examples and positions for each entry of `kernel [O, I, h, w]`, by loops; `inputs [n, C, H, W]`."""
    outputs, channels, height, width = kernel.shape
    padded = np.pad(np.asarray(inputs, np.float64), ((0, 0), (0, 0), *padding))
    sums = np.zeros(kernel.shape)
    for o, i, y, x in np.ndindex(kernel.shape):
        channel = o // (outputs // groups) * channels + i
        rows = padded[:, channel, y : padded.shape[2] - height + 1 + y : stride[0]]
        sums[o, i, y, x] = np.square(rows[:, :, x : padded.shape[3] - width + 1 + x : stride[1]]).sum()
    return sums


def test_squared_inputs_of_convolutions_in_any_layout(monkeypatch):
    """By loops; 23 examples in batches of 7, the last of which repeats an example."""
    monkeypatch.setattr(orders, "default_batch_size", lambda data: 7)
    params, data = conv_problem()
    program, layers = prunable_layers("kernels", convolutions, params, data)
    squares = orders.squared_inputs(program, params, data, layers)
    hidden = np.transpose(np.asarray(data.inputs), (0, 3, 1, 2))
    for name, options in CONVOLUTIONS.items():
        padding = ((0, 0), (0, 0)) if options["padding"] == "VALID" else options["padding"]
        groups = options.get("feature_group_count", 1)
        expected = literal_squares(hidden, params[name], options["window_strides"], padding, groups)
        np.testing.assert_allclose(squares[(name,)], expected, rtol=1e-5)
        hidden = lax.conv_general_dilated(
            jnp.asarray(hidden), params[name], dimension_numbers=("NCHW", "OIHW", "NCHW"), **options
        )
        hidden = np.maximum(np.asarray(hidden), 0)
    expected = np.square(hidden.mean(axis=(2, 3), dtype=np.float64)).sum(axis=0)
    np.testing.assert_allclose(squares[("head",)], np.broadcast_to(expected, (3, 5)), rtol=1e-5)


def test_orders_within_convolutions():
    """Input norms, blocks and channels of PyTorch's layout: what is kept at every bound, by loops."""
    params, data = conv_problem()
    program, layers = prunable_layers("kernels", convolutions, params, data)
    squares = orders.squared_inputs(program, params, data, layers)
    by_norm = dict(zip(sorted(params), orders.input_norm_scores(params, layers, squares).leaves, strict=True))
    by_block = dict(zip(sorted(params), orders.block_scores(params, layers, 4).leaves, strict=True))
    for name in CONVOLUTIONS:
        kernel = np.asarray(params[name], np.float64)
        outputs, channels, height, width = kernel.shape
        n = channels * height * width
        score = np.abs(kernel) * np.sqrt(squares[(name,)])
        for o in range(outputs):
            order = sorted(np.ndindex(height, width, channels), key=lambda at: score[o, at[2], at[0], at[1]])
            for j in (0, 1, 250, 499, 500, 900, 999, 1000):
                kept = order[n - (n * j + 500) // 1000 :]
                below = {at for at in order if by_norm[name][0, o, at[2], at[0], at[1]] < j}
                assert below == set(kept)
        for o, y, x in np.ndindex(outputs, height, width):
            for start in range(0, channels, 4):
                members = sorted(range(start, min(start + 4, channels)), key=lambda i: abs(kernel[o, i, y, x]))
                assert [int(by_block[name][0, o, i, y, x]) for i in members[::-1]] == list(range(len(members)))
