"""The layout of a workdir: the one module that knows where things are in it.

    config.json               the config of the latest run
    records/NAME.json         a network: its point, how training ended, losses, measures
    times/NAME.json           seconds, apart, so that records of equal runs are equal
    checkpoints/NAME/         weights at the start, after the first epoch and at the end (Orbax), and state.json
    weights/NAME.npz          the same as plain arrays
    curves/NAME.json          pruning curves
    slots/HASH.json           how many networks of one shape train at once
    results.csv, verdict.*    the table of the records and the verdict on it
    report/                   index.html, figures/, tables/

Every name that becomes part of a path is checked, and so are links: see docs/threat_model.md.
"""

from __future__ import annotations

import os
from typing import Literal

from etils import epath

from prunegen_jax.runs import files

Part = Literal["records", "times", "checkpoints", "weights", "curves", "slots"]
_SUFFIXES = {
    "records": ".json",
    "times": ".json",
    "checkpoints": "",
    "weights": ".npz",
    "curves": ".json",
    "slots": ".json",
}
_WRITTEN_BY_REPORT = ("curves", "report", "report/figures", "report/tables")


def locate(place: str | os.PathLike[str]) -> epath.Path:
    """The workdir at `place`, a folder or a bucket.

    Raises:
        ValueError: if it is no path, a link to nowhere, or in a bucket that no installed package can read.
    """
    text = os.fspath(place)
    if not text or "\0" in text:
        raise ValueError(f"the workdir {text!r} is not a path; give a folder, which is created if it does not exist")
    if files.is_link(text) and not os.path.exists(text):
        raise ValueError(f"--workdir={text} is a link to {os.readlink(text)!r}, which does not exist")
    try:
        folder = epath.Path(place)
        folder.exists()
    except ImportError as error:
        raise ValueError(f"--workdir={place} cannot be reached: {error}") from error
    except KeyError as error:  # what epath makes of a scheme that it does not know
        raise ValueError(f"--workdir={place} is neither a folder nor in a bucket of gs:// or s3://") from error
    return folder


def absolute(place: str | os.PathLike[str]) -> str:
    """`place` as a process in another folder finds it: an absolute path. "" and buckets stay as they are."""
    text = os.fspath(place)
    return text if not text or files.in_bucket(text) else os.path.abspath(text)


def path(workdir: epath.Path, part: Part, name: str) -> epath.Path:
    """Where `part` keeps what belongs to `name`, the name of a network or, for slots, of a shape.

    Raises:
        ValueError: if the name is not a plain name, or a link leads `part` out of the workdir.
    """
    return files.inside(workdir / part, f"{name}{_SUFFIXES[part]}")


def names(workdir: epath.Path, part: Part) -> list[str]:
    """The names of the files of `part`, sorted, without their suffix. They may come from others: `path` checks them."""
    return [file.name.removesuffix(_SUFFIXES[part]) for file in files.listing(workdir / part, _SUFFIXES[part])]


def safe_names(workdir: epath.Path, part: Part) -> list[str]:
    """Those of `names` that are plain names."""
    return [name for name in names(workdir, part) if files.is_plain_name(name)]


def config_path(workdir: epath.Path) -> epath.Path:
    """Where the config of the latest run is."""
    return workdir / "config.json"


def results_path(workdir: epath.Path) -> epath.Path:
    """Where the table of the records is."""
    return workdir / "results.csv"


def verdict_path(workdir: epath.Path) -> epath.Path:
    """Where the verdict is."""
    return workdir / "verdict.json"


def report_path(workdir: epath.Path) -> epath.Path:
    """The folder of the report."""
    return workdir / "report"


def check_report_links(workdir: epath.Path) -> None:
    """Checks the folders that a report is written to.

    Raises:
        ValueError: if a link leads one of them out of the workdir.
    """
    for part in _WRITTEN_BY_REPORT:
        files.check_within(workdir / part, workdir)
