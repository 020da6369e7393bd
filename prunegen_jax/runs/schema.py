"""What the JSON files of a workdir must hold: schemas are dictionaries, and one function checks them.

A file may be damaged, untrusted, or written by another version. A schema maps each field to a rule: a function of the
value that says whether it fits, or a schema for a nested object. A field whose name ends in "?" may be missing. Fields
that no schema names are ignored.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from prunegen_jax.runs import files

Json = dict[str, Any]
Rule = Callable[[Any], bool] | Mapping[str, Any]
_NON_FINITE = ("nan", "inf", "-inf")  # how `files.write_json` stores floats that JSON does not have


def check(content: Any, schema: Mapping[str, Rule], source: files.Path) -> Json:
    """Returns `content` if it fits `schema`.

    Args:
        content: what was read from the file `source`.
        schema: field -> rule.
        source: the file, for the message.

    Raises:
        DamagedError: if a field is missing or its value does not fit; the message names the first such field.
    """
    if not isinstance(content, dict):
        raise files.DamagedError(f"{source} is damaged: it contains {reprlib.repr(content)}, not a JSON object")
    wrong = _first_wrong(content, schema)
    if wrong is not None:
        field, value = wrong
        raise files.DamagedError(f"{source} is damaged: its {field!r} is {reprlib.repr(value)}")
    return content


def fits(value: Any, rule: Rule) -> bool:
    """Whether `value` fits one rule."""
    if callable(rule):
        return rule(value)
    return isinstance(value, dict) and _first_wrong(value, rule) is None


def _first_wrong(content: Json, schema: Mapping[str, Rule]) -> tuple[str, Any] | None:
    """The dotted name and the value of the first field that does not fit."""
    for key, rule in schema.items():
        name = key.removesuffix("?")
        if name not in content:
            if name == key:
                return name, None
            continue
        value = content[name]
        if isinstance(value, dict) and not callable(rule):
            inner = _first_wrong(value, rule)
            if inner is not None:
                return f"{name}.{inner[0]}", inner[1]
        elif not fits(value, rule):
            return name, value
    return None


def is_text(value: Any) -> bool:
    """Whether `value` is a string."""
    return isinstance(value, str)


def is_object(value: Any) -> bool:
    """Whether `value` is an object with any fields."""
    return isinstance(value, dict)


def is_flag(value: Any) -> bool:
    """Whether `value` is true or false."""
    return isinstance(value, bool)


def is_integer(value: Any) -> bool:
    """Whether `value` is an integer; true and false are not."""
    return type(value) is int


def is_count(value: Any) -> bool:
    """Whether `value` is an integer that is not negative."""
    return is_integer(value) and value >= 0


def is_finite(value: Any) -> bool:
    """Whether `value`, read from JSON, is a finite number; true and false are not."""
    return type(value) in (int, float)


def is_number(value: Any) -> bool:
    """Whether `value` is a number, or one of the words that stand for numbers that are not finite."""
    return is_finite(value) or value in _NON_FINITE


def optional(rule: Rule) -> Rule:
    """A rule for null, or what fits `rule`."""
    return lambda value: value is None or fits(value, rule)


def one_of(*choices: str) -> Rule:
    """A rule for one of some strings."""
    return lambda value: value in choices


def list_of(rule: Rule) -> Rule:
    """A rule for a list whose items fit `rule`."""
    return lambda value: isinstance(value, list) and all(fits(item, rule) for item in value)


def map_of(rule: Rule) -> Rule:
    """A rule for an object with any names, whose values fit `rule`."""
    return lambda value: isinstance(value, dict) and all(fits(item, rule) for item in value.values())


def restore_numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with floats in place of the words that stand for numbers that are not finite."""
    return {key: float(value) if value in _NON_FINITE else value for key, value in values.items()}
