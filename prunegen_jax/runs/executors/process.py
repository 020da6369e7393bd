"""The processes of the local executor: each has a pool of its own, so that the death of one does not end the others."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import multiprocessing
import multiprocessing.process
import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from prunegen_jax.runs import processes
from prunegen_jax.runs.executors import base
from prunegen_jax.runs.executors.base import LOOK_SECONDS, STOP_SECONDS, OnTick, Outcome, RunContext, Unit

_until_exit = contextlib.ExitStack()  # of a worker: what it holds until it ends


_Shape = tuple[Any, ...]


@dataclasses.dataclass(eq=False)
class _Worker:
    """A process, the shapes whose programs it has compiled, and the unit it works on, since when."""

    pool: concurrent.futures.ProcessPoolExecutor
    process: multiprocessing.process.BaseProcess
    shapes: set[_Shape] = dataclasses.field(default_factory=set)
    unit: Unit | None = None
    begin: float = 0.0
    future: concurrent.futures.Future[Outcome] | None = None


@dataclasses.dataclass
class _Durations:
    """Seconds that the latest unit of a shape took.

    Attributes:
        first: where it was the first of its shape in the process, which compiles its programs or loads them.
        later: where it was not.
    """

    first: dict[_Shape, float] = dataclasses.field(default_factory=dict)
    later: dict[_Shape, float] = dataclasses.field(default_factory=dict)

    def is_faster(self, unit: Unit, waiting: Sequence[Unit], workers: Sequence[_Worker]) -> bool:
        """Whether a process without the programs of `unit` is done with it before those that have them would be."""
        owners = [worker for worker in workers if unit.shape in worker.shapes and worker.unit]
        first, later = self.first.get(unit.shape), self.later.get(unit.shape)
        if not owners or first is None or later is None:
            return True
        now = time.monotonic()
        left = later * sum(other.shape == unit.shape for other in waiting)
        for worker in owners:  # a unit that is overdue may take as long again as it is overdue
            left += abs(self.later.get(worker.unit.shape, later) - (now - worker.begin))
        return first < left / len(owners)


def run(context: RunContext, units: Sequence[Unit], on_tick: OnTick, *, count: int) -> Iterator[tuple[Unit, Outcome]]:
    """Does `units` in `count` processes and yields each as it ends.

    When this process is told to stop, or the iterator is closed, the workers save their state and end.
    """
    waiting, retries, durations = list(units), base.Retries(context.config), _Durations()
    workers: list[_Worker] = []
    try:
        workers += [_start(context) for _ in range(count)]
        while not processes.stopping() and (waiting or any(worker.unit for worker in workers)):
            for worker in workers:
                if worker.unit is None and (unit := _choose(waiting, worker, workers, durations)):
                    _give(worker, unit, context)
            running = [worker.future for worker in workers if worker.future]
            concurrent.futures.wait(running, timeout=LOOK_SECONDS, return_when=concurrent.futures.FIRST_COMPLETED)
            on_tick("")
            for place, worker in enumerate(workers):
                if worker.unit is None or worker.future is None or not worker.future.done():
                    continue
                unit, outcome = worker.unit, _outcome(worker)
                if outcome.status == "done":
                    known = durations.later if unit.shape in worker.shapes else durations.first
                    known[unit.shape] = time.monotonic() - worker.begin
                worker.shapes.add(unit.shape)
                worker.unit = worker.future = None
                if outcome.status in {"dead", "stopped"}:
                    if processes.stopping():  # a scheduler tells the workers too
                        continue
                    _end([worker])
                    workers[place] = _start(context)
                if retries.again(unit, outcome):
                    waiting.insert(0, unit)
                else:
                    yield unit, outcome
    finally:
        _end(workers)


def _choose(waiting: list[Unit], worker: _Worker, workers: Sequence[_Worker], durations: _Durations) -> Unit | None:
    """Takes from `waiting` a unit whose programs `worker` has, else one that no worker has, else the first.

    None if there is none, or if those that have its programs will be done with it sooner.
    """
    begun = set().union(*(other.shapes | ({other.unit.shape} if other.unit else set()) for other in workers))
    for unit in sorted(waiting, key=lambda unit: (unit.shape not in worker.shapes, unit.shape in begun)):
        if unit.shape in worker.shapes or durations.is_faster(unit, waiting, workers):
            waiting.remove(unit)
            return unit
    return None


def _give(worker: _Worker, unit: Unit, context: RunContext) -> None:
    worker.unit, worker.begin = unit, time.monotonic()
    try:
        worker.future = worker.pool.submit(base.attempt, context, unit)
    except BrokenProcessPool as error:  # it died while it had nothing to do
        worker.future = concurrent.futures.Future()
        worker.future.set_exception(error)


def _outcome(worker: _Worker) -> Outcome:
    try:
        return worker.future.result()
    except BrokenProcessPool:
        worker.process.join(STOP_SECONDS)
        code = worker.process.exitcode
        fate = f"was killed by {signal.Signals(-code).name}" if code and code < 0 else f"ended with status {code}"
        return Outcome("dead", f"worker process {worker.process.pid} {fate}")


def _start(context: RunContext) -> _Worker:
    """Starts a process that waits for work. It imports JAX in the background."""
    pool = concurrent.futures.ProcessPoolExecutor(
        1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(base.settings(), context.source),
    )
    before = set(multiprocessing.active_children())
    with _environment(context.config.run.threads):
        pool.submit(os.getpid)  # the first piece of work makes the process
    return _Worker(pool, next(iter(set(multiprocessing.active_children()) - before)))


@contextlib.contextmanager
def _environment(threads: int) -> Iterator[None]:
    """What a new process inherits: how it computes."""
    variables = processes.environment(threads) | {"JAX_PLATFORMS": "cpu"}
    old = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        with processes.without_script():
            yield
    finally:
        for name, value in old.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _end(workers: Sequence[_Worker]) -> None:
    """Ends processes: idle ones at once, the others when they have saved their state, or their time is up."""
    for worker in workers:
        if worker.unit:
            worker.process.terminate()
    try:
        concurrent.futures.wait([worker.future for worker in workers if worker.future], timeout=STOP_SECONDS + 2)
    finally:
        for worker in workers:
            if worker.future and not worker.future.done():
                worker.process.kill()
            worker.pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.process.join()


def _begin(settings: dict[str, Any], source: str) -> None:
    """Sets up a worker: it handles SIGTERM and its parent's death; Ctrl-C is for the parent to pass on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _until_exit.enter_context(processes.handle_signals(STOP_SECONDS, quiet=True))
    processes.end_with_parent(STOP_SECONDS)
    base.adopt(settings, source)
