"""What a workdir says about a sweep, read back without JAX: records, histories, curves, times, config."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath

from prunegen_jax.runs import files, record_form
from prunegen_jax.runs.record_form import is_number, is_plain_number

Json = dict[str, Any]


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
