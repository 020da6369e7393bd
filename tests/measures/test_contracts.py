"""What holds for every measure: complete rows, shared programs, invariances, order and chunks of examples."""

from __future__ import annotations

import dataclasses
import functools
import json
import math

import jax
import numpy as np
import pytest

from prunegen_jax import measures
from prunegen_jax.compute import evaluation
from prunegen_jax.measures import MEASURES, measure
from prunegen_jax.types import TrainedModel
from tests.support.compilations import counting_compilations
from tests.support.lowering import lower, recorded_programs
from tests.support.registry_cases import CHANGES, answer, trained, with_params

FAMILIES = {"pruning", "size", "norms", "margins", "flatness", "speed", "noise", "beyond"}
LOWERED = set()  # kinds of calls; measures share many
FIELDS = {field.name for field in dataclasses.fields(TrainedModel)}


@functools.cache
def answered(name, batch_norm=True):
    """The answer for the first network as it was trained, and the programs that were called."""
    with recorded_programs() as calls:
        return answer(name, trained(0, batch_norm)), calls


@pytest.mark.parametrize("name", MEASURES)
def test_every_row_is_complete(name):
    row = MEASURES[name]
    assert row.function.__name__ == name
    assert row.function.__doc__
    assert row.sign in {-1, 1}
    assert row.family in FAMILIES
    assert row.cost >= 0
    assert row.source
    assert set(row.needs) <= FIELDS
    assert set(row.invariant) <= {"permutation", "neuron_scaling", "layer_scaling"}


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_answers_and_shares_its_programs(name):
    """A finite (or censored) value whose details are plain; a second network of equal shape compiles nothing.

    And the programs lower for accelerators.
    """
    first, calls = answered(name)
    assert first.status == "ok", first.reason
    assert math.isfinite(first.value) or first.details.get("censored")
    assert first.sem is None or first.sem >= 0
    json.dumps(first.details)
    if name == "prunability_channels":  # every mask of the first network fails at its first examples
        measure(trained(0), name, options={name: {"beta": 10.0}})
    other = trained(1)
    with jax.log_compiles(False), counting_compilations() as compiled:
        second = answer(name, other)
    assert second.status == "ok", second.reason
    assert compiled() == 0
    for kind in calls.keys() - LOWERED:
        program, args, kwargs = calls[kind]
        lower(program, *args, **kwargs)
        LOWERED.add(kind)


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, row in MEASURES.items() for kind in row.invariant])
def test_declared_invariances_hold(name, kind):
    """Powers of two scale without rounding; what sums in another order agrees to float error."""
    base, _ = answered(name, batch_norm=False)
    other = answer(name, with_params(trained(0, batch_norm=False), CHANGES[kind]))
    assert base.status == other.status == "ok", (base.reason, other.reason)
    spread = 4 * math.hypot(base.sem or 0, other.sem or 0) if kind == "permutation" else 0
    assert other.value == pytest.approx(base.value, rel=5e-3, abs=max(spread, 1e-6))


BATCHED = {"sam_sharpness_batches"}  # the mean over batches of consecutive examples, by definition
EXACT = [name for name, row in MEASURES.items() if row.cost <= 100 and name not in BATCHED]


@pytest.mark.parametrize("name", EXACT)
def test_the_order_of_the_examples_does_not_matter(name):
    """Not beyond float error for what is exact, nor beyond the standard error for what draws examples."""
    model = trained(0)
    order = np.random.default_rng(0).permutation(len(model.train))
    train = dataclasses.replace(model.train, inputs=model.train.inputs[order], labels=model.train.labels[order])
    early = dataclasses.replace(model.first_epoch, train=train)
    base, other = answered(name)[0], answer(name, dataclasses.replace(model, train=train, first_epoch=early))
    spread = 5 * math.hypot(base.sem or 0, other.sem or 0)
    assert other.value == pytest.approx(base.value, rel=2e-3, abs=max(spread, 1e-6))


CHEAP = [name for name in EXACT if 0 < MEASURES[name].cost <= 6] + ["prunability_prefix"]


@pytest.mark.parametrize("name", CHEAP)
def test_the_size_of_chunks_does_not_matter(name, monkeypatch):
    """77 examples at a time, and 23 in the last chunk of 200 filled up, against all at once."""
    base, _ = answered(name)
    for function in (evaluation.batches, evaluation.example_losses):
        monkeypatch.setitem(function.__kwdefaults__, "batch_size", 77)
    fresh = dataclasses.replace(trained(0))
    options = {name: {"batch_size": 77}} if "batch_size" in measures.options_of(name) else {}
    other = measure(fresh, [name], key=jax.random.key(0), options=options)[name]
    assert other.status == "ok", other.reason
    assert other.value == pytest.approx(base.value, rel=1e-3, abs=1e-6)


# One operation after another takes seconds: quotients by a margin have the numerators and the margin of others.
@pytest.mark.parametrize("name", [name for name in CHEAP if not name.endswith("_over_margin")])
def test_compiling_does_not_matter(name):
    base, _ = answered(name)
    with jax.disable_jit():
        other = answer(name, dataclasses.replace(trained(0)))
    assert other.status == "ok", other.reason
    assert other.value == pytest.approx(base.value, rel=1e-3, abs=1e-6)


def test_the_changes_keep_the_function_and_change_the_weights():
    model = trained(0, batch_norm=False)
    images = model.train.standardise(model.train.inputs[:20])
    logits = model.apply(model.params, images)
    for change in CHANGES.values():
        params = change(model.params)
        np.testing.assert_allclose(model.apply(params, images), logits, rtol=1e-4, atol=1e-4)
        assert not np.allclose(params["block0_conv0"]["kernel"], model.params["block0_conv0"]["kernel"])
