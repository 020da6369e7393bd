"""Computes what measures and targets are missing of points; records are written as they are added, once a second."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import jax
from etils import epath
from ml_collections import ConfigDict

from prunegen_jax import data, measures
from prunegen_jax.compute import lockstep
from prunegen_jax.runs import costs, files, processes, record, slots, targets, task
from prunegen_jax.runs.points import Point
from prunegen_jax.runs.record import Record
from prunegen_jax.runs.restore import restore
from prunegen_jax.runs.train import by_data, own_record, train
from prunegen_jax.types import TrainedModel

_STAGES = ("measure",)
_WRITE_SECONDS = 1.0  # of measuring that may be lost if the process is killed: a small measure takes less than a write
_MEASURE_KEY = 1_000_003  # folded into a network's key for the measures that sample
_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclasses.dataclass
class _Network:
    """A network to measure; `record` is replaced as measures are added.

    Attributes:
        point: of the sweep.
        record: as it is in the workdir, with the measures added since.
        model: what is measured.
        key: for the measures that sample.
        seconds: by measure, those of the measures that are not in the workdir yet.
        written: when the record was written last, or read.
    """

    point: Point
    record: Record
    model: TrainedModel
    key: jax.Array
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    written: float = dataclasses.field(default_factory=time.monotonic)


def measure_missing(
    folder: epath.Path,
    points: Sequence[Point],
    names: Sequence[str],
    config: ConfigDict,
    *,
    stop: Callable[[], bool] | None = None,
) -> None:
    """Computes the measures `names` that the records of a group of points of equal shape lack.

    Where networks train together, in slots, they are measured together. A network that cannot be measured does not
    keep the others from it; its error is raised at the end.

    Args:
        folder: the workdir.
        points: of equal shape; those without a record are left out.
        names: of the measures.
        config: of the run.
        stop: asked before every measure whether to stop.

    Raises:
        ValueError: if the data set, or the record, of a network is another one than when it was trained.
        OSError: if files cannot be read or written.
        StoppedError: if `stop` said so; what was reached is saved.
    """
    for same in by_data(points):
        _measure_all(folder, same, names, config, stop)


def _measure_all(
    folder: epath.Path,
    points: Sequence[Point],
    names: Sequence[str],
    config: ConfigDict,
    stop: Callable[[], bool] | None,
) -> None:
    """`measure_missing` for points of equal data."""
    known = [(point, own_record(folder, point)) for point in points]
    tests = task.test_sets(config)
    waiting = [(p, existing) for p, existing in known if record.find_missing(existing, p, _STAGES, names, tests=tests)]
    if not waiting:
        return
    tasks = [task.build_task(point, config) for point, _ in waiting]
    split = tasks[0].split  # one object, by which it is known to be shared
    lanes = slots.lanes_for(folder, tasks, config.run.slots)
    errors: list[Exception] = []
    networks = _each(lambda one: _load(folder, *one, split, config, vmapped=lanes > 1), waiting, errors)
    for some in iter(lambda: list(itertools.islice(networks, lanes)), []):
        list(_each(lambda network: _add_targets(folder, network, tests, config), some, errors))
        try:
            for name in names:
                lacking = [n for n in some if record.find_missing(n.record, n.point, _STAGES, [name])]
                if lacking and stop is not None and stop():
                    raise processes.StoppedError(f"{lacking[0].point.name} stopped before {name!r} was measured")
                if lacking:
                    _measure(lacking, name, config, lanes)
                    _write(folder, [n for n in lacking if time.monotonic() - n.written >= _WRITE_SECONDS])
        finally:
            _write(folder, some)
    if errors:
        raise errors[0]


def _each(function: Callable[[_In], _Out], items: Iterable[_In], errors: list[Exception]) -> Iterator[_Out]:
    """`function` of those of `items` where it does not raise ValueError or OSError; these are added to `errors`."""
    for item in items:
        try:
            yield function(item)
        except (ValueError, OSError) as error:
            errors.append(error)


def _load(
    folder: epath.Path, point: Point, existing: Record, split: data.Split, config: ConfigDict, *, vmapped: bool
) -> _Network:
    """A network of the workdir; it is trained again if its checkpoint is damaged or gone."""
    existing.check_data(split.fingerprint)
    try:
        model = restore(folder, existing, split, vmapped=vmapped, convolutions=config.run.convolutions)
    except (files.DamagedError, FileNotFoundError, ValueError) as error:
        print(f"{error}; training {point.name} again", file=sys.stderr)
        train(folder, [point], config)
        existing = record.read(folder, point.name)
        model = restore(folder, existing, split, vmapped=vmapped, convolutions=config.run.convolutions)
    key = jax.random.fold_in(jax.random.key(point.fields["seed"]), _MEASURE_KEY)
    return _Network(point, existing, model, key)


def _add_targets(folder: epath.Path, network: _Network, tests: Sequence[str], config: ConfigDict) -> None:
    network.record = targets.add_missing(folder, network.record, network.model, tests, config)


def _measure(networks: Sequence[_Network], name: str, config: ConfigDict, lanes: int) -> None:
    """Computes one measure of networks of equal shape and data, together if `lanes` is not 1."""
    begin = time.monotonic()
    options = config.measures.options.get(name, ConfigDict()).to_dict()
    one = functools.partial(measures.measure, names=[name], options={name: options}, progress=False)
    calls = [functools.partial(one, n.model, key=n.key) for n in networks]
    devices = jax.local_devices() if lanes > 1 else ()
    answers = lockstep.run(calls, lanes=lanes, common=networks[0].model.train, devices=devices)
    seconds = (time.monotonic() - begin) / len(networks)
    for network, answer in zip(networks, answers, strict=True):
        entry = dataclasses.asdict(answer[name]) | {"options": options, "version": measures.find(name).version}
        network.record = network.record.with_measure(name, entry)
        network.seconds[name] = seconds


def _write(folder: epath.Path, networks: Sequence[_Network]) -> None:
    """Writes the records of those networks that have new measures, and what these took.

    Raises:
        OSError, ValueError: if one cannot be written, after the others; the disk is full, say.
    """

    def write(network: _Network) -> None:
        record.write(folder, network.record)
        costs.add(folder, network.point.name, network.seconds)
        network.seconds, network.written = {}, time.monotonic()

    errors: list[Exception] = []
    list(_each(write, [network for network in networks if network.seconds], errors))
    if errors:
        raise errors[0]
