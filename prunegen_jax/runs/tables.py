"""Tables in files: from our records, anyone's CSV, or the files of the PGDL competition; and written as CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prunegen_jax.judging.table import PARTS, Table
from prunegen_jax.runs import columns as parse
from prunegen_jax.runs import table_files as files
from prunegen_jax.runs.files import atomic

_KEPT = ("converged", "ok", "true", "1", "1.0")  # statuses of models to judge


def from_records(
    records: Sequence[Mapping[str, Any]],
    *,
    families: Mapping[str, str] | None = None,
    signs: Mapping[str, int] | None = None,
) -> Table:
    """The table of a sweep's records, in the records' order.

    Targets are gap = train - test accuracy and test error = 1 - test accuracy (fractions), and the test loss (nats).
    Hyperparameters are the records' axes, and every other field that varies unless the axes determine it. Models whose
    status is not "converged" are left out, with the reason. A measure without a value is `nan`. Raises ValueError when
    there are no records.
    """
    if not records:
        raise ValueError("there are no records; train at least one model before judging")
    notes: list[str] = []
    hyperparameters = _axes(records, notes)
    answers = [r.get("measures") or {} for r in records]
    names = sorted(set().union(*answers))
    measures = {m: np.array([parse.number((a.get(m) or {}).get("value")) for a in answers]) for m in names}
    train, test = ([r.get(split) or {} for r in records] for split in ("train", "test"))
    train_accuracy, test_accuracy = (_column(split, "accuracy") for split in (train, test))
    targets = {  # accuracies are ratios of integers: 12 digits keep their differences, and their ties
        "gap": np.round(train_accuracy - test_accuracy, 12),
        "test_error": np.round(1 - test_accuracy, 12),
        "test_loss": _column(test, "loss"),
    }
    confounders = {"train_loss": _column(train, "loss")}
    for alias in parse.ALIASES["parameters"]:
        confounders |= {"parameters": measures[alias]} if alias in measures else {}
    confounders["batch_size"] = np.array([parse.number(_batch_size(r.get("point") or {})) for r in records])
    sizes = sorted({int(s["size"]) for s in test if s.get("size")})
    if len(sizes) > 1:
        notes.append(f"test sets have {sizes[0]} to {sizes[-1]} examples; the smallest is used for the noise")
    table = Table(
        names=tuple(str(r["name"]) for r in records),
        hyperparameters=hyperparameters,
        measures=measures,
        targets={k: v for k, v in targets.items() if not np.isnan(v).all()},
        confounders={k: v for k, v in confounders.items() if not np.isnan(v).all()},
        families={k: v for k, v in (families or {}).items() if k in measures},
        signs={k: int(v) for k, v in (signs or {}).items() if k in measures},
        notes=tuple(notes),
        test_size=sizes[0] if sizes else None,
    )
    return _leave_out(table, [": ".join(filter(None, (str(r["status"]), str(r.get("reason") or "")))) for r in records])


def read_csv(
    path: str | os.PathLike[str],
    *,
    target: str | None = None,
    hyperparameters: str | None = None,
    measures: str | None = None,
    test_size: int | None = None,
) -> Table:
    """The table in a CSV with one header line and one model per line.

    `target`, `hyperparameters` and `measures` are shell patterns, several separated by commas. Left out, columns are
    found by name: `hp.*` (or hp0, hp1, ...) are hyperparameters, `gap`, `gen.gap`, `test_error`, `test_loss` targets,
    `complexity.*` or `measure.*` measures (without any, every other column of numbers), `train_loss`, `parameters`,
    `batch_size` or `confounder.*` confounders; `status` or `is.converged` says which models are left out. `notes` of
    the table says what was taken as what. Empty cells and "nan" are missing values.

    Raises ValueError when the file is not a table, a pattern matches nothing, there is no target or no measure, or a
    column that has to hold numbers holds text.
    """
    header, rows = files.read_rows(path)
    columns = {name: [row[i].strip() for row in rows] for i, name in enumerate(header)}
    numeric = [name for name, cells in columns.items() if parse.has_numbers(cells)]
    parts = parse.assign(header, target=target, hyperparameters=hyperparameters, measures=measures, numeric=numeric)
    label, status = parts["name"], parts["status"]
    names = columns[label] if label is not None else [str(i) for i in range(len(rows))]
    if test_size is None and "test_size" in numeric:
        test_size = int(np.nanmin(parse.numbers("test_size", columns["test_size"], names)))
    table = Table(
        names=tuple(names),
        hyperparameters={k: parse.levels(columns[c]) for k, c in parts["hyperparameters"].items()},
        test_size=test_size,
        notes=tuple(parse.explain(parts)),
        **{part: {k: parse.numbers(c, columns[c], names) for k, c in parts[part].items()} for part in PARTS[1:]},
    )
    return _leave_out(table, ["converged"] * len(rows) if status is None else columns[status])


def read_pgdl(model_configs: str | os.PathLike[str], predictions: Sequence[str | os.PathLike[str]]) -> Table:
    """The table of one task of the PGDL competition: its `model_configs.json` and one `.predict` file per measure.

    A measure is named after its file. Targets are gap = train_acc - test_acc, unrounded, as in the official scorer,
    and test_error = 1 - test_acc. Raises ValueError when a prediction lacks models or is not a number.
    """
    configs = {k if "model" in k else f"model_{k}": v for k, v in files.read_json(model_configs).items()}
    try:
        axes = list(next(iter(configs.values()))["hparams"])
        columns = {a: [c["hparams"][a]["current_value"] for c in configs.values()] for a in axes}
        train, test = (np.array([float(c["metrics"][k]) for c in configs.values()]) for k in ("train_acc", "test_acc"))
    except (LookupError, TypeError, ValueError, StopIteration) as error:
        raise ValueError(
            f"{model_configs} is not a PGDL model_configs.json: every model needs hparams with a current_value "
            f"and metrics with train_acc and test_acc ({error!r})"
        ) from error
    stems = [Path(p).stem for p in predictions]
    if not stems:
        raise ValueError("no .predict file was given; name at least one, it holds one measure")
    measures = {
        stem if stems.count(stem) == 1 else str(Path(path).with_suffix("")): files.read_prediction(path, list(configs))
        for path, stem in zip(predictions, stems, strict=True)
    }
    return Table(
        names=tuple(configs),
        hyperparameters={a: parse.levels(column) for a, column in columns.items()},
        measures=measures,
        targets={"gap": train - test, "test_error": 1 - test},
        notes=(f"PGDL task with {len(configs)} models, axes {', '.join(axes)}; measures {', '.join(measures)}",),
    )


def to_rows(table: Table) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the table's CSV: name, status, `hp.*`, measures by name, targets, confounders, test_size.

    The models left out come last, their status says why. Numbers are written in full (`repr`).
    """
    full, n = table.with_left_out(), len(table)
    reasons = [reason for _, reason in table.left_out] if len(full) > n else []
    columns: dict[str, Sequence[Any]] = {"name": full.names, "status": ["converged"] * n + reasons}
    columns |= {f"hp.{k}": v for k, v in full.hyperparameters.items()}
    columns |= {parse.header_of_measure(m, full.measures[m]): full.measures[m] for m in sorted(full.measures)}
    columns |= dict(full.targets) | {f"confounder.{k}": v for k, v in full.confounders.items()}
    if table.test_size is not None:
        columns["test_size"] = [table.test_size] * len(full)
    return list(columns), [[parse.cell(column[i]) for column in columns.values()] for i in range(len(full))]


