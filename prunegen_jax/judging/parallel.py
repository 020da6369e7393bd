"""Independent pieces of work on all cores, and how far they are."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[str, int, int], None]  # what is computed, pieces done, pieces in all

_MOST_THREADS = 4


def threaded(
    function: Callable[[Item], Result], items: Sequence[Item], *, what: str = "", progress: Progress | None = None
) -> list[Result]:
    """`[function(item) for item in items]` on as many threads as there are cores, each with a BLAS of one thread.

    A result does not depend on the number of cores.

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
        for result in pool.map(function, items):
            results.append(result)
            if progress is not None:
                progress(what, len(results), len(items))
    return results


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
