"""Image-classification sets of TensorFlow Datasets (TFDS), read without TensorFlow."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

from prunegen_jax.data import cache
from prunegen_jax.data.sets import Raw, check

_NAME = re.compile(r"[a-z0-9_]+(/[A-Za-z0-9_][\w.-]*)?", re.ASCII)


def load(
    name: str, dir: str | None, cache_dir: str | None, *, download: bool, others: Iterable[str], test_only: bool = False
) -> Raw:
    """The TFDS set `name`, from the cache of decoded images or decoded now.

    Args:
        name: of a set of labelled images, perhaps with /CONFIG.
        dir: where TFDS finds its prepared sets (array_record format); None for TFDS's own default.
        cache_dir: where decoded images are kept; None for the user's cache folder.
        download: let TFDS download and prepare a set that is not there, into its default folder.
        others: names of sets that are not of TFDS, for the message about an unknown name.
        test_only: the set need not have a train split; the first test example stands in for it.

    Raises:
        ValueError: for a set that TFDS does not know or that is not one of labelled images of one size, or whose files
            name code that is not of TFDS.
        FileNotFoundError: if `dir` does not exist or does not hold the set, or it would have to be downloaded.
    """
    if not _NAME.fullmatch(name):  # TFDS takes folders and code for a name
        rule = "use lower-case letters, digits and _, optionally followed by /CONFIG"
        raise ValueError(f"data.name={name!r} is not the name of a data set: {rule}")
    builder = _builder(name, dir, download=download, others=others)
    if not {"image", "label"} <= set(builder.info.features or {}):
        raise ValueError(f"data.name={name!r} is not a data set of images with one label each")
    if not test_only and "train" not in builder.info.splits:
        raise ValueError(f"data.name={name!r} has no train split; it has {list(builder.info.splits)}")
    place = cache_dir or cache.folder()
    if place is None:
        return _decode(name, builder, test_only)
    stem = f"{name.replace('/', '-')}-{_source_hash(builder)}"
    path = pathlib.Path(place) / f"{stem}{'-test' if test_only else ''}.npz"
    raw = cache.read(path)
    if raw is None:
        raw = _decode(name, builder, test_only)
        cache.write(path, raw)
    return raw


def _builder(name: str, dir: str | None, *, download: bool, others: Iterable[str]) -> Any:
    import tensorflow_datasets as tfds  # noqa: PLC0415 - slow to import, and digits do not need it

    if dir is not None and not os.path.isdir(dir):
        raise FileNotFoundError(f"data.dir={dir!r} is not a folder; it must hold data sets prepared by TFDS")
    try:
        with _only_classes_of_tfds(name, dir):
            builder = tfds.builder(name, data_dir=dir, file_format="array_record")
    except tfds.core.DatasetNotFoundError:
        known = ", ".join(map(repr, others))
        raise ValueError(
            f"data.name={name!r} is unknown; choose {known} or an image-classification set of TFDS such as "
            "'cifar10', 'cifar100', 'svhn_cropped', 'mnist' or 'fashion_mnist'"
        ) from None
    if not builder.is_prepared():
        if dir is not None:
            raise FileNotFoundError(
                f"data.dir={dir!r} does not hold {name!r} in array_record format; prepare it there with "
                f"tfds.builder({name!r}, data_dir={dir!r}, file_format='array_record').download_and_prepare()"
            )
        if not download:
            raise FileNotFoundError(f"TFDS's default folder does not hold {name!r}, and it is not downloaded here")
        builder.download_and_prepare()
    return builder


@contextlib.contextmanager
def _only_classes_of_tfds(name: str, dir: str | None) -> Iterator[None]:
    """Refuses other classes than those of TFDS, which would import, and so run, what a set's features.json names.

    The names have several forms there, also in JSON within JSON, and all reach one function.
    """
    from tensorflow_datasets.core.features import FeatureConnector  # noqa: PLC0415

    own = vars(FeatureConnector)["cls_from_name"]

    def checked(cls: type, python_class_name: str) -> type:
        if not python_class_name.startswith("tensorflow_datasets."):
            raise ValueError(
                f"features.json of the data set {name!r} in {dir or 'the default folder of TFDS'} names the class "
                f"{python_class_name!r}, which is not part of TFDS: code that comes with a data set is not run"
            )
        return own.__get__(None, cls)(python_class_name)

    FeatureConnector.cls_from_name = classmethod(checked)
    try:
        yield
    finally:
        FeatureConnector.cls_from_name = own


def _source_hash(builder: Any) -> str:
    """A digest of the files that the builder reads, so that an old cache is never taken for other files."""
    folder = pathlib.Path(builder.data_path)
    entries = sorted((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in folder.iterdir())
    return hashlib.sha256(repr((builder.info.full_name, str(folder.resolve()), entries)).encode()).hexdigest()[:16]


def _decode(name: str, builder: Any, test_only: bool) -> Raw:
    """All examples of the train and the test (or validation) split, or of the latter alone.

    Raises:
        ValueError: if they are not a data set.
    """
    classes = builder.info.features["label"].num_classes
    test = next((s for s in ("test", "validation") if s in builder.info.splits), None)
    if test is None:
        raise ValueError(f"data.name={name!r} has no test or validation split; it has {list(builder.info.splits)}")
    arrays = []
    for part in (test,) if test_only else ("train", test):
        source = builder.as_data_source(split=part)
        images, labels = [], []
        for i in tqdm(range(len(source)), desc=f"decoding {name} {part}", unit="img", disable=None, file=sys.stderr):
            example = source[i]
            images.append(example["image"])
            labels.append(example["label"])
        if len({image.shape for image in images}) != 1:
            raise ValueError(f"data.name={name!r} has images of several sizes; they must all have the same size")
        arrays += [np.stack(images).astype(np.uint8), np.asarray(labels, np.int32)]
    raw = Raw(*(x[:1] for x in arrays if test_only), *arrays, classes)
    try:
        check(raw)
    except ValueError as error:
        raise ValueError(f"data.name={name!r} cannot be used: {error}") from None
    return raw
