"""Independent pieces of work on all cores, and how far they are."""

from __future__ import annotations

import concurrent.futures
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[str, int, int], None]  # what is computed, pieces done, pieces in all

_MOST_THREADS = 4
_SHORT_SECONDS = 0.01  # of a piece that takes longer with threads than without


def threaded(
    function: Callable[[Item], Result], items: Sequence[Item], *, what: str = "", progress: Progress | None = None
) -> list[Result]:
    """`[function(item) for item in items]` on as many threads as there are cores, each with a BLAS of one thread.

    Short pieces are done one after another: they spend most of their time in Python, where threads only wait for each
    other. A result does not depend on the number of cores.

    Args:
        function: without side effects on what the others read. It spends its time in NumPy, which releases the lock.
        items: its arguments.
        what: the name of the work, for `progress`.
        progress: called with the name, the pieces done and the pieces in all; None for no report.
    """
    results: list[Result] = []
    if progress is not None:
        progress(what, 0, len(items))
    with threadpool_limits(1, user_api="blas"), concurrent.futures.ThreadPoolExecutor(_cores()) as pool:
        for result in _results(function, items, pool):
            results.append(result)
            if progress is not None:
                progress(what, len(results), len(items))
    return results


def _results(
    function: Callable[[Item], Result], items: Sequence[Item], pool: concurrent.futures.Executor
) -> Iterator[Result]:
    """The results in order: one after another until a piece takes long, the others by `pool`."""
    for done, item in enumerate(items):
        begin = time.perf_counter()
        result = function(item)
        seconds = time.perf_counter() - begin
        yield result
        if seconds > _SHORT_SECONDS:
            yield from pool.map(function, items[done + 1 :])
            return


def _cores() -> int:
    """The cores that this process may use, up to a number that bounds the memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST_THREADS)


class lazy:
    """`functools.cached_property` without its lock, which in Python 3.11 is one for all instances: threads wait."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        value = instance.__dict__[self._function.__name__] = self._function(instance)
        return value