def write_csv(table: Table, path: str | os.PathLike[str]) -> None:
    """Writes `to_rows(table)` to `path` in one step: a reader sees the old file or the new one, never a part."""
    header, lines = to_rows(table)
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([header, *lines])
    with atomic(path) as file:
        file.write(text.getvalue().encode())


def _axes(records: Sequence[Mapping[str, Any]], notes: list[str]) -> dict[str, np.ndarray]:
    """The swept axes, and the other fields that vary and that the axes do not determine."""
    points = [r.get("point") or {} for r in records]
    axes = list(dict.fromkeys(a for r in records for a in r.get("axes") or ()))
    for field in sorted(set().union(*points) - set(axes)):
        values = [parse.cell(p.get(field)) for p in points]
        if len(set(values)) == 1:
            continue
        swept = [tuple(parse.cell(p.get(a)) for a in axes) for p in points]
        if len(set(zip(swept, values, strict=True))) == len(set(swept)):
            notes.append(
                f"{field} varies with the axes {', '.join(axes)}, which determine it; it is no axis of its own"
            )
        else:
            axes.append(field)
            notes.append(f"{field} varies between records and is taken as an axis")
    return {a: parse.levels(["" if p.get(a) is None else p[a] for p in points]) for a in axes}


def _leave_out(table: Table, statuses: Sequence[str]) -> Table:
    """Moves the models whose status is not a success, or that lack a hyperparameter, to `left_out`."""
    reasons = ["" if s.partition(":")[0].strip().lower() in _KEPT else s.strip() or "no status" for s in statuses]
    for axis, values in table.hyperparameters.items():
        missing = np.isnan(values) if values.dtype.kind == "f" else values == ""
        reasons = [
            r or (f"no value of hyperparameter {axis}" if m else "") for r, m in zip(reasons, missing, strict=True)
        ]
    out = np.array([bool(r) for r in reasons])
    if not out.any():
        return table
    named = tuple((n, r) for n, r in zip(table.names, reasons, strict=True) if r)
    return dataclasses.replace(table.take(~out), left_out=named, left_out_rows=table.take(out))


def _column(splits: Sequence[Mapping[str, Any]], field: str) -> np.ndarray:
    return np.array([parse.number(split.get(field)) for split in splits])


def _batch_size(point: Mapping[str, Any]) -> Any:
    return next((value for field, value in point.items() if field.rpartition(".")[2] == "batch_size"), None)
