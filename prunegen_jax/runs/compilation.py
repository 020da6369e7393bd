"""Compiled programs: kept on disk from run to run, and how long compiling and running takes."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from prunegen_jax.data import cache

_COMPILING = "/jax/core/compile/backend_compile_duration"  # loading from the cache included
_here = threading.local()  # seconds of compiling by this thread so far
_LEAST = 0.2  # seconds of compiling that are worth a file


def use_cache(folder: str) -> None:
    """Keeps compiled programs in `folder`; "auto" stands for the user's cache folder, "off" for none.

    A process whose JAX has a cache already, by its environment for instance, keeps that one.
    """
    if folder == "off" or jax.config.jax_compilation_cache_dir:
        return
    target = str(cache.CACHE / "xla") if folder == "auto" else folder
    jax.config.update("jax_compilation_cache_dir", target)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST)
    compilation_cache.reset_cache()  # an earlier compilation may have decided that there is none


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
