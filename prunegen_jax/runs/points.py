"""Sweeps: from a config to points, the networks to train; their names, groups of equal shape, shards."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import itertools
import json
import math
import random
import re
from collections.abc import Iterable, Sequence
from typing import Any

from ml_collections import ConfigDict

# Fields that change the numbers of a trained network. The rest say where things are and how they are run.
_SECTIONS = ("model", "train")
_FIELDS = ("seed", "data.name", "data.train_size", "data.label_noise", "data.seed")
# Fields that are traced: networks that differ only in these share compiled programs.
_TRACED = {
    "seed", "train.learning_rate", "train.weight_decay", "train.dropout", "train.target", "train.max_epochs",
    "train.max_updates", "data.label_noise", "data.seed",
}  # fmt: skip

_MOST_NAME = 250  # bytes of a name: 255 of a file's, less its suffix

Value = int | float | str | bool | None
Assignment = tuple[tuple[str, Value], ...]


@dataclasses.dataclass(frozen=True)
class Point:
    """One network of a sweep: a readable name, every field that changes its numbers, and the swept ones among them."""

    name: str
    fields: dict[str, Value]
    axes: tuple[str, ...]

    @property
    def hash(self) -> str:
        """A digest of the fields: two points with the same are the same network."""
        return hashlib.sha256(json.dumps(self.fields, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def shape(self) -> tuple[tuple[str, Value], ...]:
        """The fields that compiled programs depend on."""
        return tuple(sorted((k, v) for k, v in self.fields.items() if k not in _TRACED))

    @property
    def data(self) -> tuple[Value, ...]:
        """What distinguishes the training sets of points of equal shape: those with the same train at once."""
        return self.fields["data.label_noise"], self.fields["data.seed"]


def points(config: ConfigDict) -> list[Point]:
    """The points of `config.sweep`, neighbours of equal shape.

    Raises:
        ValueError: for an unknown mode or field, an empty axis, a repeated axis, value or point, a point that is not
            made of pairs or gives a field twice, a value whose type is not the field's, a random sample larger than
            the grid.
    """
    base = number_fields(config)
    for axis in config.sweep.axes:
        if not (isinstance(axis, tuple | list) and len(axis) == 2 and isinstance(axis[0], str)):
            raise ValueError(f"sweep.axes contains {axis!r}; it must contain pairs of a field and its values")
    assignments = _assignments(config.sweep, base)
    axes = tuple(dict.fromkeys(field for assignment in assignments for field, _ in assignment))
    result = [Point(_name(base | dict(a), axes), base | dict(a), axes) for a in assignments]
    for point in result:
        for field in ("seed", "data.seed"):
            if not 0 <= point.fields[field] < 2**32:  # what a key is made of
                raise ValueError(f"{field}={point.fields[field]} must lie between 0 and 2**32 - 1")
    for attribute in ("name", "hash"):
        for value, count in _counts(getattr(point, attribute) for point in result):
            if count > 1:
                twice = next(point.name for point in result if getattr(point, attribute) == value)
                raise ValueError(f"the sweep has the point {twice!r} more than once; its points must differ")
    order = {shape: i for i, shape in reversed(list(enumerate(point.shape for point in result)))}
    return sorted(result, key=lambda point: order[point.shape])


def groups(points: Sequence[Point], *, size: int) -> list[list[Point]]:
    """Units of work: at most `size` points of equal shape each.

    Raises:
        ValueError: if `size` is not positive.
    """
    if size < 1:
        raise ValueError(f"run.group={size} must be at least 1")
    by_shape = [list(same) for _, same in itertools.groupby(points, key=lambda point: point.shape)]
    return [same[i : i + size] for same in by_shape for i in range(0, len(same), size)]


def shard(work: Sequence[list[Point]], text: str) -> list[list[Point]]:
    """Every n-th group from the i-th on, for `text` = "i/n" with 0 ≤ i < n; all of them for ""."""
    if not text:
        return list(work)
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not int(match[1]) < int(match[2]):
        raise ValueError(f"--shard={text} must be i/n with i from 0 to n - 1, such as 0/4")
    return list(work)[int(match[1]) :: int(match[2])]


def number_fields(config: ConfigDict) -> dict[str, Value]:
    """The fields of a config that change numbers, flat: "model.depth" -> 2."""
    flat = {f"{section}.{key}": value for section in _SECTIONS for key, value in config[section].items()}
    flat |= {field: config["data"][field[5:]] if field.startswith("data.") else config[field] for field in _FIELDS}
    return dict(sorted(flat.items()))


def overridden_axes(config: ConfigDict, overrides: Iterable[str]) -> list[str]:
    """The swept fields among the `overrides` of the command line, whose values would be lost."""
    swept = {field for point in points(config) for field in point.axes}
    return sorted(swept & set(overrides))


def _assignments(sweep: ConfigDict, base: dict[str, Value]) -> list[Assignment]:
    if sweep.mode == "list":
        if not sweep.points:
            raise ValueError("sweep.points is empty; sweep.mode='list' needs at least one point")
        return [_assignment(point, base) for point in sweep.points]
    if sweep.mode not in {"grid", "random"}:
        raise ValueError(f"sweep.mode={sweep.mode!r} is unknown; choose among grid, random, list")
    axes = [_axis(field, values, base) for field, values in sweep.axes]
    for field, count in _counts(field for field, _ in axes):
        if count > 1:
            raise ValueError(f"the axis {field!r} occurs {count} times in sweep.axes; it must occur once")
    columns = [[(field, value) for value in values] for field, values in axes]
    if sweep.mode == "grid":
        return list(itertools.product(*columns))
    total = math.prod(len(column) for column in columns)
    if not 1 <= sweep.count <= total:
        raise ValueError(f"sweep.count={sweep.count} must lie between 1 and {total}, the size of the grid")
    return [_nth(columns, i) for i in sorted(random.Random(sweep.seed).sample(range(total), sweep.count))]


def _assignment(point: Any, base: dict[str, Value]) -> Assignment:
    """One entry of `sweep.points`, checked."""
    if not isinstance(point, tuple | list) or not all(isinstance(p, tuple | list) and len(p) == 2 for p in point):
        raise ValueError(f"sweep.points contains {point!r}; each point must consist of pairs of a field and its value")
    for field, count in _counts(field for field, _ in point):
        if count > 1:
            raise ValueError(f"the point {point!r} of sweep.points sets {field!r} {count} times; it must set it once")
    return tuple((field, _value(field, value, base)) for field, value in point)


def _nth(columns: list[list[tuple[str, Value]]], index: int) -> Assignment:
    """The index-th element of the product of `columns`, without making the others."""
    chosen = []
    for column in reversed(columns):
        index, place = divmod(index, len(column))
        chosen.append(column[place])
    return tuple(reversed(chosen))


def _axis(field: str, values: Any, base: dict[str, Value]) -> tuple[str, list[Value]]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ValueError(f"the axis {field!r} has values {values!r}; they must be a tuple")
    checked = [_value(field, value, base) for value in values]
    if not checked:
        raise ValueError(f"the axis {field!r} of sweep.axes is empty; it needs at least one value")
    for value, count in _counts(checked):
        if count > 1:
            raise ValueError(f"the axis {field!r} has the value {value!r} {count} times; it must occur once")
    return field, checked


def _value(field: str, value: Any, base: dict[str, Value]) -> Value:
    if field not in base:
        close = difflib.get_close_matches(field, base, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"choose among {', '.join(base)}"
        raise ValueError(f"the sweep's field {field!r} is unknown; {hint}")
    kind = int if field == "data.train_size" else type(base[field])
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"the sweep's field {field!r} has the value {value!r}; it must be of type {kind.__name__}")
    return value


def _name(fields: dict[str, Value], axes: tuple[str, ...]) -> str:
    """`depth=2,learning_rate=0.01,seed=0`: each swept field by its last word, or whole where that is ambiguous.

    A name too long for a file is cut, and ends in a hash of the whole.
    """
    shown = axes or ("seed",)
    last = [field.rpartition(".")[2] for field in shown]
    labels = [short if last.count(short) == 1 else field for short, field in zip(last, shown, strict=True)]
    text = ",".join(f"{label}={fields[field]}" for label, field in zip(labels, shown, strict=True))
    name = re.sub(r"[^A-Za-z0-9_.,=+-]", "_", text)
    if len(name) <= _MOST_NAME:
        return name
    ending = f"-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    return name[: _MOST_NAME - len(ending)] + ending


def _counts(values: Iterable[Any]) -> list[tuple[Any, int]]:
    listed = list(values)
    return [(value, listed.count(value)) for value in dict.fromkeys(listed)]
