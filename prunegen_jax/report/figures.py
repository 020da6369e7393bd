"""The figures for a paper: PNG and SVG, without controls, one set per target."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prunegen_jax.judging.statistics import RANKED_BY, STATISTICS
from prunegen_jax.report import colours, comparison, lines, matrices, widths
from prunegen_jax.report.colours import GREY, INK, OKABE_ITO
from prunegen_jax.report.labels import target_name
from prunegen_jax.report.material import Material
from prunegen_jax.report.ranking import directed, rows_of
from prunegen_jax.report.views import drawable
from prunegen_jax.runs.schema import Json
from prunegen_jax.runs.tables.verdict_files import file_stems

_STYLE = {
    "text.parse_math": False,  # a measure may have a dollar in its name
    "svg.fonttype": "none", "svg.hashsalt": "prunegen_jax", "font.size": 9, "axes.spines.top": False,
    "axes.spines.right": False, "axes.edgecolor": GREY, "text.color": INK, "axes.labelcolor": INK,
}  # fmt: skip
_LABEL = STATISTICS[RANKED_BY].label
_PSI, _K = STATISTICS["psi"].label, STATISTICS["k"].label
_COLUMNS = 4  # of the scatters
_PANELS = 100  # of the scatters
_ENTRIES = 20  # of a legend
_LEGEND = {"frameon": False, "fontsize": 7, "title_fontsize": 7}
_TITLE = 36  # letters of a scatter's title
_LETTERS = 60  # of any other name: a level may be a whole page
_SIDE, _AREA = 12_000, 30_000_000  # pixels of a PNG at most


def figures(material: Material) -> Iterator[tuple[str, bytes]]:
    """File name and content of every figure, one after another."""
    for name, draw in drawers(material).items():
        yield from render(name, draw)


def render(name: str, draw: Callable[[], Figure]) -> list[tuple[str, bytes]]:
    """File name and content of the figure that `draw` draws, as PNG and as SVG."""
    found = []
    with mpl.rc_context(_STYLE):
        shown = draw()
        shown.set_dpi(_dpi(shown))  # of the PNG: text is measured once for it and the box
        box = shown.get_tightbbox().padded(0.1)  # inches
        for kind in ("png", "svg"):
            content = io.BytesIO()
            metadata = {"Date": None} if kind == "svg" else None  # equal reports are equal files
            shown.savefig(content, format=kind, dpi=shown.dpi, bbox_inches=box, metadata=metadata)
            found.append((f"{name}.{kind}", content.getvalue()))
    return found


def _dpi(figure: Figure) -> float:
    width, height = figure.get_size_inches()
    return min(200.0, _SIDE / max(width, height), math.sqrt(_AREA / (width * height)))


def drawers(material: Material) -> dict[str, Callable[[], Figure]]:
    """What draws each figure, by its name."""
    found: dict[str, Callable[[], Figure]] = {}
    for target, stem in file_stems(material.verdict.targets).items():
        rows = rows_of(material, target)
        found[f"intervals_{stem}"] = lambda rows=rows, target=target: _intervals(rows, target)
        found[f"scatters_{stem}"] = lambda rows=rows, target=target: _scatters(material, rows, target)
        if material.verdict.settings.get("axes"):
            found[f"psi_{stem}"] = lambda rows=rows: _psi(rows, material.verdict.settings["axes"])
        if comparison.is_there(material):
            found[f"comparison_{stem}"] = lambda rows=rows, target=target: _comparison(material, rows, target)
        if any("k" in row for row in rows):
            found[f"information_{stem}"] = lambda rows=rows, target=target: _information(rows, target)
    titles = {"shared_symmetric": "information shared by two measures"}
    titles |= {f"added_{t}": f"information about {_short(t)} added by the row" for t in material.verdict.targets}
    for name, title in titles.items():
        if name in material.verdict.matrices and len(matrices.filled([material.verdict.matrices[name]])[0]):
            stem = next(iter(file_stems([name]).values()))
            found[stem] = lambda name=name, title=title: _matrix(material, name, title)
    if (axis := widths.size_axis(material.everyone)) is not None:
        found["by_size"] = lambda: widths.draw(material.everyone, axis)
    if material.curves:
        found["pruning_curves"] = lambda: _pruning(material)
    if material.histories:
        found["training_curves"] = lambda: _training(material)
    return found


def _intervals(rows: list[Json], target: str) -> Figure:
    figure, axes = _empty(7.5, 0.9 + 0.21 * len(rows))
    family = colours.of_families(row["family"] for row in rows)
    for place, row in enumerate(rows):
        value, low, high = directed(row, RANKED_BY)
        axes.plot([low, high], [place, place], color=family[row["family"]], linewidth=1.6)
        axes.plot([value], [place], "o", color=family[row["family"]], markersize=4.5)
    axes.axvline(0, color=GREY, linewidth=0.7)
    axes.set(xlim=(-1.02, 1.02), xlabel=f"{_LABEL} in the expected direction, {_short(target_name(target))}")
    for name in dict.fromkeys(row["family"] for row in rows if row["family"]):
        axes.plot([], [], "o-", color=family[name], label=_short(name))
    if any(row["family"] for row in rows):
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return _named_rows(figure, axes, rows)


def _information(rows: list[Json], target: str) -> Figure:
    figure, axes = _empty(7.5, 0.9 + 0.21 * len(rows))
    for place, row in enumerate(rows):
        low, high = row.get("k_null", math.nan), row.get("k_null_95", math.nan)
        if not (math.isnan(low) or math.isnan(high)):
            axes.barh(place, high - low, left=low, height=0.7, color="#d9dee6")
        fill = OKABE_ITO[1] if row["sign"] * row[RANKED_BY] >= 0 else "white"
        axes.plot([row.get("k", math.nan)], [place], "o", color=OKABE_ITO[1], markerfacecolor=fill, markersize=4.5)
    axes.set(xlabel=f"{_K}, {_short(target_name(target))}; grey: null, mean to 95 %; open: opposite direction")
    return _named_rows(figure, axes, rows)


def _psi(rows: list[Json], axes_names: list[str]) -> Figure:
    values = [[row["sign"] * row.get(f"psi.{axis}", math.nan) for axis in axes_names] for row in rows]
    values = np.array([[*line, row["sign"] * row["psi"]] for line, row in zip(values, rows, strict=True)])
    figure, axes = _empty(2.2 + 0.95 * values.shape[1], 1.1 + 0.21 * len(rows))
    palette = mpl.colors.LinearSegmentedColormap.from_list("psi", colours.DIVERGING)
    image = axes.imshow(values, vmin=-1, vmax=1, cmap=palette, aspect="auto")
    axes.set_xticks(
        range(values.shape[1]), [*map(_short, axes_names), _PSI], rotation=30, ha="left", rotation_mode="anchor"
    )
    axes.xaxis.tick_top()
    figure.colorbar(image, ax=axes, shrink=0.6)
    return _named_rows(figure, axes, rows, margin=0.5)


def _comparison(material: Material, rows: list[Json], target: str) -> Figure:
    """The reference against the best other measure: both ranks, coloured by the target, and both correlations."""
    first = next(row["measure"] for row in rows if row["measure"] != material.reference)
    figure = Figure(figsize=(9.5, 3.6))
    left, right = figure.subplots(1, 2, gridspec_kw={"wspace": 0.2})
    ranks, (labels, ours, theirs) = comparison.ranks(material), comparison.correlations(material, first, target)
    values = drawable(material.table.targets[target])
    drawn = left.scatter(ranks[material.reference], ranks[first], c=values, s=16, cmap="viridis")
    figure.colorbar(drawn, ax=left).set_label(_short(target_name(target)))
    left.set(xlabel=f"{_short(material.reference)} (rank)", ylabel=f"{_short(first)} (rank)")
    for place, pair in enumerate(zip(ours, theirs, strict=True)):
        right.plot(pair, [place, place], color=GREY, linewidth=1)
    for numbers, colour, name in ((ours, OKABE_ITO[0], material.reference), (theirs, OKABE_ITO[1], first)):
        right.plot(numbers, range(len(labels)), "o", color=colour, markersize=5, label=_short(name))
    right.axvline(0, color=GREY, linewidth=0.7)
    right.spines[["left", "right"]].set_visible([False, True])
    right.yaxis.tick_right()  # names find room outside
    right.set_yticks(range(len(labels)), [*map(_short, labels)])
    right.set(xlim=(-1.04, 1.04), ylim=(len(labels) - 0.5, -0.5), xlabel="correlation in the expected direction")
    right.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)
    return figure


def _matrix(material: Material, name: str, title: str) -> Figure:
    """The rows and columns of a matrix that have a value."""
    found = material.verdict.matrices[name]
    rows, columns = matrices.filled([found])
    null = (
        material.verdict.matrices.get(name.replace("added_", "added_null_", 1)) if name.startswith("added_") else None
    )
    values = (found.values - (0 if null is None else null.values))[np.ix_(rows, columns)]
    width, height = 1.8 + 0.16 * len(columns), 1.8 + 0.16 * len(rows)
    figure, axes = _empty(width + 0.6, height)
    image = axes.imshow(values, vmin=0, vmax=None if name.startswith("added_") else 1, cmap="viridis")
    axes.set_xticks(range(len(columns)), [_short(found.columns[i]) for i in columns], rotation=90, fontsize=6)
    axes.set_yticks(range(len(rows)), [_short(found.rows[i]) for i in rows], fontsize=6)
    figure.colorbar(image, ax=axes, shrink=0.6)
    axes.set_title(title, fontsize=8)
    return figure


def _scatters(material: Material, rows: list[Json], target: str) -> Figure:
    colouring = colours.of_axis(material.table.hyperparameters[material.axes[0]]) if material.axes else None
    height = math.ceil(min(len(rows), _PANELS) / _COLUMNS)
    figure = Figure(figsize=(2.4 * _COLUMNS, 2.0 * height))  # a layout engine takes longer than all the drawing
    figure.subplots_adjust(0, 0, 1, 1, wspace=0.25, hspace=0.45)
    for place, row in enumerate(rows[:_PANELS]):
        axes = figure.add_subplot(height, _COLUMNS, place + 1)
        values, targets = drawable(material.table.measures[row["measure"]]), drawable(material.table.targets[target])
        axes.scatter(values, targets, s=9, c=colouring.colours if colouring else OKABE_ITO[1])
        axes.set_title(f"{_short(row['measure'], _TITLE)}\n{_LABEL} {row[RANKED_BY]:.2f}", fontsize=7)
        axes.tick_params(labelsize=6)
        axes.locator_params(nbins=4)
        axes.ticklabel_format(axis="x", scilimits=(-3, 4))
        axes.xaxis.get_offset_text().set_fontsize(6)
    which = "every measure" if len(rows) <= _PANELS else f"the best {_PANELS} of {len(rows)} measures"
    title = f"{which} (horizontal) against {_short(target_name(target))} (vertical)"
    figure.suptitle(title, x=0, y=1 + 0.55 / (2.0 * height), ha="left", fontsize=8)
    if colouring:
        handles = _legend_entries(colouring)
        figure.legend(*handles, title=_short(material.axes[0]), loc="upper left", bbox_to_anchor=(1, 1), **_LEGEND)
    return figure


def _pruning(material: Material) -> Figure:
    curves = {name: lines.relative(curve) for name, curve in material.curves.items()}
    figure = _lines(material, curves, "fraction of the parameters kept", "training loss ÷ that of the whole network")
    axes, points = figure.axes[0], lines.crossings(material, curves)
    xs, ys = [x for x, _, _ in points.values()], [y for _, y, _ in points.values()]
    axes.plot(xs, ys, "o", color=INK, markersize=2.5, clip_on=False)
    for limit in lines.levels(limit for _, _, limit in points.values()):
        axes.axhline(limit, color=INK, linewidth=0.7, linestyle="dashed")
    bottom, top = lines.loss_range(curves, points)
    axes.set(xlim=(0, 1.01), ylim=(bottom, top))
    axes.set_yticks([tick for tick in lines.TICKS if bottom <= tick <= top])
    return figure


def _training(material: Material) -> Figure:
    histories = {name: lines.thinned(history) for name, history in material.histories.items()}
    figure = _lines(material, histories, "updates", "training loss (nats)")
    for loss in lines.levels(lines.stopping_losses(material)):
        figure.axes[0].axhline(loss, color=INK, linewidth=0.7, linestyle="dashed")
        figure.axes[0].text(0.01, loss, f"training stops at {loss:g}", fontsize=7, va="bottom",
                            transform=figure.axes[0].get_yaxis_transform())  # fmt: skip
    return figure


def _lines(material: Material, curves: dict[str, Any], x: str, y: str) -> Figure:
    figure, axes = _empty(6.5, 3.8)
    place = {name: i for i, name in enumerate(material.everyone.names)}
    axis = material.axes[0] if material.axes else None
    colouring = colours.of_axis(material.everyone.hyperparameters[axis]) if axis else None
    for name, (across, up) in curves.items():
        known = colouring is not None and name in place
        axes.plot(across, up, color=colouring.colours[place[name]] if known else GREY, linewidth=0.8, alpha=0.7)
    if axis:
        axes.legend(*_legend_entries(colouring), title=_short(axis), loc="upper left", bbox_to_anchor=(1, 1), **_LEGEND)
    axes.set(yscale="log", xlabel=x, ylabel=y)
    axes.yaxis.set_major_formatter("{x:g}")  # the usual one writes formulas, which are off
    axes.yaxis.set_minor_locator(mpl.ticker.NullLocator())
    return figure


def _legend_entries(colouring: colours.Colouring) -> tuple[list[Line2D], list[str]]:
    """The handles and the labels of a legend of the colours, the first few."""
    colour = dict(zip(colouring.labels, colouring.colours, strict=True))
    names = [name for name in colouring.order if name in colour][:_ENTRIES]
    handles = [Line2D([], [], marker="o", linestyle="", color=colour[name], markersize=4) for name in names]
    return handles, [_short(name) for name in names]


def _short(name: str, letters: int = _LETTERS) -> str:
    """A name, shortened to fit into a figure."""
    return name if len(name) <= letters else name[: letters - 1] + "…"


def _empty(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height))  # names find room outside: figures are saved tight
    return figure, figure.add_subplot()


def _named_rows(figure: Figure, axes: Any, rows: list[Json], *, margin: float = 0.6) -> Figure:
    """One row per measure, the first on top."""
    axes.set_yticks(range(len(rows)), [_short(row["measure"]) for row in rows])
    axes.set_ylim(len(rows) - 1 + margin, -margin)
    return figure
