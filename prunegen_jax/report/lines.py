"""One line per network: its loss against the kept fraction, and its loss during training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, CustomJS, FixedTicker, NumeralTickFormatter, Range1d, Select, Span

from prunegen_jax.report.colours import GREY, INK, Colouring
from prunegen_jax.report.labels import label, text
from prunegen_jax.report.material import Material
from prunegen_jax.report.views import View, hover, plot
from prunegen_jax.runs.schema import Json

POINTS = 80  # of a training curve: as many as a screen can show
TICKS = (0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.5, 1.75, 2, 2.5, 3, 5, 10, 20, 50, 100, 1000)  # of the pruned loss
_TOP = 3.0  # of the pruned loss relative to the whole network's: curves rise steeply beyond
_BOTTOM = 0.9
_FLOOR, _LARGEST = 1e-9, 1e30  # the ends of a logarithmic axis, in single precision

_COLOUR = """
for (const source of sources) source.data = {...source.data, colour: source.data[`c${cb_obj.value}`]}
"""


def pruning(material: Material, colourings: Mapping[str, Colouring], colour: Select) -> View:
    """Training loss of the pruned network relative to the whole one, over the kept fraction, with the crossing."""
    lines = {name: relative(curve) for name, curve in material.curves.items()}
    limits = crossings(material, lines)
    words = f"Pruning curves of {len(lines)} networks"
    if limits:
        fractions = [x for x, _, _ in limits.values()]
        words += f"; prunability from {min(fractions):g} to {max(fractions):g}"
    bottom, top = loss_range(lines, limits)
    shown = plot(words, height=430, y_axis_type="log", x_range=(-0.01, 1.02), name="pruning")
    shown.xaxis.axis_label = label("fraction of the parameters kept")
    shown.yaxis.axis_label = label("training loss ÷ that of the whole network")
    shown.y_range = Range1d(bottom, top)
    shown.yaxis.ticker = shown.ygrid.ticker = FixedTicker(ticks=TICKS)
    shown.yaxis.formatter = NumeralTickFormatter(format="0.[00]")
    source = _draw(shown, lines, material, colourings)
    order = {name: i for i, name in enumerate(lines)}
    places = [order[name] for name in limits]
    points = ColumnDataSource(
        {"x": [x for x, _, _ in limits.values()], "y": [y for _, y, _ in limits.values()], "name": _texts(limits)}
        | {key: [column[i] for i in places] for key, column in source.data.items() if key.startswith("c")}
    )
    dots = shown.scatter(
        "x", "y", source=points, size=8, fill_color="colour", line_color="white", marker="circle", name="crossings"
    )
    shown.add_tools(hover([("network", "@name"), ("prunability", "@x{0.000}")], renderers=[dots]))
    _dash(shown, (limit for _, _, limit in limits.values()))
    _follow(colour, [source, points])
    return View(shown)


def training(material: Material, colourings: Mapping[str, Colouring], colour: Select) -> View:
    """Cross-entropy on the training set over the updates, and the target at which training stops."""
    lines = {name: thinned(history) for name, history in material.histories.items()}
    shown = plot(f"Training curves of {len(lines)} networks", height=430, y_axis_type="log", name="training")
    shown.xaxis.axis_label = label("updates")
    shown.yaxis.axis_label = label("training loss (nats)")
    source = _draw(shown, lines, material, colourings)
    _dash(shown, stopping_losses(material))
    _follow(colour, [source])
    return View(shown)


def relative(curve: Json) -> tuple[np.ndarray, np.ndarray]:
    """Kept fractions `[g]` and losses `[g]` divided by the loss of the whole network."""
    losses = np.array([float(x) for x in curve["losses"]])
    dense = losses[-1]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratios = np.where(dense > 0, losses / dense, np.nan)
    return np.array(curve["fractions"]), np.clip(ratios, _FLOOR, _LARGEST)


def crossing(found: Json) -> tuple[float, float, float] | None:
    """Where a network's prunability lies: kept fraction, loss there and limit, both relative to the whole network."""
    dense = float(found["dense"])
    if not dense > 0:
        return None
    return float(found["fraction"]), float(found["loss"]) / dense, float(found["limit"]) / dense


def crossings(material: Material, names: Iterable[str]) -> dict[str, tuple[float, float, float]]:
    """The crossings of the networks among `names` that have one."""
    known = {name: material.crossings[name] for name in names if name in material.crossings}
    return {name: point for name, found in known.items() if (point := crossing(found)) is not None}


def loss_range(lines: Mapping[str, Any], limits: Mapping[str, tuple[float, float, float]]) -> tuple[float, float]:
    """The range of the pruned loss that is shown: from below the smallest to well above the tolerance."""
    known = [y[np.isfinite(y)].min(initial=1.0) for _, y in lines.values()]
    top = max([_TOP, *(2 * limit for _, _, limit in limits.values() if limit < _LARGEST)])
    return max(0.5, 0.97 * min([_BOTTOM, *known])), top


def stopping_losses(material: Material) -> list[float]:
    """The losses at which training stops, of every network with a history that has one."""
    return [history["target"] for history in material.histories.values() if history["target"] > 0]


def thinned(history: Json) -> tuple[np.ndarray, np.ndarray]:
    """Updates and losses of a training curve's checks, at most `POINTS` of them, the first and the last included."""
    updates, losses = np.array(history["check_update"], np.float64), np.array(history["check_loss"], np.float64)
    chosen = np.unique(np.linspace(0, max(len(updates) - 1, 0), POINTS).round().astype(int))[: len(updates)]
    return updates[chosen], np.clip(losses[chosen], _FLOOR, _LARGEST)


def levels(values: Iterable[float]) -> list[float]:
    """The different values, the three smallest at most: where dashed lines go."""
    return sorted({round(value, 6) for value in values})[:3]


def _dash(shown: Any, values: Iterable[float]) -> None:
    for value in levels(values):
        shown.add_layout(Span(location=value, dimension="width", line_color=INK, line_dash="dashed", line_width=1))


def _draw(
    shown: Any, lines: Mapping[str, Any], material: Material, colourings: Mapping[str, Colouring]
) -> ColumnDataSource:
    data: dict[str, Any] = {"xs": [x.astype(np.float32) for x, _ in lines.values()]}
    data |= {"ys": [y.astype(np.float32) for _, y in lines.values()], "name": _texts(lines)}
    place = {name: i for i, name in enumerate(material.everyone.names)}
    for i, each in enumerate(colourings.values()):
        data[f"c{i}"] = [each.colours[place[name]] if name in place else GREY for name in lines]
    source = ColumnDataSource(data | {"colour": data["c0"]}, name=f"{shown.name}_lines")
    drawn = shown.multi_line(
        "xs", "ys", source=source, line_color="colour", line_width=1.4, line_alpha=0.65, hover_line_width=3.5,
        hover_line_alpha=1, hover_line_color="colour",
    )  # fmt: skip
    shown.add_tools(hover([("network", "@name"), ("at", "$x{0.[000]}, $y{0.[0000]}")], renderers=[drawn]))
    return source


def _follow(colour: Select, sources: list[ColumnDataSource]) -> None:
    colour.js_on_change("value", CustomJS(args={"sources": sources}, code=_COLOUR))


def _texts(names: Mapping[str, Any] | Sequence[str]) -> list[str]:
    return [text(name) for name in names]
