"""The five-layer convolutional network of Nakkiran et al. (2020)."""

from __future__ import annotations

import jax
from flax import linen as nn

from prunegen_jax.compute.options import check_at_least
from prunegen_jax.networks.blocks import BatchNorm, Conv


class CNN(nn.Module):
    """Four 3×3 convolutions of k, 2k, 4k and 8k channels (k = `width`), each with batch norm, ReLU and a max-pool.

    The pools are 1, 2, 2 and 8 wide; on images smaller than 32×32 the last one covers the whole feature map. A dense
    layer follows.
    """

    classes: int
    width: int = 16

    def __post_init__(self) -> None:
        check_at_least(1, **{"model.width": self.width})
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits `[n, K]` of images `[n, H, W, C]`."""
        hidden = images
        for i, pool in enumerate((1, 2, 2, 8)):
            linear, bias = Conv(self.width * 2**i, 3, padding=1, name=f"conv{i}")(hidden)
            hidden = nn.relu(BatchNorm(name=f"norm{i}")(linear, bias, train=train))
            window = tuple(min(pool, size) for size in hidden.shape[1:3])
            if window != (1, 1):
                hidden = nn.max_pool(hidden, window, strides=window)
        return nn.Dense(self.classes, name="head")(hidden.reshape(hidden.shape[0], -1))
