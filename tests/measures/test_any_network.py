"""Nearly all measures apply to any network; what does not apply says what is missing, and nothing fails."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax.tree_util import Partial

from docs import make_table
from docs.make_measures import EVERYTHING, NETWORK_AND_DATA, load
from prunegen_jax.measures import MEASURES, measure
from prunegen_jax.types import TrainedModel
from tests.support.any_network_cases import NETWORKS, SHORT, trained
from tests.support.compilations import counting_compilations

CHEAP = [name for name, row in MEASURES.items() if row.cost <= 1]
# The others compile for minutes: `make networks`.
CHECKED = ("NNX CNN", "MLP on a table")


@pytest.fixture
def promotion_of_other_peoples_networks():
    """Flax's own layers mix types and ranks."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.parametrize("kind", load())
def test_nearly_all_measures_apply(kind):
    """At least 70 with initial state and history, 55 without; of a network of token ids 45.

    Of the networks that docs/networks.csv has; run `make table` after a change of `MEASURES` or `NETWORKS`.
    """
    cells = load()[kind]
    assert sorted(cells) == sorted(make_table.ROWS)
    everything, alone = (
        [name for name in MEASURES if cells[name, given] == "ok"] for given in (EVERYTHING, NETWORK_AND_DATA)
    )
    assert len(everything) >= (45 if "tokens" in kind else 70)
    assert len(alone) >= (45 if "tokens" in kind else 55)
    assert alone == [name for name in everything if not MEASURES[name].needs]
    for name, row in MEASURES.items():
        assert all(field in cells[name, NETWORK_AND_DATA] for field in row.needs), name


@pytest.mark.networks
@pytest.mark.parametrize("kind", [pytest.param(k, marks=() if k in CHECKED else pytest.mark.slow) for k in NETWORKS])
def test_all_measures_of_a_network_and_cheap_ones_of_another_of_its_shape(kind, promotion_of_other_peoples_networks):
    """As docs/networks.csv has them. The other has other parameters, statistics and labels, and compiles nothing."""
    assert {row: make_table.cell(kind, *row) for row in make_table.ROWS} == load()[kind]
    first, other = (trained(kind, complete=True, seed=seed) for seed in (0, 10))
    assert isinstance(first.apply, Partial)
    options = {name: SHORT[name] for name in CHEAP if name in SHORT}
    found = measure(first, CHEAP, options=options)  # its programs may have been dropped
    with counting_compilations() as compiled:
        again = measure(other, CHEAP, options=options)
    assert compiled() == 0
    assert again["l2_norm"].value != found["l2_norm"].value
    statistics = [jax.tree.leaves(model.apply) for model in (first, other)]
    assert all(np.any(a != b) for a, b in zip(*statistics, strict=True))


def test_initial_weights_without_their_statistics_are_no_initial_network(promotion_of_other_peoples_networks):
    """Distances of folded weights would be wrong; those of the weights as they are do not need the statistics."""
    model = trained("NNX CNN", complete=True)
    unknown = TrainedModel(model.apply, model.params, model.train, init_params=model.init_params)
    for name in ("l2_distance_from_initialization", "spectral_bound_from_initialization"):
        estimate = measure(unknown, name)[name]
        assert estimate.status == "not_applicable", name
        assert "init_apply: the network with its statistics before training" in estimate.reason
        assert measure(model, name)[name].status == "ok"
        assert measure(unknown, name, options={name: {"fold": False}})[name].status == "ok"
