"""The local executor's processes: each is alone in a pool of its own, so that the death of one is the loss of one."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import multiprocessing
import multiprocessing.process
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from prunegen_jax.runs import executors, processes
from prunegen_jax.runs.executors import Job, Outcome, Tick, Unit

_GRACE = 8.0  # seconds that a worker has to save what it is at
_LOOK = 0.5  # seconds between looks at what goes on
_life = contextlib.ExitStack()  # of a worker: what it holds to its end


@dataclasses.dataclass(eq=False)
class _Worker:
    """A process, the shapes whose programs it has compiled, and what it is at."""

    pool: concurrent.futures.ProcessPoolExecutor
    process: multiprocessing.process.BaseProcess
    shapes: set[tuple[Any, ...]] = dataclasses.field(default_factory=set)
    unit: Unit | None = None
    future: concurrent.futures.Future[Outcome] | None = None


def run(job: Job, units: Sequence[Unit], tick: Tick, *, count: int) -> Iterator[tuple[Unit, Outcome]]:
    """Does `units` in `count` processes and yields each as it ends.

    A unit whose process dies, or cannot reach its files, is done again up to `run.retries` times. When this
    process is told to stop, or the iterator is closed, the workers save what they are at and end.
    """
    waiting, failures = list(units), dict.fromkeys((executors.title(unit) for unit in units), 0)
    workers: list[_Worker] = []
    try:
        workers += [_start(job) for _ in range(count)]
        while not processes.stopping() and (waiting or any(worker.unit for worker in workers)):
            for worker in workers:
                if waiting and worker.unit is None:
                    _give(worker, _choose(waiting, worker, workers), job)
            running = [worker.future for worker in workers if worker.future]
            concurrent.futures.wait(running, timeout=_LOOK, return_when=concurrent.futures.FIRST_COMPLETED)
            tick("")
            for place, worker in enumerate(workers):
                if worker.unit is None or worker.future is None or not worker.future.done():
                    continue
                unit, outcome = worker.unit, _outcome(worker)
                worker.unit = worker.future = None
                if outcome.status in {"dead", "stopped"}:
                    _end([worker])
                    workers[place] = _start(job)
                name = executors.title(unit)
                failures[name] += executors.passing(outcome)
                if executors.passing(outcome) and failures[name] <= job.config.run.retries:
                    waiting.insert(0, unit)
                    print(f"{outcome.reason}; {name} once more", file=sys.stderr, flush=True)
                else:
                    yield unit, outcome
    finally:
        _end(workers)


def _choose(waiting: list[Unit], worker: _Worker, workers: Sequence[_Worker]) -> Unit:
    """Takes from `waiting` what `worker` has the programs for, else a shape that nobody has begun, else the first."""
    begun = set().union(*(other.shapes for other in workers))
    best = min(waiting, key=lambda unit: (unit.shape not in worker.shapes, unit.shape in begun))
    waiting.remove(best)
    return best


def _give(worker: _Worker, unit: Unit, job: Job) -> None:
    worker.unit = unit
    worker.shapes.add(unit.shape)
    try:
        worker.future = worker.pool.submit(executors.attempt, job, unit)
    except BrokenProcessPool as error:  # it died while it had nothing to do
        worker.future = concurrent.futures.Future()
        worker.future.set_exception(error)


def _outcome(worker: _Worker) -> Outcome:
    try:
        return worker.future.result()
    except BrokenProcessPool:
        worker.process.join(_GRACE)
        code = worker.process.exitcode
        fate = f"was killed by {signal.Signals(-code).name}" if code and code < 0 else f"ended with status {code}"
        return Outcome("dead", f"worker process {worker.process.pid} {fate}")


def _start(job: Job) -> _Worker:
    """A process that waits for work. It imports JAX while this one goes on."""
    pool = concurrent.futures.ProcessPoolExecutor(
        1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(executors.settings(), job.source),
    )
    before = set(multiprocessing.active_children())
    with _surroundings(job.config.run.threads):
        pool.submit(os.getpid)  # the first piece of work makes the process
    return _Worker(pool, next(iter(set(multiprocessing.active_children()) - before)))


@contextlib.contextmanager
def _surroundings(threads: int) -> Iterator[None]:
    """What a new process gets from this one: how it computes; and no script, which it would run to import it."""
    variables = processes.environment(threads) | {"JAX_PLATFORMS": "cpu"}
    old = {name: os.environ.get(name) for name in variables}
    script = sys.modules["__main__"]
    os.environ.update(variables)
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script
        for name, value in old.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _end(workers: Sequence[_Worker]) -> None:
    """Ends processes: idle ones at once, the others when they have saved what they are at, or their time is up."""
    for worker in workers:
        if worker.unit:
            worker.process.terminate()
    try:
        concurrent.futures.wait([worker.future for worker in workers if worker.future], timeout=_GRACE + 2)
    finally:
        for worker in workers:
            if worker.future and not worker.future.done():
                worker.process.kill()
            worker.pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.process.join()


def _begin(theirs: dict[str, Any], source: str) -> None:
    """The first thing in a worker: it heeds SIGTERM and its parent's death; Ctrl-C is for the parent to pass on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _life.enter_context(processes.heeding(_GRACE))
    threading.Thread(target=_follow, daemon=True).start()
    executors.adopt(theirs, source)


def _follow() -> None:
    """Ends this process, after it could save what it is at, when its parent is gone."""
    multiprocessing.parent_process().join()
    processes.stop()
    time.sleep(_GRACE)
    processes.leave("the driver of this worker is gone")
