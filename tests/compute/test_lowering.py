"""Programs lower for CUDA and for TPU, neither of which is needed for this."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunegen_jax import training
from prunegen_jax.compute import lockstep
from prunegen_jax.compute.planes import choose_form
from prunegen_jax.measures import measure
from prunegen_jax.networks import build
from prunegen_jax.types import Dataset, TrainedModel
from tests.support.ensembles import stacked
from tests.support.lowering import ACCELERATORS, lower, recorded_programs

RECIPE = training.Recipe(batch_size=4, augment=True)
FAMILIES = {
    "nin": {"depth": 1, "width": 4},
    "resnet": {"width": 2},
    "cnn": {"width": 2},
    "mlp": {"width": 4},
}


def data():
    return Dataset(jnp.ones((8, 8, 8, 3)), jnp.arange(8, dtype=jnp.int32) % 3)


def lowered_update(family, slots, devices=(), form="xla"):
    network = build(family, input_shape=(8, 8, 3), classes=3, convolutions=form, **FAMILIES[family])
    program = training.compile_for(network, RECIPE, slots=slots, devices=devices)
    h = training.hyper(learning_rate=0.1, weight_decay=1e-4, dropout=0.1, seed=0)
    state = jax.eval_shape(lambda key: stacked(program.init(key), slots), h.key)
    return lower(program.run, state, stacked(h, slots), data(), *np.zeros((3, slots), np.int32))


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_training_lowers(family, slots):
    texts = lowered_update(family, slots)
    assert set(texts) == set(ACCELERATORS)
    assert all(("stablehlo.convolution" in text) == (family != "mlp") for text in texts.values())


@pytest.mark.parametrize(("backend", "platform"), [("gpu", "cuda"), ("tpu", "tpu")])
@pytest.mark.parametrize("slots", [1, 3])
def test_training_lowers_in_the_form_that_auto_has_there(slots, backend, platform):
    form = choose_form(vmapped=slots > 1, backend=backend)
    text = lowered_update("cnn", slots, form=form)[platform]
    assert ("stablehlo.convolution" in text) == (form == "xla") == (slots == 1)


@pytest.mark.devices
def test_training_over_eight_devices_lowers(devices):
    texts = lowered_update("nin", 8, tuple(devices))
    assert all("mhlo.num_partitions = 8" in text for text in texts.values())


def test_what_has_no_form_on_an_accelerator_is_noticed():
    with pytest.raises(NotImplementedError, match="primitive 'eig' not found for platform tpu"):
        lower(jax.jit(jnp.linalg.eigvals), jnp.eye(3))


def test_lanes_of_measures_lower(monkeypatch):
    """The vmapped programs of three networks measured in lockstep, one of them with convolutions."""
    programs = {}

    def compiled(kind, lanes, devices, original=lockstep._program):
        vmapped = original(kind, lanes, devices)
        return programs.setdefault(kind, vmapped)

    monkeypatch.setattr(lockstep, "_program", compiled)
    network = build("nin", input_shape=(8, 8, 3), classes=3, convolutions="xla", **FAMILIES["nin"])
    models = []
    for seed in range(3):
        params, stats = network.init(jax.random.key(seed))
        models.append(TrainedModel(jax.tree_util.Partial(network.apply, stats), params, data()))
    names = ["prunability_prefix", "inverse_margin"]
    lockstep.run([functools.partial(measure, model, names) for model in models], lanes=3)
    assert len(programs) >= 2
    texts = []
    for kind, vmapped in programs.items():
        shapes = [jax.ShapeDtypeStruct(shape, dtype, weak_type=weak) for shape, dtype, weak in kind.types]
        own, shared = kind.split(shapes)
        texts += lower(vmapped.function, (own,) * 3, shared).values()
    assert any("stablehlo.convolution" in text for text in texts)


def test_recorded_programs_are_those_that_a_measure_calls():
    network = build("nin", input_shape=(8, 8, 3), classes=3, convolutions="xla", **FAMILIES["nin"])
    params, stats = network.init(jax.random.key(0))
    with recorded_programs() as calls:
        measure(TrainedModel(jax.tree_util.Partial(network.apply, stats), params, data()), ["inverse_margin"])
    assert calls
    for program, args, kwargs in calls.values():
        assert set(lower(program, *args, **kwargs)) == set(ACCELERATORS)
