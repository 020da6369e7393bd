"""Tables read from anyone's CSV, or from the files of the PGDL competition."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prunegen_jax.judging.table import PARTS, Table
from prunegen_jax.runs.tables import accuracies
from prunegen_jax.runs.tables.cells import has_numbers, levels, numbers, quote
from prunegen_jax.runs.tables.columns import assign, explain, is_target
from prunegen_jax.runs.tables.layouts import arrange, translate
from prunegen_jax.runs.tables.sources import read_source
from prunegen_jax.runs.tables.text_files import read_json, read_prediction

# Statuses of models to judge: ours, flags, and those of W&B, MLflow and Optuna.
SUCCESSES = (
    "converged", "ended", "ok", "true", "1", "1.0", "finished", "complete", "completed", "success", "succeeded", "done",
)  # fmt: skip


def read_csv(
    path: str | os.PathLike[str],
    *,
    target: str | None = None,
    hyperparameters: str | None = None,
    measures: str | None = None,
    test_size: int | None = None,
    higher_is_better: bool = False,
    step: int | None = None,
) -> Table:
    """The table in a CSV with one header line and one model per line, or as other tools write it.

    Tables of W&B, MLflow, Optuna, the Small CNN Zoo, model zoos (a folder) and robust-generalization-measures are
    recognised by their columns, see `layouts`; the first note says which. Files may be compressed with gzip or be
    Parquet. Of several rows of one training the last counts.

    Without patterns, columns are found by name: `hp.*` (or hp0, hp1, ...) are hyperparameters, `gap`, `gen.gap`,
    `test_error`, `test_loss` targets, `complexity.*` or `measure.*` measures (without any, every other column of
    numbers), `train_loss`, `parameters`, `batch_size` or `confounder.*` confounders; `status`, `state` or
    `is.converged` says which models are left out. Of accuracies (`test_accuracy`, `val/acc`, `train_acc`, ...; per cent
    too) the test error and the gap are computed. Results on held-out data are never measures, unless their column is
    called `measure.*`. Empty cells and "nan" are missing values.

    Args:
        path: the file, or the folder of a model zoo.
        target: shell patterns of the columns to predict, separated by commas. Larger is worse, but in what is an
            accuracy by its name.
        hyperparameters: shell patterns of the columns that the sweep varied.
        measures: shell patterns of the columns to judge.
        test_size: number of test examples behind the targets; None for the column of that name, if there is one.
        higher_is_better: whether in the columns of `target` larger is better; they are turned.
        step: the step of each training that counts; None for the last.

    Returns:
        The table; its `notes` say what each column was taken as.

    Raises:
        ValueError: if the file is not a table, a pattern matches nothing, there is no target or no measure, a column
            that must hold numbers holds text, or no model succeeded.
    """
    source_header, source_rows = read_source(path)
    header, rows, known, notes = arrange(source_header, source_rows, step=step, is_target=is_target)
    columns = {name: [row[i].strip() for row in rows] for i, name in enumerate(header)}
    numeric = [name for name, column in columns.items() if has_numbers(column)]
    options = {"target": target, "hyperparameters": hyperparameters, "measures": measures}
    options = {name: None if given is None else translate(given, source_header) for name, given in options.items()}
    options["target"] = known if target is None else options["target"]
    parts = assign(header, **options, numeric=numeric, higher_is_better=higher_is_better)
    label, status = parts["name"], parts["status"]
    names = columns[label] if label is not None else [str(i) for i in range(len(rows))]
    if test_size is None and "test_size" in numeric:
        test_size = int(np.nanmin(numbers("test_size", columns["test_size"], names)))
    values = {c: numbers(c, columns[c], names) for part in PARTS[1:] for c in parts[part].values()}
    table = Table(
        names=tuple(names),
        hyperparameters={k: levels(columns[c]) for k, c in parts["hyperparameters"].items()},
        measures={k: values[c] for k, c in parts["measures"].items()},
        targets=_targets(parts, values, columns, names, test_size),
        confounders={k: values[c] for k, c in parts["confounders"].items()},
        test_size=test_size,
        notes=(*notes, *explain(parts)),
    )
    if status is None:
        return leave_out(table, ["converged"] * len(rows))
    if rows and not any(map(_is_success, columns[status])):
        found = ", ".join(quote(word) for word in list(dict.fromkeys(columns[status]))[:3])
        raise ValueError(
            f"no model is judged: column {status!r} has {found}, and a model is judged only if it has one of "
            f"{', '.join(SUCCESSES)}; if the column is not a status, give it another name"
        )
    return leave_out(table, columns[status])


def _targets(
    parts: Mapping[str, Any],
    values: Mapping[str, np.ndarray],
    columns: Mapping[str, Sequence[str]],
    names: Sequence[str],
    test_size: int | None,
) -> dict[str, np.ndarray]:
    """The targets, larger = worse: columns as they are or turned, and the gap of two accuracies."""
    targets = {}
    if parts["gap"]:
        train, test = (accuracies.as_fractions(numbers(c, columns[c], names), size) for c, size in zip(
            parts["gap"], (None, test_size), strict=True))  # fmt: skip
        targets["gap"] = accuracies.gap(train, test)
    for name, column in parts["targets"].items():
        if column in parts["turned"]:
            turned, errors = accuracies.as_error(column, values[column], test_size)
            targets[name if accuracies.is_accuracy(column) else turned] = errors
        else:
            targets[name] = values[column]
    return targets


def read_pgdl(model_configs: str | os.PathLike[str], predictions: Sequence[str | os.PathLike[str]]) -> Table:
    """The table of one task of the PGDL competition: its `model_configs.json` and one `.predict` file per measure.

    Targets are gap = train_acc - test_acc, unrounded, as in the official scorer, and test_error = 1 - test_acc.

    Args:
        model_configs: the task's model_configs.json.
        predictions: .predict files; a measure is named after its file. Without any, those in the same folder.

    Raises:
        ValueError: if a file is not what it should be, or a prediction lacks models or is not a number.
    """
    configs = {k if "model" in k else f"model_{k}": v for k, v in read_json(model_configs).items()}
    try:
        axes = list(next(iter(configs.values()))["hparams"])
        columns = {a: [c["hparams"][a]["current_value"] for c in configs.values()] for a in axes}
        train, test = (np.array([float(c["metrics"][k]) for c in configs.values()]) for k in ("train_acc", "test_acc"))
    except (LookupError, TypeError, ValueError, StopIteration) as error:
        raise ValueError(
            f"{model_configs} is not a PGDL model_configs.json: every model needs hparams with a current_value "
            f"and metrics with train_acc and test_acc ({error!r})"
        ) from error
    predictions = predictions or sorted(Path(model_configs).parent.glob("*.predict"))
    stems = [Path(p).stem for p in predictions]
    if not stems:
        raise ValueError(
            "no .predict file was given, and none is in the folder; name at least one (each holds one measure)"
        )
    measures = {
        stem if stems.count(stem) == 1 else str(Path(path).with_suffix("")): read_prediction(path, list(configs))
        for path, stem in zip(predictions, stems, strict=True)
    }
    return Table(
        names=tuple(configs),
        hyperparameters={a: levels(column) for a, column in columns.items()},
        measures=measures,
        targets={"gap": train - test, "test_error": 1 - test},
        notes=(f"PGDL task with {len(configs)} models, axes {', '.join(axes)}; measures {', '.join(measures)}",),
    )


def leave_out(table: Table, statuses: Sequence[str]) -> Table:
    """The table with models moved to `left_out` if their status is no success or they lack a hyperparameter."""
    reasons = ["" if _is_success(s) else s.strip() or "no status" for s in statuses]
    for axis, values in table.hyperparameters.items():
        missing = np.isnan(values) if values.dtype.kind == "f" else values == ""
        reasons = [
            r or (f"no value of hyperparameter {axis}" if m else "") for r, m in zip(reasons, missing, strict=True)
        ]
    table = dataclasses.replace(table, statuses=tuple(statuses))
    out = np.array([bool(r) for r in reasons])
    if not out.any():
        return table
    left_out = tuple((n, r) for n, r in zip(table.names, reasons, strict=True) if r)
    return dataclasses.replace(table.take(~out), left_out=left_out, left_out_rows=table.take(out))


def _is_success(status: str) -> bool:
    return status.partition(":")[0].strip().lower().removeprefix("trialstate.") in SUCCESSES
