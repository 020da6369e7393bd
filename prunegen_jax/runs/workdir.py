"""What a workdir may hold: it is extended by new points, seeds and measures; what is there is never changed."""

from __future__ import annotations

import copy
import json
import os
import secrets
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from prunegen_jax.runs import files, records
from prunegen_jax.runs.points import Point


def reach(place: str | os.PathLike[str]) -> epath.Path:
    """The workdir at `place`. ValueError if it is in a bucket that nothing installed here can read."""
    try:
        folder = epath.Path(place)
        folder.exists()
    except ImportError as error:
        raise ValueError(f"--workdir={place} cannot be reached: {error}") from error
    except KeyError as error:  # what epath makes of a scheme that it does not know
        raise ValueError(f"--workdir={place} is neither a folder nor in a bucket of gs:// or s3://") from error
    return folder


def prepare(
    workdir: epath.Path,
    config: ConfigDict,
    points: Sequence[Point],
    measures: Sequence[str],
    *,
    fingerprint: Callable[[Point], str] | None = None,
) -> dict[str, str]:
    """Checks that `points` and their `measures` may go into `workdir` and notes the config there.

    Args:
        workdir: may be empty, or not be there yet.
        config: that of the run.
        points: all of the sweep's.
        measures: names of those to compute.
        fingerprint: of a point's data set, if points are about to be worked on.

    Returns:
        hash → name of the networks there, which need not be trained again.

    Raises:
        ValueError: if a network there has a point's name but other fields, or differs from all the points in a field
            that neither sweep varies, or has a measure computed with other options, or was trained on other data.
        OSError: if the folder cannot be written.
    """
    known = records.read_all(workdir)
    _refuse_changes(workdir, known, points)
    _refuse_options(workdir, known, measures, config.measures.options.to_dict())
    if fingerprint is not None:
        _refuse_other_data(known, points, fingerprint)
    _try_writing(workdir)
    content = json.loads(settled(config).to_json_best_effort())
    target = workdir / "config.json"
    try:
        unchanged = files.read_json(target) == content
    except (FileNotFoundError, files.DamagedError):
        unchanged = False
    if not unchanged:
        files.write_json(target, content)
    return {record["hash"]: record["name"] for record in known}


def absolute(place: str | os.PathLike[str]) -> str:
    """`place` so that a process in another folder finds it; "" and what lies in a bucket as it is."""
    text = os.fspath(place)
    return text if not text or files.in_bucket(text) else os.path.abspath(text)


def settled(config: ConfigDict) -> ConfigDict:
    """`config` with its folders absolute, for processes in other folders."""
    config = copy.deepcopy(config)
    for key in ("dir", "cache_dir"):
        if config.data[key]:
            config.data[key] = absolute(config.data[key])
    if config.run.compilation_cache not in {"auto", "off"}:
        config.run.compilation_cache = absolute(config.run.compilation_cache)
    return config


def _refuse_changes(workdir: epath.Path, known: Iterable[records.Record], points: Sequence[Point]) -> None:
    by_name = {point.name: point for point in points}
    for record in known:
        there = record["point"]
        point = by_name.get(record["name"])
        free: set[str] = set() if point else {*record["axes"], *points[0].axes}
        wanted = (point or points[0]).fields
        changed = [
            f"{field} is {there.get(field)!r} there and {wanted.get(field)!r} here"
            for field in sorted({*there, *wanted} - free)
            if there.get(field) != wanted.get(field)
        ]
        if changed:
            raise ValueError(
                f"{workdir} holds {record['name']!r} made with another config: {'; '.join(changed)}. "
                "Choose another --workdir, or give the old values"
            )


def _refuse_options(
    workdir: epath.Path, known: Iterable[records.Record], measures: Sequence[str], options: dict[str, Any]
) -> None:
    for record in known:
        for name, entry in record["measures"].items():
            there, here = entry["options"], json.loads(json.dumps(options.get(name, {})))
            if name in measures and there != here:
                raise ValueError(
                    f"{workdir} holds {name!r} of {record['name']!r} computed with options {there}, not {here}. "
                    "Choose another --workdir, or give the old options"
                )


def _refuse_other_data(
    known: Iterable[records.Record], points: Sequence[Point], fingerprint: Callable[[Point], str]
) -> None:
    found: dict[str, str] = {}
    by_data = {_data(point.fields): point for point in points}
    for record in known:
        key = _data(record["point"])
        if key in by_data:
            found[key] = found.get(key) or fingerprint(by_data[key])
            records.check_fingerprint(record, found[key])


def _data(fields: dict[str, Any]) -> str:
    """What describes the data set of a network."""
    return json.dumps({key: value for key, value in fields.items() if key.startswith("data.")}, sort_keys=True)


def _try_writing(workdir: epath.Path) -> None:
    try:
        if files.in_bucket(workdir):
            probe = workdir / f"probe-{secrets.token_hex(8)}"
            probe.write_bytes(b"")
            probe.unlink()
            return
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir) as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(f"--workdir={workdir} cannot be written: {error.strerror}") from error
