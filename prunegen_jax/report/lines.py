"""One line per network: its loss against the kept fraction, and its loss during training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, CustomJS, Legend, Range1d, Select, Span

from prunegen_jax.report.colours import GREY, INK, Colouring
from prunegen_jax.report.material import Material
from prunegen_jax.report.views import View, hover, label, legend_items, plot, text
from prunegen_jax.runs.schema import Json

POINTS = 80  # of a training curve: as many as a screen can show
BOTTOM, TOP = (
    0.7,
    40.0,
)  # of the pruned loss relative to the whole one: beyond it, the network no longer works
_FLOOR = 1e-9  # the lower end of a logarithmic axis

_COLOUR = """
for (const source of sources) source.data = {...source.data, colour: source.data[`c${cb_obj.value}`]}
legend.items = items[cb_obj.value]
"""


def pruning(material: Material, colourings: Mapping[str, Colouring], colour: Select) -> View:
    """Training loss of the pruned network relative to the whole one, over the kept fraction, with the crossing."""
    lines = {name: relative(curve) for name, curve in material.curves.items()}
    shown = plot(height=430, y_axis_type="log", x_range=(0, 1.005), name="pruning")
    shown.xaxis.axis_label = label("fraction of the parameters kept")
    shown.yaxis.axis_label = label("training loss ÷ that of the whole network")
    shown.y_range = Range1d(BOTTOM, TOP)
    source, drawn = _draw(shown, lines, material, colourings)
    limits = {name: crossing(found) for name, found in material.crossings.items() if name in lines}
    limits = {name: point for name, point in limits.items() if point is not None}
    order = {name: i for i, name in enumerate(lines)}
    places = [order[name] for name in limits]
    crossings = ColumnDataSource(
        {"x": [x for x, _, _ in limits.values()], "y": [y for _, y, _ in limits.values()], "name": _texts(limits)}
        | {key: [column[i] for i in places] for key, column in source.data.items() if key.startswith("c")}
    )
    dots = shown.scatter(
        "x", "y", source=crossings, size=8, fill_color="colour", line_color="white", marker="circle", name="crossings"
    )
    shown.add_tools(hover([("network", "@name"), ("prunability", "@x{0.000}")], renderers=[dots]))
    for limit in levels(limit for _, _, limit in limits.values()):
        shown.add_layout(Span(location=limit, dimension="width", line_color=INK, line_dash="dashed", line_width=1))
    return _coloured(shown, [source, crossings], drawn, list(lines), material, colourings, colour)


def training(material: Material, colourings: Mapping[str, Colouring], colour: Select) -> View:
    """Cross-entropy on the training set over the updates, and the target at which training stops."""
    lines = {name: thinned(history) for name, history in material.histories.items()}
    shown = plot(height=430, y_axis_type="log", name="training")
    shown.xaxis.axis_label = label("updates")
    shown.yaxis.axis_label = label("training loss (nats)")
    source, drawn = _draw(shown, lines, material, colourings)
    for target in levels(history["target"] for history in material.histories.values() if history["target"] > 0):
        shown.add_layout(Span(location=target, dimension="width", line_color=INK, line_dash="dashed", line_width=1))
    return _coloured(shown, [source], drawn, list(lines), material, colourings, colour)


def relative(curve: Json) -> tuple[np.ndarray, np.ndarray]:
    """Kept fractions `[g]` and losses `[g]` divided by the loss of the whole network."""
    losses = np.array([float(x) for x in curve["losses"]])
    dense = losses[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(dense > 0, losses / dense, np.nan)
    return np.array(curve["fractions"]), np.maximum(ratios, _FLOOR)


def crossing(found: Json) -> tuple[float, float, float] | None:
    """Where a network's prunability lies: kept fraction, loss there and limit, both relative to the whole network."""
    dense = float(found["dense"])
    if not dense > 0:
        return None
    return float(found["fraction"]), float(found["loss"]) / dense, float(found["limit"]) / dense


def thinned(history: Json) -> tuple[np.ndarray, np.ndarray]:
    """Updates and losses of a training curve's checks, at most `POINTS` of them, the first and the last included."""
    updates, losses = np.array(history["check_update"], np.float64), np.array(history["check_loss"], np.float64)
    chosen = np.unique(np.linspace(0, max(len(updates) - 1, 0), POINTS).round().astype(int))[: len(updates)]
    return updates[chosen], np.maximum(losses[chosen], _FLOOR)


def levels(values: Iterable[float]) -> list[float]:
    """The different values, the three smallest at most: where dashed lines go."""
    return sorted({round(value, 6) for value in values})[:3]


def _draw(
    shown: Any, lines: Mapping[str, Any], material: Material, colourings: Mapping[str, Colouring]
) -> tuple[ColumnDataSource, Any]:
    data: dict[str, Any] = {"xs": [x.astype(np.float32) for x, _ in lines.values()]}
    data |= {"ys": [y.astype(np.float32) for _, y in lines.values()], "name": _texts(lines)}
    place = {name: i for i, name in enumerate(material.everyone.names)}
    for i, each in enumerate(colourings.values()):
        data[f"c{i}"] = [each.colours[place[name]] if name in place else GREY for name in lines]
    source = ColumnDataSource(data | {"colour": data["c0"]})
    drawn = shown.multi_line(
        "xs", "ys", source=source, line_color="colour", line_width=1.4, line_alpha=0.65, hover_line_width=3.5,
        hover_line_alpha=1, hover_line_color="colour",
    )  # fmt: skip
    shown.add_tools(hover([("network", "@name"), ("at", "$x{0.[000]}, $y{0.[0000]}")], renderers=[drawn]))
    return source, drawn


def _coloured(
    shown: Any,
    sources: list[ColumnDataSource],
    drawn: Any,
    names: list[str],
    material: Material,
    colourings: Mapping[str, Colouring],
    colour: Select,
) -> View:
    """The figure with a legend, following the choice of the colouring axis."""
    place = {name: i for i, name in enumerate(material.everyone.names)}
    known = [name for name in names if name in place]
    items = []
    for each in colourings.values():
        entries = legend_items(each, drawn, [place[name] for name in known])
        for entry in entries:
            entry.index = names.index(known[entry.index])
        items.append(entries)
    legend = Legend(items=items[0], border_line_color=None, label_text_font_size="12px")
    shown.add_layout(legend, "right")
    code = CustomJS(args={"sources": sources, "legend": legend, "items": items}, code=_COLOUR)
    colour.js_on_change("value", code)
    return View(shown)


def _texts(names: Mapping[str, Any] | Sequence[str]) -> list[str]:
    return [text(name) for name in names]
