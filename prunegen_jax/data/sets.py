"""Data sets as they are stored, what makes one usable, and those that ship with scikit-learn."""

from __future__ import annotations

import contextlib
import gzip
import importlib.metadata
from typing import NamedTuple

import numpy as np

_DIGITS_TEST = 797  # of the 1,797 digits; 1,000 are left to train on
_BREAST_CANCER_TEST = 169  # of the 569 rows; 400 are left to train on
_MOST_CLASSES = 1 << 16


class Raw(NamedTuple):
    """A data set as it is stored: uint8 images `[N, H, W, C]` and int32 labels `[N]` of both splits, K classes.

    One of `LOADERS` may have the rows of a table instead of images, float32 `[N, d]`.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: int


def check(raw: Raw) -> None:
    """Checks that `raw` is a data set.

    Raises:
        ValueError: if it is not; the message says why.
    """
    if not 1 <= raw.classes <= _MOST_CLASSES:
        raise ValueError(f"it has {raw.classes} classes")
    for images, labels in (raw[:2], raw[2:4]):
        if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
            raise ValueError(f"its images are {images.dtype} of shape {images.shape}, not uint8 [N, H, W, C]")
        if labels.dtype != np.int32 or labels.shape != images.shape[:1]:
            expected = f"not one int32 for each of {len(images)}"
            raise ValueError(f"its labels are {labels.dtype} of shape {labels.shape}, {expected}")
        if labels.min() < 0 or labels.max() >= raw.classes:
            raise ValueError(f"its labels are not all among 0 to {raw.classes - 1}")
    shapes = raw.train_images.shape[1:], raw.test_images.shape[1:]
    if shapes[0] != shapes[1]:
        raise ValueError(f"its two splits have images of the shapes {shapes[0]} and {shapes[1]}")


def digits() -> Raw:
    """The 1,797 handwritten digits of scikit-learn, 8 by 8 pixels: 1,000 to train on and 797 to test."""
    table = _read_digits()
    images = (table[:, :-1].reshape(-1, 8, 8) * 15).astype(np.uint8)[..., None]  # 0 … 16 to 0 … 240, without loss
    labels = table[:, -1].astype(np.int32)
    order = np.random.default_rng(0).permutation(len(labels))
    test, train = order[:_DIGITS_TEST], order[_DIGITS_TEST:]
    return Raw(images[train], labels[train], images[test], labels[test], 10)


def _read_digits() -> np.ndarray:
    """Pixels and label of every digit, `[1797, 65]`: from scikit-learn's file, since its import takes a second and a
    half in each process, or by its function if the file is not there."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, OSError):
        source = importlib.metadata.distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
        with gzip.open(source, "rt") as file:
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits  # noqa: PLC0415 - see above

    stored = load_digits()
    return np.column_stack([stored.data, stored.target])


def breast_cancer() -> Raw:
    """The 569 rows of 30 numbers of scikit-learn's breast cancer table: 400 to train on and 169 to test, 2 classes."""
    from sklearn.datasets import load_breast_cancer  # noqa: PLC0415 - a second of imports that other sets do not need

    table, labels = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    test, train = order[:_BREAST_CANCER_TEST], order[_BREAST_CANCER_TEST:]
    table, labels = table.astype(np.float32), labels.astype(np.int32)
    return Raw(table[train], labels[train], table[test], labels[test], 2)
