"""The part of docs/findings.md on the large study, `configs/cifar10.py`, and its figure."""

from __future__ import annotations

import functools
import io
import json
import pathlib
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from etils import epath
from matplotlib.figure import Figure

from configs import cifar10
from docs import findings_text as text
from docs.findings_text import with_interval
from prunegen_jax.judging import Verdict, judge
from prunegen_jax.judging.statistics import RANKED_BY
from prunegen_jax.judging.table import Table
from prunegen_jax.judging.verdict import Row
from prunegen_jax.report import findings
from prunegen_jax.report.colours import OKABE_ITO
from prunegen_jax.runs import curves
from prunegen_jax.runs.studies import read_study

_SHARED = {"draws": text.DRAWS, "level": 0.95, "seed": 0}
_SHOWN_FRACTIONS = (0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0)  # of the pruning curve
_NOISE = {"test set": "the test set", "seeds": "the seeds", "both": "the test set and the seeds"}
_STYLE = {"text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "prunegen_jax", "font.size": 9}


def sections(folder: pathlib.Path) -> list[str]:
    """The answers (a), (b), (d), (e) and (f) from the tables in `folder`."""
    table, verdict = _judged(folder)
    drawn = curves.read_table(epath.Path(folder))
    ranked = findings.ranking(verdict, "gap").rows
    return [
        *_ranking(folder, table, verdict, ranked),
        *_growth(table),
        *_information(verdict, ranked),
        *_pruned_test_loss(drawn),
        *_choices(table, drawn),
        *_limits(table),
    ]


def summary(folder: pathlib.Path, descent: Sequence[Row]) -> str:
    """The paragraph that opens README.md.

    Args:
        folder: of the large study.
        descent: the ranking by test loss of the study of double descent.
    """
    table, verdict = _judged(folder)
    ranked = findings.ranking(verdict, "gap").rows
    place = [row["measure"] for row in ranked].index("prunability")
    flat = next(row for row in ranked if row["family"] == "flatness")
    best = "" if place == 0 else f" The best measure is `{ranked[0]['measure']}` with {with_interval(ranked[0])}."
    wide = {row["measure"]: row for row in descent}
    return text.paragraph(f"""
        **What was found so far.** Over {len(table)} convolutional networks trained on CIFAR-10, the rank correlation
        (tau-b) of prunability with the generalization gap is {with_interval(ranked[place])}: number {place + 1} of
        {len(ranked)} measures.{best} The best measure of flatness, `{flat["measure"]}`, has {with_interval(flat)}.
        Through a double descent on digits, the tau-b of prunability with the test loss is
        {with_interval(wide["prunability"])} with a relative tolerance and {with_interval(wide["prunability:absolute"])}
        with an absolute one; the training loss has {with_interval(wide["training_cross_entropy"])}. These are small
        networks and few images: [Findings](docs/findings.md) says what that cannot decide.""")


@functools.lru_cache(maxsize=4)
def _judged(folder: pathlib.Path) -> tuple[Table, Verdict]:
    table = read_study(epath.Path(folder))
    return table, judge(table, targets=["gap"], added_permutations=19, baseline_draws=200, **_SHARED)


def _ranking(folder: pathlib.Path, table: Table, verdict: Verdict, ranked: Sequence[Row]) -> list[str]:
    config = json.loads((folder / "config.json").read_text())
    gaps, seeds = table.targets["gap"], len(np.unique(table.hyperparameters["seed"]))
    axes = [f"{name.partition('.')[2].replace('_', ' ')} ({', '.join(map(str, values))})"
            for name, values in config["sweep"]["axes"] if name != "seed"]  # fmt: skip
    rows = {row["measure"]: row for row in ranked}
    ours, place = rows["prunability"], [row["measure"] for row in ranked].index("prunability") + 1
    ahead = [row for row in ranked if row["reference_high"] is not None and row["reference_high"] < 0]
    behind = [row for row in ranked if row["reference_low"] is not None and row["reference_low"] > 0]
    flat = [row for row in ranked if row["family"] == "flatness"]
    flat_behind = [row for row in flat if row in behind]
    ceiling = verdict.ceilings[-1]  # of the test set and the seeds, if there are several
    options = config["measures"]["options"]
    twice = options.get("prunability:double")
    double = f" `prunability:double` takes {twice['subset']}." if twice else ""
    left = f" {len(table.left_out)} more did not reach it and are left out." if table.left_out else ""
    return [
        "## Which measure predicts the generalization gap on CIFAR-10?\n",
        text.paragraph(f"""
            `python run.py --config=configs/cifar10.py --config.data.dir=DIR --workdir=runs/cifar10`: {len(table)}
            networks in network trained on {config["data"]["train_size"]:,} images of CIFAR-10 to a cross-entropy of
            {config["train"]["target"]}, {seeds} {"seed" if seeds == 1 else "seeds"} of each of
            {verdict.rows[0]["n"]} configurations: {", ".join(axes)}.{left} A row for each network in
            `studies/cifar10/results.csv`. The images were decoded from a copy that was encoded again as JPEG of quality
            75. Test accuracy is that of all 10,000 test images. `prunability` and the other measures that take many
            passes over the training set take its first {options["prunability"]["subset"]} images, the same for all
            networks.{double}"""),
        "![The rank correlation of every measure with the gap, and prunability against the gap](images/cifar10.svg)\n",
        text.paragraph(f"""
            The gap lies between {gaps.min():.3f} and {gaps.max():.3f}. A perfect measure is expected to have a tau-b of
            {ceiling["tau_b"]:.2f}, given the noise of {_NOISE[ceiling["noise"]]}."""),
        text.paragraph(f"""
            **Prunability is number {place} of {len(ranked)} measures: its tau-b with the gap is
            {with_interval(ours)}.** With the other hyperparameters fixed (Psi) it is {ours["psi"]:.2f}
            ({ours["psi_low"]:.2f} to {ours["psi_high"]:.2f}). Beyond the paired 95 % interval,
            {_names(ahead, "is", "are")} better than prunability, and {_names(behind, "is", "are")} worse. Of the
            {len(flat)} measures of flatness, prunability is better than {len(flat_behind)} beyond the interval."""),
        text.ranking(ranked),
    ]


def _names(rows: Sequence[Row], one: str, many: str) -> str:
    names = [f"`{row['measure']}`" for row in rows]
    if not names:
        return f"no measure {one}"
    if len(names) > 8:
        return f"{len(names)} measures {many}"
    return f"{', '.join(names)} {one if len(names) == 1 else many}"


def _growth(table: Table) -> list[str]:
    rows = findings.growth(table, "gap", **_SHARED).rows
    axes = dict.fromkeys(row["axis"] for row in rows)
    by_name: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_name.setdefault(row["name"], {})[row["axis"]] = row
    head = ["", *(f"per doubling of {axis.rpartition('.')[2]}" for axis in axes)]
    lines = [[f"`{name}`", *(_slope(found[axis]) for axis in axes)] for name, found in by_name.items()]
    said = []
    for axis in axes:
        gap, ours = by_name["gap"][axis], by_name["prunability"][axis]
        said.append(f"Along {axis.rpartition('.')[2]}, the gap {_course(gap)}, and prunability {_course(ours)}.")
    return [
        "## Does prunability grow with the size of the network?\n",
        text.paragraph("""
            Slope per doubling, in standard deviations over all configurations, with everything else fixed and 95 %
            intervals over cells."""),
        text.paragraph(f"**{' '.join(said)}**"),
        text.markdown([head, ["---"] + ["---:"] * len(axes), *lines]),
    ]


def _slope(row: Row) -> str:
    return f"{row['slope']:.2f} ({row['low']:.2f} to {row['high']:.2f})" if row["cells"] else "constant"


def _course(row: Row) -> str:
    if not row["cells"]:
        return "is constant"
    if row["low"] > 0:
        return f"rises by {_slope(row)}"
    if row["high"] < 0:
        return f"falls by {_slope(row)}"
    return f"is not shown to rise or fall: {_slope(row)}"


def _information(verdict: Verdict, ranked: Sequence[Row]) -> list[str]:
    shared = verdict.matrices["shared_symmetric"]
    families = {row["measure"]: row["family"] for row in ranked}
    ours = dict(zip(shared.columns, shared.values[shared.rows.index("prunability")], strict=True))
    kinds = sorted({kind for name, kind in families.items() if name != "prunability"})
    lines = []
    for kind in kinds:
        members = [name for name, family in families.items() if family == kind and name != "prunability"]
        values = np.array([ours[name] for name in members])
        most = members[int(np.nanargmax(values))] if np.isfinite(values).any() else ""
        lines.append([kind, str(len(members)), f"{np.nanmean(values):.3f}", f"`{most}` {np.nanmax(values):.3f}"])
    added, null = verdict.matrices["added_gap"], verdict.matrices["added_null_gap"]
    known = dict(zip(kinds, (_added(added, null, families, kind) for kind in kinds), strict=True))
    for line in lines:
        line += [f"{value:.3f}" for value in known[line[0]]]
    head = ["family", "measures", "shared with prunability, mean", "most", "prunability adds", "adds to prunability"]
    return [
        "## What does prunability share with other measures, and add to them?\n",
        text.paragraph("""
            Shared: normalised mutual information of the orders of two networks, between 0 and 1. Added: information
            about the gap that one measure has beyond another, minus the mean of permuted measures; means over the
            family."""),
        text.markdown([head, ["---", "---:", "---:", "---", "---:", "---:"], *lines]),
    ]


def _added(added: object, null: object, families: Mapping[str, str], kind: str) -> tuple[float, float]:
    """What prunability adds to the measures of a family, and they to it."""
    members = [name for name, family in families.items() if family == kind and name != "prunability"]
    surplus = added.values - null.values
    place = added.rows.index("prunability")
    gives = [surplus[place, added.columns.index(name)] for name in members]
    takes = [surplus[added.rows.index(name), added.columns.index("prunability")] for name in members]
    return float(np.nanmean(gives)), float(np.nanmean(takes))


def _pruned_test_loss(drawn: Mapping[str, object]) -> list[str]:
    found = findings.pruned_test_loss(drawn)
    rows = [row for row in found.rows if any(abs(row["kept_fraction"] - f) < 1e-9 for f in _SHOWN_FRACTIONS)]
    columns = {
        "kept_fraction": "kept",
        "training_median": "training loss, median",
        "test_low": "test loss, first quartile",
        "test_median": "median",
        "test_high": "third quartile",
    }
    return [
        "## How does the test loss change along the pruning curve?\n",
        *([text.paragraph(found.about), text.table(rows, columns)] if rows else ["Not computed yet.\n"]),
    ]


def _choices(table: Table, drawn: Mapping[str, object]) -> list[str]:
    found = findings.choices(table, "gap", drawn, **_SHARED)
    lines = [[f"`{row['measure']}`" if "=" not in row["measure"] else row["measure"], str(row["n"]),
              f"{row[RANKED_BY]:.2f}", f"{row[f'{RANKED_BY}_low']:.2f} to {row[f'{RANKED_BY}_high']:.2f}",
              f"{row['psi']:.2f}"] for row in found.rows]  # fmt: skip
    taus = [row[RANKED_BY] for row in found.rows]
    return [
        "## How does the answer depend on the choices in prunability?\n",
        text.paragraph(f"""
            **Over these choices, the tau-b of prunability with the gap lies between {min(taus):.2f} and
            {max(taus):.2f}.** Rows with beta are read from pruning curves of 50 steps, the others are columns of the
            study."""),
        text.markdown([["choice", "n", "tau-b", "95 %", "Psi"], ["---", "---:", "---:", "---", "---:"], *lines]),
    ]


def _limits(table: Table) -> list[str]:
    wanted = cifar10.get_config()
    later = [f"`{name}`" for name in wanted.measures.names if name not in table.measures]
    seeds, trained = dict(wanted.sweep.axes)["seed"], len(np.unique(table.hyperparameters["seed"]))
    few = f" The study has {trained} of the {len(seeds)} seeds of its config." if trained < len(seeds) else ""
    lacking = f" Not measured yet: {', '.join(later)}." if later else ""
    depth, gap = table.hyperparameters["model.depth"], table.targets["gap"]
    means = ", ".join(f"{gap[depth == value].mean():.3f} at depth {value:g}" for value in np.unique(depth))
    return [
        "## What these networks cannot decide\n",
        text.paragraph(f"""
            These networks see {wanted.data.train_size:,} of the 50,000 training images and fit nearly all of them, and
            depth makes most of the difference between their gaps: the mean is {means}. So a measure that follows depth
            ranks high, and one that does not ranks low; Psi, with depth fixed, says more.{few}{lacking}"""),
    ]


def figure(folder: pathlib.Path) -> bytes:
    """The central figure, as SVG: tau-b of every measure with its interval, and prunability against the gap."""
    table, verdict = _judged(folder)
    ranked = findings.ranking(verdict, "gap").rows
    with mpl.rc_context(_STYLE):
        drawn = Figure(figsize=(9.2, 0.5 + 0.19 * len(ranked)), layout="constrained")
        left, right = drawn.subplots(1, 2, width_ratios=(1.5, 1))
        for y, row in enumerate(reversed(ranked)):
            low, high = text.interval(row)
            colour = OKABE_ITO[1] if row["measure"].startswith("prunability") else OKABE_ITO[0]
            left.plot([low, high], [y, y], color=colour, linewidth=1.2)
            left.plot([row["sign"] * row[RANKED_BY]], [y], "o", color=colour, markersize=4)
        left.set_yticks(range(len(ranked)), [row["measure"] for row in reversed(ranked)], fontsize=7)
        left.axvline(0, color="0.6", linewidth=0.8)
        left.set_xlabel("tau-b with the gap, in the expected direction")
        depth, gap = table.hyperparameters["model.depth"], table.targets["gap"]
        for colour, value in zip(OKABE_ITO, np.unique(depth), strict=False):
            chosen = depth == value
            right.plot(table.measures["prunability"][chosen], gap[chosen], ".", color=colour, label=f"depth {value:g}")
        right.set_xlabel("prunability")
        right.set_ylabel("gap (training minus test accuracy)")
        right.legend(frameon=False, fontsize=8)
        file = io.BytesIO()
        drawn.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
