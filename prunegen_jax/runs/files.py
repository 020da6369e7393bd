"""Files that are written whole or not at all, and whose damage is noticed when they are read.

A path is a folder's or a bucket's (`gs://`, `s3://`), through `etils.epath`. Of a bucket no more is asked than to put,
get, list and delete objects; whoever reads an object while it is put gets the old one or the new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import reprlib
import stat
import tempfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from etils import epath

_MOST = 2**26  # bytes of a JSON file of ours; the largest, a verdict, has a few
_BLOCK = 2**20  # bytes of a file that are read at once
_WORDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class DamagedError(ValueError):
    """A file of ours that is cut short, altered, or of another making."""


Path = str | os.PathLike[str]


@contextlib.contextmanager
def atomic(path: Path, *, within: Path | None = None) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` once the block ends without an error.

    With `within`, a ValueError if `check_within` finds that links lead the path's folder out of it.
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
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def reading(path: Path) -> Iterator[IO[bytes]]:
    """A file to read that a stranger may have put there: no link, and nothing that may never end, as a device may.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedError: if it is no regular file.
    """
    path = epath.Path(path)
    if in_bucket(path):
        with path.open("rb") as file:
            yield file
        return
    if not stat.S_ISREG(os.lstat(path).st_mode):  # asked first: to open a device may do something
        raise DamagedError(f"{path} is damaged: it is no regular file")
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        yield file


def in_bucket(path: Path) -> bool:
    """Whether `path` is an object's in a bucket rather than a file's in a folder."""
    return "://" in os.fspath(path)


def is_link(path: Path) -> bool:
    """Whether `path` is a link to somewhere else. A bucket has none."""
    return not in_bucket(path) and os.path.islink(path)


def listing(folder: epath.Path, suffix: str) -> list[epath.Path]:
    """The files of `folder` whose names end in `suffix`, by name; none if there is no such folder."""
    try:
        return sorted(path for path in folder.iterdir() if path.name.endswith(suffix) and not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def check_within(path: Path, root: Path) -> None:
    """ValueError if links lead `path` out of `root`, which may be a link itself. A bucket has none."""
    if in_bucket(path):
        return
    there, here = os.path.realpath(path), os.path.realpath(root)
    if os.path.commonpath([there, here]) != here:
        raise ValueError(f"{path} lies in {there}, outside {root}: only the whole workdir may be a link")


def walk(folder: epath.Path) -> dict[str, epath.Path]:
    """The files of a folder and its folders by relative path. Links are not followed: they count as files."""
    found, waiting = {}, [("", folder)]
    while waiting:
        prefix, here = waiting.pop()
        for path in here.iterdir():
            if path.is_dir() and not is_link(path):
                waiting.append((f"{prefix}{path.name}/", path))
            else:
                found[prefix + path.name] = path
    return found


def hash_of(path: Path, most: float = math.inf) -> tuple[str, int]:
    """SHA-256 of a file, and its bytes; it is not read much further than `most`. DamagedError as of `reading`."""
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


def inside(folder: epath.Path, name: str) -> epath.Path:
    """`folder / name`, for a name that came from a file or a config, and a folder that is a part of another.

    Raises:
        ValueError: if the name is more than a name, so that the path may lie elsewhere, or a link leads the folder out
            of the one it is a part of.
    """
    check_within(folder, folder.parent)
    if not name or name.startswith(".") or any(not (c.isalnum() or c in "_.,=+-") for c in name) or not name.isascii():
        raise ValueError(f"{name!r} is no name for a file: letters, digits and _ . , = + - make one, no dot begins it")
    return folder / name


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes `content` with a checksum of itself: keys sorted, floats in full, non-finite ones as words."""
    kept = plain(content)
    text = json.dumps(kept | {"checksum": _checksum(kept)}, sort_keys=True, indent=1, allow_nan=False)
    with atomic(path) as file:
        file.write((text + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote; "nan", "inf" and "-inf" stay words.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedError: if it is not whole, or nothing that `write_json` writes.
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
        raise DamagedError(f"{path} is damaged: it is not a complete JSON object of ours") from None
    if checksum != right:
        raise DamagedError(f"{path} is damaged: its checksum does not match its content")
    return content


def _int(text: str) -> int:
    """An integer in JSON. ValueError if it has more digits than one of 64 bits: no float may hold it."""
    if len(text) > 20:
        raise ValueError(f"{text[:20]}... is too large")
    return int(text)


def check_kinds(content: dict[str, Any], kinds: dict[str, type], source: Path) -> None:
    """DamagedError if `content`, of the file `source`, lacks one of the keys of `kinds`, or has it of another type."""
    for key, kind in kinds.items():
        if type(content.get(key)) is not kind:  # True is no int of ours
            raise DamagedError(f"{source} is damaged: its {key!r} is {reprlib.repr(content.get(key))}")


def number(value: Any) -> float:
    """A float as `write_json` stores it, read back."""
    return _WORDS[value] if isinstance(value, str) else float(value)


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes named arrays as an .npz archive."""
    with atomic(path) as file:
        np.savez(file, **arrays)


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
