"""The whole judgement of a table: every statistic of every measure, how certain it is, and what the measures add."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from prunegen_jax.judging import added, baselines, cautions, certainty, context, pairs, robustness, statistics
from prunegen_jax.judging.case import Case, Repeats, prepare, select_names
from prunegen_jax.judging.comparison import Comparison
from prunegen_jax.judging.information import MOST
from prunegen_jax.judging.parallel import Progress, threaded
from prunegen_jax.judging.ranges import check_numbers
from prunegen_jax.judging.table import Table
from prunegen_jax.judging.verdict import Matrix, Row, Verdict

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
    bins: int | None = None,
    draws: int = 1000,
    permutations: int = 999,
    added_permutations: int = 19,
    baseline_draws: int = 20,
    folds: int = 10,
    level: float = 0.95,
    seed: int = 0,
    progress: Progress | None = None,
) -> Verdict:
    """Judges the measures of a table against its targets (larger = generalizes worse).

    Every statistic of `STATISTICS` is computed for every measure and target. The intervals are over configurations:
    they say what another sweep, of other configurations, might have given. Equal seeds give equal verdicts.

    Args:
        table: the trained models, one per row.
        targets: names of the targets to judge against; None for all.
        measures: names of the measures to judge; None for all.
        repeats: "mean" averages the repeats of a configuration first, "keep" judges every model.
        reference: the measure that every other one is compared with, in pairs.
        signatures: sets of measures that are fitted together, by name.
        orders: the believed order of an axis' values, from the smallest to the largest target, by axis; values ascend
            where none is given.
        environments: of the sign error: "configurations", "values" or "auto", see `robustness.design`.
        bins: put the values of every axis that has more of them into this many bins of equally many configurations, for
            Psi, K and the sign error of a random search; None for no bins.
        draws: bootstrap draws of the intervals; 0 for none.
        permutations: permutations of the nulls of K and of the PGDL score; 0 for none.
        added_permutations: permutations of the nulls of the added information; 0 for none.
        baseline_draws: draws of each baseline; 0 for neither baselines nor the ceiling.
        folds: folds of the k-fold R2, at least 2.
        level: level of the intervals, between 0 and 1.
        seed: of everything random.
        progress: called with the name of a part of the work, its pieces done and its pieces in all; None for none.

    Returns:
        Rows with every statistic, comparisons, baselines, matrices of information, and notes on what was done.

    Raises:
        ValueError: for an unknown name or option, and for a table without a model to judge or too large to judge.
    """
    targets = select_names("target", targets, table.targets)
    names = select_names("measure", measures, table.measures)
    settings = {"draws": draws, "permutations": permutations, "added_permutations": added_permutations}
    settings |= {"baseline_draws": baseline_draws}
    check_numbers(table.test_size, folds=folds, level=level, seed=seed, **settings)
    settings |= {} if bins is None else {"bins": bins}
    settings |= {"repeats": repeats, "reference": reference, "folds": folds, "level": level, "seed": seed}
    if reference != REFERENCE:
        select_names("reference", [reference], table.measures)
    for members in (signatures or {}).values():
        select_names("measure", members, table.measures)
    options = {"repeats": repeats, "environments": environments, "bins": bins}
    case = prepare(table, **options, draws=draws, permutations=permutations)
    sensitivity = context.sensitivity_rows(
        table, case, targets, names, bins=bins
    )  # before the rest: it too may take too much
    baselines.canonical(case.models_grid, case.models.hyperparameters, orders=orders)  # a wrong order fails here
    notes = [*table.notes, *case.notes, *_remarks(case, targets, names)]
    if reference not in names:
        notes.append(f"{reference} is not among the measures: no measure is compared with it")
    same = cautions.same_measures(case, names)
    rows: list[Row] = []
    differences: list[Row] = []
    nulls: dict = {}
    show = {"progress": progress}
    for target in targets:
        options = {"test_size": context.test_size_of(target, table.test_size), "folds": folds, "seed": seed}
        data = {name: Comparison(case, name, target, **options) for name in names}
        group = threaded(_row, list(data.values()), what=f"statistics of {target}", **show)
        for row in group:
            row["same_as"], row["same_order"] = same.get(row["measure"], ("", 0))
        if draws:
            drawn = functools.partial(certainty.bootstrap, draws=draws, seed=seed)
            drawn = threaded(drawn, list(data.values()), what=f"intervals of {target}", **show)
            samples = dict(zip(data, drawn, strict=True))
            certainty.add_intervals(data, group, samples, level)
            differences += certainty.differences(data, group, samples, reference, level)
        if permutations:
            certainty.add_nulls(data, group, permutations=permutations, seed=seed, shared=nulls, **show)
        certainty.add_corrections(group)
        rows += group
    sample = added.sample(case, seed=seed, most=MOST)
    options = {"permutations": added_permutations, "seed": seed, "progress": progress}
    matrices, families = _matrices(sample.case, rows, targets, names, **options)
    errors = _errors_of_sample(sample, targets, names)
    notes += [_note_on_sample(sample, case, errors)] if errors else []
    options = {"folds": folds, "seed": seed}
    base = {"test_size": table.test_size, "draws": baseline_draws}
    fits = context.signature_rows(case, targets, signatures or {}, draws=draws, level=level, **options)
    ceilings = tuple(r for t in targets for r in context.ceiling_rows(case, t, **base, seed=seed))
    return Verdict(
        rows=tuple(rows),
        differences=tuple(differences),
        baselines=tuple(
            r for t in targets for r in context.baseline_rows(case, t, orders=orders, **base, **options, **show)
        ),
        ceilings=ceilings,
        sensitivity=tuple(sensitivity),
        signatures=tuple(fits),
        families=tuple(families),
        pairs=tuple(r for t in targets for r in pairs.best_pairs(case, t, names, folds=folds, seed=seed)),
        warnings=tuple(cautions.warnings(rows, ceilings)),
        matrices=matrices,
        notes=tuple(dict.fromkeys(notes)),
        left_out=table.left_out,
        settings=settings
        | {"environments": case.plan.kind, "test_size": table.test_size, "axes": list(case.grid.axes)}
        | {"models": len(table), "judged": len(case.table), "in_matrices": len(sample.case.table)}
        | {"matrix_errors": errors},
    )


def _row(data: Comparison) -> Row:
    """A measure's row for a target: what it is, every statistic, and the p-values that need no permutation."""
    row: Row = {"measure": data.name, "target": data.target_name, "family": data.case.table.families.get(data.name, "")}
    row |= {"sign": data.sign, "n": int(data.known.sum()), "missing": int((~data.known).sum())}
    row["infinite"] = int((data.known & ~(np.isfinite(data.measure) & np.isfinite(data.target))).sum())
    row["edge_share"], row["edge_value"] = cautions.edge(data.case.models.measures[data.name])
    row["fragility"] = _fragility(data)
    row |= statistics.compute(data)
    return row | {s.p_column: s.p_value(data) for s in statistics.STATISTICS.values() if s.p_value}


