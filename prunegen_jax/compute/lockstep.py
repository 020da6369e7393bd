"""Functions of many networks in lockstep: a program that all of them call runs once, vmapped over the networks.

`jit` is `jax.jit` for the programs of this package. Within `run`, each function has a thread; a call of such a program
waits until every thread has made a call or returned, and calls of one program with arguments of equal shapes are then
made as one. So a search whose next step depends on the last stays plain Python, whichever networks it is run on.

A vmapped program always has the same number of lanes, the last call repeated to fill them up, so that the bits of a
network's results do not depend on the other networks of its group.

JAX's context managers (`jax.enable_x64`, for example) hold in one thread; a function in lockstep sees only what is set
by `jax.config.update`.
"""

from __future__ import annotations

import functools
import inspect
import queue
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import get_opaque_trace_state

from prunegen_jax.compute import memory, sharding

PyTree = Any
Outcome = tuple[Any, BaseException | None]  # what was returned, or raised


class _CallKind(NamedTuple):
    """What the compiled form of a call depends on. Calls of one kind are made together."""

    program: jit
    static: tuple[tuple[str, type, Hashable], ...]
    structure: Any
    types: tuple[tuple[tuple[int, ...], Any, bool], ...]  # shape, dtype and weakness of each leaf of the arguments
    common: tuple[int | None, ...]  # for each leaf its index among the shared arrays; None if it is not shared

    def split(self, leaves: Sequence[Any]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Those of `leaves` that belong to one network, and those that all networks share."""
        own = tuple(leaf for leaf, index in zip(leaves, self.common, strict=True) if index is None)
        return own, tuple(leaf for leaf, index in zip(leaves, self.common, strict=True) if index is not None)

    def call(self, own: Sequence[Any], shared: Sequence[Any]) -> Any:
        """Calls the program's function."""
        parts = iter(own), iter(shared)
        leaves = [next(parts[index is not None]) for index in self.common]
        arguments = jax.tree.unflatten(self.structure, leaves) | {name: value for name, _, value in self.static}
        bound = inspect.BoundArguments(self.program.signature, arguments)
        return self.program.function(*bound.args, **bound.kwargs)


class jit:
    """`jax.jit(function, static_argnames=...)`; within `run`, calls of all networks are made as one."""

    def __init__(self, function: Callable[..., Any], *, static_argnames: str | tuple[str, ...] = ()) -> None:
        functools.update_wrapper(self, function)
        self.alone = jax.jit(function, static_argnames=static_argnames)
        self.function = function
        self.signature = inspect.signature(function)
        self._static = {static_argnames} if isinstance(static_argnames, str) else set(static_argnames)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        member = getattr(_thread, "member", None)
        if member is None or get_opaque_trace_state(convention="flax") != _EAGER:  # within another program
            return self.alone(*args, **kwargs)
        bound = self.signature.bind(*args, **kwargs).arguments
        leaves, structure = jax.tree.flatten({name: bound[name] for name in bound if name not in self._static})
        kind = _CallKind(
            self,
            tuple((name, type(bound[name]), bound[name]) for name in bound if name in self._static),
            structure,
            tuple((aval.shape, aval.dtype, aval.weak_type) for aval in map(jax.typeof, leaves)),
            tuple(member.common.get(id(leaf)) for leaf in leaves),
        )
        hash(kind)  # raises TypeError in the calling thread if a static argument is not hashable
        return member.call(kind, leaves)


def size() -> int:
    """How many networks share each call that this thread makes; 1 outside `run`."""
    member = getattr(_thread, "member", None)
    return 1 if member is None else member.lanes


def run(
    functions: Sequence[Callable[[], Any]], *, lanes: int, common: PyTree = (), devices: Sequence[jax.Device] = ()
) -> list[Any]:
    """Runs functions in lockstep, `lanes` of them at a time.

    Args:
        functions: one for each network. An exception of one is raised once the others of its group have returned.
        lanes: width of a vmapped program; smaller if its memory does not suffice; 1 runs the functions one by one.
        common: pytree of arrays that all of them share (a data set, for example), recognised by identity.
        devices: the devices that share the lanes; none stands for JAX's default device.

    Returns:
        What each function returns, in order.

    Raises:
        ValueError: if `lanes` is not a positive multiple of the number of devices.
    """
    sharding.check_multiple("lanes", lanes, devices)
    if lanes == 1:
        return [function() for function in functions]
    results = []
    for start in range(0, len(functions), lanes):
        results += _run_group(functions[start : start + lanes], lanes, jax.tree.leaves(common), tuple(devices))
    return results


_thread = threading.local()
_EAGER = get_opaque_trace_state(convention="flax")  # of a thread that traces nothing; this module's import does not


class _CancelledError(BaseException):
    """Raised within a function whose group has been abandoned."""


class _Member:
    """One of a group of functions, in a thread of its own."""

    def __init__(self, number: int, lanes: int, common: dict[int, int], arrivals: queue.SimpleQueue) -> None:
        self.number, self.lanes, self.common = number, lanes, common
        self.call_outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self.outcome: Outcome = (None, None)
        self._arrivals = arrivals

    def call(self, kind: _CallKind, leaves: Sequence[Any]) -> Any:
        self._arrivals.put((self, kind, leaves))
        result, error = self.call_outcomes.get()
        if error is not None:
            raise error
        return result

    def work(self, function: Callable[[], Any]) -> None:
        _thread.member = self
        try:
            self.outcome = function(), None
        except BaseException as error:  # it is raised where `run` was called
            self.outcome = None, error
        self._arrivals.put((self, None, ()))


def _run_group(
    functions: Sequence[Callable[[], Any]], lanes: int, common: list[Any], devices: tuple[jax.Device, ...]
) -> list[Any]:
    """Runs at most `lanes` functions; this thread makes the calls, once all functions have made one or returned."""
    arrivals: queue.SimpleQueue[tuple[_Member, _CallKind | None, Sequence[Any]]] = queue.SimpleQueue()
    common_index = {id(leaf): index for index, leaf in enumerate(common)}
    members = [_Member(number, lanes, common_index, arrivals) for number in range(len(functions))]
    try:
        for member, function in zip(members, functions, strict=True):
            threading.Thread(target=member.work, args=(function,), daemon=True).start()
        live = len(members)
        while live:
            kinds: dict[_CallKind, list[tuple[_Member, Sequence[Any]]]] = {}
            arrived = [arrivals.get() for _ in range(live)]
            for member, kind, leaves in sorted(arrived, key=lambda arrival: arrival[0].number):
                if kind is None:
                    live -= 1
                else:
                    kinds.setdefault(kind, []).append((member, leaves))
            for kind, calls in kinds.items():
                outcomes = _call_together(kind, [leaves for _, leaves in calls], lanes, devices)
                for (member, _), outcome in zip(calls, outcomes, strict=True):
                    member.call_outcomes.put(outcome)
    finally:
        for member in members:
            member.call_outcomes.put((None, _CancelledError()))
    for member in members:
        if member.outcome[1] is not None:
            raise member.outcome[1]
    return [member.outcome[0] for member in members]


def _call_together(
    kind: _CallKind, calls: Sequence[Sequence[Any]], lanes: int, devices: tuple[jax.Device, ...]
) -> list[Outcome]:
    """The outcomes of `calls` of one kind."""
    try:
        return [(result, None) for result in _program(kind, lanes, devices)(calls)]
    except Exception as error:  # raised again in the thread that made the call
        if len(calls) == 1:
            return [(None, error)]
        # one by one in as many lanes, so that the bits of the calls that succeed stay the same
        return [_call_together(kind, [call], lanes, devices)[0] for call in calls]


class _Vmapped(NamedTuple):
    """A compiled program over lanes."""

    function: Callable[..., Any]
    kind: _CallKind
    lanes: int

    def __call__(self, calls: Sequence[Sequence[Any]]) -> Iterator[Any]:
        for start in range(0, len(calls), self.lanes):
            own, shared = zip(*map(self.kind.split, calls[start : start + self.lanes]), strict=True)
            yield from self.function(own + own[-1:] * (self.lanes - len(own)), shared[0])[: len(own)]


@functools.lru_cache(maxsize=1024)
def _program(kind: _CallKind, lanes: int, devices: tuple[jax.Device, ...]) -> _Vmapped:
    """The program of a kind of call over as many lanes as fit into the memory of the devices, `lanes` at most."""

    def over_lanes(numbers: jax.Array, own: tuple[Any, ...], shared: tuple[Any, ...]) -> Any:
        return jax.vmap(lambda _, own: kind.call(own, shared))(numbers, own)

    over_devices = sharding.split_over(over_lanes, devices, "lanes", split=(True, True, False))

    def many(own: tuple[tuple[Any, ...], ...], shared: tuple[Any, ...]) -> tuple[Any, ...]:
        numbers = jnp.arange(len(own))  # `own` may hold no array from which vmap could tell the number of lanes
        results = over_devices(numbers, jax.tree.map(lambda *lane: jnp.stack(lane), *own), shared)
        return tuple(jax.tree.map(lambda x, i=i: x[i], results) for i in range(len(own)))

    _, replicated = sharding.shardings(devices, "lanes")
    program = jax.jit(many, in_shardings=replicated, out_shardings=replicated) if replicated else jax.jit(many)
    shapes = [jax.ShapeDtypeStruct(shape, dtype, weak_type=weak) for shape, dtype, weak in kind.types]
    own, shared = kind.split(shapes)
    fewest = max(1, len(devices))
    while lanes > fewest and not _fits(program, (own,) * lanes, shared):
        lanes = max(fewest, lanes // 2 // fewest * fewest)
    return _Vmapped(program, kind, lanes)


def _fits(program: jax.stages.Wrapped, *shapes: PyTree) -> bool:
    """Whether the memory of a device suffices for `program`."""
    try:
        needed = program.lower(*shapes).compile().memory_analysis()
    except jax.errors.JaxRuntimeError as error:  # a TPU's compiler raises this
        if "RESOURCE_EXHAUSTED" in str(error):
            return False
        raise
    available = memory.MEMORY_SHARE * memory.device_memory()
    return needed.temp_size_in_bytes + needed.output_size_in_bytes <= available
