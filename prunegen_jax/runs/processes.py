"""The processes of a sweep: their cores, the threads they compute with, and how they end when told to stop.

A sweep computes with as many threads as its config says, on any machine, because the number of threads may change the
last bits of a sum. JAX, NumPy's BLAS and OpenMP read it from the environment, once, when they start.
"""

from __future__ import annotations

import contextlib
import functools
import math
import multiprocessing
import os
import pathlib
import platform
import signal
import sys
import threading
import time
import types
from collections.abc import Iterator

TERMINATED = 143  # the exit status of a process that SIGTERM ended
# Seconds between SIGTERM and the end, whatever the process does. A driver waits less for its workers; at many sites
_GRACE = 20.0  # SIGKILL follows after 30
_QUOTA = pathlib.Path("/sys/fs/cgroup/cpu.max")
_CPU_INFO = pathlib.Path("/proc/cpuinfo")
_LEVEL = "--xla_backend_optimization_level"
# Flags of XLA that say where it writes, how it reports and how it spreads work, or that `environment` sets.
_HARMLESS = (f"{_LEVEL}=2", "--xla_dump", "--xla_force_host_platform_device_count", "--xla_gpu_cuda_data_dir",
             "--xla_gpu_force_compilation_parallelism", "--xla_hlo_profile")  # fmt: skip
_stop = threading.Event()


class StoppedError(Exception):
    """The work was told to stop; its state is saved."""


def cores() -> int:
    """The cores this process may use: those it may be scheduled on, and no more than a container's share of time."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text().split()
        return max(1, min(available, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or "max"
        return available


def threads() -> int:
    """The threads that XLA computes with on a CPU in this process."""
    for name in ("PJRT_NPROC", "NPROC"):  # in XLA's order
        if os.environ.get(name, "").isdecimal():
            return int(os.environ[name])
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def processor(source: pathlib.Path = _CPU_INFO) -> str:
    """The kind of processor of this machine: libraries choose their kernels by it, and so the last digits of numbers.

    Its name alone does not tell: virtual machines have "AMD EPYC" for several generations. Linux gives family and model
    of x86 processors, implementer and part of others.

    Args:
        source: the file in which Linux describes its processors.
    """
    try:
        first = source.read_text().split("\n\n")[0]
    except OSError:  # not Linux
        first = ""
    known = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
    parts = [known.get("model name") or platform.processor() or platform.machine()]
    names = {"cpu family": "family", "model": "model", "CPU implementer": "implementer", "CPU part": "part"}
    return ", ".join(parts + [f"{label} {known[name]}" for name, label in names.items() if name in known])


def environment(threads: int, *, accelerator: bool = False) -> dict[str, str]:
    """The environment variables of a process that computes with `threads` threads.

    Without an accelerator, XLA compiles small networks three times faster at this level of LLVM's optimization, and
    they run as fast: the heavy work is done in libraries. Flags that the environment has already are kept.

    Args:
        threads: of the process on a CPU.
        accelerator: the process computes on a GPU or TPU.
    """
    names = ("PJRT_NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    flags = os.environ.get("XLA_FLAGS", "")
    if not accelerator and _LEVEL not in flags:
        flags = f"{flags} {_LEVEL}=2".strip()
    return dict.fromkeys(names, str(threads)) | ({"XLA_FLAGS": flags} if flags else {})


@contextlib.contextmanager
def without_script() -> Iterator[None]:
    """Within the block, a new process of `multiprocessing` does not run this process's script to import it."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def numeric_flags() -> str:
    """The flags in XLA_FLAGS that may change numbers: all but those known not to, sorted."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    return " ".join(sorted({flag for flag in flags if not flag.startswith(_HARMLESS)}))


def stopping() -> bool:
    """Whether this process was told to stop."""
    return _stop.is_set()


def stop() -> None:
    """Tells this process to stop: `stopping` is true from now on."""
    _stop.set()


def end_with_parent(grace: float = 0.0) -> None:
    """Ends this process when its parent is gone, after `grace` seconds in which `stopping` is true."""

    def follow() -> None:
        multiprocessing.parent_process().join()
        stop()
        time.sleep(grace)
        leave()

    threading.Thread(target=follow, daemon=True).start()


@contextlib.contextmanager
def handle_signals(
    grace: float = _GRACE, signals: tuple[int, ...] = (signal.SIGTERM,), *, quiet: bool = False
) -> Iterator[None]:
    """Within the block, `signals` make `stopping` true, and end the process after `grace` seconds if it still runs.

    The main thread may be in the middle of a compilation or a long measure, where Python runs no signal handler; so
    another thread keeps the time. In a thread other than the main one the block changes nothing.

    Args:
        grace: seconds that the process has to save its state.
        signals: their numbers.
        quiet: end without a line on stderr: of a worker, whose driver writes one for all.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    over = threading.Event()
    sentence = "" if quiet else f"stopped after {grace:.0f} s in the middle of a step"
    watcher = threading.Thread(target=_watch, args=(reader, over, grace, signals, sentence), daemon=True)
    old_handlers = {number: signal.signal(number, lambda *_: stop()) for number in signals}
    old_descriptor = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(old_descriptor)
        for number, handler in old_handlers.items():
            signal.signal(number, handler)
        os.close(writer)
        watcher.join()
        os.close(reader)
        _stop.clear()


def _watch(reader: int, over: threading.Event, grace: float, signals: tuple[int, ...], sentence: str) -> None:
    """Reads the numbers of the signals that arrive until the pipe is closed, or the process is to end."""
    while number := os.read(reader, 1):
        if number[0] in signals:
            stop()
            if not over.wait(grace):
                leave(sentence)


def open_streams() -> None:
    """Opens the standard streams that were closed when this process began, to nowhere.

    Else the next file that is opened takes the number of stderr, and libraries write their messages into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        try:
            os.fstat(number)  # taken by another file by now
        except OSError:
            place = os.open(os.devnull, os.O_RDWR)
            if place != number:
                os.dup2(place, number)
                os.close(place)
        setattr(sys, name, open(os.devnull, "w" if number else "r"))  # noqa: SIM115 - until the process ends


def leave(sentence: str = "") -> None:
    """Ends this process at once, whatever its threads do. Every file that it writes is complete at every moment.

    Args:
        sentence: what happened, for stderr; "" to write nothing.
    """
    with contextlib.suppress(OSError):
        if sentence:
            print(f"{sentence}; run the same command again to continue", file=sys.stderr, flush=True)
    os._exit(TERMINATED)
