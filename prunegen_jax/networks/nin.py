"""Network in Network, the family of the large studies of generalization measures."""

from __future__ import annotations

from collections.abc import Mapping

import jax
from flax import linen as nn

from prunegen_jax.networks.blocks import BatchNorm, Conv, add_bias, conv_output_size, dropout, inward, outward
from prunegen_jax.types import Layer


class NiN(nn.Module):
    """`depth` blocks of (3×3 stride 2, 1×1, 1×1) convolutions of `width` channels, each with ReLU.

    Batch norm, if on, stands between each convolution and its ReLU; dropout after each block. The head is a 1×1
    convolution and global average pooling; the two commute, so the pooling is done first. `head="rgm"` puts a
    ReLU (after batch norm) on the logits before pooling, as the code of Dziugaite et al. (2020) does.
    """

    depth: int
    width: int
    classes: int
    batch_norm: bool
    head: str
    conv: str  # a name of `CONVOLUTIONS`; inside, activations have its layout

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        *,
        train: bool = False,
        rate: jax.Array | None = None,
        key: jax.Array | None = None,
        offsets: Mapping[str, jax.Array] | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Logits `[n, K]` and activations, in order: see below.

        The input, the pre-activation (after batch norm) of the first convolution as "block0_conv0", that of the last
        convolution of each block as "block0" and so on, and the pooled features.
        """
        activations: dict[str, jax.Array] = {}

        def mark(name: str, value: jax.Array) -> jax.Array:
            activations[name] = value + offsets[name] if offsets and name in offsets else value
            return activations[name]

        def mark_inside(name: str, value: jax.Array) -> jax.Array:
            return inward(mark(name, outward(value, self.conv)), self.conv)

        hidden = inward(mark("input", images), self.conv)
        for block in range(self.depth):
            for i, window in enumerate((3, 1, 1)):
                hidden = self._layer(
                    hidden, self.width, window, train, f"block{block}_conv{i}", f"block{block}_norm{i}"
                )
                if block == 0 and i == 0:
                    hidden = mark_inside("block0_conv0", hidden)
                if i == 2:
                    hidden = mark_inside(f"block{block}", hidden)
                hidden = nn.relu(hidden)
            if train:
                hidden = dropout(jax.random.fold_in(key, block), hidden, rate, self.conv)
        if self.head == "rgm":
            logits = nn.relu(self._layer(hidden, self.classes, 1, train, "head", "head_norm"))
            return outward(logits.mean(axis=(1, 2), keepdims=True), self.conv)[:, 0, 0, :], activations
        pooled = mark("pooled", outward(hidden.mean(axis=(1, 2), keepdims=True), self.conv)[:, 0, 0, :])
        logits = self._layer(inward(pooled[:, None, None, :], self.conv), self.classes, 1, train, "head", None)
        return outward(logits, self.conv)[:, 0, 0, :], activations

    def _layer(
        self, inputs: jax.Array, features: int, window: int, train: bool, name: str, norm: str | None
    ) -> jax.Array:
        """Convolution and, if there is one, batch norm."""
        stride, padding = (2, 1) if window == 3 else (1, 0)
        linear, bias = Conv(features, window, stride, padding, self.conv, name=name)(inputs)
        if self.batch_norm and norm:
            return BatchNorm(self.conv, name=norm)(linear, bias, train)
        return add_bias(linear, bias, self.conv)

    def layers(self, image_shape: tuple[int, int, int]) -> tuple[Layer, ...]:
        """The geometry of every kernel on images of `[H, W, C]`."""
        height, width, channels = image_shape
        found = []
        for block in range(self.depth):
            for i in range(3):
                stride, padding = (2, 1) if i == 0 else (1, 0)
                shape = (height, width, channels)
                found.append(Layer((f"block{block}_conv{i}", "kernel"), "conv", stride, padding, shape))
                if i == 0:
                    height, width = (conv_output_size(n, window=3, stride=2, padding=1) for n in (height, width))
                channels = self.width
        head = (height, width, channels) if self.head == "rgm" else (1, 1, channels)
        return (*found, Layer(("head", "kernel"), "conv", 1, 0, head))
