"""What a run trains and is tested on: a subset of the training examples, label noise, standardised images."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute.options import check_at_least
from prunegen_jax.data.sets import Raw
from prunegen_jax.types import Dataset


class Split(NamedTuple):
    """What a run trains and is tested on, both standardised with the statistics of `train`."""

    train: Dataset
    test: Dataset
    classes: int
    fingerprint: str  # SHA-256 of the training and test examples, first 16 digits


def split(raw: Raw, *, train_size: int | None = None, label_noise: float = 0.0, seed: int = 0) -> Split:
    """A subset of the training examples, with label noise, and the whole test set.

    The subset and the noise are drawn once per `seed`; smaller subsets are contained in larger ones. Test labels stay
    as they are.

    Args:
        raw: the data set.
        train_size: n, the number of training examples; None for all.
        label_noise: the fraction of training labels that are drawn again, uniformly over all classes (so one in K
            keeps its own); exactly round(label_noise · n) are.
        seed: of the subset and the noise.

    Raises:
        ValueError: if the size, the fraction or the seed is out of range.
    """
    available = len(raw.train_labels)
    size = available if train_size is None else train_size
    if not 1 <= size <= available:
        raise ValueError(f"data.train_size={train_size} must lie between 1 and {available}, the size of the set")
    if not 0.0 <= label_noise <= 1.0:
        raise ValueError(f"data.label_noise={label_noise} must lie between 0 and 1")
    check_at_least(0, **{"data.seed": seed})
    order = np.random.default_rng((seed, 0)).permutation(available)[:size]
    images, labels = raw.train_images[order], raw.train_labels[order].copy()
    noise = np.random.default_rng((seed, 1))
    noisy = noise.permutation(size)[: round(label_noise * size)]
    labels[noisy] = noise.integers(raw.classes, size=len(noisy))
    mean, std = _statistics(images)
    digest = hashlib.sha256()
    for array in (images, labels, raw.test_images, raw.test_labels):
        digest.update(np.ascontiguousarray(array).data)

    def dataset(images: np.ndarray, labels: np.ndarray) -> Dataset:
        return Dataset(jnp.asarray(images), jnp.asarray(labels, jnp.int32), jnp.asarray(mean), jnp.asarray(std))

    test = dataset(raw.test_images, raw.test_labels)
    return Split(dataset(images, labels), test, raw.classes, digest.hexdigest()[:16])


def _statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every channel, or column, `[C]`, in float64; of images from exact integer sums."""
    channels = images.reshape(-1, images.shape[-1])
    if images.dtype != np.uint8:
        deviation = channels.std(axis=0, dtype=np.float64)
        return _as_float32(channels.mean(axis=0, dtype=np.float64), deviation)
    count = len(channels)
    counts = [np.bincount(channels[:, c], minlength=256).astype(np.float64) for c in range(channels.shape[1])]
    values = np.arange(256, dtype=np.float64)
    mean = np.array([(values * n).sum() / count for n in counts])
    var = np.array([(np.square(values - m) * n).sum() / count for n, m in zip(counts, mean, strict=True)])
    return _as_float32(mean, np.sqrt(var))


def _as_float32(mean: np.ndarray, deviation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in float32; a deviation of 0, of a constant, is 1."""
    return mean.astype(np.float32), np.where(deviation > 0, deviation, 1.0).astype(np.float32)
