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

from prunegen_jax.judging.statistics import RANKED_BY, STATISTICS, best_first
from prunegen_jax.report import colours, lines, rival, widths
from prunegen_jax.report.colours import GREY, INK, OKABE_ITO
from prunegen_jax.report.material import Material
from prunegen_jax.report.ranking import believed
from prunegen_jax.report.views import target_name
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
_TITLE = 36  # letters of a scatter's title
_LETTERS = 60  # of any other name: a level may be a whole page
_SIDE, _AREA = 12_000, 30_000_000  # pixels of a PNG at most


def stills(material: Material) -> Iterator[tuple[str, bytes]]:
    """File name and content of every figure, one after another."""
    with mpl.rc_context(_STYLE):
        for name, draw in _figures(material).items():
            shown = draw()
            for kind in ("png", "svg"):
                content = io.BytesIO()
                metadata = {"Date": None} if kind == "svg" else None  # equal reports are equal files
                shown.savefig(content, format=kind, dpi=_dpi(shown), bbox_inches="tight", metadata=metadata)
                yield f"{name}.{kind}", content.getvalue()


def _dpi(figure: Figure) -> float:
    width, height = figure.get_size_inches()
    return min(200.0, _SIDE / max(width, height), math.sqrt(_AREA / (width * height)))


def _figures(material: Material) -> dict[str, Callable[[], Figure]]:
    found: dict[str, Callable[[], Figure]] = {}
    for target, stem in file_stems(material.verdict.targets).items():
        rows = sorted((row for row in material.verdict.rows if row["target"] == target), key=best_first)
        found[f"intervals_{stem}"] = lambda rows=rows, target=target: _intervals(rows, target)
        found[f"scatters_{stem}"] = lambda rows=rows, target=target: _scatters(material, rows, target)
        if material.verdict.settings.get("axes"):
            found[f"psi_{stem}"] = lambda rows=rows: _psi(rows, material.verdict.settings["axes"])
        if rival.is_there(material):
            found[f"rival_{stem}"] = lambda rows=rows, target=target: _rival(material, rows, target)
        if any("k" in row for row in rows):
            found[f"information_{stem}"] = lambda rows=rows, target=target: _information(rows, target)
    for name in ("shared_symmetric", *(f"added_{target}" for target in material.verdict.targets)):
        if name in material.verdict.matrices:
            stem = next(iter(file_stems([name]).values()))
            found[stem] = lambda name=name: _matrix(material, name)
    if (axis := widths.size_axis(material.everyone)) is not None:
        found["by_size"] = lambda: widths.draw(material.everyone, axis)
    if material.curves:
        found["pruning_curves"] = lambda: _pruning(material)
    if material.histories:
        histories = {name: lines.thinned(history) for name, history in material.histories.items()}
        found["training_curves"] = lambda: _lines(material, histories, "updates", "training loss (nats)")
    return found


def _intervals(rows: list[Json], target: str) -> Figure:
    figure, axes = _empty(7.5, 0.9 + 0.21 * len(rows))
    family = colours.of_families(row["family"] for row in rows)
    for place, row in enumerate(rows):
        value, low, high = believed(row, RANKED_BY)
        axes.plot([low, high], [place, place], color=family[row["family"]], linewidth=1.6)
        axes.plot([value], [place], "o", color=family[row["family"]], markersize=4.5)
    axes.axvline(0, color=GREY, linewidth=0.7)
    axes.set(xlim=(-1.02, 1.02), xlabel=f"{_LABEL} in the believed direction, {_short(target_name(target))}")
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
    axes.set(xlabel=f"{_K}, {_short(target_name(target))}; grey: null, mean to 95 %; open: against the belief")
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


def _rival(material: Material, rows: list[Json], target: str) -> Figure:
    """The reference against the best other measure: both ranks, coloured by the target, and both correlations."""
    first = next(row["measure"] for row in rows if row["measure"] != material.reference)
    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    ranks, (labels, ours, theirs) = rival.ranks(material), rival.compared(material, first, target)
    values = material.table.targets[target]
    drawn = left.scatter(ranks[material.reference], ranks[first], c=values, s=16, cmap="viridis")
    figure.colorbar(drawn, ax=left).set_label(_short(target_name(target)))
    left.set(xlabel=f"{_short(material.reference)} (rank)", ylabel=f"{_short(first)} (rank)")
    for place, pair in enumerate(zip(ours, theirs, strict=True)):
        right.plot(pair, [place, place], color=GREY, linewidth=1)
    for numbers, colour, name in ((ours, OKABE_ITO[0], material.reference), (theirs, OKABE_ITO[1], first)):
        right.plot(numbers, range(len(labels)), "o", color=colour, markersize=5, label=_short(name))
    right.axvline(0, color=GREY, linewidth=0.7)
    right.set_yticks(range(len(labels)), [*map(_short, labels)])
    right.set(xlim=(-1.04, 1.04), ylim=(len(labels) - 0.5, -0.5), xlabel="correlation in the believed direction")
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return figure


