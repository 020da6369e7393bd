"""The further tables of a verdict: baselines, ceilings, the models left out, fits of several measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from prunegen_jax.judging import baselines, regression, uncertainty
from prunegen_jax.judging.case import Case, prepare, select_names, with_measures
from prunegen_jax.judging.comparison import Comparison
from prunegen_jax.judging.parallel import Progress, threaded
from prunegen_jax.judging.statistics import STATISTICS, compute
from prunegen_jax.judging.table import Table
from prunegen_jax.judging.verdict import Row

ACCURACIES = ("gap", "test_error")  # targets that are shares of the test examples


def test_size_of(target: str, test_size: int | None) -> int | None:
    """The number of examples behind a target, None if the target is no accuracy or the number is not known."""
    return test_size if target in ACCURACIES else None


def test_errors(models: Table, target: str) -> np.ndarray | None:
    """The test errors behind a target `[n]`; None if the target is no accuracy."""
    error = models.targets.get("test_error") if target in ACCURACIES else None
    if error is None and target == "gap":  # without training errors the gap is the test error
        error = np.clip(models.targets["gap"], 0, 1)
    return error


def baseline_rows(
    case: Case,
    target: str,
    *,
    orders: Mapping[str, Sequence[str | float]] | None,
    test_size: int | None,
    draws: int,
    folds: int,
    seed: int,
    progress: Progress | None = None,
) -> list[Row]:
    """Medians over the draws of every statistic, for oracles, canonical orders and noise.

    Args:
        case: the table.
        target: the target's name.
        orders: the believed order of the values of an axis, by axis.
        test_size: number of test examples; None if it is not known.
        draws: draws of each baseline; 0 for no baseline.
        folds: folds of the k-fold R2.
        seed: of the draws.
        progress: see `parallel.threaded`.
    """
    if not draws:
        return []
    g = case.models.targets[target]
    kinds = baselines.oracles(g, draws=draws, seed=seed)
    kinds |= baselines.canonical(case.models_grid, case.models.hyperparameters, orders=orders)
    kinds |= baselines.noise(len(g), draws=draws, seed=seed)
    options = {"test_size": test_size_of(target, test_size), "folds": folds, "seed": seed}
    medians = []
    for kind, columns in kinds.items():
        drawn = with_measures(case, {f"{kind} {i}": column for i, column in enumerate(columns)})
        each = [Comparison(drawn, name, target, **options) for name in drawn.table.measures]
        rows = threaded(compute, each, what=f"baseline {kind} of {target}", progress=progress)
        median: Row = {"baseline": kind, "target": target, "draws": len(rows)}
        for key in rows[0]:
            values = np.array([row[key] for row in rows if not isinstance(row[key], str)], dtype=np.float64)
            if len(values):
                median[key] = float(np.nanmedian(values)) if not np.isnan(values).all() else float("nan")
        medians.append(median)
    return medians


def ceiling_rows(case: Case, target: str, *, test_size: int | None, draws: int, seed: int) -> list[Row]:
    """The best tau-b that a measure could reach, for each source of noise.

    Args:
        case: the table.
        target: the target's name.
        test_size: number of test examples; None if it is not known.
        draws: draws of a baseline; a ceiling takes ten times as many, and 0 leaves it out.
        seed: of the draws.
    """
    levels = baselines.noise_levels(
        case.models.targets[target],
        test_errors(case.models, target),
        case.models_grid.configurations,
        test_size=test_size,
    )
    rows = []
    for source, sd in levels.items() if draws else ():
        taus = baselines.ceiling(case.table.targets[target], sd, draws=10 * draws, seed=seed)
        low, high = uncertainty.interval(taus, level=0.95)
        mean = float(np.nanmean(taus)) if not np.isnan(taus).all() else float("nan")
        rows.append({"target": target, "noise": source, "sd": sd, "tau_b": mean, "low": low, "high": high})
    return rows


def sensitivity_rows(
    table: Table, case: Case, targets: Sequence[str], names: Sequence[str], *, bins: int | None = None
) -> list[Row]:
    """Each measure without and with the models left out, by every statistic that shows an interval.

    "left_out_known" counts the models left out that have values of measure and target: without any, nothing changes.
    """
    if table.left_out_rows is None:
        return []
    whole = prepare(table.with_left_out(), repeats=case.repeats, bins=bins)
    rows = []
    for target in targets:
        for name in names:
            values = table.left_out_rows.measures[name], table.left_out_rows.targets[target]
            row: Row = {"measure": name, "target": target, "left_out_known": int((~np.isnan(values).any(axis=0)).sum())}
            for suffix, each in (("", case), ("_with_left_out", whole)):
                data = Comparison(each, name, target)
                row[f"n{suffix}"] = int(data.known.sum())
                row |= {f"{k}{suffix}": s.value(data) for k, s in STATISTICS.items() if s.shows_interval}
            rows.append(row)
    return rows


def signature_rows(
    case: Case,
    targets: Sequence[str],
    signatures: Mapping[str, Sequence[str]],
    *,
    draws: int,
    folds: int,
    level: float,
    seed: int,
) -> list[Row]:
    """Linear fits of the targets by several measures together.

    Args:
        case: the table.
        targets: names of the targets.
        signatures: names of the measures of each fit, by the fit's name.
        draws: bootstrap draws of the interval; 0 for none.
        folds: folds of the k-fold R2.
        level: of the interval.
        seed: of the draws and the folds.
    """
    rows = []
    for name, members in signatures.items():
        members = select_names("measure", members, case.table.measures)
        columns = np.stack([case.table.measures[m] for m in members], axis=1)
        for target in targets:
            g = case.table.targets[target]
            row: Row = {"signature": name, "target": target, "features": columns.shape[1]}
            row["n"] = int(regression.complete(columns, g).sum())
            for suffix, x in (("", columns), ("_log", regression.logarithm(columns))):
                row[f"adjusted_r2{suffix}"] = regression.adjusted_r2(x, g)
                row[f"k_fold_r2{suffix}"] = regression.k_fold_r2(
                    x, g, folds=folds, groups=case.grid.configurations, seed=seed
                )
            if draws:
                weights = uncertainty.bootstrap_weights(case.grid.configurations, draws=draws, seed=seed)
                sample = regression.weighted_adjusted_r2(columns, g, weights)
                row["adjusted_r2_low"], row["adjusted_r2_high"] = uncertainty.interval(
                    sample, level=level, count=row["n"]
                )
            rows.append(row)
    return rows
