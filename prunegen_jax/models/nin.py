"""Network in Network, the family of the large studies of generalization measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
from flax import linen as nn

from prunegen_jax.models.layers import conv_output_size, dropout
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
    conv: Callable[..., jax.Array]

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

        hidden = mark("input", images)
        for block in range(self.depth):
            for i, window in enumerate((3, 1, 1)):
                hidden = self._conv(hidden, self.width, window, name=f"block{block}_conv{i}")
                hidden = self._norm(hidden, train, name=f"block{block}_norm{i}")
                if block == 0 and i == 0:
                    hidden = mark("block0_conv0", hidden)
                if i == 2:
                    hidden = mark(f"block{block}", hidden)
                hidden = nn.relu(hidden)
            if train:
                hidden = dropout(jax.random.fold_in(key, block), hidden, rate)
        if self.head == "rgm":
            logits = self._norm(self._conv(hidden, self.classes, 1, name="head"), train, name="head_norm")
            return nn.relu(logits).mean(axis=(1, 2)), activations
        pooled = mark("pooled", hidden.mean(axis=(1, 2)))
        return self._conv(pooled[:, None, None, :], self.classes, 1, name="head")[:, 0, 0, :], activations

    def _conv(self, inputs: jax.Array, features: int, window: int, *, name: str) -> jax.Array:
        stride, padding = (2, 1) if window == 3 else (1, 0)
        return nn.Conv(
            features,
            (window, window),
            strides=stride,
            padding=padding,
            kernel_init=nn.initializers.he_normal(),
            conv_general_dilated=self.conv,
            name=name,
        )(inputs)

    def _norm(self, inputs: jax.Array, train: bool, *, name: str) -> jax.Array:
        if not self.batch_norm:
            return inputs
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=BATCH_NORM_EPSILON, name=name)(inputs)


BATCH_NORM_EPSILON = 1e-5


def layers(network: NiN, image_shape: tuple[int, int, int]) -> tuple[Layer, ...]:
    """The geometry of every kernel of `network` on images of `[H, W, C]`."""
    height, width, channels = image_shape
    found = []
    for block in range(network.depth):
        for i in range(3):
            stride, padding = (2, 1) if i == 0 else (1, 0)
            shape = (height, width, channels)
            found.append(Layer((f"block{block}_conv{i}", "kernel"), "conv", stride, padding, shape))
            if i == 0:
                height, width = (conv_output_size(n, window=3, stride=2, padding=1) for n in (height, width))
            channels = network.width
    head = (height, width, channels) if network.head == "rgm" else (1, 1, channels)
    return (*found, Layer(("head", "kernel"), "conv", 1, 0, head))
