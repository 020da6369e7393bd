"""Functions of many networks in step: a compiled program that all of them call runs once, vmapped over the networks.

`jit` is `jax.jit` for the programs of this package. Within `run`, each function has a thread; a call of such a program
waits until every thread has made one or ended, and calls of one program with arguments of one shape are then made as
one. So a search whose next step depends on the last stays plain Python, whichever networks it is run on.

A vmapped program always has the same number of lanes, the last call repeated to fill them up, so that no network's
bits depend on which others it runs beside.

What JAX is told by context managers (`jax.enable_x64`, say) holds in one thread; a function in step sees only what is
set by `jax.config.update`.
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
import numpy as np
from jax.extend.core import get_opaque_trace_state

from prunegen_jax.compute import memory

PyTree = Any
Answer = tuple[Any, BaseException | None]  # what was returned, or raised


class _Kind(NamedTuple):
    """What the compiled form of a call depends on. Calls of one kind are made together."""

    program: jit
    static: tuple[tuple[str, type, Hashable], ...]
    structure: Any
    types: tuple[tuple[tuple[int, ...], Any, bool], ...]  # shape, dtype and weakness of each leaf of the arguments
    common: tuple[int | None, ...]  # which of the arrays that all networks share it is; None: one of its own

    def part(self, leaves: Sequence[Any]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """The network's own among `leaves`, and the shared ones."""
        own = tuple(leaf for leaf, index in zip(leaves, self.common, strict=True) if index is None)
        return own, tuple(leaf for leaf, index in zip(leaves, self.common, strict=True) if index is not None)

    def call(self, own: Sequence[Any], shared: Sequence[Any]) -> Any:
        """What the program's function returns."""
        parts = iter(own), iter(shared)
        leaves = [next(parts[index is not None]) for index in self.common]
        arguments = jax.tree.unflatten(self.structure, leaves) | {name: value for name, _, value in self.static}
        bound = inspect.BoundArguments(self.program.signature, arguments)
        return self.program.function(*bound.args, **bound.kwargs)


class jit:
    """`jax.jit(function, static_argnames=...)`; within `run` its calls are made together with those of the others."""

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
        kind = _Kind(
            self,
            tuple((name, type(bound[name]), bound[name]) for name in bound if name in self._static),
            structure,
            tuple((aval.shape, aval.dtype, aval.weak_type) for aval in map(jax.typeof, leaves)),
            tuple(member.common.get(id(leaf)) for leaf in leaves),
        )
        hash(kind)  # what cannot be static is said here, to who called
        return member.call(kind, leaves)


def size() -> int:
    """How many networks this thread's calls are made together with; 1 outside `run`."""
    member = getattr(_thread, "member", None)
    return 1 if member is None else member.lanes


def run(
    functions: Sequence[Callable[[], Any]], *, lanes: int, common: PyTree = (), devices: Sequence[jax.Device] = ()
) -> list[Any]:
    """What each of `functions` returns, run in step, `lanes` of them at a time.

    Args:
        functions: each about another network; what one raises is raised, after those beside it have ended.
        lanes: how many networks a vmapped program has, less if their memory does not suffice; 1 runs one by one.
        common: the arrays that all of them share, a data set say, by identity.
        devices: over which the lanes are dealt out; none stands for JAX's default device.

    Raises:
        ValueError: if the lanes are not a multiple of the devices.
    """
    if lanes % max(1, len(devices)):
        raise ValueError(f"lanes={lanes} must be a multiple of the {len(devices)} devices")
    if lanes <= 1:
        return [function() for function in functions]
    found = []
    for start in range(0, len(functions), lanes):
        found += _in_step(functions[start : start + lanes], lanes, jax.tree.leaves(common), tuple(devices))
    return found


_thread = threading.local()
_EAGER = get_opaque_trace_state(convention="flax")  # of a thread that traces nothing; this module's import does not


class _EndedError(BaseException):
    """Raised within a function whose group has been given up."""


class _Member:
    """One of a group of functions, in a thread of its own."""

    def __init__(self, number: int, lanes: int, common: dict[int, int], arrivals: queue.SimpleQueue) -> None:
        self.number, self.lanes, self.common = number, lanes, common
        self.answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self.ended: Answer = (None, None)
        self._arrivals = arrivals

    def call(self, kind: _Kind, leaves: Sequence[Any]) -> Any:
        self._arrivals.put((self, kind, leaves))
        result, error = self.answers.get()
        if error is not None:
            raise error
        return result

    def work(self, function: Callable[[], Any]) -> None:
        _thread.member = self
        try:
            self.ended = function(), None
        except BaseException as error:  # it is raised where `run` was called
            self.ended = None, error
        self._arrivals.put((self, None, ()))


