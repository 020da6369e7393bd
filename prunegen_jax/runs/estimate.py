"""What training and measuring a sweep will cost, before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from prunegen_jax import measures
from prunegen_jax.compute.operations import count_operations
from prunegen_jax.runs import task
from prunegen_jax.runs.points import Point


def estimate(points: Sequence[Point], names: Sequence[str], config: ConfigDict) -> str:
    """A sentence with the floating-point operations that training `points` and measuring them will take at most.

    A gradient counts as three passes; a measure as its `cost`, on its subset if it has one.

    Args:
        points: the networks that are not trained yet.
        names: of the measures.
        config: of the run.
    """
    by_shape: dict[Any, list[Point]] = {}
    for point in points:
        by_shape.setdefault(point.shape, []).append(point)
    training = measuring = 0.0
    for same in by_shape.values():
        first = task.build_task(same[0], config)
        size, passes = len(first.split.train), 0.0
        for name in names:
            subset = config.measures.options.get(name, {}).get("subset") or size
            passes += measures.find(name).cost * min(1.0, subset / size)
        one_pass = size * _operations(first)
        measuring += len(same) * passes * one_pass
        for point in same:
            epochs, updates, batch = (point.fields[f"train.{x}"] for x in ("max_epochs", "max_updates", "batch_size"))
            training += 3 * one_pass * min(epochs, updates * batch / size)
    time = duration((training + measuring) / 1e12)
    return (
        f"{len(points)} networks to train, at most {training:.2g} floating-point operations, and {measuring:.2g} to "
        f"measure them: {time} at 1 TFLOP/s, without compilation; less if training reaches its target early"
    )


def duration(seconds: float) -> str:
    """A time in words, in the largest unit of which it has at least two."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else "less than a second"


def _operations(one: task.Task) -> int:
    """Floating-point operations of a forward pass of one example."""
    shape = one.split.train.inputs.shape[1:]
    network = task.build_network(one.point.fields, input_shape=shape, classes=one.split.classes, convolutions="xla")
    params, stats = jax.eval_shape(network.init, jax.random.key(0))
    return count_operations(network.apply, stats, params, jax.ShapeDtypeStruct((1, *shape), jnp.float32))
