"""The data of a report, collected from a workdir or from a table, with the reason for each missing part."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath

from prunegen_jax.judging import Table, Verdict
from prunegen_jax.judging.statistics import ranked
from prunegen_jax.runs import checkpoint, costs, curves, files, record, tables, workdir
from prunegen_jax.runs.record import Record
from prunegen_jax.runs.schema import Json, is_number
from prunegen_jax.runs.tables.verdict_files import read_verdict

_NO_RUNS = "the report was made from a table alone, without a workdir"


@dataclasses.dataclass(frozen=True)
class Material:
    """The data of a report. `missing` maps a section without data to the reason.

    `curves` and `histories` are by network, `times` seconds by network and activity, `troubles` measures without an
    answer as (measure, status, reason, networks). `remark` says how far a running sweep has come.
    """

    title: str
    table: Table
    verdict: Verdict
    curves: dict[str, Json] = dataclasses.field(default_factory=dict)
    crossings: dict[str, Json] = dataclasses.field(default_factory=dict)
    histories: dict[str, Json] = dataclasses.field(default_factory=dict)
    times: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    config: dict[str, str] = dataclasses.field(default_factory=dict)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    troubles: tuple[tuple[str, str, str, int], ...] = ()
    missing: dict[str, str] = dataclasses.field(default_factory=dict)
    remark: str = ""

    @functools.cached_property
    def everyone(self) -> Table:
        """The judged models, followed by those left out that have numbers."""
        return self.table.with_left_out()

    @functools.cached_property
    def judged(self) -> np.ndarray:
        """Which of `everyone` were judged, `[n]`."""
        return np.arange(len(self.everyone)) < len(self.table)

    @functools.cached_property
    def axes(self) -> tuple[str, ...]:
        """The hyperparameters with more than one value, seeds last."""
        columns = self.everyone.hyperparameters
        vary = [name for name, values in columns.items() if len(np.unique(values)) > 1]
        return tuple(sorted(vary, key=lambda name: name in self.table.replicates))

    @functools.cached_property
    def reference(self) -> str:
        """The measure that the report marks."""
        return str(self.verdict.settings.get("reference", "prunability"))

    @functools.cached_property
    def measures(self) -> tuple[str, ...]:
        """The judged measures, best first on the first target."""
        first = self.verdict.targets[0]
        rows = [row for row in self.verdict.rows if row["target"] == first]
        return tuple(row["measure"] for row in ranked(rows))


def from_table(table: Table, verdict: Verdict, *, title: str) -> Material:
    """The data of a report from a table and its verdict only."""
    sections = ("pruning curves", "training curves", "costs", "config and versions")
    missing = dict.fromkeys(sections, _NO_RUNS)
    return Material(title, table, verdict, missing=missing | _missing_statistics(table, verdict))


def require_verdict(folder: epath.Path) -> None:
    """Raises ValueError if the workdir was never judged."""
    if not (workdir.verdict_path(folder).is_file() and workdir.results_path(folder).is_file()):
        raise ValueError(f"{folder} has no verdict.json and results.csv to report on; run the stage judge first")


def from_workdir(
    folder: epath.Path, *, verdict: Verdict | None = None, table: Table | None = None, remark: str = ""
) -> Material:
    """What a workdir has to show. `verdict` and `table` replace those in its files.

    Raises:
        ValueError: if the workdir was never judged, or a file of its verdict is not ours.
    """
    if verdict is None:
        require_verdict(folder)
        verdict = read_verdict(workdir.verdict_path(folder))
    if table is None:
        table = tables.read_csv(workdir.results_path(folder))
    _check_columns(folder, verdict, table)
    firsts = {row["measure"]: row for row in verdict.rows}
    table = dataclasses.replace(
        table,
        families={name: row["family"] for name, row in firsts.items()},
        signs={name: int(row["sign"]) for name, row in firsts.items()},
    )
    known, damaged = record.scan(folder)
    records = {each.name: each for each in known}
    drawn = curves.read_all(folder, records)
    histories = {name: past for name in records if (past := checkpoint.history(folder, name)) is not None}
    times = costs.read_all(folder)
    missing = _missing_statistics(table, verdict) | _missing_curves(len(records), len(drawn), len(histories))
    missing |= {} if times else {"costs": f"{folder.name} holds no times"}
    return Material(
        title=folder.absolute().name,
        table=table,
        verdict=dataclasses.replace(verdict, notes=(*verdict.notes, *damaged)),
        curves=drawn,
        crossings={name: c for name, each in records.items() if (c := _crossing(each))},
        histories=histories,
        times=times,
        config=_config(folder, missing),
        versions=_versions(records),
        troubles=_troubles(records),
        missing=missing,
        remark=remark,
    )


def _check_columns(folder: epath.Path, verdict: Verdict, table: Table) -> None:
    """ValueError if the table lacks a measure or a target that the verdict has judged."""
    for part, columns in (("measure", table.measures), ("target", table.targets)):
        lacks = next((row[part] for row in verdict.rows if row[part] not in columns), None)
        if lacks is not None:
            raise ValueError(f"{folder / 'results.csv'} lacks the {part} {lacks!r} of the verdict; judge again")


def _missing_statistics(table: Table, verdict: Verdict) -> dict[str, str]:
    missing = {}
    if not verdict.settings.get("axes"):
        missing["Ψ per axis"] = "no hyperparameter varies among the judged networks"
    if not any("k_null" in row for row in verdict.rows):
        missing["the null band of K"] = "the verdict was computed without permutations"
    if not verdict.matrices:
        missing["shared and added information"] = "the verdict has no matrices"
    if table.left_out and not verdict.sensitivity:
        missing["the verdict with the networks left out"] = "those networks have no values"
    return missing


def _missing_curves(records: int, curves: int, histories: int) -> dict[str, str]:
    missing = {}
    if curves < records:
        which = f"{records - curves} of {records} networks have no pruning curve"
        missing["pruning curves"] = f"{which}; the stage report computes them if weights and data set are available"
    if histories < records:
        missing["training curves"] = f"{records - histories} of {records} networks have no training history"
    return missing


def _crossing(known: Record) -> Json | None:
    found = known.measures.get("prunability", {"status": "failed"})
    details = found.get("details", {})
    if found["status"] != "ok" or not all(is_number(details.get(key)) for key in ("dense", "loss", "limit")):
        return None
    return {"fraction": float("nan" if found["value"] is None else found["value"])} | details


def _config(folder: epath.Path, missing: dict[str, str]) -> dict[str, str]:
    try:
        return dict(_flat(files.read_json(workdir.config_path(folder))))
    except (FileNotFoundError, files.DamagedError):
        missing["config"] = f"{folder.name} holds no config.json that can be read"
        return {}


def _flat(config: Json, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The fields of a nested config as ("train.learning_rate", "0.03")."""
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value, ensure_ascii=False)


def _versions(records: dict[str, Record]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for known in records.values():
        for name, version in known.versions.items():
            found.setdefault(name, []).append(version)
    return {name: ", ".join(sorted(set(values))) for name, values in found.items()}


def _troubles(records: dict[str, Record]) -> tuple[tuple[str, str, str, int], ...]:
    """Measures without a value; of reasons that differ from network to network, the first is given."""
    found: dict[tuple[str, str], list[Any]] = {}
    for known in records.values():
        for name, answer in known.measures.items():
            if answer["status"] != "ok":
                found.setdefault((name, answer["status"]), []).append(answer.get("reason", ""))
    return tuple((name, status, reasons[0], len(reasons)) for (name, status), reasons in sorted(found.items()))
