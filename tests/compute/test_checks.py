"""Wrong networks and data sets: each error says what to give instead."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from prunegen_jax import Dataset, TrainedModel, measure, prunability
from tests.support.adapter_cases import ConvNet, EquinoxDropout, dataset, linen_variables, nnx_net

PARAMS = {"w": jnp.ones((72, 3))}


def flat(params, inputs):
    return inputs.reshape(inputs.shape[0], -1) @ params["w"]


def torch_module():
    """A module as PyTorch has them, without PyTorch."""
    base = type("Module", (), {"__module__": "torch.nn.modules.module", "__call__": lambda self, x: x})
    return type("Net", (base,), {})()


@pytest.mark.parametrize(
    ("make", "advice"),
    [(ConvNet, "a Flax Linen module .*from_linen"), (lambda: nnx_net(0), "an NNX module .*from_nnx"),
     (lambda: EquinoxDropout(jax.random.key(0)), "an Equinox module .*from_equinox"),
     (torch_module, "a PyTorch module .*bring_your_own")],
)  # fmt: skip
def test_bare_modules(make, advice):
    with pytest.raises(ValueError, match=f"apply is {advice}"):
        TrainedModel(make(), PARAMS, dataset())
    with pytest.raises(ValueError, match=f"apply is {advice}"):
        prunability(make(), PARAMS, dataset())


def test_functions_that_equinox_wraps_are_functions():
    model = TrainedModel(eqx.filter_jit(flat), PARAMS, dataset())
    assert model.apply(PARAMS, dataset().inputs).shape == (12, 3)


def test_what_is_no_function():
    statistics = {"batch_stats": np.zeros(2)}
    for params in (PARAMS, jax.tree_util.Partial(flat, statistics)):  # the second: given in the wrong order
        with pytest.raises(TypeError, match="apply is dict, not a function"):
            TrainedModel(PARAMS, params, dataset())


@pytest.mark.parametrize(
    ("change", "message"),
    [({"labels": np.zeros(12)}, "labels are float64, not class numbers: .*for regression, pass a loss of your own"),
     ({"labels": np.zeros(12, bool)}, "labels are bool.*booleans are not class numbers"),
     ({"labels": np.eye(12, dtype=int)}, r"shape \(12, 12\); if they are one-hot, pass .*argmax"),
     ({"labels": np.zeros((12, 1), int)}, r"shape \(12, 1\), not \[N\]"),
     ({"labels": np.zeros(11, int)}, r"shape \(12, 6, 6, 2\), but there are 11 labels"),
     ({"labels": tuple(range(12))}, "labels must be an array, not a tuple: pass jnp.asarray"),
     ({"labels": np.full(12, 3)}, "labels lie between 3 and 3, but the network has 3 logits"),
     ({"labels": np.full(12, -1)}, "labels lie between -1 and -1")],
)  # fmt: skip
def test_wrong_labels(change, message):
    train = Dataset(np.asarray(dataset().inputs), change["labels"])
    with pytest.raises(ValueError, match=message):
        measure(TrainedModel(flat, PARAMS, train), ["parameter_norm"])
    with pytest.raises(ValueError, match=message):
        prunability(flat, PARAMS, train)


def test_lists_and_other_data_sets():
    for field in ("inputs", "labels"):
        with pytest.raises(ValueError, match=f"{field} must be an array, not a list: pass jnp.asarray"):
            Dataset(**{"inputs": np.zeros((2, 3)), "labels": np.zeros(2, int), field: [0, 1]})
    wrong = (((dataset().inputs, dataset().labels), "a tuple"), (dataset().inputs, "an array"))
    for data, kind in wrong:
        with pytest.raises(ValueError, match=rf"must be a Dataset, not {kind}: pass Dataset\(inputs, labels\)"):
            prunability(flat, PARAMS, data)
    none = Dataset(dataset().inputs[:0], dataset().labels[:0])
    for use in (lambda: prunability(flat, PARAMS, none), lambda: measure(TrainedModel(flat, PARAMS, none), "fast")):
        with pytest.raises(ValueError, match="the training set is empty"):
            use()


@pytest.mark.parametrize(
    ("change", "message"),
    [(lambda z: z[:, :1], r"returns \[2, 1\] for 2 examples, one logit each: .*jnp.stack"),
     (lambda z: z[:, 0], r"returns \[2\] for 2 examples, one logit each"),
     (lambda z: z[:, None], r"returns \[2, 1, 3\] for 2 examples, not logits \[n, K\]"),
     (lambda z: (z, z), "returns a tuple: it must return only the logits")],
)  # fmt: skip
def test_what_is_no_logits(change, message):
    with pytest.raises(ValueError, match=message):
        measure(TrainedModel(lambda params, x: change(flat(params, x)), PARAMS, dataset()), ["parameter_norm"])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_has_no_measures(value):
    """The network sets NaN to 0, as the maximum in a fused program of a CPU may: its logits are finite all the same."""
    forgiving = lambda params, x: jnp.nan_to_num(flat(params, x), posinf=0.0)  # noqa: E731
    train = dataset()
    inputs, weights = train.inputs.at[3, 0, 0, 0].set(value), {"w": PARAMS["w"].at[5, 1].set(value)}
    for params, data, name in (
        (PARAMS, Dataset(inputs, train.labels), "inputs"),
        (PARAMS, Dataset(np.asarray(inputs), train.labels), "inputs"),
        (weights, train, r"params \(w\)"),
    ):
        with pytest.raises(ValueError, match=f"^{name} must be finite, but NaN or infinity"):
            prunability(forgiving, params, data)
        for estimate in measure(TrainedModel(forgiving, params, data), ["prunability", "parameter_norm"]).values():
            assert estimate.status == "failed" and "must be finite" in estimate.reason


def test_inputs_of_the_wrong_type():
    kernel = {"kernel": jnp.ones((1, 1, 2, 3))}
    floats = lambda params, x: jax.lax.conv(x, params["kernel"].transpose(3, 2, 0, 1), (1, 1), "SAME").mean((2, 3))  # noqa: E731
    images = Dataset(np.zeros((12, 2, 6, 6), np.uint8), np.zeros(12, int))
    with pytest.raises(ValueError, match="inputs are uint8, but the network takes floats: pass Dataset.*mean, std"):
        measure(TrainedModel(floats, kernel, images), ["parameter_norm"])
    tokens = lambda params, x: jnp.take(params["w"], x, axis=0).mean(1)  # noqa: E731
    with pytest.raises(ValueError, match="inputs are float32, but the network takes integers"):
        measure(TrainedModel(tokens, PARAMS, Dataset(np.zeros((12, 5), np.float32), np.zeros(12, int))), "fast")


def test_what_from_linen_and_the_others_refuse():
    variables, train = linen_variables(0), dataset()
    for wrong, message in (
        ((ConvNet(), None), "variables is NoneType: a Linen module holds no parameters"),
        ((ConvNet(), variables["params"]), r"variables has no 'params' \(it has BatchNorm_0, Conv_0, Dense_0\)"),
        ((nnx_net(0), variables), r"from_linen takes a Flax Linen module, not an NNX module: use .*from_nnx"),
        ((flat, variables), "from_linen takes a Flax Linen module, not function"),
        ((ConvNet, variables), "from_linen takes a Flax Linen module, not the class ConvNet: create an instance"),
    ):
        with pytest.raises(ValueError, match=message):
            TrainedModel.from_linen(*wrong, train)
    with pytest.raises(ValueError, match="from_nnx takes an NNX module, not a Flax Linen module"):
        TrainedModel.from_nnx(ConvNet(), train)
    with pytest.raises(ValueError, match="from_equinox takes an Equinox module, not a PyTorch module: port"):
        TrainedModel.from_equinox(torch_module(), train)
    small = Dataset(train.inputs[..., :1], train.labels)
    advice = "Pass inputs of the shape that it was trained on and all of its variables"
    with pytest.raises(ValueError, match=rf"inputs float32\[2, 6, 6, 1\] \(ScopeParamShapeError.*{advice}"):
        TrainedModel.from_linen(ConvNet(), variables, small)
    for module in (NeedsDropout(), NeedsMode()):
        with pytest.raises(ValueError, match="cannot be called in evaluation mode on inputs float32.*call=..."):
            TrainedModel.from_linen(module, {"params": {}}, train)
    with pytest.raises(ValueError, match="one logit each"):
        TrainedModel.from_nnx(nnx.Linear(2, 1, rngs=nnx.Rngs(0)), Dataset(jnp.zeros((4, 2)), np.zeros(4, int)))


class NeedsDropout(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dropout(0.5, deterministic=False)(x)


class NeedsMode(nn.Module):
    def __call__(self, x, mode):
        return x
