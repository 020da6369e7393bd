"""A table made ready for judging: repeats averaged, the grid coded, pairs and conditions listed once for all."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from prunegen_jax.judging import kendall, memory, pgdl, robustness
from prunegen_jax.judging.grid import Grid, Pairs, average, binned, drop_duplicates, grid_of, pairs_along
from prunegen_jax.judging.information import MOST_PAIRED, Conditions, conditions, most_groups
from prunegen_jax.judging.table import Table

Repeats = Literal["mean", "keep"]


@dataclasses.dataclass(frozen=True)
class Case:
    """A table with everything that its statistics share.

    Attributes:
        table: what is judged, one row per configuration, or per model.
        grid: the grid of `table`.
        models: the single models, which the sign error pairs.
        models_grid: the grid of `models`.
        pairs: per axis, the rows of `table` that differ in it alone.
        given: the sets of axes that information is conditioned on.
        pgdl: those of the PGDL score; None if the grid is not complete.
        plan: the environments of the sign error.
        repeats: whether repeats were averaged ("mean") or kept ("keep").
        notes: what was done with the table.
    """

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

    def set_name(self, place: int) -> str:
        """The axes of the conditions' set at `place`, joined by " x "; "none" for the empty set, "" for no set."""
        return "" if place < 0 else " x ".join(self.grid.axes[a] for a in self.given.sets[place]) or "none"


def prepare(
    table: Table,
    *,
    repeats: Repeats = "mean",
    environments: robustness.Environments = "auto",
    bins: int | None = None,
    draws: int = 0,
    permutations: int = 0,
) -> Case:
    """The case of a table.

    Args:
        table: the table.
        repeats: "mean" averages the repeats of a configuration, "keep" keeps them.
        environments: of the sign error, see `robustness.design`.
        bins: see `grid.binned`; None to compare models of equal values alone.
        draws: bootstrap draws that are planned, for the memory they take.
        permutations: permutations that are planned, for the memory they take.

    Raises:
        ValueError: if there is no model to judge, an option is unknown, or judging takes too much memory.
    """
    if repeats not in ("mean", "keep"):
        raise ValueError(f"repeats is {repeats!r}; choose 'mean' or 'keep'")
    if not len(table):
        first = table.left_out[0][1] if table.left_out else ""
        why = f": all {len(table.left_out)} are left out, the first because: {first}" if first else ""
        raise ValueError("the table has no model to judge" + why)
    models, notes = drop_duplicates(table)
    models_grid, remarks = grid_of(models)
    notes += remarks
    judged, grid = models, models_grid
    if repeats == "mean" and not models_grid.axes and len(models) > 1:
        notes.append("no hyperparameter varies, only the repeats: the models are judged one by one, not averaged")
        alone = np.arange(len(models))
        models_grid = grid = dataclasses.replace(models_grid, configurations=alone, repeats=np.zeros_like(alone))
    elif repeats == "mean":
        judged, grid, remarks = average(models, models_grid)
        grid = dataclasses.replace(grid, repeats=np.zeros_like(grid.repeats))
        notes += remarks
    if bins is not None:
        if bins < 2:
            raise ValueError(f"bins is {bins}; it must be at least 2, or None for no bins")
        models_grid, _ = binned(models_grid, models.hyperparameters, bins)
        grid, remarks = binned(grid, models.hyperparameters, bins)
        notes += remarks
    memory.check(grid, models_grid, measures=len(table.measures), draws=draws, permutations=permutations)
    if grid.axes and not grid.has_every_cell:
        notes.append("the grid is incomplete: cells with one model are skipped, and there is no PGDL score")
    if len(judged) < 10:
        notes.append(
            f"{len(judged)} models are too few for a conclusion; intervals need at least 4, the k-fold R2 at least 10"
        )
    paired = _paired(judged, grid)
    if len(paired) < len(grid.axes):
        notes.append(
            f"K conditions on each axis alone, and on pairs of {len(paired)} of the {len(grid.axes)} axes, those "
            f"with the largest tau with a target: {', '.join(grid.axes[a] for a in paired)}"
        )
    complete = grid.is_complete and len(grid.axes) >= 2
    pairs = tuple(pairs_along(grid))
    given = conditions(grid.codes, most=None if grid.is_complete else most_groups(len(judged)), paired=paired)
    notes += _gaps(grid, pairs, given)
    return Case(
        table=judged,
        grid=grid,
        models=models,
        models_grid=models_grid,
        pairs=pairs,
        given=given,
        pgdl=pgdl.pgdl_conditions(grid.codes) if complete else None,
        plan=robustness.design(models_grid, environments=environments),
        repeats=repeats,
        notes=tuple(notes),
    )


def _gaps(grid: Grid, pairs: Sequence[Pairs], given: Conditions) -> list[str]:
    """What cannot be said of axes with too many values, and what would help."""
    notes = []
    advice = "put their values into bins (bins=5, --bins=5)"
    alone = [axis for axis, along in zip(grid.axes, pairs, strict=True) if not len(along.first)]
    if alone:
        which = "Psi and the sign error have no value" if len(alone) == len(grid.axes) else "they are not in Psi"
        notes.append(
            f"no two configurations differ in {', '.join(alone)} alone, as in a random search: {which}; to compare "
            f"configurations whose other values are nearly equal, {advice}"
        )
    rest = [axis for place, axis in enumerate(grid.axes) if (place,) not in given.sets]
    if rest:
        notes.append(
            f"K is not conditioned on {', '.join(rest)}, whose values identify nearly every configuration; {advice}"
        )
    return notes


def _paired(table: Table, grid: Grid) -> list[int]:
    """The axes of which K conditions on two at once: all, or of many those that order a target best."""
    axes = range(len(grid.axes))
    if len(axes) <= MOST_PAIRED:
        return list(axes)
    codes = grid.codes.astype(np.float64)
    taus = [[abs(kendall.tau(codes[:, a], g)) for g in table.targets.values()] for a in axes]
    order = np.argsort(-np.max(np.nan_to_num(taus), axis=1), kind="stable")
    return sorted(order[:MOST_PAIRED].tolist())


def with_measures(case: Case, columns: Mapping[str, np.ndarray]) -> Case:
    """The case with other measures: columns `[models]`, averaged over repeats where the case's are."""
    models = dataclasses.replace(case.models, measures=dict(columns), families={}, signs={})
    judged = models
    if len(case.table) < len(models):
        judged, _, _ = average(models, case.models_grid)
    return dataclasses.replace(case, models=models, table=judged)


def select_names(kind: str, names: Sequence[str] | None, columns: Mapping[str, np.ndarray]) -> list[str]:
    """The names of some columns of a table, or of all of them.

    Args:
        kind: what the columns are, for the message.
        names: the names to select; None for all.
        columns: the columns that there are.

    Raises:
        ValueError: for a name that no column has, and if there is no column.
    """
    if names is None:
        names = list(columns)
    for name in names:
        if name not in columns:
            known = ", ".join(columns) or "none"
            raise ValueError(f"there is no {kind} {name!r} in the table; its {kind}s are {known}")
    if not names:
        raise ValueError(f"the table has no {kind}; at least one is needed")
    return list(names)
