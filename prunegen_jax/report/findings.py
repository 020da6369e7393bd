"""The questions of the paper about a study, each answered by a table or by the reason why there is none."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prunegen_jax.judging import Verdict, judge
from prunegen_jax.judging.growth import growth_rows
from prunegen_jax.judging.statistics import RANKED_BY, best_first
from prunegen_jax.judging.table import Table
from prunegen_jax.judging.verdict import Row
from prunegen_jax.report.widths import means, size_axis
from prunegen_jax.runs.schema import Json

BETAS = (0.05, 0.1, 0.2, 0.5, 1.0)
_GROWING = ("width", "depth")  # hyperparameters that make networks larger
_QUICK = {"permutations": 0, "added_permutations": 0, "baseline_draws": 0}


@dataclasses.dataclass(frozen=True)
class Finding:
    """A table that answers a question, or the reason why it has no rows."""

    name: str
    title: str
    about: str
    rows: Sequence[Row] = ()


def ranking(verdict: Verdict, target: str) -> Finding:
    """(a) Every measure's tau-b and Psi with intervals, and by how much the reference is better, paired."""
    paired = {
        row["measure"]: row for row in verdict.differences if (row["target"], row["statistic"]) == (target, RANKED_BY)
    }
    rows = []
    for each in sorted((row for row in verdict.rows if row["target"] == target), key=best_first):
        row: Row = {key: each[key] for key in ("measure", "family", "sign", "n")}
        row |= {key: each.get(key) for key in (RANKED_BY, f"{RANKED_BY}_low", f"{RANKED_BY}_high")}
        row |= {key: each.get(key) for key in ("psi", "psi_low", "psi_high")}
        other = paired.get(each["measure"], {})
        rows.append(row | {f"reference_{key}": other.get(key) for key in ("better_by", "low", "high", "p_holm")})
    reference = verdict.settings.get("reference", "the reference")
    about = (
        f"Target: {target}; best first, in the expected direction. The last columns say by how much the tau-b of "
        f"{reference} is larger, with a paired interval and a p-value corrected for the number of measures (Holm)."
    )
    return Finding("ranking", "Which measure predicts generalization?", about, rows)


def growth(table: Table, target: str, *, draws: int, level: float, seed: int) -> Finding:
    """(b) Slope of the target and of every measure along width and depth, the others fixed."""
    rows: list[Row] = []
    for axis, values in table.hyperparameters.items():
        is_size = axis.rpartition(".")[2] in _GROWING and values.dtype.kind == "f" and (values > 0).all()
        if is_size and len(np.unique(values)) > 1:
            rows += growth_rows(table, axis, targets=(target,), draws=draws, level=level, seed=seed)
    about = (
        "Slope per doubling of the size, in standard deviations over all networks, with everything else fixed. The "
        "interval is over cells, and `rises` is the fraction of cells in which the value rises. "
        f"{target} is the first row of each axis."
    )
    return Finding("growth", "Does a measure grow with the size of the network?", about, rows)


def descent(table: Table, verdict: Verdict) -> tuple[Finding, Finding]:
    """(c) Means by size of losses and measures, and the rank correlation of every measure with the test loss."""
    axis = size_axis(table)
    title = "Double descent"
    if axis is None or "test_loss" not in table.targets:
        none = Finding("double_descent", title, "The networks have fewer than five sizes, or no test loss.")
        return none, dataclasses.replace(none, name="double_descent_ranking")
    across = table.hyperparameters[axis]
    sizes = np.unique(across)
    columns = {**table.targets, **table.confounders, **table.measures}
    averages = {name: means(across, np.where(np.isfinite(v), v, np.nan), sizes) for name, v in columns.items()}
    rows = [{axis: float(s)} | {name: float(v[i]) for name, v in averages.items()} for i, s in enumerate(sizes)]
    about = f"Means over seeds. {course(sizes, averages['test_loss'], axis)}"
    return Finding("double_descent", title, about, rows), dataclasses.replace(
        ranking(verdict, "test_loss"), name="double_descent_ranking", title="Double descent: the ranking by test loss"
    )


def course(sizes: np.ndarray, losses: np.ndarray, axis: str) -> str:
    """A sentence on whether the loss, at ascending sizes, falls, rises and falls again.

    The peak is the size with the largest rise above the smallest loss before it, and the second descent ends at the
    smallest loss after it.
    """
    rises = losses - np.minimum.accumulate(losses)
    peak = int(np.argmax(rises))
    first = int(np.argmin(losses[: peak + 1]))
    last = peak + int(np.argmin(losses[peak:]))
    if not rises[peak] > 0:
        return f"The test loss falls all the way, from {losses[0]:.3g} to {losses[-1]:.3g}: there is no peak."
    words = f"The test loss is {losses[first]:.3g} at {axis}={sizes[first]:g}, rises to {losses[peak]:.3g} at"
    if last == peak:
        return f"{words} {axis}={sizes[peak]:g}, the largest size, and does not fall again."
    return f"{words} {axis}={sizes[peak]:g} and falls to {losses[last]:.3g} at {axis}={sizes[last]:g}."


