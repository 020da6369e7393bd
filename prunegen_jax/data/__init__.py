"""Data sets: digits and a table of scikit-learn, any TFDS image-classification set, subsets and label noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from prunegen_jax.data import shifts, tfds
from prunegen_jax.data.sets import Raw, breast_cancer, digits
from prunegen_jax.data.splits import Split, split

__all__ = ["LOADERS", "Raw", "Split", "load", "load_shift", "split"]

# Data sets by name that TFDS does not have; add your own here.
LOADERS: dict[str, Callable[[], Raw]] = {"digits": digits, "breast_cancer": breast_cancer}


def load(name: str, *, dir: str | None = None, cache_dir: str | None = None, download: bool = True) -> Raw:
    """The data set `name`: one of `LOADERS`, or the name of a TFDS image-classification set.

    Args:
        name: "digits", "breast_cancer", or one of TFDS such as "cifar10", "cifar100", "svhn_cropped" or "mnist".
        dir: where TFDS finds its prepared sets (array_record format); None for TFDS's own default.
        cache_dir: where decoded images are kept; None for the user's cache folder.
        download: let TFDS download and prepare a set that is not there, into its default folder.

    Raises:
        ValueError: for a set that TFDS does not know or that is not one of labelled images of one size, or whose files
            name code that is not of TFDS.
        FileNotFoundError: if `dir` does not exist or does not hold the set, or it would have to be downloaded.
    """
    if name in LOADERS:
        return LOADERS[name]()
    return tfds.load(name, dir, cache_dir, download=download, others=LOADERS)


def load_shift(
    name: str, raw: Raw, *, dir: str | None = None, cache_dir: str | None = None, download: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels of a further test set: a corruption of the test images of `raw`, or another set's test split.

    Args:
        name: of a corruption, see `shifts.corrupt`, or of a data set with the same classes and shape of images.
        raw: the data set that networks were trained on.
        dir: as in `load`, as are the next two.
        cache_dir: where decoded images are kept.
        download: let TFDS download it.

    Raises:
        ValueError: for a set that is unknown or has other classes or images.
        FileNotFoundError: as `load`.
    """
    if shifts.is_corruption(name):
        return shifts.corrupt(raw.test_images, name), raw.test_labels
    other = LOADERS[name]() if name in LOADERS else _test_split(name, dir, cache_dir, download)
    ours, theirs = ((x.test_images.shape[1:], x.classes) for x in (raw, other))
    if ours != theirs:
        raise ValueError(
            f"the images of {name!r} in data.shifts are {theirs[0]} with {theirs[1]} classes; "
            f"they must be {ours[0]} with {ours[1]} classes"
        )
    return other.test_images, other.test_labels


def _test_split(name: str, dir: str | None, cache_dir: str | None, download: bool) -> Raw:
    try:
        return tfds.load(name, dir, cache_dir, download=download, others=LOADERS, test_only=True)
    except ValueError as error:
        known = ", ".join(f"{kind}_SEVERITY" for kind in shifts.CORRUPTIONS)
        raise ValueError(f"data.shifts: {error}; or choose a corruption: {known}, with severity 1 to 5") from None
