"""Named arrays as files: written and read through Orbax, in a folder or a bucket. Used by `checkpoint` alone."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from prunegen_jax.runs import files

if TYPE_CHECKING:
    import jax

_MOST_BYTES = 2**33  # of arrays, and of their files, where the expected arrays are not known
_RATIO = 64  # by which arrays are compressed at most: trained weights hardly are
_ROOM = 2**26  # bytes that any checkpoint may take
_SLACK = 2**18  # bytes that files need in addition to their arrays


def write(target: epath.Path, arrays: dict[str, np.ndarray]) -> dict[str, str]:
    """Writes arrays as the folder `target`.

    Returns:
        path in the folder -> SHA-256 of the file.

    Raises:
        OSError: if they cannot be written.
    """
    import orbax.checkpoint as ocp  # noqa: PLC0415 - slow to import, and the report does without

    _require_room(target.parent, sum(array.nbytes for array in arrays.values()))
    with _local_folder(target) as local:
        try:
            with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:  # the asynchronous one may hang
                checkpointer.save(local, args=ocp.args.StandardSave(arrays))
        except ValueError as error:  # what TensorStore makes of a full disk
            raise OSError(f"{target} cannot be written: {str(error).splitlines()[0]}") from error
        hashes = {path: files.hash_of(file)[0] for path, file in files.walk(local).items()}
        if local != target:
            for path in hashes:
                (target / path).write_bytes((local / path).read_bytes())
    return hashes


def read(
    source: epath.Path, hashes: dict[str, str], expected: dict[str, jax.ShapeDtypeStruct] | None
) -> dict[str, np.ndarray]:
    """Reads what `write` wrote.

    Args:
        source: the folder.
        hashes: what `write` returned.
        expected: the arrays that there may be; None for arrays of any shape, up to a limit on the whole.

    Raises:
        DamagedError: if the files are not those that were written, or hold other arrays than expected.
    """
    import orbax.checkpoint as ocp  # noqa: PLC0415 - slow to import, and the report does without

    most = _MOST_BYTES if expected is None else 4 * sum(x.size * x.dtype.itemsize for x in expected.values()) + _ROOM
    try:
        with _local_folder(source) as local, ocp.StandardCheckpointer() as checkpointer:
            if local != source:
                files.fetch(source, local, most)
            size = _check_files(local, hashes, most)  # before Orbax, whose messages are long and vague
            described = checkpointer.metadata(local).item_metadata.tree
            _check_shapes(described, expected, min(_MOST_BYTES, _RATIO * size + _ROOM))
            # As NumPy arrays whatever device wrote them.
            blank = {name: np.empty(x.shape, x.dtype) for name, x in described.items()}
            return {name: np.asarray(x) for name, x in checkpointer.restore(local, blank).items()}
    except Exception as error:  # Orbax and TensorStore have many ways to say it
        raise files.DamagedError(f"{source} is damaged: {(str(error) or repr(error)).splitlines()[0]}") from error


@contextlib.contextmanager
def _local_folder(place: epath.Path) -> Iterator[epath.Path]:
    """`place`, or for a bucket, few of which Orbax knows, a temporary folder that stands for it."""
    if not files.in_bucket(place):
        yield place
        return
    with tempfile.TemporaryDirectory() as folder:
        yield epath.Path(folder) / place.name


def _check_files(folder: epath.Path, wanted: dict[str, str], most: int) -> int:
    """The bytes of the files of a folder. ValueError if they are not those `wanted`, or have more than `most`."""
    paths, size = files.walk(folder), 0
    for name in sorted(paths.keys() | wanted.keys()):
        digest, count = files.hash_of(paths[name], most - size) if name in paths and name in wanted else (None, 0)
        size += count
        if size > most:
            raise ValueError(f"its files have more than {most} bytes")
        if digest != wanted.get(name, ""):
            raise ValueError(f"{name!r} differs from what was written")
    return size


def _check_shapes(described: dict[str, Any], expected: dict[str, jax.ShapeDtypeStruct] | None, most: int) -> None:
    """ValueError if Orbax's description of arrays is not as `expected`, or they take more than `most` bytes."""
    total = 0
    for name, x in described.items():
        shape, dtype = tuple(x.shape), np.dtype(x.dtype)
        total += math.prod(shape) * dtype.itemsize
        if x.storage and math.prod(x.storage.chunk_shape or ()) > max(math.prod(shape), 1):  # read in memory, whole
            raise ValueError(f"{name!r} of shape {shape} is stored in pieces of shape {x.storage.chunk_shape}")
        if expected is None:
            continue
        wanted = expected.get(name)
        if wanted is None:
            raise ValueError(f"{name!r} is not an array of this network")
        if (shape, dtype) != (wanted.shape, wanted.dtype):
            raise ValueError(f"{name!r} is {dtype}{list(shape)}; the network needs {wanted.dtype}{list(wanted.shape)}")
    if expected is None and total > most:
        raise ValueError(f"its arrays take {total} bytes, more than its files can hold")


def _require_room(place: epath.Path, size: int) -> None:
    """OSError if arrays of `size` bytes do not fit on the disk, or into a file of this process (`ulimit -f`).

    Orbax and TensorStore say so too, but in a hundred lines.
    """
    if files.in_bucket(place):
        return
    place.mkdir(parents=True, exist_ok=True)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    for number, full in (
        (errno.ENOSPC, shutil.disk_usage(place).free < 2 * size + _SLACK),
        (errno.EFBIG, limit != resource.RLIM_INFINITY and limit < size + _SLACK),
    ):
        if full:
            raise OSError(number, os.strerror(number), os.fspath(place))
