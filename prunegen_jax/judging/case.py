"""A table made ready for judging: repeats averaged, the grid coded, pairs and conditions listed once for all."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from . import kendall, memory, pgdl, regression, robustness
from .grid import Grid, Pairs, average, drop_duplicates, grid_of, pairs_along
from .information import Conditions, above, conditions, from_counts, pair_counts
from .table import Table
from .verdict import Row

Repeats = Literal["mean", "keep"]


@dataclasses.dataclass(frozen=True)
class Case:
    """`table` and `grid` are what is judged (one row per configuration, or per model), `models` and `models_grid` the
    single models that the sign error pairs; the rest is made from the grids. `notes` says what was done."""

    table: Table
    grid: Grid
    models: Table
    models_grid: Grid
    pairs: tuple[Pairs, ...]
    given: Conditions
    pgdl: Conditions | None
    plan: robustness.Design
    repeats: Repeats
    notes: tuple[str, ...]


def prepare(
    table: Table,
    *,
    repeats: Repeats = "mean",
    environments: robustness.Environments = "auto",
    draws: int = 0,
    permutations: int = 0,
) -> Case:
    """The case of a table. Raises ValueError when there is no model to judge, an option is unknown, or judging, with
    `draws` and `permutations`, takes too much memory."""
    if repeats not in ("mean", "keep"):
        raise ValueError(f"repeats is {repeats!r}; choose 'mean' or 'keep'")
    if not len(table):
        first = table.left_out[0][1] if table.left_out else ""
        why = f": all {len(table.left_out)} are left out, the first because: {first}" if first else ""
        raise ValueError("the table has no model to judge" + why)
    models, notes = drop_duplicates(table)
    models_grid, found = grid_of(models)
    notes += found
    judged, grid = models, models_grid
    if repeats == "mean" and not models_grid.axes and len(models) > 1:
        notes.append("no axis but the repeats varies: the models are judged one by one, not averaged")
        alone = np.arange(len(models))
        models_grid = grid = dataclasses.replace(models_grid, configurations=alone, repeats=np.zeros_like(alone))
    elif repeats == "mean":
        judged, grid, found = average(models, models_grid)
        grid = dataclasses.replace(grid, repeats=np.zeros_like(grid.repeats))
        notes += found
    memory.check(grid, models_grid, measures=len(table.measures), draws=draws, permutations=permutations)
    if grid.axes and not _fills(grid):
        notes.append("the grid is incomplete: cells with one model are skipped, and there is no PGDL score")
    if len(judged) < 10:
        notes.append(
            f"{len(judged)} models are too few for firm conclusions; intervals need 4, a fold of R2 at least 10"
        )
    complete = grid.is_complete and len(grid.axes) >= 2
    return Case(
        table=judged,
        grid=grid,
        models=models,
        models_grid=models_grid,
        pairs=tuple(pairs_along(grid)),
        given=conditions(grid.codes),
        pgdl=pgdl.pgdl_conditions(grid.codes) if complete else None,
        plan=robustness.design(models_grid, environments=environments),
        repeats=repeats,
        notes=tuple(notes),
    )


def with_measures(case: Case, columns: Mapping[str, np.ndarray]) -> Case:
    """The case with other measures: columns `[models]`, averaged over repeats where the case's are."""
    models = dataclasses.replace(case.models, measures=dict(columns), families={}, signs={})
    judged = models
    if len(case.table) < len(models):
        judged, _, _ = average(models, case.models_grid)
    return dataclasses.replace(case, models=models, table=judged)


def statistics(case: Case, name: str, target: str, *, test_size: int | None, folds: int, seed: int) -> Row:
    """Every statistic of one measure and one target, without its certainty."""
    m, g = case.table.measures[name], case.table.targets[target]
    psi = kendall.granulated(m, g, case.pairs)
    known = ~(np.isnan(m) | np.isnan(g))
    given = case.given if known.all() else case.given.take(known)
    counts = pair_counts(m[known], g[known], given)
    k, place = from_counts(counts, given).minimum
    tau = kendall.tau(m, g)
    row: Row = {"tau_b": tau, "tau_a": kendall.tau(m, g, kind="a"), "spearman": kendall.spearman(m, g)}
    row |= {"psi": psi.value, "psi_cells": int(psi.cells.sum()), "psi_skipped": int(psi.skipped.sum())}
    row |= {f"psi.{axis}": float(v) for axis, v in zip(case.grid.axes, psi.per_axis, strict=True)}
    row |= {"k": k, "k_set": set_name(case, place), "k_sign": 0 if np.isnan(tau) else int(np.sign(tau))}
    row["pgdl"] = pgdl_of(case, m, g, counts)
    row["adjusted_r2"] = regression.adjusted_r2(m, g)
    row["adjusted_r2_log"] = regression.adjusted_r2(regression.logarithm(m), g)
    row["k_fold_r2"] = regression.k_fold_r2(m, g, folds=folds, groups=case.grid.configurations, seed=seed)
    return row | sign_errors(case, name, target, test_size=test_size)


def sign_errors(case: Case, name: str, target: str, *, test_size: int | None) -> Row:
    """Robust sign error of one measure, turned so that larger predicts larger by its believed sign."""
    oriented = case.models.signs.get(name, 1) * case.models.measures[name]
    axes = case.models_grid.axes
    found = robustness.sign_error(oriented, case.models.targets[target], case.plan, axes=len(axes), test_size=test_size)
    row: Row = {"sign_error": found.mean, "sign_error_90": found.percentile, "sign_error_worst": found.worst}
    row |= {"sign_error_environments": found.kept}
    row |= {f"sign_error.{a}": float(v) for a, v in zip(axes, found.axis_mean, strict=True)}
    return row | {f"sign_error_worst.{a}": float(v) for a, v in zip(axes, found.axis_worst, strict=True)}


def pgdl_of(case: Case, measure: np.ndarray, target: np.ndarray, counts: np.ndarray | None = None) -> float:
    """The PGDL score, `nan` unless the grid is complete and every model has a value, as the scorer demands.

    `counts` are `information.pair_counts` of the two under the case's conditions, where they are there already.
    """
    if case.pgdl is None or np.isnan(measure).any() or np.isnan(target).any():
        return float("nan")
    if counts is None:
        return pgdl.pgdl_score(measure, target, case.grid.codes)[0]
    both = counts[0, -len(case.pgdl.cells) :]  # its pairs of axes are the last of the sets
    up, more = above(measure, case.pgdl), above(target, case.pgdl)
    return float(pgdl.score_by_pair(both, up, more, case.pgdl).min())


def set_name(case: Case, place: int) -> str:
    """The axes of the conditions' set at `place`, joined by " x "; "none" for the empty set, "" for no set."""
    return "" if place < 0 else " x ".join(case.grid.axes[a] for a in case.given.sets[place]) or "none"


def chosen(kind: str, names: Sequence[str] | None, there: Mapping[str, np.ndarray]) -> list[str]:
    """The names asked for, or all. Raises ValueError for one that is not there, and when there is none."""
    if names is None:
        names = list(there)
    for name in names:
        if name not in there:
            raise ValueError(f"there is no {kind} {name!r} in the table; its {kind}s are {', '.join(there) or 'none'}")
    if not names:
        raise ValueError(f"the table has no {kind}; at least one is needed")
    return list(names)


def _fills(grid: Grid) -> bool:
    levels = [len(np.unique(grid.codes[:, a])) for a in range(len(grid.axes))]
    return int(np.prod(levels)) == len(np.unique(grid.configurations))
