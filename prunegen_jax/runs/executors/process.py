"""The processes of the local executor: each has a pool of its own, so that the death of one does not end the others."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import multiprocessing
import multiprocessing.process
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from prunegen_jax.runs import processes
from prunegen_jax.runs.executors import base
from prunegen_jax.runs.executors.base import LOOK_SECONDS, STOP_SECONDS, OnTick, Outcome, RunContext, Unit

_until_exit = contextlib.ExitStack()  # of a worker: what it holds until it ends


@dataclasses.dataclass(eq=False)
class _Worker:
    """A process, the shapes whose programs it has compiled, and the unit it works on."""

    pool: concurrent.futures.ProcessPoolExecutor
    process: multiprocessing.process.BaseProcess
    shapes: set[tuple[Any, ...]] = dataclasses.field(default_factory=set)
    unit: Unit | None = None
    future: concurrent.futures.Future[Outcome] | None = None


def run(context: RunContext, units: Sequence[Unit], on_tick: OnTick, *, count: int) -> Iterator[tuple[Unit, Outcome]]:
    """Does `units` in `count` processes and yields each as it ends.

    When this process is told to stop, or the iterator is closed, the workers save their state and end.
    """
    waiting, retries = list(units), base.Retries(context.config)
    workers: list[_Worker] = []
    try:
        workers += [_start(context) for _ in range(count)]
        while not processes.stopping() and (waiting or any(worker.unit for worker in workers)):
            for worker in workers:
                if waiting and worker.unit is None:
                    _give(worker, _choose(waiting, worker, workers), context)
            running = [worker.future for worker in workers if worker.future]
            concurrent.futures.wait(running, timeout=LOOK_SECONDS, return_when=concurrent.futures.FIRST_COMPLETED)
            on_tick("")
            for place, worker in enumerate(workers):
                if worker.unit is None or worker.future is None or not worker.future.done():
                    continue
                unit, outcome = worker.unit, _outcome(worker)
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


def _choose(waiting: list[Unit], worker: _Worker, workers: Sequence[_Worker]) -> Unit:
    """Takes from `waiting` a unit whose programs `worker` has, else one that no worker has, else the first."""
    begun = set().union(*(other.shapes for other in workers))
    best = min(waiting, key=lambda unit: (unit.shape not in worker.shapes, unit.shape in begun))
    waiting.remove(best)
    return best


def _give(worker: _Worker, unit: Unit, context: RunContext) -> None:
    worker.unit = unit
    worker.shapes.add(unit.shape)
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
