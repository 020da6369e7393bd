"""The Ray executor: units are tasks of a Ray cluster, which finds them a node, and another one when that node dies."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from prunegen_jax.runs import executors, processes
from prunegen_jax.runs.executors import Job, Outcome, Tick, Unit

_GRACE = 8.0  # seconds that a worker has to save what it is at
_CONNECT = 10.0  # seconds for the head of a cluster to answer
_LOOK = 0.5  # seconds between looks at what goes on
_OPTIONS = {"CPU": "num_cpus", "GPU": "num_gpus"}  # what Ray calls them; anything else is a resource by its own name
_OWN = "local"  # a cluster of its own; without an address Ray would join whatever it finds on this machine
_adopted: list[tuple[dict[str, Any], str]] = []  # in a worker: whose configuration it has


def require(config: ConfigDict) -> None:
    """ValueError if Ray is not installed or `run.ray_resources` cannot be read."""
    _ray()
    _resources(config)


def run(job: Job, units: Sequence[Unit], tick: Tick) -> Iterator[tuple[Unit, Outcome]]:
    """Does `units` on the cluster at `job.address`, or on one of this machine alone, and yields each as it ends.

    Without an address, RAY_ADDRESS counts, which Ray sets for the jobs submitted to it.

    Ray does a unit again, up to `run.retries` times, when its worker or node dies. When this process is told to stop,
    or the iterator is closed, the workers save what they are at and end.
    """
    ray = _ray()
    begun = not ray.is_initialized()
    retries = job.config.run.retries
    if begun:
        _connect(ray, job.address or os.environ.get("RAY_ADDRESS") or _OWN, retries)
    resources = _resources(job.config)
    accelerator = bool(resources.get("num_gpus") or resources.get("resources"))
    variables = {"env_vars": processes.environment(job.config.run.threads, accelerator=accelerator)}
    task = ray.remote(**resources, max_retries=retries, runtime_env=variables)(_attempt)
    shared = ray.put((executors.settings(), job))
    failures = dict.fromkeys((executors.title(unit) for unit in units), 0)
    running = {task.remote(shared, unit): unit for unit in units}
    try:
        while running and not processes.stopping():
            ready, _ = ray.wait(list(running), timeout=_LOOK)
            tick("")
            for reference in ready:
                unit, outcome = running.pop(reference), _outcome(ray, reference)
                name = executors.title(unit)
                failures[name] += 1
                if outcome.status in {"stopped", "unreachable"} and failures[name] <= retries:
                    running[task.remote(shared, unit)] = unit
                    print(f"{outcome.reason}; {name} once more", file=sys.stderr, flush=True)
                else:
                    yield unit, outcome
    finally:
        _end(ray, list(running))
        if begun:
            ray.shutdown()


def _ray() -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody asked for reports to its makers
    try:
        import ray  # noqa: PLC0415 - an extra
    except ImportError:
        raise ValueError("--executor=ray needs Ray, an extra: pip install 'prunegen_jax[ray]'") from None
    return ray


def _resources(config: ConfigDict) -> dict[str, Any]:
    """`run.ray_resources` as Ray takes it. ValueError if it cannot be read."""
    text = config.run.ray_resources
    if not text:
        return {"num_cpus": config.run.threads}
    options: dict[str, Any] = {"num_cpus": 0, "resources": {}}
    for part in text.split(","):
        match = re.fullmatch(r"\s*([A-Za-z][\w.:-]*)\s*=\s*(\d+|\d*\.\d+)\s*", part)
        if not match:
            raise ValueError(f"run.ray_resources={text!r} holds {part!r}; it must hold such as GPU=1 or CPU=2,TPU=4")
        place = options if match[1] in _OPTIONS else options["resources"]
        place[_OPTIONS.get(match[1], match[1])] = float(match[2])
    return options


def _connect(ray: ModuleType, address: str, retries: int) -> None:
    """Joins the cluster, or starts one; SIGTERM, which Ray takes over, stays ours. ValueError if nobody answers."""
    handler = signal.getsignal(signal.SIGTERM)
    os.environ.setdefault("RAY_task_oom_retries", str(retries))  # else Ray tries again for ever
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in host:  # Ray itself would try for minutes
        try:
            socket.create_connection((host, int(port)), timeout=_CONNECT).close()
        except OSError as error:
            raise ValueError(f"--ray_address={address} does not answer: {error.strerror or error}") from None
    ray.init(address=address, logging_level="ERROR", **({"include_dashboard": False} if address == _OWN else {}))
    with contextlib.suppress(ValueError):  # not in the main thread, where there was nothing to take over
        signal.signal(signal.SIGTERM, handler)


def _attempt(shared: tuple[dict[str, Any], Job], unit: Unit) -> Outcome:
    """Does a unit in a Ray worker; Ray's way to tell it to stop is an interrupt."""
    theirs, job = shared
    if (theirs, job.source) not in _adopted:
        executors.adopt(theirs, job.source)
        _adopted.append((theirs, job.source))
    with processes.heeding(_GRACE, (signal.SIGTERM, signal.SIGINT)):
        return executors.attempt(job, unit)


def _outcome(ray: ModuleType, reference: Any) -> Outcome:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:  # its worker or node died once more than `run.retries`
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return Outcome("dead", f"{type(error).__name__}: {lines[-1] if lines else 'Ray gave no reason'}")


def _end(ray: ModuleType, running: list[Any]) -> None:
    """Ends what still runs, after it could save what it is at."""
    if not running:
        return
    for reference in running:
        ray.cancel(reference)
    _, left = ray.wait(running, num_returns=len(running), timeout=_GRACE + 2)
    for reference in left:  # no others: Ray does not survive the end, by force, of what has just ended by itself
        ray.cancel(reference, force=True)
