"""What stands beside a verdict: baselines, ceilings, the models left out, fits of several measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from . import baselines, kendall, regression, uncertainty
from .case import Case, chosen, prepare, statistics, with_measures
from .table import Table
from .verdict import Row


def baseline_rows(
    case: Case,
    target: str,
    *,
    orders: Mapping[str, Sequence[str | float]] | None,
    test_size: int | None,
    draws: int,
    folds: int,
    seed: int,
) -> list[Row]:
    """Medians over the draws of every statistic, for oracles, canonical orders and noise."""
    if not draws:
        return []
    g = case.models.targets[target]
    kinds = baselines.oracles(g, draws=draws, seed=seed)
    kinds |= baselines.canonical(case.models_grid, case.models.hyperparameters, orders=orders)
    kinds |= baselines.noise(len(g), draws=draws, seed=seed)
    size = test_size if target in ("gap", "test_error") else None
    found = []
    for kind, columns in kinds.items():
        drawn = with_measures(case, {f"{kind} {i}": column for i, column in enumerate(columns)})
        rows = [
            statistics(drawn, name, target, test_size=size, folds=folds, seed=seed) for name in drawn.table.measures
        ]
        medians: Row = {"baseline": kind, "target": target, "draws": len(rows)}
        for key in rows[0]:
            values = np.array([row[key] for row in rows if not isinstance(row[key], str)], dtype=np.float64)
            if len(values):
                medians[key] = float(np.nanmedian(values)) if not np.isnan(values).all() else float("nan")
        found.append(medians)
    return found


def ceiling_rows(case: Case, target: str, *, test_size: int | None, draws: int, seed: int) -> list[Row]:
    """The best tau-b that a measure could reach, for each source of noise."""
    error = case.models.targets.get("test_error") if target in ("gap", "test_error") else None
    if error is None and target == "gap":  # without training errors the gap is the test error
        error = np.clip(case.models.targets["gap"], 0, 1)
    levels = baselines.noise_levels(
        case.models.targets[target], error, case.models_grid.configurations, test_size=test_size
    )
    found = []
    for source, sd in levels.items() if draws else ():
        taus = baselines.ceiling(case.table.targets[target], sd, draws=10 * draws, seed=seed)
        low, high = uncertainty.interval(taus, level=0.95)
        mean = float(np.nanmean(taus)) if not np.isnan(taus).all() else float("nan")
        found.append({"target": target, "noise": source, "sd": sd, "tau_b": mean, "low": low, "high": high})
    return found


def sensitivity_rows(table: Table, case: Case, targets: Sequence[str], names: Sequence[str]) -> list[Row]:
    """Each measure without and with the models left out."""
    if table.left_out_rows is None:
        return []
    whole = prepare(table.with_left_out(), repeats=case.repeats)
    found = []
    for target in targets:
        for name in names:
            row: Row = {"measure": name, "target": target}
            for suffix, each in (("", case), ("_with_left_out", whole)):
                m, g = each.table.measures[name], each.table.targets[target]
                row[f"n{suffix}"] = int((~(np.isnan(m) | np.isnan(g))).sum())
                row |= {f"tau_b{suffix}": kendall.tau(m, g), f"tau_a{suffix}": kendall.tau(m, g, kind="a")}
                row[f"psi{suffix}"] = kendall.granulated(m, g, each.pairs).value
                row[f"adjusted_r2{suffix}"] = regression.adjusted_r2(m, g)
            found.append(row)
    return found


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
    """Fits of several measures together."""
    found = []
    for name, members in signatures.items():
        columns = np.stack([case.table.measures[m] for m in chosen("measure", members, case.table.measures)], axis=1)
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
            found.append(row)
    return found