def _matrix(material: Material, name: str) -> Figure:
    matrix = material.verdict.matrices[name]
    null = (
        material.verdict.matrices.get(name.replace("added_", "added_null_", 1)) if name != "shared_symmetric" else None
    )
    values = matrix.values - (0 if null is None else null.values)
    side = 1.8 + 0.16 * len(matrix.rows)
    figure, axes = _empty(side + 0.6, side)
    image = axes.imshow(values, vmin=0, vmax=1 if name == "shared_symmetric" else None, cmap="viridis")
    axes.set_xticks(range(len(matrix.columns)), [*map(_short, matrix.columns)], rotation=90, fontsize=6)
    axes.set_yticks(range(len(matrix.rows)), [*map(_short, matrix.rows)], fontsize=6)
    figure.colorbar(image, ax=axes, shrink=0.6)
    axes.set_title(matrix.meaning + ("" if null is None else ", less the null's mean"), fontsize=8)
    return figure


def _scatters(material: Material, rows: list[Json], target: str) -> Figure:
    colouring = colours.of_axis(material.table.hyperparameters[material.axes[0]]) if material.axes else None
    height = math.ceil(min(len(rows), _PANELS) / _COLUMNS)
    figure = Figure(figsize=(2.4 * _COLUMNS, 2.0 * height), layout="constrained")
    for place, row in enumerate(rows[:_PANELS]):
        axes = figure.add_subplot(height, _COLUMNS, place + 1)
        values = material.table.measures[row["measure"]]
        finite = np.where(np.isfinite(values), values, np.nan)
        axes.scatter(finite, material.table.targets[target], s=9, c=colouring.colours if colouring else OKABE_ITO[1])
        axes.set_title(f"{_short(row['measure'], _TITLE)}\n{_LABEL} {row[RANKED_BY]:.2f}", fontsize=7)
        axes.tick_params(labelsize=6)
        axes.ticklabel_format(axis="x", scilimits=(-3, 4))
        axes.xaxis.get_offset_text().set_fontsize(6)
    words = f", coloured by {_short(material.axes[0])}" if material.axes else ""
    figure.supylabel(_short(target_name(target)), fontsize=8)
    which = "every measure" if len(rows) <= _PANELS else f"the best {_PANELS} of {len(rows)} measures"
    figure.suptitle(f"{which} against the target{words}", fontsize=8)
    return figure


def _pruning(material: Material) -> Figure:
    curves = {name: lines.relative(curve) for name, curve in material.curves.items()}
    figure = _lines(material, curves, "fraction of the parameters kept", "training loss ÷ that of the whole network")
    axes = figure.axes[0]
    points = [
        point for name, found in material.crossings.items() if name in curves and (point := lines.crossing(found))
    ]
    axes.plot([x for x, _, _ in points], [y for _, y, _ in points], "o", color=INK, markersize=2.5, label="prunability")
    for limit in lines.levels(limit for _, _, limit in points):
        axes.axhline(limit, color=INK, linewidth=0.7, linestyle="dashed")
    axes.set(ylim=(lines.BOTTOM, lines.TOP))
    return figure


def _lines(material: Material, curves: dict[str, Any], x: str, y: str) -> Figure:
    figure, axes = _empty(6.5, 3.8)
    place = {name: i for i, name in enumerate(material.everyone.names)}
    axis = material.axes[0] if material.axes else None
    colouring = colours.of_axis(material.everyone.hyperparameters[axis]) if axis else None
    for name, (across, up) in curves.items():
        known = colouring is not None and name in place
        axes.plot(across, up, color=colouring.colours[place[name]] if known else GREY, linewidth=0.8, alpha=0.7)
    for word in colouring.order[:_PANELS] if colouring else ():
        axes.plot([], [], color=colouring.colours[colouring.labels.index(word)], label=_short(word))
    if axis:
        axes.legend(title=_short(axis), frameon=False, fontsize=7, title_fontsize=7)
    axes.set(yscale="log", xlabel=x, ylabel=y)
    axes.yaxis.set_major_formatter("{x:g}")  # the usual one writes formulas, which are off
    axes.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    return figure


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
