"""The local executor: on a CPU in single-threaded processes, one per core; on an accelerator in this process."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Iterator, Sequence

import jax
from etils import epath
from ml_collections import ConfigDict

from prunegen_jax import data
from prunegen_jax.measures import MEASURES
from prunegen_jax.networks import MODELS
from prunegen_jax.runs import processes, train
from prunegen_jax.runs.executors import process
from prunegen_jax.runs.executors.base import OnTick, Outcome, Retries, RunContext, Unit, attempt


def run(context: RunContext, units: Sequence[Unit], on_tick: OnTick) -> Iterator[tuple[Unit, Outcome]]:
    """Does `units` on this machine and yields each as it ends."""
    count = count_workers(context.config)
    needed = processes.environment(context.config.run.threads)  # of a worker
    if jax.default_backend() != "cpu" or (count == 1 and needed.items() <= dict(os.environ).items()):
        return _run_here(context, units, on_tick)
    if added := [] if context.source else _added():
        reason = "added in this process only, so no workers are started. To use workers, add them in a config file"
        print(f"{', '.join(added)}: {reason}", file=sys.stderr)
        return _run_here(context, units, on_tick)
    return process.run(context, units, on_tick, count=min(count, len(units)))


def count_workers(config: ConfigDict) -> int:
    """How many processes work at a time on this machine's cores."""
    return config.run.workers or max(1, processes.cores() // config.run.threads)


def _run_here(context: RunContext, units: Sequence[Unit], on_tick: OnTick) -> Iterator[tuple[Unit, Outcome]]:
    """Does `units` one after the other in this process; while an accelerator does one, its host compiles the next."""
    ahead, retries = None, Retries(context.config)
    try:
        for unit, following in itertools.pairwise([*units, None]):
            if ahead:
                ahead.join()
            ahead = _compile_ahead(context, unit, following)
            outcome = attempt(context, unit, on_tick)
            while not processes.stopping() and retries.again(unit, outcome):
                outcome = attempt(context, unit, on_tick)
            if processes.stopping():
                return
            on_tick("")
            yield unit, outcome
    finally:
        if ahead:
            ahead.join()  # Python must not end while a thread of it compiles


def _compile_ahead(context: RunContext, unit: Unit, following: Unit | None) -> threading.Thread | None:
    """A thread that compiles for `following`, if that is worth it. If it fails, so will the unit, with a message."""
    same = following is None or following.shape == unit.shape
    if same or "train" not in following.stages or jax.default_backend() == "cpu":
        return None
    arguments = (epath.Path(context.folder), following.points, context.config)
    thread = threading.Thread(target=train.compile_ahead, args=arguments, daemon=True)
    thread.start()
    return thread


def _added() -> list[str]:
    """Names in our registries that stand for something defined outside this package."""
    entries = {name: row.function for name, row in MEASURES.items()} | MODELS | data.LOADERS
    homes = {name: getattr(entry, "__module__", getattr(entry, "__name__", "")) for name, entry in entries.items()}
    return [name for name, home in homes.items() if home.partition(".")[0] not in {"prunegen_jax", "functools"}]
