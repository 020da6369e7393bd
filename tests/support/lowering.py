"""Lowers programs for accelerators that this machine does not have."""

from __future__ import annotations

import contextlib

import jax

from prunegen_jax.compute import lockstep

ACCELERATORS = ("cuda", "tpu")


def lower(program, *args, **kwargs):
    """The text of a jitted function lowered for each accelerator; an error if an operation has no form there."""
    traced = program.trace(*args, **kwargs)
    return {name: traced.lower(lowering_platforms=(name,)).as_text() for name in ACCELERATORS}


@contextlib.contextmanager
def recorded_programs():
    """Collects (program, args, kwargs) of each kind of call of `lockstep.jit` inside the block, arrays as shapes."""
    original, calls = lockstep.jit.__call__, {}

    def call(self, *args, **kwargs):
        leaves, structure = jax.tree.flatten((args, kwargs))
        if not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):  # else it is part of the program that calls
            shapes = jax.tree.map(_abstract, (args, kwargs))
            kind = self, structure, tuple(map(repr, jax.tree.leaves(shapes)))
            calls.setdefault(kind, (self.alone, *shapes))
        return original(self, *args, **kwargs)

    lockstep.jit.__call__ = call
    try:
        yield calls
    finally:
        lockstep.jit.__call__ = original


def _abstract(leaf):
    if not isinstance(leaf, jax.Array):
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, weak_type=getattr(leaf, "weak_type", False))
