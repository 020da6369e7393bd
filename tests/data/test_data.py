"""Data sets: digits, a TFDS set written here, subsets, label noise, the cache and its damage."""

from __future__ import annotations

import importlib.metadata
import io
import json
import shutil
import sys

import numpy as np
import pytest
import sklearn.datasets
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_digits

from prunegen_jax import data
from prunegen_jax.data import cache, sets
from tests.conftest import ROOT


class TinyShapes(tfds.core.GeneratorBasedBuilder):
    """Twelve random images to train on and eight to test."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"image": tfds.features.Image(shape=(6, 5, 3)), "label": tfds.features.ClassLabel(num_classes=4)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(12, 0), "test": self._generate_examples(8, 1)}

    def _generate_examples(self, count, seed):
        images, labels = tiny(count, seed)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            encoded = io.BytesIO()
            Image.fromarray(image).save(encoded, "png")
            encoded.seek(0)
            yield number, {"image": encoded, "label": int(label)}


def tiny(count, seed):
    generator = np.random.default_rng(seed)
    return generator.integers(256, size=(count, 6, 5, 3), dtype=np.uint8), generator.integers(4, size=count)


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    builder = TinyShapes(data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
    return str(folder)


def as_sorted(images, labels):
    return sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))


def test_reads_a_tfds_set(tfds_dir, tmp_path):
    raw = data.load("tiny_shapes", dir=tfds_dir, cache_dir=str(tmp_path))
    assert raw.classes == 4
    assert raw.train_images.shape == (12, 6, 5, 3)
    assert as_sorted(raw.train_images, raw.train_labels) == as_sorted(*tiny(12, 0))
    assert as_sorted(raw.test_images, raw.test_labels) == as_sorted(*tiny(8, 1))


@pytest.mark.parametrize("damage", ["truncate", "flip", "garbage"])
def test_damaged_cache_is_noticed_and_rebuilt(tfds_dir, tmp_path, damage, capsys):
    first = data.load("tiny_shapes", dir=tfds_dir, cache_dir=str(tmp_path))
    (archive,) = tmp_path.glob("*.npz")
    content = bytearray(archive.read_bytes())
    if damage == "flip":
        content[content.index(first.train_images[3].tobytes()) + 7] ^= 1
    archive.write_bytes({"truncate": content[:500], "flip": content, "garbage": b"not an archive"}[damage])
    second = data.load("tiny_shapes", dir=tfds_dir, cache_dir=str(tmp_path))
    assert "is damaged" in capsys.readouterr().err
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    data.load("tiny_shapes", dir=tfds_dir, cache_dir=str(tmp_path))
    assert capsys.readouterr().err == ""
    assert [file.suffix for file in tmp_path.iterdir()] == [".npz"]


def cached(**changes):
    """The arrays of a small decoded set, as the cache holds them."""
    images, labels = tiny(12, 0)
    arrays = {"train_images": images, "train_labels": labels.astype(np.int32)}
    arrays |= {"test_images": images[:8], "test_labels": arrays["train_labels"][:8], "classes": np.int64(4)}
    return arrays | changes


WRONG = {
    "objects": {"train_images": np.array([object()], object)},
    "lengths": {"train_labels": np.zeros(7, np.int32)},
    "type": {"train_images": np.zeros((12, 6, 5, 3), np.float64)},
    "dimensions": {"test_images": np.zeros((8, 6, 5), np.uint8)},
    "no image": {"test_images": np.zeros((0, 6, 5, 3), np.uint8), "test_labels": np.zeros(0, np.int32)},
    "shapes": {"test_images": np.zeros((8, 5, 5, 3), np.uint8)},
    "label too large": {"test_labels": np.full(8, 4, np.int32)},
    "negative label": {"train_labels": np.full(12, -1, np.int32)},
    "classes": {"classes": np.int64(10**12)},
    "broken classes": {"classes": np.float64(4)},
    "one more": {"other": np.zeros(3)},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_a_cache_that_is_no_data_set_is_damaged(change, tmp_path, capsys):
    path = tmp_path / "c.npz"
    np.savez(path, **cached())
    assert cache.read(path).classes == 4
    np.savez(path, **cached(**change))
    assert cache.read(path) is None
    assert f"{path} is damaged" in capsys.readouterr().err


def test_a_cache_allocates_no_more_than_its_file(tmp_path, capsys, monkeypatch):
    """Neither what unpacks to more than the file, nor a header that tells of more than there is."""
    bomb, liar = tmp_path / "bomb.npz", tmp_path / "liar.npz"
    np.savez_compressed(bomb, **cached(train_images=np.zeros((12, 600, 500, 3), np.uint8)))
    np.savez(liar, **cached())
    honest, false = b"'shape': (12, 6, 5, 3), }     ", b"'shape': (12, 6, 5, 300000000)}"
    content = liar.read_bytes()
    assert honest in content
    liar.write_bytes(content.replace(honest + b" ", false))
    monkeypatch.setattr(np, "load", lambda *args, **options: pytest.fail("it is read"))
    assert cache.read(bomb) is None and cache.read(liar) is None
    told = capsys.readouterr().err
    assert "its arrays are larger than the file" in told and "liar.npz is damaged" in told


def features_of(kind):
    """A features.json that names the class `evil_code.Feature`, in each form that TFDS reads."""
    named = {"pythonClassName": "evil_code.Feature", "featuresDict": {"features": {}}}
    legacy = {"type": "evil_code.Feature", "content": {}}
    ours = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
    return {
        "outermost": named,
        "inner": {"pythonClassName": ours, "featuresDict": {"features": {"image": named}}},
        "legacy": legacy,
        "json in json": {"pythonClassName": ours, "jsonFeature": {"json": json.dumps({"image": legacy})}},
    }[kind]


@pytest.mark.parametrize("kind", ["outermost", "inner", "legacy", "json in json"])
def test_a_prepared_set_runs_no_code_of_its_own(tfds_dir, tmp_path, monkeypatch, kind):
    (tmp_path / "evil_code.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(tfds_dir, tmp_path / "sets", ignore=shutil.ignore_patterns("downloads"))
    (prepared,) = (tmp_path / "sets").glob("*/*/features.json")
    evil = tmp_path / "sets" / "evil_set" / "1.0.0"
    shutil.copytree(prepared.parent, evil)
    (evil / "dataset_info.json").write_text((evil / "dataset_info.json").read_text().replace("tiny_shapes", "evil_set"))
    (evil / "features.json").write_text(json.dumps(features_of(kind)))
    sentence = "the data set 'evil_set' in .* names the class 'evil_code.Feature', which is not part of TFDS"
    with pytest.raises(ValueError, match=sentence):
        data.load("evil_set", dir=str(tmp_path / "sets"), cache_dir=str(tmp_path / "cache"))
    assert not (tmp_path / "ran").exists() and "evil_code" not in sys.modules


@pytest.mark.parametrize(
    "name", ["huggingface:glue", "../x", "/abs/x", "a/../b", "a/..", "a/b/c", "mnist:1.0.0", "Mnist", ""]
)
def test_what_is_no_name_never_reaches_tfds(name, monkeypatch):
    monkeypatch.setattr(tfds, "builder", lambda *args, **options: pytest.fail("TFDS is asked"))
    with pytest.raises(ValueError, match="is not the name of a data set"):
        data.load(name)


def test_a_set_of_several_configs(monkeypatch):
    asked = []

    def builder(name, **_):
        asked.append(name)
        raise tfds.core.DatasetNotFoundError("none")

    monkeypatch.setattr(tfds, "builder", builder)
    with pytest.raises(ValueError, match="'imagenet_resized/32x32' is unknown"):
        data.load("imagenet_resized/32x32")
    assert asked == ["imagenet_resized/32x32"]


def test_nothing_is_downloaded_unless_asked(monkeypatch):
    class Absent:
        def is_prepared(self):
            return False

        def download_and_prepare(self):
            pytest.fail("it is downloaded")

    monkeypatch.setattr(tfds, "builder", lambda *args, **options: Absent())
    with pytest.raises(FileNotFoundError, match="does not hold 'mnist', and it is not downloaded here"):
        data.load("mnist", download=False)


def test_cifar10(shared):
    raw = data.load("cifar10", dir=str(shared / "tfds"), cache_dir=str(ROOT / ".cache" / "data"))  # decoded once
    assert raw.train_images.shape == (50_000, 32, 32, 3)
    assert raw.test_images.shape == (10_000, 32, 32, 3)
    assert np.bincount(raw.train_labels).tolist() == [5000] * 10
    assert raw.train_images.mean(axis=(0, 1, 2)) / 255 == pytest.approx([0.4914, 0.4822, 0.4465], abs=2e-3)


def test_digits_come_from_the_function_if_the_file_is_not_there(monkeypatch):
    expected, calls = sets.digits(), []
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: calls.append(1) or load_digits())
    sets.digits()
    assert not calls

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    for given, wanted in zip(sets.digits(), expected, strict=True):
        np.testing.assert_array_equal(given, wanted)
    assert calls


def test_digits_are_all_there():
    raw = data.load("digits")
    pixels = np.concatenate([raw.train_images, raw.test_images])[..., 0] // 15
    labels = np.concatenate([raw.train_labels, raw.test_labels])
    theirs = load_digits()
    assert as_sorted(pixels, labels) == as_sorted(theirs.images.astype(np.uint8), theirs.target)
    assert len(raw.test_labels) == 797


def test_subsets_are_nested_and_seeded():
    raw = data.load("digits")
    small, large = (data.split(raw, train_size=n).train for n in (100, 300))
    np.testing.assert_array_equal(small.inputs, large.inputs[:100])
    other = data.split(raw, train_size=100, seed=1).train
    assert not np.array_equal(small.inputs, other.inputs)
    assert len(data.split(raw).train) == 1000


def test_inputs_are_standardised_with_the_training_statistics():
    split = data.split(data.load("digits"), train_size=200)
    inputs = np.asarray(split.train.standardise(split.train.inputs), np.float64)
    assert inputs.mean() == pytest.approx(0, abs=1e-5)
    assert inputs.std() == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(split.test.mean, split.train.mean)
    test = np.asarray(split.test.standardise(split.test.inputs))
    raw = np.asarray(split.train.inputs, np.float64)
    np.testing.assert_allclose(test, (np.asarray(split.test.inputs) - raw.mean()) / raw.std(), rtol=1e-5, atol=1e-5)


def test_label_noise():
    """Exactly round(f n) labels drawn anew, one in K of which stays by chance; drawn once per seed."""
    raw = data.load("digits")
    clean = data.split(raw).train.labels
    noisy = data.split(raw, label_noise=0.4).train.labels
    changed = int((clean != noisy).sum())
    assert abs(changed - 400 * 0.9) < 4 * np.sqrt(400 * 0.09)
    np.testing.assert_array_equal(noisy, data.split(raw, label_noise=0.4).train.labels)
    everything = np.asarray(data.split(raw, label_noise=1.0, seed=3).train.labels)
    assert np.bincount(everything, minlength=10).min() > 60
    assert abs((everything == data.split(raw, seed=3).train.labels).mean() - 0.1) < 0.04
    np.testing.assert_array_equal(data.split(raw, label_noise=0.4).test.labels, raw.test_labels)


def test_fingerprint_tells_sets_apart():
    raw = data.load("digits")
    prints = [
        data.split(raw, **o).fingerprint for o in ({}, {}, {"seed": 1}, {"train_size": 999}, {"label_noise": 0.01})
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 4


def test_clear_errors(tfds_dir, tmp_path):
    raw = data.load("digits")
    with pytest.raises(ValueError, match=r"data\.train_size=1001 must lie between 1 and 1000"):
        data.split(raw, train_size=1001)
    with pytest.raises(ValueError, match=r"data\.label_noise=1.5 must lie between 0 and 1"):
        data.split(raw, label_noise=1.5)
    with pytest.raises(ValueError, match=r"data\.name='cifar11' is unknown; choose 'digits', 'breast_cancer' or"):
        data.load("cifar11")
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        data.load("cifar10", dir=str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="does not hold 'cifar10' in array_record format"):
        data.load("cifar10", dir=tfds_dir)
