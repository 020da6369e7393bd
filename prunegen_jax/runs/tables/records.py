"""The table of a sweep's records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prunegen_jax.judging.grid import unite
from prunegen_jax.judging.table import Table
from prunegen_jax.judging.verdict import cell
from prunegen_jax.runs.tables.accuracies import ROUNDING
from prunegen_jax.runs.tables.cells import levels, number
from prunegen_jax.runs.tables.columns import ALIASES
from prunegen_jax.runs.tables.read import leave_out


def from_records(
    records: Sequence[Mapping[str, Any]],
    *,
    families: Mapping[str, str] | None = None,
    signs: Mapping[str, int] | None = None,
) -> Table:
    """The table of a sweep's records, in the records' order.

    Targets are gap = train - test accuracy and test error = 1 - test accuracy (fractions), the test loss, loss_gap =
    test - training loss (nats), and of the evaluated test sets ece, brier and error_on_NAME, loss_on_NAME.
    Hyperparameters are the records' axes, and every other field that varies unless the axes determine it. Models whose
    status is neither "converged" nor "ended" are left out, with the reason. A measure without a value is `nan`. Records
    of one point are one network: the first counts.

    Args:
        records: the records.
        families: family by measure, for those that the records have.
        signs: believed sign by measure, for those that the records have.

    Raises:
        ValueError: if there are no records.
    """
    if not records:
        raise ValueError("there are no records; train at least one model before judging")
    records, notes = _one_per_point(records)
    hyperparameters = _axes(records, notes)
    estimates = [r.get("measures") or {} for r in records]
    names = sorted(set().union(*estimates))
    measures = {m: np.array([number((e.get(m) or {}).get("value")) for e in estimates]) for m in names}
    train, test = ([r.get(split) or {} for r in records] for split in ("train", "test"))
    targets = {
        "gap": unite(np.array([_gap(*pair) for pair in zip(train, test, strict=True)]), ROUNDING),
        "test_error": np.array([_gap({"accuracy": 1, "size": 1}, split) for split in test]),
        "test_loss": _column(test, "loss"),
        "loss_gap": _column(test, "loss") - _column(train, "loss"),
    } | _further_targets(records)
    confounders = {"train_loss": _column(train, "loss")}
    for alias in ALIASES["parameters"]:
        confounders |= {"parameters": measures[alias]} if alias in measures else {}
    confounders["batch_size"] = np.array([number(_batch_size(r.get("point") or {})) for r in records])
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
    return leave_out(table, [": ".join(filter(None, (str(r["status"]), str(r.get("reason") or "")))) for r in records])


def _one_per_point(records: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], list[str]]:
    """The first record of each point, and a note on the others, which were copied under another name."""
    firsts: dict[str, Mapping[str, Any]] = {}
    notes = []
    for record in records:
        first = firsts.setdefault(repr(sorted((record.get("point") or {}).items())), record)
        if first is not record:
            notes.append(f"{record['name']} and {first['name']} are the same network; only the latter is judged")
    return list(firsts.values()), notes


def _axes(records: Sequence[Mapping[str, Any]], notes: list[str]) -> dict[str, np.ndarray]:
    """The swept axes, and the other fields that vary without being determined by the axes; adds notes on them."""
    points = [r.get("point") or {} for r in records]
    axes = list(dict.fromkeys(a for r in records for a in r.get("axes") or ()))
    for field in sorted(set().union(*points) - set(axes)):
        values = [cell(p.get(field)) for p in points]
        if len(set(values)) == 1:
            continue
        swept = [tuple(cell(p.get(a)) for a in axes) for p in points]
        if len(set(zip(swept, values, strict=True))) == len(set(swept)):
            notes.append(f"{field} is determined by the axes {', '.join(axes)} and is not an axis itself")
        else:
            axes.append(field)
            notes.append(f"{field} varies between records and is taken as an axis")
    return {a: levels(["" if p.get(a) is None else p[a] for p in points]) for a in axes}


def _further_targets(records: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Calibration on the test set; error and loss on every further test set."""
    found = [r.get("targets") or {} for r in records]
    columns: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(name for each in found for name in each):
        parts = [each.get(name) or {} for each in found]
        if name == "test":
            columns = {"ece": _column(parts, "ece"), "brier": _column(parts, "brier")} | columns
        else:
            columns[f"error_on_{name}"] = _column(parts, "errors") / _column(parts, "size")
            columns[f"loss_on_{name}"] = _column(parts, "loss")
    return columns


def _column(splits: Sequence[Mapping[str, Any]], field: str) -> np.ndarray:
    return np.array([number(split.get(field)) for split in splits])


def _gap(train: Mapping[str, Any], test: Mapping[str, Any]) -> float:
    """Train - test accuracy. Of known sizes it is the quotient of two integers: equal gaps are equal floats."""
    one, two = (number(split.get("accuracy")) for split in (train, test))
    m, n = (split.get("size") or 0 for split in (train, test))
    if not (m and n and math.isfinite(one) and math.isfinite(two)):
        return one - two
    return (round(one * m) * n - round(two * n) * m) / (m * n)


def _batch_size(point: Mapping[str, Any]) -> Any:
    return next((value for field, value in point.items() if field.rpartition(".")[2] == "batch_size"), None)
