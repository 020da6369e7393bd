"""Further orders of pruning against their definitions written as loops in NumPy, and against smaller networks."""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from prunegen_jax import pruning
from prunegen_jax.measures import measure
from prunegen_jax.networks.reading import read
from prunegen_jax.types import Dataset, NotApplicableError, TrainedModel
from tests.support.pruning_cases import G1, G1_WEIGHTS, logistic

SIZES = (6, 11, 9, 3)


def mlp(params, inputs):
    hidden = inputs
    for name in ("a", "b"):
        hidden = jax.nn.relu(hidden @ params[name]["kernel"] + params[name]["bias"][None])
    return hidden @ params["c"]["kernel"] + params["c"]["bias"][None]


def problem(seed, *, ties=False):
    """A network of three layers as NumPy arrays, and inputs with a feature that is always zero; labels it fits well."""
    rng = np.random.default_rng(seed)
    params = {}
    for name, (n, c) in zip("abc", itertools.pairwise(SIZES), strict=True):
        kernel = rng.normal(size=(n, c))
        if ties:  # few magnitudes, many zeros
            kernel = np.round(kernel) / 2
        params[name] = {"kernel": kernel.astype(np.float32), "bias": (0.3 * rng.normal(size=c)).astype(np.float32)}
    inputs = rng.normal(size=(50, SIZES[0])).astype(np.float32)
    inputs[:, 2] = 0
    if ties:
        inputs[:, 3] = inputs[:, 4]
    labels = np.argmax(forward(params, inputs)[0] + 0.5 * rng.normal(size=(50, 3)), axis=1)
    return params, Dataset(jnp.asarray(inputs), jnp.asarray(labels, jnp.int32))


def forward(params, inputs):
    """Logits in float64, and what each layer gets."""
    hidden, seen = np.asarray(inputs, np.float64), {}
    for name in "abc":
        seen[name] = hidden
        hidden = hidden @ np.asarray(params[name]["kernel"], np.float64) + np.asarray(params[name]["bias"], np.float64)
        hidden = hidden if name == "c" else np.maximum(hidden, 0)
    return hidden, seen


def loss_of(logits, data):
    logits = logits - logits.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), np.asarray(data.labels)]))


def smallest(losses, limit):
    """The index of the first loss that passes; none is so close to the limit that rounding decides."""
    index = next(i for i, loss in enumerate(losses) if loss <= limit)
    assert all(abs(loss / limit - 1) > 1e-5 for loss in losses[:index])
    return index


