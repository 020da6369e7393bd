"""`STATISTICS`, the table of what is computed for every measure and target, and how each number is read and shown.

The judge, its intervals, the printed table, the columns of verdict.csv and the report go through this table. To add a
statistic, add a row; its functions get a `Comparison`, or for its bootstrap a `Resample`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from prunegen_jax.judging import kendall, pgdl, regression
from prunegen_jax.judging.comparison import Comparison, Resample, psi_terms
from prunegen_jax.judging.information import above

RANKED_BY = "tau_b"  # the statistic that orders measures from best to worst


@dataclasses.dataclass(frozen=True)
class Statistic:
    """A statistic of one measure and one target.

    Attributes:
        value: computes it, `nan` where it is not defined.
        label: what tables of the report call it.
        explanation: what it is, in one line.
        bootstrap: its values `[draws]` under bootstrap weights, for intervals and for paired differences between
            measures; None for a statistic without intervals.
        details: further columns of the verdict that stand behind it, by name; all of them numbers.
        terms: the statistic as a sum over pairs of configurations, which gives a difference of two measures its
            variance; None to take the variance of the bootstrap.
        disjoint_pairs: for a statistic that is 1 or -1 when every pair is ordered alike, how many pairs of
            configurations stand behind it no two of which share one; None for other statistics.
        p_column: the column of its p-value, "" if it has none; "_holm" is added once corrected.
        p_value: computes the p-value; None if it comes from permuted measures.
        is_signed: whether it is negative for a measure that falls as the target grows: then comparisons and the report
            turn it by the measure's believed sign, so that 1 is best. `verdict.csv` turns nothing.
        smaller_is_better: whether a smaller value is better.
        by_environment: whether it is computed over environments, pairs of models in which one hyperparameter changes.
            Intervals are then for the environments kept: they stand in verdict.csv alone.
        less_bias: whether tables show it less the mean of its null, with the p-value.
        is_shown: whether tables show it; verdict.csv holds it in any case.
        digits: digits behind the point in tables for a text.
        plain: the label in ASCII, for a terminal; `label` if empty.
        latex: the label in LaTeX; `label` if empty.
    """

    value: Callable[[Comparison], float]
    label: str
    explanation: str
    bootstrap: Callable[[Resample], np.ndarray] | None = None
    details: Callable[[Comparison], dict[str, Any]] | None = None
    terms: Callable[[Comparison], kendall.Terms] | None = None
    disjoint_pairs: Callable[[Comparison], int] | None = None
    p_column: str = ""
    p_value: Callable[[Comparison], float] | None = None
    is_signed: bool = False
    smaller_is_better: bool = False
    by_environment: bool = False
    less_bias: bool = False
    is_shown: bool = True
    digits: int = 3
    plain: str = ""
    latex: str = ""

    def direction(self, sign: int) -> int:
        """What to multiply a value by so that larger is better, for a measure of a believed sign."""
        return sign if self.is_signed else -1 if self.smaller_is_better else 1

    @property
    def shows_interval(self) -> bool:
        """Whether tables show its interval."""
        return self.bootstrap is not None and not self.by_environment

    @property
    def shows_p_value(self) -> bool:
        """Whether tables show its p-value."""
        return self.p_value is not None or self.less_bias


def shown_statistics(*, signed: bool = False) -> dict[str, Statistic]:
    """The statistics that tables show, by name; with `signed` those that have a sign alone."""
    return {name: s for name, s in STATISTICS.items() if s.is_shown and (s.is_signed or not signed)}


def best_first(row: Mapping[str, Any]) -> tuple[bool, float]:
    """Sorts rows of a verdict by `RANKED_BY` in the believed direction, those without a value last."""
    value = row["sign"] * row[RANKED_BY]
    return bool(np.isnan(value)), -value


def ranked(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows of one target in the order of `best_first`, with measures that are one (`same_as`) next to each other."""
    best = sorted(rows, key=best_first)
    groups = [row.get("same_as") or row["measure"] for row in best]
    return [best[i] for i in sorted(range(len(best)), key=lambda i: groups.index(groups[i]))]


