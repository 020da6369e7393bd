"""The user's cache folder, and decoded data sets in it. A cache that is damaged is decoded again."""

from __future__ import annotations

import math
import os
import pathlib
import sys
import tempfile
import zipfile

import numpy as np

from prunegen_jax.data.sets import Raw, check


def folder() -> pathlib.Path | None:
    """The cache folder of this package; None for a user without a home, as in some containers.

    A folder that all users share is no substitute: programs of the compilation cache are run.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    if not base:
        try:
            base = pathlib.Path.home() / ".cache"
        except RuntimeError:
            return None
    return pathlib.Path(base) / "prunegen_jax"


def write(path: pathlib.Path, raw: Raw) -> None:
    """Writes a data set as an .npz archive that takes the place of `path` once it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        complete = pathlib.Path(folder) / path.name
        np.savez(complete, **raw._asdict())
        os.replace(complete, path)


def read(path: pathlib.Path) -> Raw | None:
    """The data set at `path`; None if there is none or, with a warning, if it is damaged.

    The archive keeps a checksum of every array.
    """
    if not path.exists():
        return None
    try:
        _check_sizes(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            raw = Raw(*(arrays[field] for field in Raw._fields))
        if raw.classes.shape or raw.classes.dtype.kind != "i":
            raise ValueError("classes is not a whole number")
        raw = raw._replace(classes=int(raw.classes))
        check(raw)
    except Exception as error:  # zipfile and NumPy have many ways to say it, and the images can be decoded again
        print(f"{path} is damaged ({error}): decoding the images again", file=sys.stderr)
        return None
    return raw


def _check_sizes(path: pathlib.Path) -> None:
    """ValueError if reading the arrays of the archive at `path` would take more memory than it has bytes."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if sorted(entry.filename for entry in entries) != sorted(f"{field}.npy" for field in Raw._fields):
            raise ValueError("it does not contain the arrays of a data set")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:  # `write` does not compress
            raise ValueError("its arrays are larger than the file")
        for entry in entries:
            with archive.open(entry) as file:
                if np.lib.format.read_magic(file) != (1, 0):
                    raise ValueError(f"{entry.filename} was written by another version")
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                if dtype.hasobject or math.prod(shape) * dtype.itemsize != entry.file_size - file.tell():
                    raise ValueError(f"{entry.filename} does not have the size that its header says")
