"""Optimizers by name, without their learning rate: that is traced, so one program serves every value."""

from __future__ import annotations

import optax

OPTIMIZERS: dict[str, optax.GradientTransformation] = {
    "momentum": optax.trace(decay=0.9),
    "adam": optax.scale_by_adam(),
    "rmsprop": optax.scale_by_rms(decay=0.9),
}


def optimizer(name: str) -> optax.GradientTransformation:
    """The optimizer called `name`. ValueError for one that is not known."""
    if name not in OPTIMIZERS:
        raise ValueError(f"train.optimizer={name!r} is not known; choose among {', '.join(OPTIMIZERS)}")
    return OPTIMIZERS[name]
