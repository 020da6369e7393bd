"""Which network a measure takes, and which of its kernels batch norm follows."""

from __future__ import annotations

import dataclasses

import jax

from prunegen_jax.measures import structure
from tests.support.margin_cases import model


def test_folded_weights_are_a_choice():
    folded = model(2.0)
    whole = dataclasses.replace(model(), folded=folded)
    assert structure.select_network(whole, fold=True) is folded
    assert structure.select_network(whole, fold=False) is whole
    assert structure.select_network(folded, fold=True) is folded
    assert jax.tree.leaves(structure.select_network(whole, fold=True).params)[0] == 2.0
