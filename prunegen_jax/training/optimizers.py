"""Optimizers by name, without their learning rate: that is traced, so one program serves every value."""

from __future__ import annotations

import optax

from prunegen_jax.compute.options import check_choice

OPTIMIZERS: dict[str, optax.GradientTransformation] = {
    "momentum": optax.trace(decay=0.9),
    "adam": optax.scale_by_adam(),
    "rmsprop": optax.scale_by_rms(decay=0.9),
}


def optimizer(name: str) -> optax.GradientTransformation:
    """The optimizer called `name`.

    Raises:
        ValueError: for an unknown name.
    """
    check_choice("train.optimizer", name, OPTIMIZERS)
    return OPTIMIZERS[name]
