"""Networks of Flax Linen, NNX and Equinox become a `TrainedModel`: function, state, initial network."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from prunegen_jax import TrainedModel, measure
from tests.support.adapter_cases import (
    ConvNet,
    EquinoxDropout,
    NnxNet,
    dataset,
    equinox_net,
    linen_variables,
    nnx_net,
)

DISTANCE = "distance_from_initialization"
NAMES = ["prunability_prefix", "parameter_norm", DISTANCE, "inverse_margin", "hessian_trace"]


def trained(kind, seed=0):
    """(model, logits of the library itself, a network before training) of one kind."""
    train, key = dataset(), seed + 10
    if kind == "linen":
        variables, before = linen_variables(seed), linen_variables(key)
        model = TrainedModel.from_linen(ConvNet(), variables, train, initial=before, first_epoch=before)
        return model, ConvNet().apply(variables, train.inputs, train=False)
    if kind == "nnx":
        net, before = nnx_net(seed), nnx_net(key)
        model = TrainedModel.from_nnx(net, train, initial=before, first_epoch=before)
        evaluated = nnx.clone(net)
        evaluated.eval()
        return model, evaluated(train.inputs)
    (net, state), before = equinox_net(seed), equinox_net(key)
    model = TrainedModel.from_equinox(net, train, state=state, initial=before, first_epoch=before)
    evaluated = eqx.nn.inference_mode(net)
    return model, jax.vmap(lambda x: evaluated(x, state)[0])(train.inputs)


@pytest.mark.parametrize("kind", ["linen", "nnx", "equinox"])
def test_the_function_is_that_of_the_library_in_evaluation_mode(kind):
    model, logits = trained(kind)
    np.testing.assert_allclose(model.apply(model.params, model.train.inputs), logits, atol=1e-5)
    np.testing.assert_allclose(model.apply(model.params, model.train.inputs[:3]), logits[:3], atol=1e-5)
    before, _ = trained(kind, 10)
    same = model.init_apply(model.init_params, model.train.inputs)
    np.testing.assert_allclose(same, before.apply(before.params, model.train.inputs), atol=1e-5)
    early = model.first_epoch
    np.testing.assert_allclose(early.apply(early.params, model.train.inputs), same, atol=1e-5)


@pytest.mark.parametrize("kind", ["linen", "nnx", "equinox"])
def test_networks_of_equal_shape_share_their_programs(kind):
    models = [trained(kind, seed)[0] for seed in (0, 1)]
    run, inputs = jax.jit(lambda function, params, x: function(params, x)), models[0].train.inputs
    logits = [run(m.apply, m.params, inputs) for m in models]
    logits += [run(m.init_apply, m.init_params, inputs) for m in models]
    assert run._cache_size() == 1
    assert len({float(jnp.abs(array).sum()) for array in logits}) == 4


@pytest.mark.parametrize("kind", ["linen", "nnx", "equinox"])
def test_measures_apply(kind):
    model, _ = trained(kind)
    with jax.numpy_dtype_promotion("standard"):  # batch norm of Equinox multiplies integers with floats
        estimates = measure(model, NAMES)
    assert {name: e.reason for name, e in estimates.items() if e.status != "ok"} == {}


def test_a_model_before_training_without_statistics_gives_no_distance():
    variables = linen_variables(0)
    before = {"params": linen_variables(1)["params"]}
    model = TrainedModel.from_linen(ConvNet(), variables, dataset(), initial=before)
    assert model.init_params is not None and model.init_apply is None
    assert measure(model, [DISTANCE])[DISTANCE].status == "not_applicable"
    net, state = equinox_net(0)
    assert TrainedModel.from_equinox(net, dataset(), state=state, initial=equinox_net(1)[0]).init_apply is None
    with pytest.raises(ValueError, match="first_epoch must include its own statistics"):
        TrainedModel.from_linen(ConvNet(), variables, dataset(), first_epoch=before)


def test_the_model_given_stays_in_training_mode():
    net = nnx_net(0)
    TrainedModel.from_nnx(net, dataset())
    assert not net.norm.use_running_average and not net.dropout.deterministic


def as_bfloat16(tree):
    """The tree with its floating-point arrays in bfloat16."""
    cast = lambda leaf: leaf.astype(jnp.bfloat16) if eqx.is_inexact_array(leaf) else leaf  # noqa: E731
    return jax.tree.map(cast, tree)


def bfloat16_model(library):
    train = dataset(dtype=jnp.bfloat16)
    if library == "linen":
        return TrainedModel.from_linen(ConvNet(dtype=jnp.bfloat16), as_bfloat16(linen_variables(0)), train)
    if library == "nnx":
        return TrainedModel.from_nnx(nnx_net(0, jnp.bfloat16), train)
    model, state = as_bfloat16(equinox_net(0))
    return TrainedModel.from_equinox(model, train, state=state)


@pytest.mark.parametrize("library", ["linen", "nnx", "equinox"])
def test_bfloat16_weights(library):
    # Equinox's BatchNorm takes a float to the power of an integer array, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        model = bfloat16_model(library)
        options = {"parameter_norm": {"fold": False}}
        estimates = measure(model, ["prunability_prefix", "parameter_norm", "inverse_margin"], options=options)
        flatness = measure(model, ["worst_sharpness", "hessian_trace", "gradient_noise", "pac_bayes_flatness"])
        logits = np.asarray(model.apply(model.params, model.train.inputs), np.float64)
    assert {leaf.dtype for leaf in jax.tree.leaves(model.params)} == {jnp.dtype("bfloat16")}
    assert {name: e.reason for name, e in estimates.items() if e.status != "ok"} == {}
    kernels = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(model.params) if leaf.size > 4]
    assert estimates["parameter_norm"].value == pytest.approx(sum(np.square(k).sum() for k in kernels), rel=1e-6)
    own = logits[np.arange(len(logits)), np.asarray(model.train.labels)]
    dense = (np.log(np.exp(logits).sum(axis=1)) - own).mean()
    assert estimates["prunability_prefix"].details["dense"] == pytest.approx(dense, rel=0.02)
    # Half the spacing of bfloat16 is 0.002 of a weight: changes as small as these measures make are rounded away.
    for name, estimate in flatness.items():
        assert estimate.status == "not_applicable" and "give the network in float32" in estimate.reason, name


@pytest.mark.parametrize(
    ("argument", "evaluation"),
    [("train", False), ("training", False), ("is_training", False), ("deterministic", True),
     ("use_running_average", True)],
)  # fmt: skip
def test_evaluation_mode_is_found_by_the_signature_or_the_fields(argument, evaluation):
    source = (
        "class Net(nn.Module):\n    @nn.compact\n    def __call__(self, x, *, {0}):\n"
        "        return nn.Dense(3)(x.reshape(x.shape[0], -1)) * (1.0 if {0} is {1} else 2.0)\n"
        "class Field(nn.Module):\n    {0}: bool\n    @nn.compact\n    def __call__(self, x):\n"
        "        return nn.Dense(3)(x.reshape(x.shape[0], -1)) * (1.0 if self.{0} is {1} else 2.0)\n"
    )
    namespace = {"nn": nn, "__name__": __name__}
    exec(source.format(argument, evaluation), namespace)
    net, train = namespace["Net"](), dataset()
    variables = net.init(jax.random.key(0), train.inputs, **{argument: evaluation})
    logits = net.apply(variables, train.inputs, **{argument: evaluation})
    model = TrainedModel.from_linen(net, variables, train)
    np.testing.assert_allclose(model.apply(model.params, train.inputs), logits, atol=1e-5)
    field = TrainedModel.from_linen(namespace["Field"](**{argument: not evaluation}), variables, train)
    np.testing.assert_allclose(field.apply(field.params, train.inputs), logits, atol=1e-5)


def test_a_call_of_ones_own():
    class Modes(nn.Module):
        @nn.compact
        def __call__(self, x, mode):
            return nn.Dense(3)(x.reshape(x.shape[0], -1)) + {"eval": 0.0, "fit": 1.0}[mode]

    train = dataset()
    variables = Modes().init(jax.random.key(0), train.inputs, "eval")
    model = TrainedModel.from_linen(Modes(), variables, train, call=lambda net, v, x: net.apply(v, x, "eval"))
    np.testing.assert_allclose(
        model.apply(model.params, train.inputs), Modes().apply(variables, train.inputs, "eval"), atol=1e-6
    )
    net = nnx_net(0)
    doubled = TrainedModel.from_nnx(net, train, call=lambda net, x: 2.0 * net(x))
    single = TrainedModel.from_nnx(net, train)
    np.testing.assert_allclose(
        doubled.apply(doubled.params, train.inputs), 2 * single.apply(single.params, train.inputs), rtol=1e-5
    )
    equinox = EquinoxDropout(jax.random.key(0))
    chosen = TrainedModel.from_equinox(equinox, train, call=lambda net, x: net(x, None) + 1.0)
    plain = TrainedModel.from_equinox(equinox, train)  # its call needs a key, which is None in inference mode
    np.testing.assert_allclose(
        chosen.apply(chosen.params, train.inputs), plain.apply(plain.params, train.inputs) + 1, rtol=1e-5
    )


def test_a_module_without_hash_works():
    net, train = nn.Sequential([lambda x: x.reshape(x.shape[0], -1), nn.Dense(3)]), dataset()
    variables = net.init(jax.random.key(0), train.inputs)
    one, other = (TrainedModel.from_linen(net, variables, train) for _ in range(2))
    assert one.apply.func == other.apply.func
    np.testing.assert_allclose(one.apply(one.params, train.inputs), net.apply(variables, train.inputs), atol=1e-6)


def test_numpy_arrays_are_weights():
    variables = jax.tree.map(np.asarray, linen_variables(0))
    model = TrainedModel.from_linen(ConvNet(), variables, dataset())
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(model.params))


def test_another_network_before_training_is_refused():
    with pytest.raises(ValueError, match="initial is not the same network"):
        TrainedModel.from_nnx(nnx_net(0), dataset(), initial=NnxNet(nnx.Rngs(0), width=5))
    with pytest.raises(ValueError, match="initial is not the same network"):
        key = jax.random.key(0)
        TrainedModel.from_equinox(EquinoxDropout(key), dataset(), initial=EquinoxDropout(key, 4))
    with pytest.raises(ValueError, match="init_params must have the same structure"):
        smaller = jax.tree.map(lambda leaf: leaf[..., :1], linen_variables(1))
        TrainedModel.from_linen(ConvNet(), linen_variables(0), dataset(), initial={"params": smaller["params"]})
