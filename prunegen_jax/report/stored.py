"""What a workdir says about a sweep, read back without JAX: the verdict, records, histories, curves, times, config."""

from __future__ import annotations

import dataclasses
import json
import math
import reprlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from etils import epath

from prunegen_jax.judging import Matrix, Verdict
from prunegen_jax.runs import files, record_form
from prunegen_jax.runs.record_form import is_number, is_plain_number

# Fields of a verdict's rows that hold text: a measure may be called "inf".
_TEXT = {"measure", "target", "family", "k_set", "reference", "statistic", "baseline", "noise", "signature", "best"}
_BOTH = ("measure", "target", "n", "tau_b", "psi")
# The tables, with the fields that are shown of each of their rows.
_TABLES: dict[str, tuple[str, ...]] = {
    "rows": (*_BOTH, "family", "sign"),
    "differences": ("measure", "target", "statistic", "better_by", "low", "high"),
    "baselines": (),
    "ceilings": ("target", "noise", "tau_b"),
    "sensitivity": (*_BOTH, "n_with_left_out", "tau_b_with_left_out", "psi_with_left_out"),
    "signatures": (),
    "families": (),
}

Json = dict[str, Any]


def read_verdict(path: epath.Path) -> Verdict:
    """The verdict in a `verdict.json`. ValueError when the file is not one."""
    try:
        with files.reading(path) as file:
            content = json.loads(file.read())
        content |= {name: tuple(_row(row, shown) for row in content[name]) for name, shown in _TABLES.items()}
        content["matrices"] = {name: _matrix(matrix) for name, matrix in content["matrices"].items()}
        content["left_out"] = tuple((_text(name), _text(reason)) for name, reason in content["left_out"])
        content["notes"] = tuple(_text(note) for note in content["notes"])
        known = {field.name for field in dataclasses.fields(Verdict)}
        verdict = Verdict(**{k: v for k, v in content.items() if k in known})
        _check_rows(verdict)
        _check_settings(verdict.settings)
        _check_matrices(verdict)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path} is not a verdict of ours ({error!r}); judge the workdir again") from None
    return verdict


def _check_rows(verdict: Verdict) -> None:
    """ValueError unless every measure has one row for every target, and there are some."""
    pairs = [(row["measure"], row["target"]) for row in verdict.rows]
    measures, targets = {m for m, _ in pairs}, {t for _, t in pairs}
    if not pairs or len(set(pairs)) != len(pairs) or len(pairs) != len(measures) * len(targets):
        raise ValueError("it has not one row for each measure and target")
    if any(row["sign"] not in (-1, 1) for row in verdict.rows):
        raise ValueError("a measure's sign is neither 1 nor -1")


def _check_settings(settings: Json) -> None:
    axes = settings.get("axes", [])
    if not isinstance(axes, list) or len(set(axes)) != len(axes) or not all(isinstance(axis, str) for axis in axes):
        raise ValueError("its axes are not names")
    if not all(is_plain_number(settings[key]) for key in ("models", "judged")):
        raise ValueError("it does not tell how many models were judged")
    if not is_plain_number(settings.get("level", 0.95)):
        raise ValueError("its level is no number")


def _check_matrices(verdict: Verdict) -> None:
    """ValueError unless the matrices that are shown together are of one shape."""
    for group in ("shared", "added"):
        shapes = {matrix.values.shape for name, matrix in verdict.matrices.items() if name.startswith(group)}
        if len(shapes) > 1:
            raise ValueError(f"its matrices {group!r} are of several shapes")
    kinds = [name for name in verdict.matrices if name.startswith("added")]
    first = verdict.targets[0]
    of_first = {name.removesuffix(first) for name in kinds if name.endswith(f"_{first}")}
    if set(kinds) != {f"{kind}{target}" for kind in of_first for target in verdict.targets}:
        raise ValueError("its matrices 'added' are not the same for every target")


