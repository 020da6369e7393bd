"""The whole judgement of a table: every statistic of every measure, how sure it is, and what the measures add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from . import added, baselines, certainty, context, kendall, robustness
from .case import Case, Repeats, chosen, prepare, statistics
from .table import LARGEST_TEST, Table
from .verdict import Matrix, Row, Verdict

REFERENCE = "prunability"


def judge(
    table: Table,
    *,
    targets: Sequence[str] | None = None,
    measures: Sequence[str] | None = None,
    repeats: Repeats = "mean",
    reference: str = REFERENCE,
    signatures: Mapping[str, Sequence[str]] | None = None,
    orders: Mapping[str, Sequence[str | float]] | None = None,
    environments: robustness.Environments = "auto",
    draws: int = 1000,
    permutations: int = 999,
    added_permutations: int = 19,
    baseline_draws: int = 20,
    folds: int = 10,
    level: float = 0.95,
    seed: int = 0,
) -> Verdict:
    """Judges the measures of a table against its targets (larger = generalizes worse).

    `targets` and `measures` are names, all by default. `repeats` of a configuration are averaged ("mean") or kept.
    `reference` is compared with every other measure, in pairs. `signatures` are sets of measures fitted together, by
    name. `orders` gives the believed order of an axis' values, from smallest to largest target. `environments`: see
    `robustness.design`. `draws` bootstrap draws give intervals of `level`; `permutations` the nulls of K and of the
    PGDL score, `added_permutations` those of the added information; 0 leaves any of them out, `baseline_draws` = 0
    the baselines and the ceiling. Same `seed`, same verdict.

    The intervals are over configurations: they say what another sweep, of other configurations, might have found.
    Raises ValueError for a name or an option that is not there, and for a table without a model to judge.
    """
    targets = chosen("target", targets, table.targets)
    names = chosen("measure", measures, table.measures)
    settings = {"draws": draws, "permutations": permutations, "added_permutations": added_permutations}
    settings |= {"baseline_draws": baseline_draws}
    _check(table.test_size, folds=folds, level=level, **settings)
    settings |= {"repeats": repeats, "reference": reference, "folds": folds, "level": level, "seed": seed}
    if reference != REFERENCE:
        chosen("reference", [reference], table.measures)
    for members in (signatures or {}).values():
        chosen("measure", members, table.measures)
    case = prepare(table, repeats=repeats, environments=environments, draws=draws, permutations=permutations)
    sensitivity = context.sensitivity_rows(table, case, targets, names)  # before the rest: it too may take too much
    baselines.canonical(case.models_grid, case.models.hyperparameters, orders=orders)  # a wrong order fails here
    notes = [*table.notes, *case.notes, *_remarks(case, targets, names)]
    if reference not in names:
        notes.append(f"{reference} is not among the measures: no measure is compared with it")
    rows: list[Row] = []
    differences: list[Row] = []
    for target in targets:
        size = table.test_size if target in ("gap", "test_error") else None
        found = [_row(case, n, target, test_size=size, folds=folds, seed=seed) for n in names]
        if draws:
            samples = {n: certainty.bootstrap(case, n, target, size, draws=draws, seed=seed) for n in names}
            certainty.add_intervals(found, samples, level)
            differences += certainty.differences(case, found, samples, reference, level)
        if permutations:
            certainty.add_nulls(case, found, permutations=permutations, seed=seed)
        certainty.add_corrections(found)
        rows += found
    matrices, families = _matrices(case, rows, targets, names, permutations=added_permutations, seed=seed)
    statistic = {"folds": folds, "seed": seed}
    base = {"test_size": table.test_size, "draws": baseline_draws}
    return Verdict(
        rows=tuple(rows),
        differences=tuple(differences),
        baselines=tuple(r for t in targets for r in context.baseline_rows(case, t, orders=orders, **base, **statistic)),
        ceilings=tuple(r for t in targets for r in context.ceiling_rows(case, t, **base, seed=seed)),
        sensitivity=tuple(sensitivity),
        signatures=tuple(
            context.signature_rows(case, targets, signatures or {}, draws=draws, level=level, **statistic)
        ),
        families=tuple(families),
        matrices=matrices,
        notes=tuple(dict.fromkeys(notes)),
        left_out=table.left_out,
        settings=settings
        | {"environments": case.plan.kind, "test_size": table.test_size, "axes": list(case.grid.axes)}
        | {"models": len(table), "judged": len(case.table)},
    )


def _row(case: Case, name: str, target: str, *, test_size: int | None, folds: int, seed: int) -> Row:
    m, g = case.table.measures[name], case.table.targets[target]
    known = ~(np.isnan(m) | np.isnan(g))
    row: Row = {"measure": name, "target": target, "family": case.table.families.get(name, "")}
    row |= {"sign": case.table.signs.get(name, 1), "n": int(known.sum()), "missing": int((~known).sum())}
    row["infinite"] = int((known & ~(np.isfinite(m) & np.isfinite(g))).sum())
    row |= statistics(case, name, target, test_size=test_size, folds=folds, seed=seed)
    return row | {"tau_p": kendall.p_value(m, g)}


def _matrices(
    case: Case, rows: list[Row], targets: Sequence[str], names: list[str], *, permutations: int, seed: int
) -> tuple[dict[str, Matrix], list[Row]]:
    matrices = added.shared(case, names)
    for target in targets:
        matrices |= added.added(case, target, names, permutations=permutations, seed=seed)
    symmetric = matrices["shared_symmetric"]
    order = [names[i] for i in added.relatives_together(names, case.table.families, symmetric.values)]
    matrices = {key: added.arranged(matrix, order) for key, matrix in matrices.items()}
    families = []
    for target in targets:
        gain, bias = matrices[f"added_{target}"], matrices.get(f"added_null_{target}")
        families += added.by_family(rows, target, case.table.families, matrices["shared_symmetric"], gain, bias)
    return matrices, families


def _remarks(case: Case, targets: Sequence[str], names: Sequence[str]) -> list[str]:
    """What was done with values that are not plain numbers."""
    found = []
    columns = {name: case.table.measures[name] for name in names}
    columns |= {target: case.table.targets[target] for target in targets}
    for name, values in columns.items():
        missing, infinite = int(np.isnan(values).sum()), int(np.isinf(values).sum())
        if missing:
            found.append(
                f"{name} has no value for {missing} of {len(values)} models: its statistics are over the others"
            )
        if infinite:
            found.append(
                f"{name} is infinite for {infinite} models: they keep their place in the order, equal infinities tie, "
                "and linear fits leave them out"
            )
        if len(np.unique(values[~np.isnan(values)])) == 1:
            found.append(f"{name} is constant: tau-b, K and R2 are not defined, tau-a is 0")
        elif len(np.unique(values[~np.isnan(values)])) < (~np.isnan(values)).sum():
            found.append(f"{name} has ties: tau-b corrects for them, tau-a counts 0, information drops the pairs")
    for target in targets:
        why = "not an accuracy" if target not in ("gap", "test_error") else "the size of the test set is not known"
        if target not in ("gap", "test_error") or case.table.test_size is None:
            found.append(f"sign error on {target}: every pair has weight one, noise is not weighed ({why})")
    kind = case.plan.kind
    found.append(f"sign error: environments are pairs of {kind}, kept from 12 effective pairs of models on")
    return found


def _check(test_size: int | None, *, folds: int, level: float, **counts: int) -> None:
    if test_size is not None and not 1 <= test_size <= LARGEST_TEST:
        raise ValueError(f"test_size is {test_size}; it has to be a positive finite number of examples")
    for name, value in counts.items():
        if value < 0:
            raise ValueError(f"{name} is {value}; it has to be 0 (leave it out) or more")
    if folds < 2:
        raise ValueError(f"folds is {folds}; it has to be at least 2")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it has to lie between 0 and 1, as 0.95 does")
