"""Pruning curves, kept in `workdir/curves/NAME.json`: coarse, computed once from each network's checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from prunegen_jax.runs import files, record, schema, workdir
from prunegen_jax.runs.points import Point
from prunegen_jax.runs.progress import Progress
from prunegen_jax.runs.record import Record
from prunegen_jax.runs.schema import Json
from prunegen_jax.runs.tables.text_files import read_rows

# Options of the measure prunability that its curve shares.
_OPTIONS = ("scope", "criterion", "prunable", "fold")
_CURVE = {
    "hash": schema.is_text,
    "fractions": schema.list_of(schema.is_finite),
    "losses": schema.list_of(schema.is_number),
    "test_losses?": schema.list_of(schema.is_number),
    "test_size?": schema.is_count,
}
_COLUMNS = ("name", "kept_fraction", "training_loss", "test_loss")  # of curves.csv


def read_all(folder: epath.Path, records: Mapping[str, Record]) -> dict[str, Json]:
    """The pruning curves of a workdir by network, without those that are not whole or not of the network's record."""
    curves = {}
    for name in workdir.safe_names(folder, "curves"):
        curve = _read(folder, name)
        if curve is not None and name in records and curve["hash"] == records[name].hash:
            curves[name] = curve
    return curves


def read_table(folder: epath.Path) -> dict[str, Json]:
    """The pruning curves of a study by network: those of a workdir, or of its curves.csv.

    Raises:
        ValueError: if curves.csv does not hold curves.
    """
    source = folder / "curves.csv"
    if not source.exists():
        return read_all(folder, {existing.name: existing for existing in record.scan(folder)[0]})
    header, rows = read_rows(source)
    if tuple(header) != _COLUMNS:
        raise ValueError(f"{source} has the columns {', '.join(header)}; they must be {', '.join(_COLUMNS)}")
    curves: dict[str, Json] = {}
    for name, *numbers in rows:
        curve = curves.setdefault(name, {"fractions": [], "losses": [], "test_losses": []})
        for key, number in zip(curve, numbers, strict=True):
            curve[key].append(float(number))
    return curves


def to_rows(curves: Mapping[str, Json]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of curves.csv, which `read_table` reads: one line per network and kept fraction."""
    lines = [
        [name, *(repr(float(x)) for x in point)]
        for name, curve in curves.items()
        for point in zip(curve["fractions"], curve["losses"], curve.get("test_losses", ()), strict=False)
    ]
    return list(_COLUMNS), lines


def make(
    folder: epath.Path, *, data_dir: str | None = None, cache_dir: str | None = None, test_examples: int = 0
) -> dict[str, str]:
    """Computes the curves that a workdir lacks, one pass over the training set per point of the grid.

    Args:
        folder: the workdir; none of its files says where its data are.
        data_dir: where TFDS finds its prepared sets; None for its own default.
        cache_dir: where decoded images are kept; None for the user's cache folder.
        test_examples: the test loss along the curve is computed too, on this many of the first test examples; 0: not.

    Returns:
        network -> why it has no curve: it diverged, or its weights or its data set are missing or damaged.
    """
    known = {existing.name: existing for existing in record.scan(folder)[0]}
    curves = read_all(folder, known)
    waiting = {
        name: existing
        for name, existing in known.items()
        if not _is_current(curves.get(name), existing) or (test_examples and "test_losses" not in curves[name])
    }
    reasons: dict[str, str] = {}
    if not waiting:
        return reasons
    with Progress(len(waiting), "pruning curves:") as progress:
        for name, existing in waiting.items():
            try:
                _write(folder, existing, data_dir=data_dir, cache_dir=cache_dir, test_examples=test_examples)
            except (ValueError, OSError) as error:  # DamagedError is a ValueError
                reasons[name] = str(error)
            progress.step(name)
    return reasons


def make_some(
    folder: epath.Path,
    points: Sequence[Point],
    *,
    data_dir: str | None = None,
    cache_dir: str | None = None,
    stop: Callable[[], bool] | None = None,
) -> None:
    """Computes the curves that the networks of `points` lack, without a word on those that can have none: see `make`.

    Args:
        folder: the workdir.
        points: of the networks.
        data_dir: where TFDS finds its prepared sets; None for its own default.
        cache_dir: where decoded images are kept; None for the user's cache folder.
        stop: asked before every curve whether to stop.
    """
    for point in points:
        if stop is not None and stop():
            return
        with contextlib.suppress(ValueError, OSError):
            existing = record.read(folder, point.name)
            if existing is not None and not _is_current(_read(folder, point.name), existing):
                _write(folder, existing, data_dir=data_dir, cache_dir=cache_dir)


def _write(folder: epath.Path, existing: Record, **options: Any) -> None:
    """Computes the curve of a network and keeps it; for the options and errors see `compute`."""
    files.write_json(workdir.path(folder, "curves", existing.name), compute(folder, existing, **options))


def compute(
    folder: epath.Path,
    existing: Record,
    *,
    data_dir: str | None = None,
    cache_dir: str | None = None,
    test_examples: int = 0,
) -> Json:
    """The pruning curve of a recorded network, as its file holds it. For the arguments see `make`.

    Raises:
        ValueError: if the network diverged, or its weights are missing or damaged.
        OSError: if its data set is missing.
    """
    if existing.status == "diverged":
        raise ValueError("the network diverged")
    from prunegen_jax import pruning  # noqa: PLC0415 - it imports JAX, which the rest of the report does without
    from prunegen_jax.measures.structure import select_network  # noqa: PLC0415 - likewise
    from prunegen_jax.runs import restore, task  # noqa: PLC0415 - likewise

    options = _options(existing)
    model = restore.load_model(folder, existing.name, data_dir=data_dir, cache_dir=cache_dir)
    model = select_network(model, fold=options.get("fold", False))
    how = {k: v for k, v in options.items() if k != "fold"}
    curve = pruning.pruned_loss_curve(model.apply, model.params, model.train, **how)
    values = {"fractions": curve.fractions, "kept": curve.kept, "losses": curve.losses}
    if test_examples:
        split = task.load_split(existing.point, directory=data_dir, cache_dir=cache_dir, download=False)
        test = dataclasses.replace(
            split.test, inputs=split.test.inputs[:test_examples], labels=split.test.labels[:test_examples]
        )
        values["test_losses"] = pruning.pruned_loss_curve(model.apply, model.params, test, **how).losses
    arrays = {key: array.tolist() for key, array in values.items()}
    return {"hash": existing.hash, "options": options, "test_size": test_examples} | arrays


def _read(folder: epath.Path, name: str) -> Json | None:
    """The curve of a network; None if there is none that is whole."""
    source = workdir.path(folder, "curves", name)
    try:
        curve = schema.check(files.read_json(source), _CURVE, source)
    except (FileNotFoundError, files.DamagedError):
        return None
    lengths = {len(curve[key]) for key in ("fractions", "losses", "test_losses") if key in curve}
    return curve if len(lengths) == 1 and lengths != {0} else None


def _is_current(curve: Json | None, existing: Record) -> bool:
    return curve is not None and (curve["hash"], curve.get("options")) == (existing.hash, _options(existing))


def _options(existing: Record) -> Json:
    """The options that make the curve that of the measure prunability, as it was computed for this network."""
    given = existing.measures.get("prunability", {}).get("options", {})
    return {key: given[key] for key in _OPTIONS if key in given}
