"""Draws docs/images/prunability.svg from a judged workdir that measured prunability.

    python docs/make_pictures.py runs/sweep [FOLDER]

Left: the training loss of two networks as smaller and smaller weights are kept, the most and the least prunable that
were judged. Right: prunability and generalization gap of all of them.
"""

from __future__ import annotations

import pathlib
import sys
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from prunegen_jax.report import colours, lines, material
from prunegen_jax.report.material import Material

IMAGES = pathlib.Path(__file__).parent / "images"


def picture(found: Material) -> Figure:
    """The picture. ValueError if the networks' prunability or their pruning curves are not there."""
    values = found.table.measures.get("prunability")
    if values is None or not all(name in found.curves for name in found.table.names):
        raise ValueError(f"{found.title} lacks prunability or pruning curves; run the sweep to its end")
    figure = Figure(figsize=(9.4, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    order = np.argsort(values)
    for place, colour in ((order[0], colours.OKABE_ITO[1]), (order[-1], colours.OKABE_ITO[0])):
        _curve(left, found, found.table.names[place], colour)
        right.plot(values[place], found.table.targets["gap"][place], "o", color=colour, markersize=7, zorder=3)
    left.axhline(1.1, color=colours.INK, linewidth=0.8, linestyle="dashed")
    left.text(0.02, 1.13, "1 + β = 1.1", fontsize=8)
    names = [found.table.names[place] for place in (order[0], order[-1])]
    curves = {name: lines.relative(found.curves[name]) for name in names}
    ends = lines.loss_range(curves, lines.crossings(found, names))
    left.set(yscale="log", xlim=(0, 1.01), ylim=ends, xlabel="fraction α of the weights kept")
    left.set_yticks([tick for tick in lines.TICKS if ends[0] <= tick <= ends[1]])
    left.set_ylabel("training loss ÷ that of the whole network")
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    left.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    right.plot(values, found.table.targets["gap"], "o", color=colours.GREY, markersize=4)
    row = found.verdict.row("prunability", "gap")
    right.set_title(f"{len(values)} networks; τ-b over {row['n']} configurations {row['tau_b']:.2f}", fontsize=9)
    right.set(xlabel="prunability", ylabel="training − test accuracy")
    return figure


def _curve(axes: Any, found: Material, name: str, colour: str) -> None:
    """One network's pruned loss and the point at which its prunability lies."""
    axes.plot(*lines.relative(found.curves[name]), color=colour, linewidth=1.3)
    at, loss, _ = lines.crossing(found.crossings[name])
    gap = found.table.targets["gap"][found.table.names.index(name)]
    axes.plot(at, loss, "o", color=colour, label=f"prunability {at:g}, gap {gap:.3f}", zorder=3)


def main(workdir: str, folder: str | pathlib.Path = IMAGES) -> pathlib.Path:
    """Draws the picture of `workdir` into `folder`; returns its path."""
    target = pathlib.Path(folder) / "prunability.svg"
    target.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "prunegen_jax", "svg.fonttype": "none", "font.family": "sans-serif"}):
        picture(material.from_workdir(pathlib.Path(workdir))).savefig(target, metadata={"Date": None})
    return target


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("name a judged workdir: python docs/make_pictures.py runs/sweep")
    print(f"wrote {main(*sys.argv[1:3])}")
