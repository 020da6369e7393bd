"""Data sets: the digits that ship with scikit-learn, any TFDS image-classification set, subsets and label noise."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import pathlib
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from prunegen_jax.runs import files
from prunegen_jax.types import Dataset

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "prunegen_jax"
_DIGITS_TEST = 797  # of the 1,797 digits; 1,000 are left to train on
_MOST_CLASSES = 1 << 16


class Raw(NamedTuple):
    """A data set as it is stored: uint8 images `[N, H, W, C]` and int32 labels `[N]` of both splits, K classes."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: int


class Split(NamedTuple):
    """What a run trains and is tested on, both standardised with the statistics of `train`."""

    train: Dataset
    test: Dataset
    classes: int
    fingerprint: str  # SHA-256 of the training and test examples, first 16 digits


def load(name: str, *, dir: str | None = None, cache_dir: str | None = None, download: bool = True) -> Raw:
    """The data set `name`: one of `LOADERS`, such as "digits", or the name of a TFDS image-classification set.

    Args:
        name: "digits" or, for instance, "cifar10", "cifar100", "svhn_cropped", "mnist", "fashion_mnist".
        dir: where TFDS finds its prepared sets (array_record format); None for TFDS's own default.
        cache_dir: where decoded images are kept; None for the person's cache folder.
        download: let TFDS download and prepare a set that is not there, into its default folder.

    Raises:
        ValueError: for a set that TFDS does not know or that is not one of labelled images of one size, or whose files
            name code that is not of TFDS.
        FileNotFoundError: if `dir` does not exist or does not hold the set, or it would have to be downloaded.
    """
    if name in LOADERS:
        return LOADERS[name]()
    if not re.fullmatch(r"[a-z0-9_]+(/[A-Za-z0-9_][\w.-]*)?", name, re.ASCII):  # TFDS takes folders and code for a name
        told = "small letters, digits and _ make one, perhaps with /CONFIG"
        raise ValueError(f"data.name={name!r} is no name of a data set: {told}")
    builder = _builder(name, dir, download=download)
    cache = pathlib.Path(cache_dir or CACHE) / f"{name.replace('/', '-')}-{_source_hash(builder)}.npz"
    raw = _read_cache(cache)
    if raw is None:
        raw = _decode(name, builder)
        files.write_npz(cache, raw._asdict())
    return raw


def split(raw: Raw, *, train_size: int | None = None, label_noise: float = 0.0, seed: int = 0) -> Split:
    """The training subset of `train_size` examples (None: all) with `label_noise`, and the whole test set.

    The subset and the noise are drawn once per `seed`; smaller subsets are contained in larger ones. Noise picks
    round(label_noise · n) examples and draws their labels anew, uniformly over all classes (so one in K keeps its
    own). Test labels stay as they are.

    Raises:
        ValueError: if the size or the fraction is out of range.
    """
    available = len(raw.train_labels)
    size = available if train_size is None else train_size
    if not 1 <= size <= available:
        raise ValueError(f"data.train_size={train_size} must lie between 1 and {available}, the size of the set")
    if not 0.0 <= label_noise <= 1.0:
        raise ValueError(f"data.label_noise={label_noise} must lie between 0 and 1")
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

    return Split(
        dataset(images, labels), dataset(raw.test_images, raw.test_labels), raw.classes, digest.hexdigest()[:16]
    )