def information(verdict: Verdict, target: str) -> Finding:
    """(d) What each family of measures shares with the others, and adds to them."""
    about = (
        "shared: normalised mutual information of two orders, mean over pairs of measures. adds_to.F: information of a "
        "measure of the row's family about the target, given one of family F, minus the mean of permuted measures."
    )
    rows = [row for row in verdict.families if row["target"] == target]
    return Finding("information", "What do families of measures share and add?", about, rows)


def pruned_test_loss(curves: Mapping[str, Json]) -> Finding:
    """(e) Medians over networks of training and test loss, relative to the whole network's, by kept fraction."""
    title = "Test loss along the pruning curve"
    known = [c for c in curves.values() if "test_losses" in c]
    fractions = sorted({tuple(c["fractions"]) for c in known})
    if len(fractions) != 1:
        return Finding("pruned_test_loss", title, "There are no pruning curves with test losses, on one grid.")
    train, test = (np.array([[float(x) for x in c[key]] for c in known]) for key in ("losses", "test_losses"))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = train / train[:, -1:], test / test[:, -1:]
    rows = []
    for j, fraction in enumerate(fractions[0]):
        row: Row = {"kept_fraction": fraction, "networks": len(known)}
        for name, values in zip(("training", "test"), ratios, strict=True):
            row |= {f"{name}_{q}": float(np.quantile(values[:, j], p)) for q, p in _QUARTILES}
        rows.append(row)
    better = test.min(axis=1) < test[:, -1]
    about = (
        f"Losses of the pruned network divided by those of the unpruned network: quartiles over {len(known)} networks. "
        f"{int(better.sum())} of them have a smaller test loss somewhere on the curve than before pruning."
    )
    return Finding("pruned_test_loss", title, about, rows)


_QUARTILES = (("low", 0.25), ("median", 0.5), ("high", 0.75))


def choices(table: Table, target: str, curves: Mapping[str, Json], *, draws: int, level: float, seed: int) -> Finding:
    """(f) tau-b of prunability for each choice: tolerance, grid, reading, folding, which weights are prunable."""
    columns = {name: v for name, v in table.measures.items() if name.startswith("prunability")}
    for beta in BETAS:
        for reading, read in (("smallest", smallest_passing), ("prefix", before_first_failure)):
            values = [read(curves[name], beta) if name in curves else math.nan for name in table.names]
            if not np.isnan(values).all():
                columns[f"beta={beta:g}, {reading} of 50 steps"] = np.array(values)
    title = "How does the answer depend on the choices?"
    if not columns:
        return Finding("choices", title, "There is no measure of prunability and no pruning curve.")
    variants = dataclasses.replace(table, measures=columns, signs={}, families={}, left_out_rows=None)
    verdict = judge(variants, targets=[target], draws=draws, level=level, seed=seed, **_QUICK)
    keys = ("measure", "n", RANKED_BY, f"{RANKED_BY}_low", f"{RANKED_BY}_high", "psi", "psi_low", "psi_high")
    about = f"Target: {target}. Rows `beta=...` are read from the pruning curves, the others are columns of the study."
    return Finding("choices", title, about, [{key: row.get(key) for key in keys} for row in verdict.rows])


def smallest_passing(curve: Json, beta: float) -> float:
    """The smallest fraction of the curve whose loss is within (1 + β) times the whole network's."""
    passing = _passing(curve, beta)
    return float(curve["fractions"][int(np.argmax(passing))])


def before_first_failure(curve: Json, beta: float) -> float:
    """The smallest fraction of the curve before the first failure, walking down from the whole network."""
    failing = np.flatnonzero(~_passing(curve, beta))
    return float(curve["fractions"][int(failing[-1]) + 1 if len(failing) else 0])


def _passing(curve: Json, beta: float) -> np.ndarray:
    losses = np.array([float(x) for x in curve["losses"]])
    passing = losses <= (1 + beta) * losses[-1]
    passing[-1] = True
    return passing


def markdown(findings: Sequence[Finding]) -> str:
    """All findings as one page."""
    parts = []
    for each in findings:
        parts.append(f"## {each.title}\n\n{each.about}\n")
        if each.rows:
            header = list(dict.fromkeys(name for row in each.rows for name in row))
            lines = [header, ["---"] * len(header), *([_text(row.get(name)) for name in header] for row in each.rows)]
            parts.append("".join(f"| {' | '.join(line)} |\n" for line in lines))
    return "\n".join(parts)


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace("|", "\\|")
