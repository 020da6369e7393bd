"""The Ray executor: units are tasks of a Ray cluster, which finds them a node, and another one when that node dies."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from prunegen_jax.runs import processes
from prunegen_jax.runs.executors import base
from prunegen_jax.runs.executors.base import LOOK_SECONDS, STOP_SECONDS, OnTick, Outcome, RunContext, Unit

_CONNECT = 10.0  # seconds for the head of a cluster to answer
_OPTIONS = {"CPU": "num_cpus", "GPU": "num_gpus"}  # what Ray calls them; anything else is a resource by its own name
_OWN = "local"  # a cluster of its own; without an address Ray would join whatever it finds on this machine
_adopted: list[tuple[dict[str, Any], str]] = []  # in a worker: the configurations that it was given


def require(config: ConfigDict) -> None:
    """Checks what the executor needs.

    Raises:
        ValueError: if Ray is not installed or `run.ray_resources` cannot be read.
    """
    _ray()
    _resources(config)


def run(context: RunContext, units: Sequence[Unit], on_tick: OnTick) -> Iterator[tuple[Unit, Outcome]]:
    """Does `units` on the cluster at `context.address`, or on one of this machine alone, and yields each as it ends.

    Without an address, RAY_ADDRESS counts, which Ray sets for the jobs submitted to it. Ray itself retries nothing:
    `base.Retries` does. When this process is told to stop, or the iterator is closed, the workers save their state and
    end.
    """
    ray = _ray()
    begun = not ray.is_initialized()
    if begun:
        address = context.address or os.environ.get("RAY_ADDRESS") or _OWN
        _connect(ray, address, context.config.run.retries)
    resources = _resources(context.config)
    accelerator = bool(resources.get("num_gpus") or resources.get("resources"))
    variables = {"env_vars": processes.environment(context.config.run.threads, accelerator=accelerator)}
    task = ray.remote(**resources, max_retries=0, runtime_env=variables)(_attempt)
    shared = ray.put((base.settings(), context))
    retries = base.Retries(context.config)
    running = {task.remote(shared, unit): unit for unit in units}
    try:
        while running and not processes.stopping():
            ready, _ = ray.wait(list(running), timeout=LOOK_SECONDS)
            on_tick("")
            for reference in ready:
                unit, outcome = running.pop(reference), _outcome(ray, reference)
                if retries.again(unit, outcome):
                    running[task.remote(shared, unit)] = unit
                else:
                    yield unit, outcome
    finally:
        _end(ray, list(running))
        if begun:
            ray.shutdown()


def _ray() -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage reports to its makers
    try:
        import ray  # noqa: PLC0415 - an extra
    except ImportError:
        raise ValueError("--executor=ray needs Ray, an extra: pip install 'prunegen_jax[ray]'") from None
    return ray


def _resources(config: ConfigDict) -> dict[str, Any]:
    """`run.ray_resources` as arguments of Ray. ValueError if it cannot be read."""
    text = config.run.ray_resources
    if not text:
        return {"num_cpus": config.run.threads}
    options: dict[str, Any] = {"num_cpus": 0, "resources": {}}
    for part in text.split(","):
        match = re.fullmatch(r"\s*([A-Za-z][\w.:-]*)\s*=\s*(\d+|\d*\.\d+)\s*", part)
        if not match:
            raise ValueError(f"run.ray_resources={text!r} contains {part!r}; write it like GPU=1 or CPU=2,TPU=4")
        place = options if match[1] in _OPTIONS else options["resources"]
        place[_OPTIONS.get(match[1], match[1])] = float(match[2])
    return options


def _connect(ray: ModuleType, address: str, retries: int) -> None:
    """Joins the cluster, or starts one, and keeps our handler of SIGTERM. ValueError if no cluster answers."""
    handler = signal.getsignal(signal.SIGTERM)
    os.environ.setdefault("RAY_task_oom_retries", str(retries))  # else Ray retries without end
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in host:  # Ray itself would try for minutes
        try:
            socket.create_connection((host, int(port)), timeout=_CONNECT).close()
        except OSError as error:
            raise ValueError(f"--ray_address={address} does not answer: {error.strerror or error}") from None
    ray.init(address=address, logging_level="ERROR", **({"include_dashboard": False} if address == _OWN else {}))
    with contextlib.suppress(ValueError):  # not in the main thread, where there was nothing to take over
        signal.signal(signal.SIGTERM, handler)


def _attempt(shared: tuple[dict[str, Any], RunContext], unit: Unit) -> Outcome:
    """Does a unit in a Ray worker; Ray stops it with an interrupt."""
    settings, context = shared
    if (settings, context.source) not in _adopted:
        base.adopt(settings, context.source)
        _adopted.append((settings, context.source))
    with processes.handle_signals(STOP_SECONDS, (signal.SIGTERM, signal.SIGINT), quiet=True):
        return base.attempt(context, unit)


def _outcome(ray: ModuleType, reference: Any) -> Outcome:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:  # its worker or node died
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return Outcome("dead", f"{type(error).__name__}: {lines[-1] if lines else 'Ray gave no reason'}")


def _end(ray: ModuleType, running: list[Any]) -> None:
    """Ends what still runs, after it could save its state."""
    if not running:
        return
    for reference in running:
        ray.cancel(reference)
    _, left = ray.wait(running, num_returns=len(running), timeout=STOP_SECONDS + 2)
    for reference in left:  # no others: Ray fails when a task that has just ended is ended by force
        ray.cancel(reference, force=True)
