"""Nearly all measures apply to any network; what does not apply says what is missing, and nothing fails."""

from __future__ import annotations

import collections
import math

import jax
import numpy as np
import pytest

from prunegen_jax.measures import MEASURES, measure
from prunegen_jax.types import TrainedModel
from tests.support.any_network_cases import NETWORKS, SHORT, trained
from tests.support.compilations import counting_compilations

# Measures that are tested in `make test`, of two networks; all of them, of all networks, in `make check`.
QUICK = [name for name, row in MEASURES.items() if row.cost <= 1]
# What is not applicable, with all that a person can give → what the reason says.
TOKENS = "needs inputs that are real numbers; these are int32"
LACKING = {
    "MLP on a table": {"vc_dimension": "needs images"},
    "Equinox CNN": dict.fromkeys(("path_norm", "path_norm_over_margin"), "homogeneous between layers; it has tanh"),
    "ResNet-18, pre-activation": {"pac_bayes_dropout": "needs a network without normalization layers"},
    "transformer on tokens": {
        "alpha_hat": "needs a kernel with 10 non-zero eigenvalues",
        "pac_bayes_dropout": "needs a network without normalization layers",
        "path_norm": TOKENS,
        "path_norm_over_margin": TOKENS,
        "vc_dimension": "needs images",
        "constrained_margin": TOKENS,
        "input_gradient_norm": TOKENS,
        "label_wise_mixup": TOKENS,
        "davies_bouldin_mixup": TOKENS,
    },
}


@pytest.fixture(autouse=True)
def promotion_of_other_peoples_networks():
    """Flax's own layers mix types and ranks."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def estimates(kind, names, *, complete, seed=0):
    options = {name: SHORT[name] for name in names if name in SHORT}
    return measure(trained(kind, complete=complete, seed=seed), names, options=options)


def assert_answers(found, expected_reasons):
    """Finite values, or the reasons expected."""
    for name, estimate in found.items():
        if estimate.status == "ok":
            assert math.isfinite(estimate.value) or estimate.details.get("censored"), name
        else:
            assert estimate.status == "not_applicable", (name, estimate.reason)
            assert name in expected_reasons, (name, estimate.reason)
            assert expected_reasons[name] in estimate.reason, (name, estimate.reason)


# The others compile for minutes: `make networks`.
CHECKED = ("NNX CNN", "MLP on a table", "Linen residual network")


@pytest.mark.networks
@pytest.mark.parametrize("kind", [pytest.param(k, marks=() if k in CHECKED else pytest.mark.slow) for k in NETWORKS])
def test_all_measures_of_a_network(kind):
    """At least 70 answer with initial state and history (45 for token ids), at least 55 without."""
    found = estimates(kind, list(MEASURES), complete=True)
    assert_answers(found, LACKING.get(kind, {}))
    counts = collections.Counter(estimate.status for estimate in found.values())
    assert counts["ok"] >= (45 if "tokens" in kind else 70), counts
    bare = [name for name, row in MEASURES.items() if not row.needs and found[name].status == "ok"]
    assert len(bare) >= (40 if "tokens" in kind else 55)


@pytest.mark.parametrize("kind", ["Linen residual network", "MLP on a table"])
def test_cheap_measures_of_a_network_and_of_another_of_its_shape(kind):
    """The second has other parameters, statistics and labels, and compiles nothing."""
    found = estimates(kind, QUICK, complete=True)
    assert_answers(found, LACKING.get(kind, {}))
    first, other = (trained(kind, complete=True, seed=seed) for seed in (0, 20))
    statistics = [jax.tree.leaves(model.apply) for model in (first, other)]
    assert len(statistics[0]) > 1
    assert all(np.any(a != b) for a, b in zip(*statistics, strict=True))
    with counting_compilations() as compiled:
        again = estimates(kind, QUICK, complete=True, seed=20)
    assert compiled() == 0
    assert again["l2_norm"].value != found["l2_norm"].value


@pytest.mark.parametrize("kind", ["Linen residual network", "transformer on tokens"])
def test_what_is_not_given_is_named(kind):
    """Without initial state and history; and initial weights without the statistics that belong to them."""
    needing = [name for name, row in MEASURES.items() if row.needs]
    assert len(needing) >= 15
    for name, estimate in estimates(kind, needing, complete=False).items():
        assert estimate.status == "not_applicable", name
        assert all(field in estimate.reason for field in MEASURES[name].needs), name


def test_initial_weights_without_their_statistics_are_no_initial_network():
    """Distances of folded weights would be wrong; those of the weights as they are do not need the statistics."""
    model = trained("NNX CNN", complete=True)
    unknown = TrainedModel(model.apply, model.params, model.train, init_params=model.init_params)
    for name in (
        "distance_from_initialization",
        "l2_distance_from_initialization",
        "spectral_bound_from_initialization",
    ):
        estimate = measure(unknown, name)[name]
        assert estimate.status == "not_applicable", name
        assert "init_apply: the network with its statistics before training" in estimate.reason
        assert measure(model, name)[name].status == "ok"
        assert measure(unknown, name, options={name: {"fold": False}})[name].status == "ok"
