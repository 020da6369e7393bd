"""Network in Network, the architecture used in the large studies of generalization measures."""

from __future__ import annotations

import jax
from flax import linen as nn

from prunegen_jax.compute.options import check_at_least, check_choice
from prunegen_jax.networks.blocks import BatchNorm, Conv, dropout


class NiN(nn.Module):
    """`depth` blocks of (3×3 stride 2, 1×1, 1×1) convolutions of `width` channels, each with ReLU.

    Batch norm, if on, is between each convolution and its ReLU; dropout after each block. The head is a 1×1
    convolution and global average pooling, computed in the opposite order with the same result. `head="rgm"` has a ReLU
    (after batch norm) on the logits before pooling, as the code of Dziugaite et al. (2020) does.
    """

    classes: int
    depth: int = 2
    width: int = 16
    batch_norm: bool = True
    head: str = "gap"

    def __post_init__(self) -> None:
        check_at_least(1, **{"model.depth": self.depth, "model.width": self.width})
        check_choice("model.head", self.head, ("gap", "rgm"))
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False, dropout_rate: jax.Array | float = 0.0) -> jax.Array:
        """Logits `[n, K]` of images `[n, H, W, C]`."""
        hidden = images
        for block in range(self.depth):
            for i, window in enumerate((3, 1, 1)):
                name, norm = f"block{block}_conv{i}", f"block{block}_norm{i}"
                hidden = nn.relu(self._layer(hidden, self.width, window, train, name, norm))
            if train:
                hidden = dropout(self.make_rng("dropout"), hidden, dropout_rate)
        if self.head == "rgm":
            return nn.relu(self._layer(hidden, self.classes, 1, train, "head", "head_norm")).mean(axis=(1, 2))
        pooled = hidden.mean(axis=(1, 2), keepdims=True)
        return self._layer(pooled, self.classes, 1, train, "head", None)[:, 0, 0, :]

    def _layer(
        self, inputs: jax.Array, features: int, window: int, train: bool, name: str, norm: str | None
    ) -> jax.Array:
        stride, padding = (2, 1) if window == 3 else (1, 0)
        linear, bias = Conv(features, window, stride, padding, name=name)(inputs)
        if self.batch_norm and norm:
            return BatchNorm(name=norm)(linear, bias, train=train)
        return linear + bias.reshape(1, 1, 1, -1)
