"""Selecting measures, their options and keys, failures, networks that lack what a measure needs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from prunegen_jax import measures
from prunegen_jax.compute.evaluation import example_losses
from prunegen_jax.measures import MEASURES, measure
from prunegen_jax.types import Estimate, Measure, TrainedModel
from tests.support.registry_cases import answer, trained


def test_selecting():
    assert measures.select("all") == list(MEASURES)
    fast = measures.select("fast")
    assert {"num_parameters", "training_cross_entropy", "prunability_prefix"} <= set(fast)
    assert not {"prunability", "hessian_trace"} & set(fast)
    assert measures.select("parameter_norm") == ["parameter_norm"]
    with pytest.raises(ValueError, match="measure 'no' is unknown; choose 'fast', 'all' or among prunability"):
        measures.select(["no"])
    with pytest.raises(ValueError, match="measure 'prunabilty' is unknown; did you mean 'prunability'\\?$"):
        measures.select(["prunabilty"])
    with pytest.raises(ValueError, match="prunability has no option 'bta'; it has fold, scope, beta"):
        measure(trained(0), ["prunability"], options={"prunability": {"bta": 0.2}})
    with pytest.raises(ValueError, match="prunability_bernoulli has no option 'draw'"):
        measure(trained(0), ["prunability"], options={"prunability_bernoulli": {"draw": "exact"}})
    with pytest.raises(ValueError, match="the options of prunability are 3; they must map names to values"):
        measure(trained(0), ["prunability"], options={"prunability": 3})


def test_options_reach_the_measure_and_keys_fold_the_name():
    model = trained(0)
    loose = measure(model, ["prunability_prefix"], options={"prunability_prefix": {"beta": 10.0}})["prunability_prefix"]
    assert loose.value < answer("prunability_prefix", model).value
    together = measure(model, ["label_wise_mixup", "davies_bouldin"])
    assert together["davies_bouldin"] == answer("davies_bouldin", model)


def test_a_label_gives_a_measure_other_options_and_a_subset_is_the_first_examples():
    model = trained(0)
    name, more = "training_cross_entropy:some", "label_wise_mixup:same"
    found = measure(model, [name, more, "label_wise_mixup"], options={name: {"subset": 30}})
    losses, _ = example_losses(model.apply, model.params, model.train)
    assert found[name].value == pytest.approx(float(np.mean(losses[:30])), rel=1e-6)
    assert found[more] == found["label_wise_mixup"]  # the same randomness
    early = {"gradient_noise_first_epoch": {"subset": 30}}
    assert measure(model, list(early), options=early)["gradient_noise_first_epoch"].details["examples"] == 30
    entry = measure(model, ["training_cross_entropy"], options={"training_cross_entropy": {"subset": 10**6}})
    assert "subset=1000000 is larger than the training" in entry["training_cross_entropy"].reason
    with pytest.raises(ValueError, match=r"training_cross_entropy\.subset=0 must be at least 1"):
        measure(model, ["training_cross_entropy"], options={"training_cross_entropy": {"subset": 0}})
    with pytest.raises(ValueError, match="updates_to_target has no option 'subset'"):
        measure(model, ["updates_to_target"], options={"updates_to_target": {"subset": 30}})
    with pytest.raises(ValueError, match=r"'prunability:a,b' has the label 'a,b'; it must be letters"):
        measures.select("prunability:a,b")


def test_a_measure_that_fails_has_a_reason_and_does_not_affect_the_others(monkeypatch):
    def breaks(model, key):
        raise ZeroDivisionError("no weight left\nsecond line")

    def nothing(model, key):
        return Estimate(math.nan)

    monkeypatch.setitem(MEASURES, "breaks", Measure(breaks, 1, "size", 0.0, "no source"))
    monkeypatch.setitem(MEASURES, "nothing", Measure(nothing, 1, "size", 0.0, "no source"))
    found = measure(trained(0), ["breaks", "num_parameters", "nothing"])
    assert (found["breaks"].status, found["breaks"].reason) == ("failed", "ZeroDivisionError: no weight left")
    assert found["nothing"].status == "failed"
    assert found["num_parameters"].status == "ok"


def test_measures_of_missing_fields_are_not_applicable():
    full = trained(0)
    bare = TrainedModel(full.apply, full.params, full.train)
    lacking = [name for name, row in MEASURES.items() if row.needs]
    found = measure(bare, [*lacking, "num_parameters", "prunability"])
    for name in lacking:
        assert found[name].status == "not_applicable"
        assert all(field in found[name].reason for field in MEASURES[name].needs)
        assert math.isnan(found[name].value)
    assert found["num_parameters"].status == "ok"
    assert found["prunability"].value == answer("prunability", full).value