def read_folder(folder: epath.Path) -> tuple[dict[str, Json], list[str]]:
    """The JSON files of ours in a folder, by name, and a sentence for each that is damaged."""
    found, damaged = {}, []
    for path in files.listing(folder, ".json"):
        try:
            found[path.stem] = files.read_json(path)
        except files.DamagedError as error:
            damaged.append(str(error))
        except FileNotFoundError:
            continue  # another process replaced it
    return found, damaged


def records(folder: epath.Path) -> tuple[dict[str, Json], list[str]]:
    """The records in a folder, by name, and a sentence for each that is damaged."""
    found, damaged = read_folder(folder)
    for name, content in list(found.items()):
        try:
            record_form.checked(content, folder / f"{name}.json")
        except files.DamagedError as error:
            damaged.append(str(error))
            del found[name]
    return found, damaged


def curves(folder: epath.Path) -> dict[str, Json]:
    """The pruning curves in a folder, by network, without those that are not whole."""
    return {name: curve for name, curve in read_folder(folder)[0].items() if _is_curve(curve)}


def times(folder: epath.Path) -> dict[str, dict[str, float]]:
    """Seconds by network and activity; what is no number is left out: times are no results."""
    found = read_folder(folder)[0].items()
    return {name: {key: value for key, value in each.items() if is_plain_number(value)} for name, each in found}


def _is_curve(curve: Json) -> bool:
    fractions, losses = curve.get("fractions"), curve.get("losses")
    return _are(is_plain_number, fractions) and _are(is_number, losses) and len(fractions) == len(losses) > 0


def _is_history(history: Any) -> bool:
    if not isinstance(history, dict) or not is_plain_number(history.get("target")):
        return False
    updates, losses = history.get("check_update"), history.get("check_loss")
    lists = _are(is_plain_number, updates) and _are(is_number, losses) and _are(is_number, history.get("epoch_loss"))
    return lists and len(updates) == len(losses)


def _are(fits: Callable[[Any], bool], values: Any) -> bool:
    return isinstance(values, list) and all(map(fits, values))


def histories(folder: epath.Path, names: list[str]) -> dict[str, Json]:
    """How the networks `names` were trained, as far as they have finished: the JSON half of their checkpoints."""
    found = {}
    for name in names:
        try:
            meta = files.read_json(folder / "checkpoints" / name / "state.json")["meta"]
        except (FileNotFoundError, NotADirectoryError, files.DamagedError, KeyError):
            continue
        if isinstance(meta, dict) and _is_history(meta.get("history")):
            found[name] = meta["history"] | {
                key: [files.number(x) for x in meta["history"][key]] for key in ("epoch_loss", "check_loss")
            }
    return found


def flat(config: Json, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The fields of a nested config as ("train.learning_rate", "0.03")."""
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value, ensure_ascii=False)


def _row(row: Json, shown: tuple[str, ...]) -> Json:
    lacks = next((key for key in shown if key not in row), None)
    if lacks is not None:
        raise ValueError(f"a row lacks {lacks!r}")
    return {key: _text(value) if key in _TEXT else _number(value) for key, value in row.items()}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{reprlib.repr(value)} is no text")
    return value


def _number(value: Any) -> float:
    if value is None:
        return math.nan
    if not (is_number(value) or isinstance(value, bool)):
        raise TypeError(f"{reprlib.repr(value)} is no number")
    number = float(value)  # OverflowError for an integer beyond all floats
    return number if isinstance(value, str) else value


def _matrix(stored: Json) -> Matrix:
    shape = (len(stored["rows"]), len(stored["columns"]))
    values = np.array([[_number(x) for x in line] for line in stored["values"]], dtype=np.float64).reshape(shape)
    rows, columns = (tuple(_text(name) for name in stored[part]) for part in ("rows", "columns"))
    if not rows or not columns or len(set(rows)) < len(rows) or len(set(columns)) < len(columns):
        raise ValueError("a matrix names a row or a column twice, or has none")
    return Matrix(rows, columns, values, _text(stored["meaning"]))
