"""Common parts of the interactive figures: their style, names shown as plain text, and the control of the target."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from bokeh.models import ColumnDataSource, CustomJS, HoverTool, LegendItem, Model, PlainText, Select, UIElement
from bokeh.plotting import figure

from prunegen_jax.report.colours import INK, Colouring

TARGETS = {
    "gap": "generalization gap (training − test accuracy)",
    "test_error": "test error (fraction)",
    "test_loss": "test loss (nats)",
    "loss_gap": "test − training loss (nats)",
    "ece": "expected calibration error",
    "brier": "Brier score",
}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
Data = dict[str, Sequence[Any]]

# Each source shows the data, and each model says the words, of the chosen target.
_SWITCH = """
for (const [source, views] of sources) source.data = {...source.data, ...views[cb_obj.value]}
for (const [model, property, texts] of labels) model[property] = texts[cb_obj.value]
"""


@dataclasses.dataclass(frozen=True)
class View:
    """A part of the page; columns of `sources` and properties in `texts` change with the target, given by its place."""

    root: UIElement
    sources: list[tuple[ColumnDataSource, dict[str, Data]]] = dataclasses.field(default_factory=list)
    texts: list[tuple[Model, str, dict[str, Any]]] = dataclasses.field(default_factory=list)


def text(name: str) -> str:
    """A name from a file, without characters that the plotting library interprets as a formula."""
    return name.replace("$$", "$\u200b$").replace("\\(", "\\\u200b(").replace("\\[", "\\\u200b[")


def target_name(name: str) -> str:
    """A target with its description, if it is a known one."""
    return TARGETS.get(name, text(name))


def target_choice(targets: Sequence[str]) -> Select:
    """The choice of the target, by its place."""
    options = [(str(place), text(name)) for place, name in enumerate(targets)]
    return Select(title="target", value="0", options=options, width=220, name="target")


def follow_target(choice: Select, views: Sequence[View]) -> None:
    """Makes all `views` show the chosen target."""
    sources = [[source, data] for view in views for source, data in view.sources]
    labels = [list(entry) for view in views for entry in view.texts]
    choice.js_on_change("value", CustomJS(args={"sources": sources, "labels": labels}, code=_SWITCH))


def colour_choice(colourings: Mapping[str, Colouring]) -> Select:
    """The choice of the axis that colours networks, by its place."""
    options = [(str(place), text(name)) for place, name in enumerate(colourings)]
    return Select(title="colour networks by", value="0", options=options, width=220, name="colour")


def plot(**options: Any) -> figure:
    """An empty figure in the style of the page."""
    tools = "pan,box_zoom,wheel_zoom,reset,save"
    options = {"sizing_mode": "stretch_width"} | options
    shown = figure(tools=tools, active_scroll=None, **options)
    shown.toolbar.logo = None
    shown.toolbar.autohide = True
    shown.background_fill_color = shown.border_fill_color = "white"
    shown.outline_line_color = None
    shown.grid.grid_line_color = "#e6e9ee"
    for axis in shown.axis:
        axis.axis_label_text_font = axis.major_label_text_font = FONT
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size, axis.major_label_text_font_size = "13px", "12px"
        axis.axis_label_text_color = axis.major_label_text_color = INK
        axis.axis_line_color = axis.major_tick_line_color = "#b9c0ca"
        axis.minor_tick_line_color = None
    return shown


def label(words: str) -> PlainText:
    """An axis label that is never taken for a formula."""
    return PlainText(text=words)


def hover(rows: Sequence[tuple[str, str]], **options: Any) -> HoverTool:
    """The tooltip of a figure, from pairs of a label and a column's placeholder."""
    return HoverTool(tooltips=[(text(word), value) for word, value in rows], **options)


def legend_items(colouring: Colouring, renderer: Any, indices: Sequence[int]) -> list[LegendItem]:
    """One entry per label, drawn as the first model that has it; `indices` are the models that `renderer` draws."""
    labels = [colouring.labels[i] for i in indices]
    return [
        LegendItem(label={"value": text(name)}, renderers=[renderer], index=labels.index(name))
        for name in colouring.order
        if name in labels
    ]
