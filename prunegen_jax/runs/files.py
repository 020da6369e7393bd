"""Files that are written completely or not at all, and whose damage is noticed when they are read.

A path is in a folder or in a bucket (`gs://`, `s3://`), through `etils.epath`. A bucket only has to put, get, list and
delete objects; a reader of an object that is being put gets the old one or the new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import stat
import tempfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from etils import epath

_MOST = 2**26  # bytes of a JSON file: the largest, a verdict, has a few
_BLOCK = 2**20  # bytes of a file that are read at once


class DamagedError(ValueError):
    """A file that is cut short, altered, or not written by this package."""


Path = str | os.PathLike[str]


@contextlib.contextmanager
def atomic(path: Path, *, within: Path | None = None) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` once the block ends without an error.

    Args:
        path: where the file will be.
        within: a folder that the path must lie in; None for no such check.

    Raises:
        ValueError: if a link leads the path's folder out of `within`.
    """
    path = epath.Path(path)
    if within is not None:
        check_within(path.parent, within)
    if in_bucket(path):
        buffer = io.BytesIO()
        yield buffer
        path.write_bytes(buffer.getvalue())
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the first error is the one to raise
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno and error.filename is None:  # of a write: a full disk
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise


@contextlib.contextmanager
def reading(path: Path) -> Iterator[IO[bytes]]:
    """An untrusted file to read: not a link, and nothing that may never end, such as a device.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedError: if it is not a regular file.
    """
    path = epath.Path(path)
    if in_bucket(path):
        with path.open("rb") as file:
            yield file
        return
    if not stat.S_ISREG(os.lstat(path).st_mode):  # asked first: to open a device may do something
        raise DamagedError(f"{path} is damaged: it is not a regular file")
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        yield file


def in_bucket(path: Path) -> bool:
    """Whether `path` is in a bucket rather than in a folder."""
    return "://" in os.fspath(path)


def is_link(path: Path) -> bool:
    """Whether `path` is a link to somewhere else. A bucket has none."""
    return not in_bucket(path) and os.path.islink(path)


def time_and_size(path: Path) -> tuple[float, int]:
    """When `path` was last written, in seconds, and its bytes: they change when the file does.

    Not by epath alone, which asks for the owner's name and fails where the machine does not know the owner.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    if in_bucket(path):
        stat_result = epath.Path(path).stat()
        return stat_result.mtime, stat_result.length
    stat_result = os.stat(path)
    return stat_result.st_mtime, stat_result.st_size


def listing(folder: epath.Path, suffix: str) -> list[epath.Path]:
    """The files of `folder` whose names end in `suffix`, by name; none if there is no such folder."""
    try:
        return sorted(path for path in folder.iterdir() if path.name.endswith(suffix) and not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def check_within(path: Path, root: Path) -> None:
    """Checks that `path` lies in `root`, which may be a link itself. A bucket has no links.

    Raises:
        ValueError: if a link leads `path` out of `root`.
    """
    if in_bucket(path):
        return
    there, here = os.path.realpath(path), os.path.realpath(root)
    if os.path.commonpath([there, here]) != here:
        raise ValueError(f"{path} lies in {there}, outside {root}: only the workdir itself may be a link")


def walk(folder: epath.Path) -> dict[str, epath.Path]:
    """The files of a folder and of its folders, by relative path. Links are not followed: they count as files."""
    paths, waiting = {}, [("", folder)]
    while waiting:
        prefix, here = waiting.pop()
        for path in here.iterdir():
            if path.is_dir() and not is_link(path):
                waiting.append((f"{prefix}{path.name}/", path))
            else:
                paths[prefix + path.name] = path
    return paths


def hash_of(path: Path, most: float = math.inf) -> tuple[str, int]:
    """SHA-256 of a file, and the number of its bytes; it is not read much further than `most` bytes.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedError: if it is not a regular file.
    """
    whole, size = hashlib.sha256(), 0
    with reading(path) as file:
        while size <= most and (block := file.read(_BLOCK)):
            whole.update(block)
            size += len(block)
    return whole.hexdigest(), size


def fetch(place: epath.Path, local: epath.Path, most: int) -> None:
    """Copies the objects below `place` in a bucket into a folder, not much further than `most` bytes.

    Raises:
        ValueError: if the name of an object leads out of the folder.
    """
    for name, path in walk(place).items():
        check_within(local / name, local)
        (local / name).parent.mkdir(parents=True, exist_ok=True)
        with reading(path) as source, (local / name).open("wb") as target:
            while most >= 0 and (block := source.read(_BLOCK)):
                target.write(block)
                most -= len(block)


def is_plain_name(name: str) -> bool:
    """Whether `name` is only a name: no path, no hidden file, nothing that a shell or a pattern would interpret."""
    return bool(name) and name.isascii() and name[0] != "." and all(c.isalnum() or c in "_.,=+-" for c in name)


def inside(folder: epath.Path, name: str) -> epath.Path:
    """`folder / name`, for a name that came from a file or a config, and a folder that is a part of another.

    Raises:
        ValueError: if the name is not a plain name, so that the path may lie elsewhere, or a link leads the folder out
            of the one that it is a part of.
    """
    check_within(folder, folder.parent)
    if not is_plain_name(name):
        raise ValueError(f"{name!r} is not a file name: use letters, digits and _ . , = + -, and no dot at the start")
    return folder / name


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes `content` with a checksum of itself: keys sorted, floats in full, non-finite ones as words."""
    kept = plain(content)
    text = json.dumps(kept | {"checksum": _checksum(kept)}, sort_keys=True, indent=1, allow_nan=False)
    with atomic(path) as file:
        file.write((text + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote; the words "nan", "inf" and "-inf" stay words, which `float` understands.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedError: if it is not complete, or `write_json` did not write it.
    """
    with reading(path) as file:
        text = file.read(_MOST + 1)
    if len(text) > _MOST:
        raise DamagedError(f"{path} is damaged: it has more than {_MOST} bytes")
    try:
        content = json.loads(text, parse_int=_int)
        checksum = content.pop("checksum")
        right = _checksum(content)  # ValueError for numbers that are not finite, which JSON does not have
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise DamagedError(f"{path} is damaged: it is not a complete JSON object with a checksum") from None
    if checksum != right:
        raise DamagedError(f"{path} is damaged: its checksum does not match its content")
    return content


def _int(text: str) -> int:
    """An integer in JSON. ValueError if it has more digits than one of 64 bits: no float may hold it."""
    if len(text) > 20:
        raise ValueError(f"{text[:20]}... is too large")
    return int(text)


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes named arrays, sorted by name, as an .npz archive."""
    with atomic(path) as file:
        np.savez(file, **dict(sorted(arrays.items())))


def digest(arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 of named arrays: names, types, shapes and bytes."""
    whole = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        whole.update(repr((name, array.dtype.str, array.shape)).encode())
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()[:16]


def plain(value: Any) -> Any:
    """`value` as `read_json` gives it back: tuples as lists, NumPy scalars as Python's, non-finite floats as words."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value
