"""What all executors share: units of work, how one is done, how it may end, and when it is tried again.

A unit of work is a group of networks of equal shape: it is trained and then measured in one process, which compiles
its programs once. Everything a unit needs is in the workdir and everything it makes goes there, so a unit that was
interrupted is given out again, and goes on from its checkpoints. An executor yields each unit as it ends.
"""

from __future__ import annotations

import collections
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import jax
from etils import epath
from ml_collections import ConfigDict

from prunegen_jax.runs import checkpoint, compilation, curves, measure, processes, task, train
from prunegen_jax.runs.points import Point

OnTick = Callable[[str], None]
STOP_SECONDS = 8.0  # that a worker has to save its state when it is told to stop
LOOK_SECONDS = 0.5  # between looks at the workers
_RETRIED = ("dead", "stopped", "unreachable")  # something happened to the process or its files, not in the work
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
    data: str = ""  # the fingerprint of their data sets in the driver; "": not checked
    tests: tuple[str, ...] = ()  # names of the test sets
    curves: bool = False  # whether a report will need the pruning curves of the networks

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


class RunContext(NamedTuple):
    """What all units of a run share."""

    folder: str  # the workdir
    config: ConfigDict
    source: str = ""  # the config's Python file: it may add to our registries, so workers run it as well
    address: str = ""  # of a Ray cluster


# Does the work of units and yields each as it ends; calls `on_tick` about once a second meanwhile.
Executor = Callable[[RunContext, Sequence[Unit], OnTick], Iterator[tuple[Unit, Outcome]]]


class Retries:
    """The retry policy of every executor: a unit is tried again up to `config.run.retries` times.

    Only if its process died, was stopped or could not reach its files: other failures would happen again.
    """

    def __init__(self, config: ConfigDict) -> None:
        self._most, self._failures = config.run.retries, collections.Counter()

    def again(self, unit: Unit, outcome: Outcome) -> bool:
        """Whether to try `unit`, which ended with `outcome`, again; with a line on stderr if so."""
        if outcome.status not in _RETRIED:
            return False
        name = title(unit)
        self._failures[name] += 1
        if self._failures[name] > self._most:
            return False
        print(f"{outcome.reason}; trying {name} again", file=sys.stderr, flush=True)
        return True


def title(unit: Unit) -> str:
    """What a unit is called in a sentence."""
    others = len(unit.points) - 1
    return unit.points[0].name + (f" and {others} more" if others else "")


def attempt(context: RunContext, unit: Unit, note: Callable[[str], None] | None = None) -> Outcome:
    """Does a unit in this process.

    Args:
        context: of the run.
        unit: what to do.
        note: called with what the work is at, for a person to see.

    Returns:
        How it ended. Errors are part of it, so that nothing but text crosses processes.
    """
    try:
        check_data(context, unit)
        with checkpoint.kept_in_memory():
            _do(epath.Path(context.folder), unit, context.config, note)
    except processes.StoppedError as error:
        return Outcome("stopped", str(error))
    except OSError as error:
        return Outcome("unreachable", str(error))
    except ValueError as error:  # a sentence for the user
        return Outcome("failed", str(error))
    except Exception as error:
        traceback.print_exception(error)  # unforeseen
        return Outcome("failed", f"{type(error).__name__}: {error}")
    return Outcome("done")


def _do(folder: epath.Path, unit: Unit, config: ConfigDict, note: Callable[[str], None] | None) -> None:
    """Trains and measures, as the unit's stages say, what is missing of its points."""
    compilation.use_cache(config.run.compilation_cache)
    if "train" in unit.stages:
        train.train_missing(folder, unit.points, config, note=note, stop=processes.stopping)
    if "measure" in unit.stages:
        measure.measure_missing(folder, unit.points, unit.names, config, stop=processes.stopping)
    if unit.curves:  # here the programs are compiled already, and all workers share the work
        places = {"data_dir": config.data.dir, "cache_dir": config.data.cache_dir}
        curves.make_some(folder, unit.points, stop=processes.stopping, **places)


def data_fingerprint(config: ConfigDict, points: Sequence[Point]) -> str:
    """A fingerprint of the data sets of `points`, as this process reads them."""
    places = {"directory": config.data.dir, "cache_dir": config.data.cache_dir}
    fingerprints = {task.load_split(point.fields, **places).fingerprint for point in points}
    return " ".join(sorted(fingerprints))


def check_data(context: RunContext, unit: Unit) -> None:
    """Checks that this process reads the data that the driver read.

    Raises:
        ValueError: if it reads other data.
    """
    fingerprint = data_fingerprint(context.config, unit.points) if unit.data else ""
    if fingerprint != unit.data:
        raise ValueError(
            f"the data set {unit.points[0].fields['data.name']!r} is not the one that the run started with: its "
            f"fingerprint is {fingerprint}, but was {unit.data}"
        )


def settings() -> dict[str, Any]:
    """The parts of this process's JAX configuration that its workers need: numbers, and the cache of programs."""
    return {name: getattr(jax.config, name) for name in _SETTINGS}


def adopt(settings: dict[str, Any], source: str) -> None:
    """Gives this process the JAX configuration of the driver, and what the config file adds to our registries.

    Args:
        settings: what `settings()` returned in the driver.
        source: the config file; "" for none.
    """
    for name, value in settings.items():
        jax.config.update(name, value)
    if source:
        runpy.run_path(source)
