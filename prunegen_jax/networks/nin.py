"""Network in Network, the family of the large studies of generalization measures."""

from __future__ import annotations

from collections.abc import Mapping

import jax
from flax import linen as nn

from prunegen_jax.networks.blocks import BatchNorm, Conv, add_bias, conv_output_size, dropout, from_layout, to_layout
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
        """The forward pass.

        Args:
            images: `[n, H, W, C]`.
            train: whether batch norm takes the batch's statistics and dropout is on.
            rate: of dropout, in training.
            key: randomness of dropout, in training.
            offsets: arrays to add to activations, by name.

        Returns:
            Logits `[n, K]`, and activations by name, in order: "input"; "block0_conv0", the pre-activation (after batch
            norm) of the first convolution; "block0", "block1", …, that of the last convolution of each block; and
            "pooled", the pooled features.
        """
        activations: dict[str, jax.Array] = {}

        def record(name: str, value: jax.Array) -> jax.Array:
            activations[name] = value + offsets[name] if offsets and name in offsets else value
            return activations[name]

        def record_hidden(name: str, value: jax.Array) -> jax.Array:
            return to_layout(record(name, from_layout(value, self.conv)), self.conv)

        hidden = to_layout(record("input", images), self.conv)
        for block in range(self.depth):
            for i, window in enumerate((3, 1, 1)):
                hidden = self._layer(
                    hidden, self.width, window, train, f"block{block}_conv{i}", f"block{block}_norm{i}"
                )
                if block == 0 and i == 0:
                    hidden = record_hidden("block0_conv0", hidden)
                if i == 2:
                    hidden = record_hidden(f"block{block}", hidden)
                hidden = nn.relu(hidden)
            if train:
                hidden = dropout(jax.random.fold_in(key, block), hidden, rate, self.conv)
        if self.head == "rgm":
            logits = nn.relu(self._layer(hidden, self.classes, 1, train, "head", "head_norm"))
            return from_layout(logits.mean(axis=(1, 2), keepdims=True), self.conv)[:, 0, 0, :], activations
        pooled = record("pooled", from_layout(hidden.mean(axis=(1, 2), keepdims=True), self.conv)[:, 0, 0, :])
        logits = self._layer(to_layout(pooled[:, None, None, :], self.conv), self.classes, 1, train, "head", None)
        return from_layout(logits, self.conv)[:, 0, 0, :], activations

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
        layers = []
        for block in range(self.depth):
            for i in range(3):
                stride, padding = (2, 1) if i == 0 else (1, 0)
                shape = (height, width, channels)
                layers.append(Layer((f"block{block}_conv{i}", "kernel"), "conv", stride, padding, shape))
                if i == 0:
                    height, width = (conv_output_size(n, window=3, stride=2, padding=1) for n in (height, width))
                channels = self.width
        head = (height, width, channels) if self.head == "rgm" else (1, 1, channels)
        return (*layers, Layer(("head", "kernel"), "conv", 1, 0, head))