def _statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every channel `[C]`, in float64 from exact integer sums."""
    channels = images.reshape(-1, images.shape[-1])
    count = len(channels)
    counts = [np.bincount(channels[:, c], minlength=256).astype(np.float64) for c in range(channels.shape[1])]
    values = np.arange(256, dtype=np.float64)
    mean = np.array([(values * n).sum() / count for n in counts])
    var = np.array([(np.square(values - m) * n).sum() / count for n, m in zip(counts, mean, strict=True)])
    return mean.astype(np.float32), np.sqrt(np.where(var > 0, var, 1.0)).astype(np.float32)


def _digits() -> Raw:
    from sklearn.datasets import load_digits  # noqa: PLC0415 - a second of imports that TFDS sets do not need

    digits = load_digits()
    images = (digits.images * 15).astype(np.uint8)[..., None]  # 0 … 16 to 0 … 240, without loss
    labels = digits.target.astype(np.int32)
    order = np.random.default_rng(0).permutation(len(labels))
    test, train = order[:_DIGITS_TEST], order[_DIGITS_TEST:]
    return Raw(images[train], labels[train], images[test], labels[test], 10)


# Data sets by name that TFDS does not have; a person's own goes here too.
LOADERS: dict[str, Callable[[], Raw]] = {"digits": _digits}


def _builder(name: str, dir: str | None, *, download: bool) -> Any:
    import tensorflow_datasets as tfds  # noqa: PLC0415 - slow to import, and digits do not need it

    if dir is not None and not os.path.isdir(dir):
        raise FileNotFoundError(f"data.dir={dir!r} is not a folder; it must hold data sets prepared by TFDS")
    try:
        with _classes_of_tfds(name, dir):
            builder = tfds.builder(name, data_dir=dir, file_format="array_record")
    except tfds.core.DatasetNotFoundError:
        ours = ", ".join(map(repr, LOADERS))
        raise ValueError(
            f"data.name={name!r} is not known; choose {ours} or an image-classification set of TFDS such as "
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
    if not {"image", "label"} <= set(builder.info.features or {}) or "train" not in builder.info.splits:
        raise ValueError(f"data.name={name!r} is not a set of images with one label each and a train split")
    return builder


@contextlib.contextmanager
def _classes_of_tfds(name: str, dir: str | None) -> Iterator[None]:
    """Refuses what else TFDS would import because the features.json of a prepared set names it: that runs its code.

    Names stand there in several forms, also in JSON within JSON, and come to one function in the end.
    """
    from tensorflow_datasets.core.features import FeatureConnector  # noqa: PLC0415

    own = vars(FeatureConnector)["cls_from_name"]

    def checked(cls: type, python_class_name: str) -> type:
        if not python_class_name.startswith("tensorflow_datasets."):
            raise ValueError(
                f"features.json of the data set {name!r} in {dir or 'the default folder of TFDS'} names the class "
                f"{python_class_name!r}, which is not of TFDS: code that a data set brings along is not run"
            )
        return own.__get__(None, cls)(python_class_name)

    FeatureConnector.cls_from_name = classmethod(checked)
    try:
        yield
    finally:
        FeatureConnector.cls_from_name = own


def _source_hash(builder: Any) -> str:
    """A name for the exact files that the builder reads, so that other files never answer from an old cache."""
    folder = pathlib.Path(builder.data_path)
    files = sorted((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in folder.iterdir())
    return hashlib.sha256(repr((builder.info.full_name, str(folder.resolve()), files)).encode()).hexdigest()[:16]


def _decode(name: str, builder: Any) -> Raw:
    classes = builder.info.features["label"].num_classes
    test = next((s for s in ("test", "validation") if s in builder.info.splits), None)
    if test is None:
        raise ValueError(f"data.name={name!r} has no test or validation split; it has {list(builder.info.splits)}")
    arrays = []
    for part in ("train", test):
        source = builder.as_data_source(split=part)
        images, labels = [], []
        for i in tqdm(range(len(source)), desc=f"decoding {name} {part}", unit="img", disable=None, file=sys.stderr):
            example = source[i]
            images.append(example["image"])
            labels.append(example["label"])
        if len({image.shape for image in images}) != 1:
            raise ValueError(f"data.name={name!r} has images of several sizes; they must all be of one")
        arrays += [np.stack(images).astype(np.uint8), np.asarray(labels, np.int32)]
    raw = Raw(*arrays, classes)
    if told := _flaw(raw):
        raise ValueError(f"data.name={name!r} cannot be used: {told}")
    return raw


def _read_cache(path: pathlib.Path) -> Raw | None:
    """The decoded set, or None if it is not there or damaged (the archive keeps a checksum of every array)."""
    if not path.exists():
        return None
    try:
        _check_sizes(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            raw = Raw(*(arrays[field] for field in Raw._fields))
        if raw.classes.shape or raw.classes.dtype.kind != "i":
            raise ValueError("classes is not a whole number")
        raw = raw._replace(classes=int(raw.classes))
        if told := _flaw(raw):
            raise ValueError(told)
    except Exception as error:  # zipfile and NumPy have many ways to say it, and the images can be decoded again
        print(f"{path} is damaged ({error}): decoding the images again", file=sys.stderr)
        return None
    return raw


def _check_sizes(path: pathlib.Path) -> None:
    """ValueError if reading the arrays of the archive at `path` would take more memory than it has bytes."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if sorted(entry.filename for entry in entries) != sorted(f"{field}.npy" for field in Raw._fields):
            raise ValueError("it does not hold the arrays of a data set")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:  # ours are not compressed
            raise ValueError("its arrays are larger than the file")
        for entry in entries:
            with archive.open(entry) as file:
                if np.lib.format.read_magic(file) != (1, 0):
                    raise ValueError(f"{entry.filename} is of another version")
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                if dtype.hasobject or math.prod(shape) * dtype.itemsize != entry.file_size - file.tell():
                    raise ValueError(f"{entry.filename} has not the size that it tells")


def _flaw(raw: Raw) -> str:
    """What keeps `raw` from being a data set, "" if nothing does."""
    if not 1 <= raw.classes <= _MOST_CLASSES:
        return f"it has {raw.classes} classes"
    for images, labels in (raw[:2], raw[2:4]):
        if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
            return f"its images are {images.dtype} of shape {images.shape}, not uint8 [N, H, W, C]"
        if labels.dtype != np.int32 or labels.shape != images.shape[:1]:
            return f"its labels are {labels.dtype} of shape {labels.shape}, not one int32 for each of {len(images)}"
        if labels.min() < 0 or labels.max() >= raw.classes:
            return f"its labels are not all among 0 to {raw.classes - 1}"
    shapes = raw.train_images.shape[1:], raw.test_images.shape[1:]
    return "" if shapes[0] == shapes[1] else f"its two splits have images of the shapes {shapes[0]} and {shapes[1]}"