def _fragility(data: Comparison) -> float:
    models = data.case.models
    error = context.test_errors(models, data.target_name)
    return pairs.fragility(models.measures[data.name], models.targets[data.target_name], error, data.test_size)


def _matrices(
    case: Case, rows: list[Row], targets: Sequence[str], names: list[str], *, progress: Progress | None, **options: int
) -> tuple[dict[str, Matrix], list[Row]]:
    """Shared and added information, with the measures of a family next to each other; and what families share."""
    matrices = added.shared(case, names, progress=progress)
    for target in targets:
        matrices |= added.added(case, target, names, progress=progress, **options)
    symmetric = matrices["shared_symmetric"]
    order = [names[i] for i in added.family_order(names, case.table.families, symmetric.values)]
    matrices = {key: added.reorder(matrix, order) for key, matrix in matrices.items()}
    families = []
    for target in targets:
        gain, bias = matrices[f"added_{target}"], matrices.get(f"added_null_{target}")
        families += added.by_family(rows, target, case.table.families, matrices["shared_symmetric"], gain, bias)
    return matrices, families


def _errors_of_sample(sample: added.Sample, targets: Sequence[str], names: list[str]) -> dict[str, float]:
    """The standard error that a sample of the configurations brings to an entry of each matrix, by its name."""
    if not sample.halves:
        return {}
    errors = {"shared": sample.error(lambda half: added.shared(half, names)["shared"].values)}
    for target in targets:
        key = f"added_{target}"
        errors[key] = sample.error(
            lambda half, t=target, k=key: added.added(half, t, names, permutations=0, seed=0)[k].values
        )
    return errors


def _note_on_sample(sample: added.Sample, case: Case, errors: Mapping[str, float]) -> str:
    said = ", ".join(f"{error:.2g} in {name}" for name, error in errors.items())
    return (
        f"the matrices are computed on {len(sample.case.table)} of {len(case.table)} configurations drawn at random; "
        f"the resulting standard error of an entry, estimated from two halves of them: {said}"
    )


def _remarks(case: Case, targets: Sequence[str], names: Sequence[str]) -> list[str]:
    """What was done with values that are not plain numbers."""
    remarks = []
    columns = {name: case.table.measures[name] for name in names}
    columns |= {target: case.table.targets[target] for target in targets}
    for name, values in columns.items():
        missing, infinite = int(np.isnan(values).sum()), int(np.isinf(values).sum())
        if missing:
            remarks.append(f"{name} has no value for {missing} of {len(values)} models: its statistics use the others")
        if infinite:
            remarks.append(
                f"{name} is infinite for {infinite} models: they keep their place in the order, "
                "equal infinities are tied, and linear fits leave them out"
            )
        if len(np.unique(values[~np.isnan(values)])) == 1:
            remarks.append(f"{name} is constant: tau-b, K and R2 are not defined, tau-a is 0")
        elif len(np.unique(values[~np.isnan(values)])) < (~np.isnan(values)).sum():
            remarks.append(
                f"{name} has ties: tau-b corrects for them, tau-a counts them as 0, "
                "K and added information leave them out"
            )
    for target in targets:
        if context.test_size_of(target, case.table.test_size) is None:
            why = "the size of the test set is not known" if target in context.ACCURACIES else "not an accuracy"
            remarks.append(
                f"sign error on {target}: every pair has weight 1; the noise of the target is not used ({why})"
            )
    kind = case.plan.kind
    remarks.append(
        f"sign error: environments are pairs of {kind}; those with fewer than 12 effective pairs of models are not used"
    )
    return remarks
