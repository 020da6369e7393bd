"""Losses and measures against the size of the networks, in one figure: where double descent shows, if it is there."""

from __future__ import annotations

import base64
import io
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from prunegen_jax.judging.table import Table
from prunegen_jax.report.colours import OKABE_ITO

LEAST = 5  # sizes: with fewer there is no curve
_SIZES = ("width", "depth", "train_size", "num_parameters", "parameters", "channels")
_STYLE = {"text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "prunegen_jax", "font.size": 9}

Panel = tuple[str, dict[str, np.ndarray]]  # what is drawn together: the axis label, and the values by name


def size_axis(table: Table) -> str | None:
    """The hyperparameter that says how large the networks are, if it has enough values; None if there is none."""
    for size in _SIZES:
        for name, values in table.hyperparameters.items():
            if name.rpartition(".")[2] == size and values.dtype.kind == "f" and len(np.unique(values)) >= LEAST:
                return name
    return None


def panels(table: Table) -> list[Panel]:
    """Test and training loss, test error, the prunability measures, and two flatness measures."""
    losses = {"test loss": table.targets.get("test_loss"), "training loss": table.confounders.get("train_loss")}
    found: list[Panel] = [(f"{k} (nats)", {k: v}) for k, v in losses.items() if v is not None]
    if "test_error" in table.targets:
        found.append(("error (fraction)", {"test error": table.targets["test_error"]}))
    pruning = {k: v for k, v in table.measures.items() if k.startswith("prunability")}
    found.append(("kept fraction", pruning))
    flatness = [name for name in table.measures if table.families.get(name) == "flatness"]
    found += [(name, {name: table.measures[name]}) for name in flatness[:2]]
    return [panel for panel in found if panel[1]]


def draw(table: Table, axis: str) -> Figure:
    """The figure: one panel below the other over the values of `axis`; dots are networks, lines their means."""
    shown = panels(table)
    figure = Figure(figsize=(6.6, 0.6 + 1.75 * len(shown)), layout="constrained")
    across = table.hyperparameters[axis]
    sizes = np.unique(across[~np.isnan(across)])
    for place, (label, lines) in enumerate(shown):
        axes = figure.add_subplot(len(shown), 1, place + 1)
        for colour, (name, values) in zip(OKABE_ITO, lines.items(), strict=False):
            finite = np.where(np.isfinite(values), values, np.nan)
            axes.plot(across, finite, ".", color=colour, markersize=4, alpha=0.5)
            axes.plot(sizes, means(across, finite, sizes), color=colour, linewidth=1.4, label=name)
        _scale(axes, across, list(lines.values()), is_fraction=label in ("kept fraction", "error (fraction)"))
        axes.set_ylabel(label, fontsize=8)
        if len(lines) > 1:
            axes.legend(frameon=False, fontsize=7)
    axes.set_xlabel(axis)
    return figure


def means(across: np.ndarray, values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The mean of the known `values [n]` at each of `sizes [s]`, `nan` where there is none."""
    groups = [values[(across == size) & ~np.isnan(values)] for size in sizes]
    return np.array([group.mean() if len(group) else np.nan for group in groups])


def image(table: Table) -> str:
    """The figure as the address of an SVG that is contained in it; "" if the networks have no sizes."""
    axis = size_axis(table)
    if axis is None:
        return ""
    with mpl.rc_context(_STYLE):
        file = io.BytesIO()
        draw(table, axis).savefig(file, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}"


def _scale(axes: Any, across: np.ndarray, columns: list[np.ndarray], *, is_fraction: bool) -> None:
    """Logarithmic scales where all values are positive and far apart, linear ones for fractions."""
    if (across > 0).all():
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    values = np.concatenate([column[np.isfinite(column)] for column in columns])
    if not is_fraction and len(values) and 0 < 10 * values.min() <= values.max():
        axes.set_yscale("log")
        steps = (1.0,) if values.max() >= 100 * values.min() else (1.0, 2.0, 5.0)
        axes.yaxis.set_major_locator(LogLocator(subs=steps))
        axes.yaxis.set_major_formatter("{x:g}")  # the usual one writes formulas, which are off
        axes.yaxis.set_minor_formatter(NullFormatter())
