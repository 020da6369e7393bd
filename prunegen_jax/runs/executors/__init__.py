"""Executors: where the work of a sweep is done, in processes of this machine or on a Ray cluster.

A unit of work is a group of networks of equal shape: it is trained and then measured in one process, which compiles
its programs once. Everything a unit needs is in the workdir and everything it makes goes there, so a unit that was cut
short is simply given out again, and goes on from its checkpoints. An executor yields each unit as it ends.
"""

from __future__ import annotations

import itertools
import os
import runpy
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import jax
from etils import epath
from ml_collections import ConfigDict

from prunegen_jax import data
from prunegen_jax.measures import MEASURES
from prunegen_jax.networks import MODELS
from prunegen_jax.runs import processes, records, work
from prunegen_jax.runs.points import Point

Tick = Callable[[str], None]
_SETTINGS = (
    "jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl", "jax_threefry_partitionable",
    "jax_numpy_dtype_promotion", "jax_numpy_rank_promotion", "jax_debug_nans", "jax_enable_compilation_cache",
    "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs",
)  # fmt: skip


class Unit(NamedTuple):
    """A piece of work: what to do (`stages`, among train and measure) with which networks, on which data."""

    points: tuple[Point, ...]
    names: tuple[str, ...]  # of the measures
    stages: tuple[str, ...]
    data: str = ""  # the fingerprint of their data sets in the driver; "": whatever is there

    @property
    def shape(self) -> tuple[Any, ...]:
        """What its compiled programs depend on."""
        return self.points[0].shape


class Outcome(NamedTuple):
    """How a unit ended.

    done: all that was asked for is in the workdir. failed: for a reason that another attempt would meet again.
    unreachable: files could not be read or written. dead: its process died. stopped: it was told to.
    """

    status: Literal["done", "failed", "unreachable", "dead", "stopped"]
    reason: str = ""


class Job(NamedTuple):
    """What all units of a run share."""

    folder: str  # the workdir
    config: ConfigDict
    source: str = ""  # the Python file that the config came from: it may add to our tables, so workers run it as well
    address: str = ""  # of a Ray cluster


# Does the work of units and yields each as it ends; calls what it is given about once a second meanwhile.
Executor = Callable[[Job, Sequence[Unit], Tick], Iterator[tuple[Unit, Outcome]]]


def local(job: Job, units: Sequence[Unit], tick: Tick) -> Iterator[tuple[Unit, Outcome]]:
    """On this machine: on a CPU in single-threaded processes, one per core; on an accelerator in this process."""
    from prunegen_jax.runs.executors import process as pool  # noqa: PLC0415 - it imports what is above

    count = workers(job.config)
    same = processes.environment(job.config.run.threads).items() <= dict(os.environ).items()  # as a worker of ours has
    if jax.default_backend() != "cpu" or (count == 1 and same):
        return _here(job, units, tick)
    if added := [] if job.source else _added():
        told = "known to this process alone: it works alone. A config file's additions reach all workers"
        print(f"{', '.join(added)}: {told}", file=sys.stderr)
        return _here(job, units, tick)
    return pool.run(job, units, tick, count=min(count, len(units)))


def ray(job: Job, units: Sequence[Unit], tick: Tick) -> Iterator[tuple[Unit, Outcome]]:
    """On a Ray cluster, which finds a node with the resources, and another one when that dies."""
    from prunegen_jax.runs.executors import ray as cluster  # noqa: PLC0415 - Ray is an extra

    return cluster.run(job, units, tick)


EXECUTORS: dict[str, Executor] = {"local": local, "ray": ray}


def find(name: str, config: ConfigDict, *, address: str = "") -> Executor:
    """The executor called `name`.

    Raises:
        ValueError: if it is not known or not installed, or `config.run` or the address does not fit it.
    """
    if name not in EXECUTORS:
        raise ValueError(f"--executor={name!r} is not known; choose among {', '.join(EXECUTORS)}")
    if address and name != "ray":
        raise ValueError(f"--ray_address={address!r} is given, but --executor={name}; it needs --executor=ray")
    for field, least in (("workers", 0), ("threads", 1), ("retries", 0)):
        if config.run[field] < least:
            raise ValueError(f"run.{field}={config.run[field]} must be at least {least}")
    if name == "ray":
        from prunegen_jax.runs.executors import ray as cluster  # noqa: PLC0415 - Ray is an extra

        cluster.require(config)
    return EXECUTORS[name]


