"""Snapshots: trees as named arrays, and back."""

from __future__ import annotations

import numpy as np
import pytest

from prunegen_jax.runs import files, snapshot


def test_trees_by_name():
    tree = {"a": {"kernel": np.ones((2, 3))}, "b": np.zeros(())}
    flat = snapshot.flatten("params", tree)
    assert sorted(flat) == ["params/a/kernel", "params/b"]
    back = snapshot.unflatten("params", tree, flat)
    np.testing.assert_array_equal(back["a"]["kernel"], tree["a"]["kernel"])
    with pytest.raises(files.DamagedError, match="has nothing for 'params/c'"):
        snapshot.unflatten("params", {"c": np.ones(1)}, flat)
    with pytest.raises(files.DamagedError, match=r"needs float64\[3, 3\]"):
        snapshot.unflatten("params", {"a": {"kernel": np.ones((3, 3))}}, flat)
