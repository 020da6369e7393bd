"""Seconds that each network took, in files of their own, and what training a sweep cost: compiling, and loss checks."""

from __future__ import annotations

from collections.abc import Sequence

from etils import epath

from prunegen_jax.runs import files, schema, workdir
from prunegen_jax.runs.points import Point

_PARTS = ("train", "compile", "update", "check")


def read(folder: epath.Path, name: str) -> dict[str, float]:
    """Seconds per activity of the network `name`; whatever is not a number is left out.

    Times are no results: a file that is damaged counts as none.

    Raises:
        ValueError: if the name is not a plain name, or a link leads out of the workdir.
    """
    try:
        content = files.read_json(workdir.path(folder, "times", name))
    except (FileNotFoundError, files.DamagedError):
        return {}
    return {activity: seconds for activity, seconds in content.items() if schema.is_finite(seconds)}


def read_all(folder: epath.Path) -> dict[str, dict[str, float]]:
    """Seconds per activity of every network of a workdir whose times are known."""
    times = {name: read(folder, name) for name in workdir.safe_names(folder, "times")}
    return {name: seconds for name, seconds in times.items() if seconds}


def add(folder: epath.Path, name: str, seconds: dict[str, float]) -> None:
    """Adds `seconds` per activity to the times of the network `name`."""
    known = read(folder, name)
    total = {activity: round(known.get(activity, 0.0) + value, 4) for activity, value in seconds.items()}
    files.write_json(workdir.path(folder, "times", name), known | total)


def summary(folder: epath.Path, points: Sequence[Point]) -> str:
    """A sentence with the seconds of compiling per shape and the share of the loss checks; empty if nothing is known.

    The share is that of evaluating the whole training set, in all of training except compiling.
    """
    known = {point.name: read(folder, point.name) for point in points}
    total = {part: sum(times.get(part, 0.0) for times in known.values()) for part in _PARTS}
    if not total["update"]:
        return ""
    shapes = {point.shape: dict(point.shape) for point in points}
    varied = [field for field in next(iter(shapes.values())) if len({str(s[field]) for s in shapes.values()}) > 1]
    compiling = []
    for shape, fields in shapes.items():
        seconds = sum(known[point.name].get("compile", 0.0) for point in points if point.shape == shape)
        label = ",".join(f"{field.rpartition('.')[2]}={fields[field]}" for field in varied)
        compiling.append(f"{label} {seconds:.1f} s".strip())
    share = total["check"] / (total["train"] - total["compile"])
    return (
        f"training took {total['train']:.0f} s: compiling {'; '.join(compiling)}; loss checks {share:.1%} of the rest"
    )