def with_kernels(params, kernels):
    return {name: {**layer, "kernel": kernels[name]} for name, layer in params.items()}


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_input_norm_order_is_its_definition(seed, ties):
    params, data = problem(seed, ties=ties)
    logits, seen = forward(params, data.inputs)
    norms = {name: [math.sqrt(sum(x * x for x in column)) for column in seen[name].T] for name in seen}

    def pruned(j):
        kernels, kept = {}, 0
        for name, layer in params.items():
            kernel = np.zeros_like(layer["kernel"])
            n, outputs = kernel.shape
            k = (n * j + 500) // 1000
            for c in range(outputs):
                rank = sorted(range(n), key=lambda i: (abs(float(layer["kernel"][i, c])) * norms[name][i], i))
                for i in rank[n - k :]:
                    kernel[i, c] = layer["kernel"][i, c]
                kept += k
            kernels[name] = kernel
        return loss_of(forward(with_kernels(params, kernels), data.inputs)[0], data), kept

    limit = 1.1 * loss_of(logits, data)
    curve = [pruned(j) for j in range(1001)]
    j = smallest([loss for loss, _ in curve], limit)
    found = pruning.input_norm_prunability(mlp, params, data)
    assert (found.fraction, found.kept, found.prunable) == (j / 1000, curve[j][1], 6 * 11 + 11 * 9 + 9 * 3)
    assert found.loss == pytest.approx(curve[j][0], rel=1e-5)
    assert 0 < j < 1000


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("block", [2, 4, 5])
def test_blocks_keep_the_largest_of_every_block(block, ties):
    """Of 6, 11 and 9 inputs the last block is short: it keeps at most as many as the others."""
    params, data = problem(1, ties=ties)

    def pruned(n):
        kernels, kept = {}, 0
        for name, layer in params.items():
            kernel = np.zeros_like(layer["kernel"])
            inputs, outputs = kernel.shape
            for c in range(outputs):
                for start in range(0, inputs, block):
                    members = list(range(start, min(start + block, inputs)))
                    stay = sorted(members, key=lambda i: (abs(float(layer["kernel"][i, c])), i))
                    for i in stay[max(0, len(members) - n) :] if n else []:
                        kernel[i, c] = layer["kernel"][i, c]
                        kept += 1
            kernels[name] = kernel
        return loss_of(forward(with_kernels(params, kernels), data.inputs)[0], data), kept

    curve = [pruned(n) for n in range(block + 1)]
    for beta in (0.1, 0.5, 2.0):
        n = smallest([loss for loss, _ in curve], (1 + beta) * loss_of(forward(params, data.inputs)[0], data))
        found = pruning.block_prunability(mlp, params, data, block=block, beta=beta)
        assert (found.fraction, found.kept) == (n / block, curve[n][1])
    assert curve[-1][1] == found.prunable


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_channels_are_those_of_a_network_without_them(seed, ties, scope):
    """The loss of a smaller network, from which rows, columns and biases are taken out."""
    params, data = problem(seed, ties=ties)
    norms = {name: np.abs(params[name]["kernel"]).astype(np.float64).sum(axis=0) for name in "ab"}
    ranked = {name: sorted(range(len(n)), key=lambda c: (n[c], c)) for name, n in norms.items()}
    together = sorted(((float(norms[name][c]), i, c) for i, name in enumerate("ab") for c in range(len(norms[name]))))

    def stay(j):
        if scope == "layer":
            return {name: sorted(r[len(r) - (len(r) * j + 500) // 1000 :]) for name, r in ranked.items()}
        chosen = together[20 - (20 * j + 500) // 1000 :]
        return {name: sorted(c for _, i, c in chosen if "ab"[i] == name) for name in "ab"}

    def pruned(j):
        a, b = (np.array(c, int) for c in stay(j).values())
        layers = {
            "a": {"kernel": params["a"]["kernel"][:, a], "bias": params["a"]["bias"][a]},
            "b": {"kernel": params["b"]["kernel"][np.ix_(a, b)], "bias": params["b"]["bias"][b]},
            "c": {"kernel": params["c"]["kernel"][b], "bias": params["c"]["bias"]},
        }
        return loss_of(forward(layers, data.inputs)[0], data), len(a) + len(b), 7 * len(a) + 12 * len(b)

    curve = [pruned(j) for j in range(1001)]
    for beta in (0.1, 1.0):
        j = smallest([loss for loss, *_ in curve], (1 + beta) * loss_of(forward(params, data.inputs)[0], data))
        found = pruning.channel_prunability(mlp, params, data, scope=scope, beta=beta)
        assert (found.fraction, found.kept, found.prunable) == (curve[j][1] / 20, curve[j][2], 7 * 11 + 12 * 9)
        assert found.note == f"{curve[j][1]} of 20 channels"
        assert found.loss == pytest.approx(curve[j][0], rel=1e-5)


def normalized(statistics, params, inputs):
    hidden = inputs @ params["kernel"] + params["bias"][None]
    hidden = (hidden - statistics["mean"][None]) * lax.rsqrt(statistics["var"][None] + 1e-5)
    hidden = jax.nn.relu(hidden * params["scale"][None] + params["shift"][None])
    return hidden @ params["head"]


def test_channels_count_batch_norm():
    """The measure folds it, so that a channel goes with its shift and its norm counts the scale; else it is refused."""
    rng = np.random.default_rng(0)
    statistics = {"mean": rng.normal(size=8), "var": rng.uniform(0.1, 3, size=8)}
    params = {"kernel": rng.normal(size=(5, 8)), "head": rng.normal(size=(8, 3)), "bias": rng.normal(size=8),
              "scale": rng.normal(size=8), "shift": rng.normal(size=8)}  # fmt: skip
    statistics, params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (statistics, params))
    inputs = jnp.asarray(rng.normal(size=(40, 5)), jnp.float32)
    apply = jax.tree_util.Partial(normalized, statistics)
    data = Dataset(inputs, jnp.argmax(apply(params, inputs), axis=1).astype(jnp.int32))
    w, s = (jax.tree.map(lambda x: np.asarray(x, np.float64), tree) for tree in (params, statistics))
    scale = w["scale"] / np.sqrt(s["var"] + 1e-5)
    norms = np.abs(w["kernel"] * scale).sum(axis=0)

    def loss_with(keep):
        hidden = np.asarray(inputs) @ w["kernel"][:, keep] + (w["bias"] - s["mean"])[keep]
        hidden = np.maximum(hidden * scale[keep] + w["shift"][keep], 0)
        return loss_of(hidden @ w["head"][keep], data)

    losses = [loss_with(np.argsort(norms)[8 - k :]) for k in range(9)]
    model = TrainedModel(apply, params, data)
    for beta in (0.1, 1.0):
        options = {"prunability_channels": {"beta": beta}}
        found = measure(model, ["prunability_channels"], options=options)["prunability_channels"]
        assert found.value == smallest(losses, (1 + beta) * losses[-1]) / 8
    with pytest.raises(NotApplicableError, match="an affine step such as a batch norm follows kernel: fold it first"):
        pruning.channel_prunability(apply, params, data)


def looped(params, inputs):
    hidden, _ = lax.scan(lambda h, w: (jnp.tanh(h @ w), None), inputs, params["loop"])
    return hidden @ params["head"]


def test_networks_without_what_an_order_needs():
    with pytest.raises(NotApplicableError, match="all layers compute the logits"):
        pruning.channel_prunability(logistic, G1_WEIGHTS, G1)
    params = {"loop": jnp.ones((2, 4, 4)), "head": jnp.ones((4, 3))}
    data = Dataset(jnp.ones((5, 4)), jnp.zeros(5, jnp.int32))
    names = ["prunability_input_norm", "prunability_blocks", "prunability_channels"]
    for name, found in measure(TrainedModel(looped, params, data), names).items():
        assert found.status == "not_applicable", name
        assert found.reason.startswith("the layer of loop cannot be read: loop: it is used inside a loop")
    for function in (pruning.input_norm_prunability, pruning.block_prunability, pruning.channel_prunability):
        with pytest.raises(ValueError, match="prunable='all': this order is for kernels only"):
            function(logistic, G1_WEIGHTS, G1, prunable="all")
        with pytest.raises(ValueError, match="selects none of the kernels: kernel"):
            function(logistic, G1_WEIGHTS, G1, prunable=lambda path, leaf: False)
        # the head alone, with a function
    head = pruning.input_norm_prunability(looped, params, data, prunable=lambda path, leaf: path == ("head",))
    assert head.prunable == 12
    with pytest.raises(ValueError, match="block=0 must be at least 1"):
        pruning.block_prunability(logistic, G1_WEIGHTS, G1, block=0)
    with pytest.raises(ValueError, match="scope='output' is unknown; choose among global, layer"):
        pruning.channel_prunability(logistic, G1_WEIGHTS, G1, scope="output")


def test_a_bias_of_two_layers_is_not_the_channels_own():
    def shared(params, inputs):
        hidden = jax.nn.relu(inputs @ params["a"] + params["bias"][None])
        return jax.nn.relu(hidden @ params["b"] + params["bias"][None]) @ params["c"]

    params = {"a": jnp.ones((4, 4)), "b": jnp.ones((4, 4)), "c": jnp.ones((4, 3)), "bias": jnp.ones(4)}
    assert read(shared, params, jnp.ones((2, 4))).layers[0].bias == ("bias",)
    with pytest.raises(NotApplicableError, match="two layers share a bias"):
        pruning.channel_prunability(shared, params, Dataset(jnp.ones((5, 4)), jnp.zeros(5, jnp.int32)))
