"""Compiled programs: kept on disk from run to run, and how long compiling and running takes."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
from jax._src import compilation_cache, lru_cache  # the only places where JAX lets a cache be replaced

from prunegen_jax.data import cache
from prunegen_jax.runs import files

_COMPILING = "/jax/core/compile/backend_compile_duration"  # loading from the cache included
_here = threading.local()  # seconds of compiling by this thread so far
_LEAST = 0.02  # seconds of compiling that are worth a file: reading one takes less
_MAGIC = b"prunegen_jax program 1\n"  # what each of our entries begins with


def use_cache(folder: str) -> None:
    """Keeps compiled programs in `folder`; "auto" stands for the user's cache folder, "off" for none.

    A process whose JAX has a cache already, by its environment for instance, keeps that one.
    """
    if folder == "off" or jax.config.jax_compilation_cache_dir:
        return
    own = cache.folder()
    if folder == "auto" and own is None:
        return
    target = str(own / "xla") if folder == "auto" else folder
    jax.config.update("jax_compilation_cache_dir", target)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST)
    _check_entries_of(target)
    compilation_cache.reset_cache()  # an earlier compilation may have decided that there is none


class _CheckedCache(lru_cache.LRUCache):
    """JAX's cache of programs with a checksum of each entry and its key.

    JAX by itself never replaces an entry that it cannot read, and calls a program that lies under the name of another.
    """

    def get(self, key: str) -> bytes | None:
        entry = super().get(key)
        if entry is None:
            return None
        begin = len(_MAGIC) + hashlib.sha256().digest_size
        content = entry[begin:]
        if entry[:begin] == _MAGIC + _checksum(key, content):
            return content
        path = self.path / f"{key}-cache"
        if entry.startswith(_MAGIC):  # else another version wrote it
            print(f"{path} was damaged and is removed; its program is compiled again", file=sys.stderr)
        path.unlink(missing_ok=True)
        return None

    def put(self, key: str, value: bytes) -> None:
        path = self.path / f"{key}-cache"
        if path.exists():
            return
        try:
            with files.atomic(path) as file:  # JAX's own may be read half written
                file.write(_MAGIC + _checksum(key, value) + value)
        except OSError as error:  # a full disk, say; the program is compiled again next time
            _warn_once(f"compiled programs are not kept in {self.path}: {error.strerror}")


@functools.cache
def _warn_once(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def _checksum(key: str, content: bytes) -> bytes:
    return hashlib.sha256(key.encode() + b"\n" + content).digest()


def _check_entries_of(folder: str) -> None:
    """Has JAX use a `_CheckedCache` for `folder`, and its own cache for any other."""
    others = compilation_cache.get_file_cache

    def get_file_cache(path: str) -> tuple[lru_cache.LRUCache, str] | None:
        return (_CheckedCache(path, max_size=-1), path) if path == folder else others(path)

    compilation_cache.get_file_cache = get_file_cache


class Watch:
    """Seconds per activity since the last lap: "train" in all; of them "compile", "update" and "check".

    Compiling happens within updates and checks; it is taken out of these.
    """

    def __init__(self) -> None:
        _listen()
        self._spans = {"update": 0.0, "check": 0.0}
        self._begin, self._compiled = time.monotonic(), _compiled()

    @contextlib.contextmanager
    def span(self, activity: str) -> Iterator[None]:
        """A stretch of `activity`."""
        begin, compiled = time.monotonic(), _compiled()
        yield
        self._spans[activity] += time.monotonic() - begin - (_compiled() - compiled)

    def lap(self) -> dict[str, float]:
        """The seconds since the last call, or the beginning."""
        now, compiled = time.monotonic(), _compiled()
        seconds = {"train": now - self._begin, "compile": compiled - self._compiled, **self._spans}
        self._begin, self._compiled, self._spans = now, compiled, dict.fromkeys(self._spans, 0.0)
        return seconds


def _note(event: str, seconds: float, **_: Any) -> None:
    if event == _COMPILING:
        _here.seconds = _compiled() + seconds


def _compiled() -> float:
    return getattr(_here, "seconds", 0.0)


@functools.cache
def _listen() -> None:
    jax.monitoring.register_event_duration_secs_listener(_note)
