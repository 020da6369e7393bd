"""Colours that colour-blind readers can distinguish: Okabe and Ito's for categories, viridis for ordered values."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

import numpy as np
from bokeh.palettes import BrBG11, Viridis256

OKABE_ITO = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B8A800")
GREY = "#8a8f98"
INK = "#1c2430"
DIVERGING = tuple(BrBG11[::-1])  # brown for -1, white for 0, green-blue for +1
SEQUENTIAL = tuple(Viridis256)
_LEVELS = 8  # more different numbers than this are put into bins
_BINS = 6


@dataclasses.dataclass(frozen=True)
class Colouring:
    """A colour `[n]` and a label `[n]` for each model, and the labels in the order of a legend."""

    colours: tuple[str, ...]
    labels: tuple[str, ...]
    order: tuple[str, ...]


def of_families(families: Iterable[str]) -> dict[str, str]:
    """Family -> colour: vermilion for pruning, then by name; grey for those beyond the palette and for none."""
    names = sorted({name for name in families if name}, key=lambda name: (name != "pruning", name))
    start = 0 if "pruning" in names else 1  # vermilion is reserved for pruning
    colours = dict(zip(names, OKABE_ITO[start:], strict=False))
    return {name: colours.get(name, GREY) for name in (*names, "")}


def of_axis(values: np.ndarray) -> Colouring:
    """The colours of a hyperparameter's `values [n]`: viridis for numbers, in bins if many, kinds for words."""
    levels = [level for level in np.unique(values) if not (values.dtype.kind == "f" and np.isnan(level))]
    if values.dtype.kind != "f":
        words = [str(v) for v in values]
        palette = OKABE_ITO if len(levels) <= len(OKABE_ITO) else shades(len(levels))
        return _colouring(words, [str(level) for level in levels], palette)
    if len(levels) <= _LEVELS:
        order = [f"{level:g}" for level in levels]
        return _colouring([f"{v:g}" for v in values], order, shades(len(order)))
    edges = np.unique(np.nanquantile(values, np.linspace(0, 1, _BINS + 1)))
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    order = [f"{low:.3g} – {high:.3g}" for low, high in itertools.pairwise(edges)]
    labels = ["nan" if np.isnan(v) else order[i] for v, i in zip(values, place, strict=True)]
    return _colouring(labels, order, shades(len(order)))


def shades(count: int) -> tuple[str, ...]:
    """`count` steps of viridis, without its palest quarter, which fades on white and, inverted, on black."""
    return tuple(SEQUENTIAL[round(i)] for i in np.linspace(0, 190, max(count, 1)))


def _colouring(labels: Sequence[str], order: Sequence[str], palette: Sequence[str]) -> Colouring:
    colour = dict(zip(order, palette, strict=False))
    rest = tuple(label for label in dict.fromkeys(labels) if label not in colour)
    return Colouring(
        tuple(colour.get(label, GREY) for label in labels), tuple(labels), tuple(dict.fromkeys((*order, *rest)))
    )
