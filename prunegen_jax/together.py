"""Functions of many networks in step: a compiled program that all of them call runs once, vmapped over the networks.

`jit` is `jax.jit` for the programs of this package. Within `run`, each function has a thread; a call of such a program
waits until every thread has made one or ended, and calls of one program with arguments of one shape are then made as
one. So a search whose next step depends on the last stays plain Python, whichever networks it is run on.

A vmapped program always has the same number of lanes, the last call repeated to fill them up, so that no network's
bits depend on which others it runs beside.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax import compilation

PyTree = Any


class _Call(NamedTuple):
    """A call of a program: what its compiled form depends on, and the leaves of its arguments."""

    program: jit
    static: tuple[tuple[str, Hashable], ...]
    structure: Any
    types: tuple[Any, ...]
    common: tuple[bool, ...]  # whether a leaf is the same for all networks
    leaves: tuple[Any, ...]

    @property
    def kind(self) -> tuple[Any, ...]:
        return self[:-1]


class jit:
    """`jax.jit(function, static_argnames=...)`; within `run` its calls are made together with those of the others."""

    def __init__(self, function: Callable[..., Any], *, static_argnames: str | tuple[str, ...] = ()) -> None:
        functools.update_wrapper(self, function)
        self.alone = jax.jit(function, static_argnames=static_argnames)
        self.function = function
        self._static = {static_argnames} if isinstance(static_argnames, str) else set(static_argnames)
        self._signature = inspect.signature(function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        member = getattr(_thread, "member", None)
        if member is None:
            return self.alone(*args, **kwargs)
        bound = self._signature.bind(*args, **kwargs).arguments
        leaves, structure = jax.tree.flatten({k: v for k, v in bound.items() if k not in self._static})
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):  # within another program
            return self.alone(*args, **kwargs)
        static = tuple((k, v) for k, v in bound.items() if k in self._static)
        types = tuple(jax.typeof(leaf) for leaf in leaves)
        common = tuple(id(leaf) in member.group.common for leaf in leaves)
        return member.call(_Call(self, static, structure, types, common, tuple(leaves)))


def size() -> int:
    """How many networks this thread's calls are made together with; 1 outside `run`."""
    member = getattr(_thread, "member", None)
    return 1 if member is None else member.group.lanes


