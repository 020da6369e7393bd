"""ResNet-18 of width k for small images, pre- and post-activation."""

from __future__ import annotations

import functools

import jax
from flax import linen as nn

from prunegen_jax.compute.options import check_at_least
from prunegen_jax.networks.blocks import BatchNorm

_conv = functools.partial(nn.Conv, use_bias=False, kernel_init=nn.initializers.he_normal())


class ResNet(nn.Module):
    """A 3×3 stem of k = `width` channels, four stages of two residual blocks, global average pooling, a dense layer.

    The stages have k, 2k, 4k and 8k channels and strides 1, 2, 2 and 2; k = 64 is the standard ResNet-18. A block is
    (batch norm, ReLU, 3×3 convolution) twice, as Nakkiran et al. (2020) use it (He et al. 2016b); with
    `preactivation=False` it is (3×3 convolution, batch norm, ReLU) twice, the second ReLU after the sum (He et al.
    2016a). Where the shape changes the shortcut is a 1×1 convolution, followed by batch norm in the latter form.
    """

    classes: int
    width: int = 16
    preactivation: bool = True

    def __post_init__(self) -> None:
        check_at_least(1, **{"model.width": self.width})
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits `[n, K]` of images `[n, H, W, C]`."""
        hidden = _conv(self.width, (3, 3), name="stem")(images)
        if not self.preactivation:
            hidden = nn.relu(BatchNorm(name="stem_norm")(hidden, train=train))
        block = _Preactivation if self.preactivation else _Postactivation
        for stage, stride in enumerate((1, 2, 2, 2)):
            for i in range(2):
                name = f"stage{stage}_block{i}"
                hidden = block(self.width * 2**stage, 1 if i else stride, name=name)(hidden, train)
        return nn.Dense(self.classes, name="head")(hidden.mean(axis=(1, 2)))


class _Preactivation(nn.Module):
    features: int
    stride: int

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool) -> jax.Array:
        strides = (self.stride, self.stride)
        active = nn.relu(BatchNorm(name="norm0")(inputs, train=train))
        shortcut = inputs
        if self.stride != 1 or inputs.shape[-1] != self.features:
            shortcut = _conv(self.features, (1, 1), strides=strides, name="shortcut")(active)
        hidden = _conv(self.features, (3, 3), strides=strides, padding=1, name="conv0")(active)
        hidden = nn.relu(BatchNorm(name="norm1")(hidden, train=train))
        return shortcut + _conv(self.features, (3, 3), name="conv1")(hidden)


class _Postactivation(nn.Module):
    features: int
    stride: int

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool) -> jax.Array:
        strides = (self.stride, self.stride)
        hidden = _conv(self.features, (3, 3), strides=strides, padding=1, name="conv0")(inputs)
        hidden = nn.relu(BatchNorm(name="norm0")(hidden, train=train))
        hidden = BatchNorm(name="norm1")(_conv(self.features, (3, 3), name="conv1")(hidden), train=train)
        shortcut = inputs
        if self.stride != 1 or inputs.shape[-1] != self.features:
            shortcut = _conv(self.features, (1, 1), strides=strides, name="shortcut")(inputs)
            shortcut = BatchNorm(name="shortcut_norm")(shortcut, train=train)
        return nn.relu(hidden + shortcut)
