"""How sure the judge is of a case: intervals, paired differences, nulls, and the price of many comparisons."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from . import kendall, regression, robustness, uncertainty
from .case import Case
from .nulls import Null, almost_untied, null_of_k, tie_pattern
from .verdict import Row

COMPARED = ("tau_b", "tau_a", "psi", "adjusted_r2", "sign_error", "sign_error_90", "sign_error_worst")
_LOWER_IS_BETTER = ("sign_error", "sign_error_90", "sign_error_worst")


def bootstrap(case: Case, name: str, target: str, size: int | None, *, draws: int, seed: int) -> dict[str, np.ndarray]:
    """Bootstrap draws `[draws]` of every compared statistic, the same weights for every measure and target."""
    m, g = case.table.measures[name], case.table.targets[target]
    if (~(np.isnan(m) | np.isnan(g))).sum() < 4:
        return {s: np.full(draws, np.nan) for s in COMPARED}
    everyone = np.arange(case.models_grid.configurations.max() + 1)
    by_configuration = uncertainty.bootstrap_weights(everyone, draws=draws, seed=seed)
    weights = by_configuration[:, case.grid.configurations]
    tau_a, tau_b = kendall.weighted_tau(m, g, weights)
    psi = kendall.weighted_granulated(m, g, case.pairs, weights)
    terms = kendall.granulated_terms(m, g, case.pairs)
    value = kendall.granulated(m, g, case.pairs).value
    psi = np.clip(uncertainty.rescaled(psi, value, _variance(case, terms)), -1, 1)
    oriented = case.models.signs.get(name, 1) * case.models.measures[name]
    models = case.models.targets[target]
    kept = ~np.isnan(
        robustness.sign_error(oriented, models, case.plan, axes=len(case.grid.axes), test_size=size).losses
    )
    errors = robustness.weighted_sign_error(oriented, models, case.plan, by_configuration, kept=kept, test_size=size)
    r2 = regression.weighted_adjusted_r2(m, g, weights)
    return dict(zip(COMPARED, (tau_b, tau_a, psi, r2, *errors), strict=True))


def _variance(case: Case, terms: kendall.Terms) -> float:
    return uncertainty.pair_variance(terms.first, terms.second, terms.residual, case.grid.configurations)


def add_intervals(rows: list[Row], samples: Mapping[str, Mapping[str, np.ndarray]], level: float) -> None:
    for row in rows:
        for statistic, values in samples[row["measure"]].items():
            low, high = uncertainty.interval(values, level=level, count=row["n"])
            row |= {f"{statistic}_low": low, f"{statistic}_high": high}


def differences(
    case: Case, rows: list[Row], samples: Mapping[str, Mapping[str, np.ndarray]], reference: str, level: float
) -> list[Row]:
    """Reference minus rival, each turned by its believed sign so that larger is better, with paired intervals.

    Sign errors are better when smaller: there it is rival minus reference.
    """
    by_name = {row["measure"]: row for row in rows}
    if reference not in by_name:
        return []
    found: list[Row] = []
    for statistic in COMPARED:
        turned = statistic in ("tau_b", "tau_a", "psi")
        group: list[Row] = []
        for rival in (n for n in by_name if n != reference):
            signs = [
                by_name[n]["sign"] if turned else -1 if statistic in _LOWER_IS_BETTER else 1 for n in (reference, rival)
            ]
            value = signs[0] * by_name[reference][statistic] - signs[1] * by_name[rival][statistic]
            drawn = signs[0] * samples[reference][statistic] - signs[1] * samples[rival][statistic]
            if statistic == "psi":
                drawn = uncertainty.rescaled(
                    drawn, value, _variance_of_difference(case, rows[0]["target"], reference, rival, signs)
                )
            count = min(by_name[n]["n"] for n in (reference, rival))
            low, high = uncertainty.interval(drawn, level=level, count=count)
            row: Row = {"measure": rival, "target": rows[0]["target"], "reference": reference, "statistic": statistic}
            row |= {"better_by": value, "low": low, "high": high, "p": uncertainty.two_sided(drawn)}
            row["p"] = float("nan") if np.isnan(value) else row["p"]
            group.append(row)
        for row, p in zip(group, uncertainty.holm(np.array([row["p"] for row in group])), strict=True):
            row["p_holm"] = float(p)
        found += group
    return found


def _variance_of_difference(case: Case, target: str, reference: str, rival: str, signs: Sequence[int]) -> float:
    g = case.table.targets[target]
    one, two = (kendall.granulated_terms(case.table.measures[n], g, case.pairs) for n in (reference, rival))
    return _variance(case, dataclasses.replace(one, residual=signs[0] * one.residual - signs[1] * two.residual))


def add_nulls(case: Case, rows: list[Row], *, permutations: int, seed: int) -> None:
    """Bias, 95 % limit and p-value of K and of the PGDL score, shared by measures with one pattern of ties."""
    nulls: dict[tuple[bytes, bool], tuple[Null, Null]] = {}
    for row in rows:
        m, g = case.table.measures[row["measure"]], case.table.targets[row["target"]]
        scored = not np.isnan(row["pgdl"])
        stand_in = almost_untied(np.where(np.isnan(g), np.nan, m))
        key = (tie_pattern(stand_in), scored)
        if key not in nulls:
            nulls[key] = null_of_k(
                stand_in, g, case.given, permutations=permutations, seed=seed, pgdl=case.pgdl if scored else None
            )
        for statistic, null in zip(("k", "pgdl"), nulls[key], strict=True):
            row |= {f"{statistic}_null": null.bias, f"{statistic}_null_95": null.limit}
            row |= {
                f"{statistic}_p": null.p_value(row[statistic]),
                f"{statistic}_corrected": null.corrected(row[statistic]),
            }


def add_corrections(rows: list[Row]) -> None:
    """Holm's correction for the number of measures compared, for each kind of p-value."""
    for kind in ("tau_p", "k_p", "pgdl_p"):
        if kind in rows[0]:
            for row, p in zip(rows, uncertainty.holm(np.array([row[kind] for row in rows])), strict=True):
                row[f"{kind}_holm"] = float(p)
