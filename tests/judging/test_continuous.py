"""Hyperparameters with a value of its own for nearly every network, as a random search draws them."""

import itertools
import math

import numpy as np
import pytest

from prunegen_jax.judging import Table, judge
from prunegen_jax.judging.grid import binned, grid_of
from tests.support.sweeps import QUICK


def random_search(n=96):
    rng = np.random.default_rng(0)
    rate, decay = 10 ** rng.uniform(-3, -1, size=(2, n))
    width = rng.choice([8.0, 16.0], size=n)
    gap = np.log10(rate) + 0.1 * width + 0.3 * rng.normal(size=n)
    axes = {"rate": rate, "decay": decay, "width": width}
    return Table(tuple(map(str, range(n))), axes, {"m": gap + rng.normal(size=n), "noise": rng.random(n)}, {"gap": gap})


def test_why_there_is_no_psi_is_said():
    verdict = judge(random_search(), reference="m", **QUICK)
    row = verdict.row("m", "gap")
    assert math.isnan(row["psi"]) and math.isnan(row["sign_error"])
    said = "\n".join(verdict.notes)
    assert "no two configurations differ in rate, decay, width alone, as in a random search" in said
    assert "Psi and the sign error have no value" in said and "--bins=5" in said
    assert "K is not conditioned on rate, decay, whose values identify nearly every configuration" in said
    assert row["k_set"] in ("none", "width") and not math.isnan(row["k"])


def test_bins_hold_equally_many_and_cut_no_value_apart():
    table = random_search()
    grid, notes = binned(grid_of(table)[0], table.hyperparameters, 4)
    for axis, name in enumerate(grid.axes[:2]):
        values, codes = table.hyperparameters[name], grid.codes[:, axis]
        assert np.bincount(codes).tolist() == [24] * 4
        np.testing.assert_array_equal(codes, np.searchsorted(np.quantile(values, [0.25, 0.5, 0.75]), values))
    assert (
        np.bincount(grid.codes[:, 2]).tolist()
        == np.unique(table.hyperparameters["width"], return_counts=True)[1].tolist()
    )
    assert notes == [f"axis {name}: its 96 values are put into 4 bins" for name in ("rate", "decay")]
    tied = Table(tuple("abcdef"), {"x": np.array([1.0, 1, 1, 1, 2, 3])}, {}, {})
    assert binned(grid_of(tied)[0], tied.hyperparameters, 2)[0].codes[:, 0].tolist() == [0, 0, 0, 0, 1, 1]
    text = Table(tuple("abc"), {"x": np.array(["u", "v", "w"])}, {}, {})
    assert binned(grid_of(text)[0], text.hyperparameters, 2)[0].codes[:, 0].tolist() == [0, 1, 2]


def test_psi_and_sign_error_of_bins_are_plain_loops():
    """Two networks are compared along an axis if they are in one bin of all others and in different bins of it."""
    table = random_search()
    verdict = judge(table, bins=3, reference="m", **QUICK)
    row = verdict.row("m", "gap")
    cuts = {a: np.quantile(table.hyperparameters[a], [1 / 3, 2 / 3]) for a in ("rate", "decay")}
    codes = [np.searchsorted(cuts[a], table.hyperparameters[a]) for a in cuts] + [table.hyperparameters["width"] > 8]
    codes = np.stack(codes, axis=1).astype(int)
    m, g = table.measures["m"], table.targets["gap"]
    psi, losses = [], []
    for axis in range(3):
        cells, environments = {}, {}
        for i, j in itertools.combinations(range(len(m)), 2):
            rest = np.delete(codes, axis, axis=1)
            if (rest[i] == rest[j]).all() and codes[i, axis] != codes[j, axis]:
                agree = float(np.sign(m[i] - m[j]) * np.sign(g[i] - g[j]))
                cells.setdefault(tuple(rest[i]), []).append(agree)
                environments.setdefault(tuple(sorted(codes[[i, j], axis])), []).append((1 - agree) / 2)
        psi.append(np.mean([np.mean(cell) for cell in cells.values()]))
        losses += [np.mean(loss) for loss in environments.values() if len(loss) >= 12]
    assert row["psi"] == pytest.approx(np.mean(psi)) and row["psi.rate"] == pytest.approx(psi[0])
    assert row["sign_error"] == pytest.approx(np.mean(losses)) and row["psi_low"] < row["psi"] < row["psi_high"]
    assert math.isnan(row["pgdl"]) and row["n"] == len(m) and verdict.settings["bins"] == 3


def test_wrong_bins():
    with pytest.raises(ValueError, match="bins is 1; it must be at least 2"):
        judge(random_search(), bins=1)