def _in_step(
    functions: Sequence[Callable[[], Any]], lanes: int, common: list[Any], devices: tuple[jax.Device, ...]
) -> list[Any]:
    """What `functions`, no more than lanes, return. Only this thread makes the calls, each when all have arrived."""
    arrivals: queue.SimpleQueue[tuple[_Member, _Kind | None, Sequence[Any]]] = queue.SimpleQueue()
    places = {id(leaf): index for index, leaf in enumerate(common)}
    members = [_Member(number, lanes, places, arrivals) for number in range(len(functions))]
    try:
        for member, function in zip(members, functions, strict=True):
            threading.Thread(target=member.work, args=(function,), daemon=True).start()
        live = len(members)
        while live:
            kinds: dict[_Kind, list[tuple[_Member, Sequence[Any]]]] = {}
            for member, kind, leaves in sorted((arrivals.get() for _ in range(live)), key=lambda one: one[0].number):
                if kind is None:
                    live -= 1
                else:
                    kinds.setdefault(kind, []).append((member, leaves))
            for kind, calls in kinds.items():
                answers = _made(kind, [leaves for _, leaves in calls], lanes, devices)
                for (member, _), answer in zip(calls, answers, strict=True):
                    member.answers.put(answer)
    finally:
        for member in members:
            member.answers.put((None, _EndedError()))
    for member in members:
        if member.ended[1] is not None:
            raise member.ended[1]
    return [member.ended[0] for member in members]


def _made(
    kind: _Kind, calls: Sequence[Sequence[Any]], lanes: int, devices: tuple[jax.Device, ...]
) -> list[tuple[Any, BaseException | None]]:
    """The answers to `calls` of one kind."""
    try:
        return [(answer, None) for answer in _program(kind, lanes, devices)(calls)]
    except Exception as error:  # for who called
        if len(calls) == 1:
            return [(None, error)]
        return [_made(kind, [call], lanes, devices)[0] for call in calls]  # in as many lanes: the others' bits stay


class _Vmapped(NamedTuple):
    """A compiled program over lanes."""

    function: Callable[..., Any]
    kind: _Kind
    lanes: int

    def __call__(self, calls: Sequence[Sequence[Any]]) -> Iterator[Any]:
        for start in range(0, len(calls), self.lanes):
            own, shared = zip(*map(self.kind.part, calls[start : start + self.lanes]), strict=True)
            yield from self.function(own + own[-1:] * (self.lanes - len(own)), shared[0])[: len(own)]


@functools.lru_cache(maxsize=1024)
def _program(kind: _Kind, lanes: int, devices: tuple[jax.Device, ...]) -> _Vmapped:
    """The program of a kind of call over as many lanes as fit into the memory of the devices, `lanes` at most."""

    def over(numbers: jax.Array, own: tuple[Any, ...], shared: tuple[Any, ...]) -> Any:
        return jax.vmap(lambda _, own: kind.call(own, shared))(numbers, own)

    def many(own: tuple[tuple[Any, ...], ...], shared: tuple[Any, ...]) -> tuple[Any, ...]:
        numbers = jnp.arange(len(own))  # there may be nothing of their own to tell how many
        results = dealt(numbers, jax.tree.map(lambda *lane: jnp.stack(lane), *own), shared)
        return tuple(jax.tree.map(lambda x, i=i: x[i], results) for i in range(len(own)))

    dealt, program = over, jax.jit(many)
    if len(devices) > 1:
        mesh = jax.sharding.Mesh(np.asarray(devices), ("lanes",))
        each, same = jax.P("lanes"), jax.P()
        dealt = jax.shard_map(over, mesh=mesh, in_specs=(each, each, same), out_specs=each, check_vma=False)
        everywhere = jax.NamedSharding(mesh, same)
        program = jax.jit(many, in_shardings=everywhere, out_shardings=everywhere)
    shapes = [jax.ShapeDtypeStruct(shape, dtype, weak_type=weak) for shape, dtype, weak in kind.types]
    own, shared = kind.part(shapes)
    least = max(1, len(devices))
    while lanes > least and not _fits(program, (own,) * lanes, shared):
        lanes = max(least, lanes // 2 // least * least)
    return _Vmapped(program, kind, lanes)


def _fits(program: jax.stages.Wrapped, *shapes: PyTree) -> bool:
    """Whether the memory of a device suffices for `program`."""
    try:
        needed = program.lower(*shapes).compile().memory_analysis()
    except jax.errors.JaxRuntimeError as error:  # a TPU's compiler says it itself
        if "RESOURCE_EXHAUSTED" in str(error):
            return False
        raise
    room = memory.MEMORY_SHARE * memory.device_memory()
    return needed.temp_size_in_bytes + needed.output_size_in_bytes <= room
