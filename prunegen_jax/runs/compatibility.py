"""Whether a config fits a workdir: new points, seeds and measures extend it; results that exist never change."""

from __future__ import annotations

import copy
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from prunegen_jax.measures import find
from prunegen_jax.runs import files, record, snapshot, workdir
from prunegen_jax.runs.points import Point
from prunegen_jax.runs.record import Record


def prepare(
    folder: epath.Path,
    config: ConfigDict,
    points: Sequence[Point],
    measures: Sequence[str],
    *,
    fingerprint: Callable[[Point], str],
) -> dict[str, str]:
    """Checks that `points` and their `measures` may be added to a workdir, and writes the config into it.

    Args:
        folder: the workdir; it may be empty or not exist.
        config: of the run.
        points: all points of the sweep.
        measures: names of those to compute.
        fingerprint: gives the fingerprint of a point's data set.

    Returns:
        hash -> name of the networks that exist, which need not be trained again.

    Raises:
        ValueError: if an existing network has a point's name but other fields, or differs from all the points in a
            field that neither sweep varies, or has a measure computed with other options or by another definition, or
            was trained on other data or with other settings of JAX.
        OSError: if the folder cannot be written.
    """
    known = record.read_all(folder)
    _refuse_changes(folder, known, points)
    _refuse_options(folder, known, measures, config.measures.options.to_dict())
    _refuse_other_settings(folder, known)
    _refuse_other_data(known, points, fingerprint)
    _try_writing(folder)
    content = json.loads(resolve_paths(config).to_json_best_effort())
    target = workdir.config_path(folder)
    try:
        unchanged = files.read_json(target) == content
    except (FileNotFoundError, files.DamagedError):
        unchanged = False
    if not unchanged:
        files.write_json(target, content)
    return {existing.hash: existing.name for existing in known}


def check_paths(config: ConfigDict) -> None:
    """Checks the folders of a config.

    Raises:
        ValueError: if one holds a character that no path may have.
    """
    for field in ("data.dir", "data.cache_dir", "run.compilation_cache"):
        section, _, key = field.partition(".")
        if "\0" in (config[section][key] or ""):
            raise ValueError(f"{field}={config[section][key]!r} is not a path: it contains a null character")


def resolve_paths(config: ConfigDict) -> ConfigDict:
    """A copy of `config` with absolute folders, for processes in other folders."""
    config = copy.deepcopy(config)
    for key in ("dir", "cache_dir"):
        if config.data[key]:
            config.data[key] = workdir.absolute(config.data[key])
    if config.run.compilation_cache not in {"auto", "off"}:
        config.run.compilation_cache = workdir.absolute(config.run.compilation_cache)
    return config


def _refuse_changes(folder: epath.Path, known: Iterable[Record], points: Sequence[Point]) -> None:
    by_name = {point.name: point for point in points}
    for existing in known:
        there = existing.point
        if "model.conv" in there:
            raise ValueError(
                f"{folder} was made with version 0.2 or older, whose networks had model.conv (now run.convolutions): "
                "choose another --workdir"
            )
        point = by_name.get(existing.name)
        free: set[str] = set() if point else {*existing.axes, *points[0].axes}
        wanted = (point or points[0]).fields
        changed = [
            f"{field} is {there.get(field)!r} there and {wanted.get(field)!r} here"
            for field in sorted({*there, *wanted} - free)
            if there.get(field) != wanted.get(field)
        ]
        if changed:
            raise ValueError(
                f"{folder} contains {existing.name!r}, made with a different config: {'; '.join(changed)}. "
                "Choose another --workdir, or restore the old values"
            )


def _refuse_options(
    folder: epath.Path, known: Iterable[Record], measures: Sequence[str], options: dict[str, Any]
) -> None:
    for existing in known:
        for name, entry in existing.measures.items():
            if name not in measures or entry["status"] == "failed":
                continue
            there, here = (files.plain(given) for given in (entry["options"], options.get(name, {})))
            if there != here:
                raise ValueError(
                    f"{folder} contains {name!r} of {existing.name!r}, computed with options {there}, not {here}. "
                    "Choose another --workdir, or restore the old options"
                )
            then, now = entry.get("version", 1), find(name).version
            if then != now:
                raise ValueError(
                    f"{folder} contains {name!r} of {existing.name!r}, by version {then} of that measure, not {now}: a "
                    "table must not mix versions. Choose another --workdir, or leave that measure out"
                )


def _refuse_other_settings(folder: epath.Path, known: Iterable[Record]) -> None:
    """ValueError if JAX is set otherwise than for a network of the workdir; a warning if only rounding differs."""
    ours, warned = snapshot.settings(), set()
    for existing in known:
        theirs = record.DEFAULT_SETTINGS | existing.versions
        for name, here in ours.items():
            if theirs[name] == here:
                continue
            sentence = f"{folder} contains {existing.name!r}, made with {name}={theirs[name]!r}, not {here!r}"
            if name not in record.ROUNDING_SETTINGS:
                raise ValueError(f"{sentence}. Choose another --workdir, or restore the old value")
            if name not in warned:
                print(f"{sentence}: the last digits of new numbers may differ", file=sys.stderr)
            warned.add(name)


def _refuse_other_data(known: Iterable[Record], points: Sequence[Point], fingerprint: Callable[[Point], str]) -> None:
    fingerprints: dict[str, str] = {}
    by_data = {_data_fields(point.fields): point for point in points}
    for existing in known:
        key = _data_fields(existing.point)
        if key in by_data:
            fingerprints[key] = fingerprints.get(key) or fingerprint(by_data[key])
            existing.check_data(fingerprints[key])


def _data_fields(fields: dict[str, Any]) -> str:
    """The fields that describe the data set of a network."""
    return json.dumps({key: value for key, value in fields.items() if key.startswith("data.")}, sort_keys=True)


def _try_writing(folder: epath.Path) -> None:
    try:
        if files.in_bucket(folder):
            probe = folder / f"probe-{secrets.token_hex(8)}"
            probe.write_bytes(b"")
            probe.unlink()
            return
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(f"--workdir={folder} cannot be written: {error.strerror}") from error
