"""What a workdir says about a sweep, read back without JAX: the verdict, records, histories, curves, times, config."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath

from prunegen_jax import files
from prunegen_jax.judging import Matrix, Verdict

# Fields of a verdict's rows that hold text: a measure may be called "inf".
_TEXT = {"measure", "target", "family", "k_set", "reference", "statistic", "baseline", "noise", "signature", "best"}
_TABLES = ("rows", "differences", "baselines", "ceilings", "sensitivity", "signatures", "families")

Json = dict[str, Any]


def read_verdict(path: epath.Path) -> Verdict:
    """The verdict in a `verdict.json`. ValueError when the file is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content |= {name: tuple(_row(row) for row in content[name]) for name in _TABLES}
        content["matrices"] = {name: _matrix(matrix) for name, matrix in content["matrices"].items()}
        content["left_out"] = tuple((name, reason) for name, reason in content["left_out"])
        known = {field.name for field in dataclasses.fields(Verdict)}
        verdict = Verdict(**({k: v for k, v in content.items() if k in known} | {"notes": tuple(content["notes"])}))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a verdict of ours ({error!r}); judge the workdir again") from None
    return verdict


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


def histories(folder: epath.Path, names: list[str]) -> dict[str, Json]:
    """How the networks `names` were trained, as far as they have finished: the JSON half of their checkpoints."""
    found = {}
    for name in names:
        try:
            meta = files.read_json(folder / "checkpoints" / name / "state.json")["meta"]
        except (FileNotFoundError, NotADirectoryError, files.DamagedError, KeyError):
            continue
        if isinstance(meta, dict) and "history" in meta:
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


def _row(row: Json) -> Json:
    return {key: value if key in _TEXT else _number(value) for key, value in row.items()}


def _number(value: Any) -> Any:
    if value is None:
        return math.nan
    return float(value) if value in ("inf", "-inf") else value


def _matrix(stored: Json) -> Matrix:
    shape = (len(stored["rows"]), len(stored["columns"]))
    values = np.array([[_number(x) for x in line] for line in stored["values"]], dtype=np.float64).reshape(shape)
    return Matrix(tuple(stored["rows"]), tuple(stored["columns"]), values, stored["meaning"])
