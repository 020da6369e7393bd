"""What the JSON file of a record must hold, all of it: it may be damaged, a stranger's, or of another making."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import Any

from etils import epath

from prunegen_jax.runs import files
from prunegen_jax.runs.points import Point

Record = dict[str, Any]
_WORDS = ("nan", "inf", "-inf")  # non-finite floats, as they are stored


def checked(content: dict[str, Any], source: epath.Path) -> Record:
    """`content` if it is whole, a record of the network that its file is named after; else DamagedError."""
    wrong = next((key for key, fits in _PARTS.items() if key not in content or not fits(content[key])), None)
    if wrong is None and content["name"] != source.stem:
        wrong = "name"
    if wrong is None and content["hash"] not in _hashes(content["point"]):
        wrong = "hash"
    if wrong is not None:
        raise files.DamagedError(f"{source} is damaged: its {wrong!r} is {reprlib.repr(content.get(wrong))}")
    return content


def _hashes(point: dict[str, Any]) -> tuple[str, str]:
    """What the hash of `point` may be: of its fields as they are stored, or with non-finite floats put back."""
    back = {key: files.number(value) if value in _WORDS else value for key, value in point.items()}
    return Point("", point, ()).hash, Point("", back, ()).hash


def is_plain_number(value: Any) -> bool:
    """Whether `value`, read from JSON of ours, is a finite number."""
    return type(value) in (int, float)


def is_number(value: Any) -> bool:
    """Whether `value`, read from JSON of ours, is a number or the word for one that is not finite."""
    return is_plain_number(value) or value in _WORDS


def _is_losses(found: Any) -> bool:
    if not isinstance(found, dict):
        return found is None  # of a network that diverged
    return "loss" in found and all(map(is_number, found.values())) and type(found.get("size", 0)) is int


def _is_measure(entry: Any) -> bool:
    """Whether `entry` is an Estimate with the options that it was computed with."""
    return (
        isinstance(entry, dict)
        and entry.get("status") in ("ok", "not_applicable", "failed")
        and "value" in entry
        and all(entry.get(key) is None or is_number(entry[key]) for key in ("value", "sem"))
        and isinstance(entry.get("options"), dict)
        and isinstance(entry.get("details", {}), dict)
        and isinstance(entry.get("reason", ""), str)
    )


_PARTS: dict[str, Callable[[Any], bool]] = {
    "name": lambda x: isinstance(x, str),
    "hash": lambda x: isinstance(x, str),
    "point": lambda x: isinstance(x, dict) and all(isinstance(v, str | int | float | None) for v in x.values()),
    "axes": lambda x: isinstance(x, list) and all(isinstance(axis, str) for axis in x),
    "status": lambda x: x in ("converged", "not_converged", "diverged"),
    "reason": lambda x: isinstance(x, str),
    "train": _is_losses,
    "test": _is_losses,
    "updates": lambda x: type(x) is int,
    "epochs": lambda x: type(x) is int,
    "data": lambda x: isinstance(x, str) and x.isprintable(),
    "measures": lambda x: isinstance(x, dict) and all(map(_is_measure, x.values())),
    "versions": lambda x: isinstance(x, dict) and all(isinstance(v, str) for v in x.values()),
}
