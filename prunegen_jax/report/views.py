"""Common parts of the interactive figures: their style, and the control of the target."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from bokeh.models import (
    ColumnDataSource,
    CustomJS,
    HoverTool,
    InlineStyleSheet,
    Model,
    Plot,
    Select,
    UIElement,
)
from bokeh.plotting import figure

from prunegen_jax.report.colours import INK, Colouring
from prunegen_jax.report.labels import text

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
Data = dict[str, Sequence[Any]]
_LARGEST = 1e300  # an axis around larger numbers overflows
# A figure is drawn in light colours; a dark page inverts the lightness and keeps the hue. White becomes #141414, the
# background of the dark page.
DARK = "@media (prefers-color-scheme: dark) { :host { filter: invert(.92) hue-rotate(180deg); } }"
_CONTROL = """
:host { max-width: 100%; font-family: inherit; }
label { color: var(--soft); }
.bk-input, .bk-input:focus { color: var(--ink); background-color: var(--paper); border-color: var(--line); }
.bk-input { max-width: 100%; }
option { color: var(--ink); background: var(--paper); }
@media (prefers-color-scheme: dark) { select.bk-input { appearance: auto; background-image: none; } }
"""

# Shows the parts of the page, the data of each source and the properties of each model for the chosen target.
_SWITCH = """
for (const part of document.querySelectorAll('[data-target]')) part.hidden = part.dataset.target != cb_obj.value
for (const [source, views] of sources) source.data = {...source.data, ...views[cb_obj.value]}
for (const [model, property, texts] of properties) model[property] = texts[cb_obj.value]
"""
_SHOW_LEGEND = """
for (const part of document.querySelectorAll('[data-colour]')) part.hidden = part.dataset.colour != cb_obj.value
"""


@dataclasses.dataclass(frozen=True)
class View:
    """A part of the page that changes with the target, which is given by its index.

    Attributes:
        root: what is shown.
        sources: data sources with their columns for each target.
        properties: models with a property and its value for each target.
    """

    root: UIElement
    sources: list[tuple[ColumnDataSource, dict[str, Data]]] = dataclasses.field(default_factory=list)
    properties: list[tuple[Model, str, dict[str, Any]]] = dataclasses.field(default_factory=list)


def choice(title: str, options: Sequence[str], name: str, *, width: int, value: int = 0) -> Select:
    """A control that chooses one of `options`, by its index."""
    entries = [(str(i), text(option)) for i, option in enumerate(options)]
    style = InlineStyleSheet(css=_CONTROL)
    return Select(title=title, value=str(value), options=entries, width=width, name=name, stylesheets=[style])


def target_choice(targets: Sequence[str]) -> Select:
    """The choice of the target."""
    return choice("target", targets, "target", width=160)


def follow_target(control: Select, views: Sequence[View]) -> None:
    """Makes the page and all `views` show the chosen target."""
    sources = [[source, data] for view in views for source, data in view.sources]
    properties = [list(entry) for view in views for entry in view.properties]
    control.js_on_change("value", CustomJS(args={"sources": sources, "properties": properties}, code=_SWITCH))


def colour_choice(colourings: Mapping[str, Colouring]) -> Select:
    """The choice of the hyperparameter that colours networks; the page's legends follow it."""
    control = choice("colour networks by", list(colourings), "colour", width=160)
    control.js_on_change("value", CustomJS(code=_SHOW_LEGEND))
    return control


def plot(description: str, **options: Any) -> figure:
    """An empty figure in the style of the page; screen readers read the description."""
    options = {"sizing_mode": "stretch_width"} | options
    shown = figure(tools="pan,box_zoom,wheel_zoom,reset,save", active_scroll=None, **options)
    shown.html_attributes = alternative(description)
    shown.stylesheets = [InlineStyleSheet(css=DARK)]
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


def alternative(description: str) -> dict[str, str]:
    """The attributes of an element that is an image with a description."""
    return {"role": "img", "aria-label": description}


def alternatives(shown: Plot, descriptions: Sequence[str]) -> tuple[Model, str, dict[str, Any]]:
    """The entry of `View.properties` that gives a figure its description for each target."""
    return shown, "html_attributes", {str(i): alternative(words) for i, words in enumerate(descriptions)}


def hover(rows: Sequence[tuple[str, str]], **options: Any) -> HoverTool:
    """The tooltip of a figure, from pairs of a label and a column's placeholder."""
    return HoverTool(tooltips=[(text(word), value) for word, value in rows], **options)


def drawable(values: np.ndarray) -> np.ndarray:
    """The values `[n]` that an axis can show; `nan` for the infinite and for those too large to compute a range."""
    return np.where(np.abs(values) <= _LARGEST, values, np.nan)