def relations(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """For each of the `ranked` rows that is one with a better one: "same" or "reverse", and the best of them.

    ("", "") for the others, and in a verdict of an older version, which does not say which of the two it is.
    """
    firsts: dict[str, Mapping[str, Any]] = {}
    found = []
    for row in rows:
        first = firsts.setdefault(row.get("same_as") or row["measure"], row)
        order = row.get("same_order", 0) or 1
        kind = {1: "same", -1: "reverse"}[order * (first.get("same_order", 0) or 1)]
        known = first is not row and "same_order" in row
        found.append((kind, first["measure"]) if known else ("", ""))
    return found


def compute(data: Comparison) -> dict[str, Any]:
    """Every statistic of one measure and one target, with the columns behind it."""
    row: dict[str, Any] = {}
    for name, statistic in STATISTICS.items():
        row[name] = statistic.value(data)
        row |= statistic.details(data) if statistic.details else {}
    return row


def _disjoint_pairs(data: Comparison) -> int:
    """As many pairs of configurations that do not tie as can be made without using one twice."""
    target = data.target[data.known]
    most = int(np.unique(target, return_counts=True)[1].max(initial=0))
    return min(len(target) // 2, len(target) - most)


def _psi_details(data: Comparison) -> dict[str, Any]:
    psi = data.granulated
    row = {"psi_cells": int(psi.cells.sum()), "psi_skipped": int(psi.skipped.sum())}
    return row | {f"psi.{axis}": float(v) for axis, v in zip(data.case.grid.axes, psi.per_axis, strict=True)}


def _k_details(data: Comparison) -> dict[str, Any]:
    sign = 0 if np.isnan(data.tau_b) else int(np.sign(data.tau_b))
    return {"k_set": data.case.set_name(data.least_information[1]), "k_sign": sign}


def _pgdl(data: Comparison) -> float:
    """The PGDL score; like the scorer it demands a complete grid and a value of every model."""
    given = data.case.pgdl
    if given is None or not data.known.all():
        return float("nan")
    both = data.pair_counts[0, -len(given.cells) :]  # its pairs of axes are the last of the sets
    up, more = above(data.measure, given), above(data.target, given)
    return float(pgdl.score_by_pair(both, up, more, given).min())


def _k_fold_r2(data: Comparison) -> float:
    groups = data.case.grid.configurations
    return regression.k_fold_r2(data.measure, data.target, folds=data.folds, groups=groups, seed=data.seed)


def _sign_error_details(data: Comparison) -> dict[str, Any]:
    axes, errors = data.case.models_grid.axes, data.sign_error
    row: dict[str, Any] = {"sign_error_environments": errors.kept}
    row |= {f"sign_error.{axis}": float(v) for axis, v in zip(axes, errors.axis_mean, strict=True)}
    return row | {f"sign_error_worst.{axis}": float(v) for axis, v in zip(axes, errors.axis_worst, strict=True)}


STATISTICS: dict[str, Statistic] = {
    "tau_b": Statistic(
        value=lambda data: data.tau_b,
        label="τ-b",
        plain="tau-b",
        latex=r"$\tau_b$",
        explanation="Kendall's rank correlation with the target",
        bootstrap=lambda sample: sample.taus[1],
        disjoint_pairs=_disjoint_pairs,
        p_column="tau_p",
        p_value=lambda data: kendall.p_value(data.measure, data.target),
        is_signed=True,
    ),
    "tau_a": Statistic(
        value=lambda data: kendall.tau(data.measure, data.target, kind="a"),
        label="τ-a",
        explanation="Kendall's rank correlation in which a tied pair counts as zero",
        bootstrap=lambda sample: sample.taus[0],
        disjoint_pairs=_disjoint_pairs,
        is_signed=True,
        is_shown=False,
    ),
    "spearman": Statistic(
        value=lambda data: kendall.spearman(data.measure, data.target),
        label="Spearman's ρ",
        explanation="linear correlation of the ranks of measure and target",
        is_signed=True,
        is_shown=False,
    ),
    "psi": Statistic(
        value=lambda data: data.granulated.value,
        label="Ψ",
        plain="Psi",
        latex=r"$\Psi$",
        explanation="rank correlation with all hyperparameters but one held fixed, averaged over them",
        bootstrap=lambda sample: sample.psi,
        details=_psi_details,
        terms=psi_terms,
        disjoint_pairs=lambda data: int(min((c for c in data.granulated.cells if c), default=0)),  # one in each cell
        is_signed=True,
    ),
    "k": Statistic(
        value=lambda data: data.least_information[0],
        label="K",
        latex="$K$",
        explanation="normalised conditional mutual information with the target, the smallest given at most two "
        "hyperparameters, minus the mean of permuted measures",
        details=_k_details,
        p_column="k_p",
        less_bias=True,
        digits=4,
    ),
    "pgdl": Statistic(
        value=_pgdl,
        label="PGDL",
        explanation="the score of the 2020 competition, as a fraction; complete grids only",
        p_column="pgdl_p",
        digits=4,
    ),
    "adjusted_r2": Statistic(
        value=lambda data: regression.adjusted_r2(data.measure, data.target),
        label="adj. R²",
        plain="R2",
        latex=r"adj.\ $R^2$",
        explanation="of a linear fit of the target to the measure",
        bootstrap=lambda sample: regression.weighted_adjusted_r2(
            sample.data.measure, sample.data.target, sample.weights
        ),
    ),
    "adjusted_r2_log": Statistic(
        value=lambda data: regression.adjusted_r2(regression.logarithm(data.measure), data.target),
        label="adj. R² of the logarithm",
        explanation="of a linear fit of the target to the logarithm of the measure",
        is_shown=False,
    ),
    "k_fold_r2": Statistic(
        value=_k_fold_r2,
        label="k-fold R²",
        explanation="R² of a linear fit on configurations that it was not fitted to",
        is_shown=False,
    ),
    "sign_error": Statistic(
        value=lambda data: data.sign_error.mean,
        label="sign error",
        explanation="fraction of wrong predictions when one hyperparameter changes, on average; guessing gives 0.5",
        bootstrap=lambda sample: sample.sign_errors[0],
        smaller_is_better=True,
        by_environment=True,
    ),
    "sign_error_90": Statistic(
        value=lambda data: data.sign_error.percentile,
        label="90 %",
        explanation="the sign error's 90th percentile over changes of one hyperparameter",
        bootstrap=lambda sample: sample.sign_errors[1],
        smaller_is_better=True,
        by_environment=True,
        is_shown=False,
    ),
    "sign_error_worst": Statistic(
        value=lambda data: data.sign_error.worst,
        label="worst",
        explanation="the sign error of the worst change of one hyperparameter",
        bootstrap=lambda sample: sample.sign_errors[2],
        details=_sign_error_details,
        smaller_is_better=True,
        by_environment=True,
    ),
}