def run(
    functions: Sequence[Callable[[], Any]], *, lanes: int, common: PyTree = (), devices: Sequence[jax.Device] = ()
) -> list[Any]:
    """What each of `functions` returns, run in step, `lanes` of them at a time.

    Args:
        functions: each about another network; what one raises is raised, after all have ended.
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
        found += _Group(lanes, common, tuple(devices)).run(functions[start : start + lanes])
    for _, error in found:
        if error is not None:
            raise error
    return [result for result, _ in found]


_thread = threading.local()


class _EndedError(BaseException):
    """Raised within a function whose group has been given up."""


class _Member:
    """A thread of a group, at most one call of which waits."""

    def __init__(self, group: _Group, function: Callable[[], Any]) -> None:
        self.group = group
        self.waiting: _Call | None = None
        self.answer: tuple[Any, BaseException | None] = (None, None)  # of the call, then of the function
        self.ended = False
        self._function = function
        threading.Thread(target=self._work, daemon=True).start()

    def call(self, call: _Call) -> Any:
        with self.group.changed:
            self.waiting = call
            self.group.changed.notify_all()
            self.group.changed.wait_for(lambda: self.waiting is None or self.group.over)
            if self.group.over:
                raise _EndedError
            result, error = self.answer
        if error is not None:
            raise error
        return result

    def _work(self) -> None:
        _thread.member = self
        try:
            answer = (self._function(), None)
        except BaseException as error:  # it is raised where `run` was called
            answer = (None, error)
        with self.group.changed:
            self.answer, self.ended = answer, True
            self.group.changed.notify_all()


class _Group:
    """Members in step. Only the thread that runs the group makes calls."""

    def __init__(self, lanes: int, common: PyTree, devices: tuple[jax.Device, ...]) -> None:
        self.lanes, self.devices = lanes, devices
        self.common = {id(leaf) for leaf in jax.tree.leaves(common)}
        self.changed = threading.Condition()
        self.over = False
        self._alive = common  # so that no other array gets the identity of one of these

    def run(self, functions: Sequence[Callable[[], Any]]) -> list[tuple[Any, BaseException | None]]:
        members = [_Member(self, function) for function in functions]
        try:
            while not all(member.ended for member in members):
                with self.changed:
                    self.changed.wait_for(lambda: all(member.ended or member.waiting for member in members))
                waiting = [member for member in members if not member.ended]
                self._serve(waiting)
                with self.changed:
                    for member in waiting:
                        member.waiting = None
                    self.changed.notify_all()
        finally:
            with self.changed:
                self.over = True
                self.changed.notify_all()
        return [member.answer for member in members]

    def _serve(self, members: Sequence[_Member]) -> None:
        """Makes the calls that wait: those of one kind together, in as few vmapped ones as memory allows."""
        kinds: dict[tuple[Any, ...], list[_Member]] = {}
        for member in members:
            kinds.setdefault(member.waiting.kind, []).append(member)
        for kind, same in kinds.items():
            for member, answer in zip(same, self._made(kind, [member.waiting for member in same]), strict=True):
                member.answer = answer

    def _made(self, kind: tuple[Any, ...], calls: Sequence[_Call]) -> list[tuple[Any, BaseException | None]]:
        try:
            vmapped = _vmapped(kind, calls[0], self.lanes, self.devices)
            return [(answer, None) for answer in vmapped(calls)]
        except Exception as error:  # each function that called gets it, as if it had called alone
            return [(None, error)] * len(calls)


class _Vmapped(NamedTuple):
    """A compiled program over lanes."""

    function: Callable[..., Any]
    lanes: int

    def __call__(self, calls: Sequence[_Call]) -> Iterator[Any]:
        for start in range(0, len(calls), self.lanes):
            part = list(calls[start : start + self.lanes])
            full = part + part[-1:] * (self.lanes - len(part))
            own = tuple(tuple(x for x, c in zip(call.leaves, call.common, strict=True) if not c) for call in full)
            shared = tuple(x for x, c in zip(part[0].leaves, part[0].common, strict=True) if c)
            yield from self.function(own, shared)[: len(part)]


@functools.lru_cache(maxsize=1024)
def _place(kind: tuple[Any, ...], lanes: int, devices: tuple[jax.Device, ...]) -> list[_Vmapped]:
    """Where the program of a kind of call is kept."""
    return []


def _vmapped(kind: tuple[Any, ...], call: _Call, lanes: int, devices: tuple[jax.Device, ...]) -> _Vmapped:
    """The program of a kind of call over as many lanes as fit into the memory of the devices, `lanes` at most."""
    place = _place(kind, lanes, devices)
    if not place:
        place.append(_compile(call, lanes, devices))
    return place[0]


def _compile(call: _Call, lanes: int, devices: tuple[jax.Device, ...]) -> _Vmapped:
    def one(own: tuple[Any, ...], shared: tuple[Any, ...]) -> Any:
        parts = {False: iter(own), True: iter(shared)}
        arguments = jax.tree.unflatten(call.structure, [next(parts[is_common]) for is_common in call.common])
        return call.program.function(**arguments, **dict(call.static))

    def over(numbers: jax.Array, own: tuple[Any, ...], shared: tuple[Any, ...]) -> Any:
        return jax.vmap(lambda _, own: one(own, shared))(numbers, own)

    def many(own: tuple[tuple[Any, ...], ...], shared: tuple[Any, ...]) -> tuple[Any, ...]:
        numbers = jnp.arange(len(own))  # there may be nothing of their own to tell how many
        results = dealt(numbers, jax.tree.map(lambda *lane: jnp.stack(lane), *own), shared)
        return tuple(jax.tree.map(lambda x, i=i: x[i], results) for i in range(len(own)))

    dealt, program = over, jax.jit(many)
    if len(devices) > 1:
        mesh = jax.sharding.Mesh(np.asarray(devices), ("lanes",))
        each, same = jax.P("lanes"), jax.P()
        dealt = jax.shard_map(over, mesh=mesh, in_specs=(each, each, same), out_specs=each, check_vma=False)
        program = jax.jit(many, out_shardings=jax.NamedSharding(mesh, same))
    own = tuple(x for x, c in zip(call.leaves, call.common, strict=True) if not c)
    shared = tuple(x for x, c in zip(call.leaves, call.common, strict=True) if c)
    room = compilation.MEMORY_SHARE * compilation.device_memory()
    least = max(1, len(devices))
    while True:
        needed = program.lower((own,) * lanes, shared).compile().memory_analysis()
        if lanes <= least or needed.temp_size_in_bytes + needed.output_size_in_bytes <= room:
            return _Vmapped(program, lanes)
        lanes = max(least, lanes // 2 // least * least)
