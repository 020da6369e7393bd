"""A multilayer perceptron, for tables and small images."""

from __future__ import annotations

import jax
from flax import linen as nn

from prunegen_jax.compute.options import check_at_least
from prunegen_jax.networks.blocks import BatchNorm, dropout


class MLP(nn.Module):
    """`depth` hidden dense layers of `width` units, each with ReLU (after batch norm, if on) and dropout."""

    classes: int
    depth: int = 2
    width: int = 64
    batch_norm: bool = False

    def __post_init__(self) -> None:
        check_at_least(1, **{"model.depth": self.depth, "model.width": self.width})
        super().__post_init__()

    @nn.compact
    def __call__(self, inputs: jax.Array, *, train: bool = False, dropout_rate: jax.Array | float = 0.0) -> jax.Array:
        """Logits `[n, K]` of inputs `[n, ...]`."""
        hidden = inputs.reshape(inputs.shape[0], -1)
        for i in range(self.depth):
            hidden = nn.Dense(self.width, kernel_init=nn.initializers.he_normal(), name=f"dense{i}")(hidden)
            if self.batch_norm:
                hidden = BatchNorm(name=f"norm{i}")(hidden, train=train)
            hidden = nn.relu(hidden)
            if train:
                hidden = dropout(self.make_rng("dropout"), hidden, dropout_rate)
        return nn.Dense(self.classes, name="head")(hidden)
