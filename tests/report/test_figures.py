"""Figures of a table from elsewhere: no name and no number of measures makes one that cannot be drawn."""

import re

import numpy as np
import pytest
from matplotlib.figure import Figure

from prunegen_jax.judging import judge
from prunegen_jax.judging.table import Table
from prunegen_jax.report import figures, material


def drawn(names, *, axis="a", target="gap", level="x"):
    rng = np.random.default_rng(0)
    table = Table(
        tuple(map(str, range(12))),
        {axis: np.array([level, "y"], dtype=object)[np.arange(12) % 2], "b": np.arange(12) % 3.0},
        {name: rng.normal(size=12) for name in names},
        {target: rng.normal(size=12)},
        families=dict.fromkeys(names, names[0]),
    )
    verdict = judge(table, reference=names[0], draws=0, permutations=0, added_permutations=0, baseline_draws=0)
    return dict(figures.figures(material.from_table(table, verdict, title="t")))


def test_names_are_shortened_in_every_figure():
    """A name of some thousand letters takes minutes to draw, of ten thousand all the memory."""
    found = drawn(["m" * 300, "m" * 299, "short"], axis="m" * 298, target="m" * 297, level="m" * 296)
    assert len(found) == 14  # seven figures, each twice
    for name, content in found.items():
        assert len(name) < 80
        if name.endswith(".svg"):
            words = content.decode()
            assert "mmmmmm" in words and not re.search(r"m{61}", words), name


def test_many_measures_are_drawn_as_far_as_one_can_see_them(monkeypatch):
    monkeypatch.setattr(figures, "_PANELS", 2)
    words = drawn(["one", "two", "three"])["scatters_gap.svg"].decode()
    assert "the best 2 of 3 measures (horizontal) against" in words
    monkeypatch.setattr(figures, "_PANELS", 3)
    assert "every measure (horizontal) against" in drawn(["one", "two", "three"])["scatters_gap.svg"].decode()


@pytest.mark.parametrize(("size", "dpi"), [((10, 10), 200), ((7, 600), 20), ((100, 100), 54.77)])
def test_no_figure_has_too_many_pixels(size, dpi):
    """The library refuses a side of 65536 pixels, and a square of half of that takes 4 GB."""
    assert figures._dpi(Figure(figsize=size)) == pytest.approx(dpi, rel=1e-3)
