"""Files that are written whole or not at all, and whose damage is noticed when they are read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

_WORDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class DamagedError(ValueError):
    """A file of ours that is cut short, altered, or of another making."""


@contextlib.contextmanager
def atomic(path: pathlib.Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` once the block ends without an error."""
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
        os.unlink(temporary)
        raise


def write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Writes `content` with a checksum of itself: keys sorted, floats in full, non-finite ones as words."""
    plain = _plain(content)
    text = json.dumps(plain | {"checksum": _checksum(plain)}, sort_keys=True, indent=1, allow_nan=False)
    with atomic(path) as file:
        file.write((text + "\n").encode())


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """What `write_json` wrote; "nan", "inf" and "-inf" stay words.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedError: if it is not whole.
    """
    try:
        content = json.loads(path.read_bytes())
        checksum = content.pop("checksum")
    except (ValueError, KeyError, AttributeError, TypeError):
        raise DamagedError(f"{path} is damaged: it is not a complete JSON object of ours") from None
    if checksum != _checksum(content):
        raise DamagedError(f"{path} is damaged: its checksum does not match its content")
    return content


def number(value: Any) -> float:
    """A float as `write_json` stores it, read back."""
    return _WORDS[value] if isinstance(value, str) else float(value)


def write_npz(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
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


def _plain(value: Any) -> Any:
    """`value` as JSON has it: tuples as lists, NumPy scalars as Python's, non-finite floats as words."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value
