"""What training a sweep cost: compiling for each shape, and the share of the loss checks."""

from __future__ import annotations

from collections.abc import Sequence

from etils import epath

from prunegen_jax.runs import files
from prunegen_jax.runs.points import Point
from prunegen_jax.runs.record_form import is_plain_number

_PARTS = ("train", "compile", "update", "check")


def sentence(folder: epath.Path, points: Sequence[Point]) -> str:
    """Seconds of compiling per shape and the checks' share of training, of the networks whose times are known.

    The share is that of evaluating the whole training set in all of training less compiling. Empty if nothing is known.
    """
    known = {point.name: _times(folder, point.name) for point in points}
    total = {part: sum(times.get(part, 0.0) for times in known.values()) for part in _PARTS}
    if not total["update"]:
        return ""
    shapes = {point.shape: dict(point.shape) for point in points}
    varied = [field for field in next(iter(shapes.values())) if len({str(s[field]) for s in shapes.values()}) > 1]
    told = []
    for shape, fields in shapes.items():
        seconds = sum(known[point.name].get("compile", 0.0) for point in points if point.shape == shape)
        label = ",".join(f"{field.rpartition('.')[2]}={fields[field]}" for field in varied)
        told.append(f"{label} {seconds:.1f} s".strip())
    share = total["check"] / (total["train"] - total["compile"])
    return f"training took {total['train']:.0f} s: compiling {'; '.join(told)}; loss checks {share:.1%} of the rest"


def _times(folder: epath.Path, name: str) -> dict[str, float]:
    """The times of a network; {} if there are none, or not whole: they are no results."""
    try:
        content = files.read_json(files.inside(folder / "times", f"{name}.json"))
    except (FileNotFoundError, files.DamagedError):
        return {}
    return {part: float(content[part]) for part in _PARTS if is_plain_number(content.get(part))}