def passing(outcome: Outcome) -> bool:
    """Whether another attempt may go better: something happened to the process or its files, not in the work."""
    return outcome.status in {"dead", "stopped", "unreachable"}


def title(unit: Unit) -> str:
    """What a unit is called in a sentence."""
    others = len(unit.points) - 1
    return unit.points[0].name + (f" and {others} more" if others else "")


def workers(config: ConfigDict) -> int:
    """How many processes work at a time on this machine's cores."""
    return config.run.workers or max(1, processes.cores() // config.run.threads)


def attempt(job: Job, unit: Unit, note: Tick = str) -> Outcome:
    """Does a unit in this process. Whatever goes wrong is in the answer, so that nothing but text crosses processes."""
    try:
        check_data(job, unit)
        stages, stop = unit.stages, processes.stopping
        work.run_group(epath.Path(job.folder), unit.points, unit.names, job.config, stages=stages, note=note, stop=stop)
    except processes.StoppedError as error:
        return Outcome("stopped", str(error))
    except OSError as error:
        return Outcome("unreachable", str(error))
    except ValueError as error:  # wrong data, in a sentence of ours
        return Outcome("failed", str(error))
    except Exception as error:
        traceback.print_exception(error)  # what nobody foresaw
        return Outcome("failed", f"{type(error).__name__}: {error}")
    return Outcome("done")


def data_of(config: ConfigDict, points: Sequence[Point]) -> str:
    """A fingerprint of the data sets of `points`, as this process reads them."""
    places = {"directory": config.data.dir, "cache_dir": config.data.cache_dir}
    prints = {records.data_of(point.fields, **places).fingerprint for point in points}
    return " ".join(sorted(prints))


def check_data(job: Job, unit: Unit) -> None:
    """ValueError if this process reads other data than the driver did."""
    found = data_of(job.config, unit.points) if unit.data else ""
    if found != unit.data:
        raise ValueError(
            f"the data set {unit.points[0].fields['data.name']!r} is not the one that the run began with: its "
            f"fingerprint is {found}, and was {unit.data}"
        )


def settings() -> dict[str, Any]:
    """The parts of this process's JAX configuration that its workers need: numbers, and the cache of programs."""
    return {name: getattr(jax.config, name) for name in _SETTINGS}


def adopt(theirs: dict[str, Any], source: str) -> None:
    """Gives this process the JAX configuration of another, and what the config file `source` adds to our tables."""
    for name, value in theirs.items():
        jax.config.update(name, value)
    if source:
        runpy.run_path(source)


def _added() -> list[str]:
    """Names in our tables that stand for something defined outside this package."""
    entries = {name: row.function for name, row in MEASURES.items()} | MODELS | data.LOADERS
    homes = {name: getattr(entry, "__module__", getattr(entry, "__name__", "")) for name, entry in entries.items()}
    return [name for name, home in homes.items() if home.partition(".")[0] not in {"prunegen_jax", "functools"}]


def _here(job: Job, units: Sequence[Unit], tick: Tick) -> Iterator[tuple[Unit, Outcome]]:
    """Does `units` one after the other in this process; while an accelerator is at one, its host compiles the next."""
    ahead = None
    try:
        for unit, following in itertools.pairwise([*units, None]):
            if ahead:
                ahead.join()
            ahead = _ahead(job, unit, following)
            for _ in range(1 + job.config.run.retries):
                outcome = attempt(job, unit, tick)
                if outcome.status != "unreachable" or processes.stopping():
                    break
            if processes.stopping():
                return
            tick("")
            yield unit, outcome
    finally:
        if ahead:
            ahead.join()  # Python must not end while a thread of it compiles


def _ahead(job: Job, unit: Unit, following: Unit | None) -> threading.Thread | None:
    """A thread that compiles for `following`, if that is worth it. Should it fail, so will the unit, which tells."""
    same = following is None or following.shape == unit.shape
    if same or "train" not in following.stages or jax.default_backend() == "cpu":
        return None
    given = (epath.Path(job.folder), following.points, job.config)
    thread = threading.Thread(target=work.compile_ahead, args=given, daemon=True)
    thread.start()
    return thread
