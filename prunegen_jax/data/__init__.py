"""Data sets: digits and a table of scikit-learn, any TFDS image-classification set, subsets and label noise."""

from __future__ import annotations

from collections.abc import Callable

from prunegen_jax.data import tfds
from prunegen_jax.data.sets import Raw, breast_cancer, digits
from prunegen_jax.data.splits import Split, split

__all__ = ["LOADERS", "Raw", "Split", "load", "split"]

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
