"""Further test sets: corruptions against their definitions, and a set of TFDS that has a test split alone."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from prunegen_jax import data
from prunegen_jax.data import Raw, shifts

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 6, 3)).astype(np.uint8)
LABELS = np.arange(40, dtype=np.int32) % 4
RAW = Raw(IMAGES, LABELS, IMAGES, LABELS, 4)


@pytest.mark.parametrize("kind", shifts.CORRUPTIONS)
def test_corruptions_are_repeatable_and_grow(kind):
    grey = np.clip(IMAGES, 60, 190)  # so that little is cut off at the ends
    found = [shifts.corrupt(grey, f"{kind}_{severity}") for severity in (1, 3, 5)]
    assert all(x.dtype == np.uint8 and x.shape == grey.shape for x in found)
    np.testing.assert_array_equal(found[0], shifts.corrupt(grey, f"{kind}_1_seed0"))
    if kind != "translation":
        changes = [np.abs(x.astype(int) - grey).mean() for x in found]
        assert 0 < changes[0] < changes[1] < changes[2]
    drawn = kind in {"gaussian_noise", "translation"}
    assert drawn != np.array_equal(found[0], shifts.corrupt(grey, f"{kind}_1_seed7"))


def test_noise_has_its_standard_deviation():
    found = shifts.corrupt(np.full((50, 32, 32, 3), 128, np.uint8), "gaussian_noise_3")
    difference = found.astype(float) - 128
    assert difference.mean() == pytest.approx(0, abs=0.2)
    assert difference.std() == pytest.approx(255 * 0.08, rel=0.01)


def test_contrast_by_hand():
    image = np.array([[0, 100], [200, 60]], np.uint8).reshape(1, 2, 2, 1)
    expected = [90 + 0.4 * (value - 90) for value in (0, 100, 200, 60)]
    np.testing.assert_array_equal(shifts.corrupt(image, "contrast_3").reshape(-1), np.rint(expected))


def test_blur_is_a_gaussian():
    point = np.zeros((1, 21, 21, 1), np.uint8)
    point[0, 10, 10, 0] = 255
    places = np.arange(-10, 11)
    weights = np.exp(-(places**2) / 2)
    kernel = np.outer(weights, weights) / weights.sum() ** 2
    np.testing.assert_allclose(shifts.corrupt(point, "blur_5")[0, :, :, 0], 255 * kernel, atol=0.6)
    flat = np.full((1, 5, 5, 2), 7, np.uint8)
    np.testing.assert_array_equal(shifts.corrupt(flat, "blur_5"), flat)


def test_translations_are_the_four_of_their_size():
    for severity in (1, 4):
        found = shifts.corrupt(IMAGES, f"translation_{severity}")
        padded = np.pad(IMAGES, ((0, 0), (severity, severity), (severity, severity), (0, 0)), mode="edge")
        seen = set()
        for image, wide in zip(found, padded, strict=True):
            moves = ((0, 1), (2, 1), (1, 0), (1, 2))  # in units of the severity, from the corner of the padded image
            crops = [wide[a * severity : a * severity + 8, b * severity : b * severity + 6] for a, b in moves]
            (match,) = [i for i, crop in enumerate(crops) if np.array_equal(crop, image)]
            seen.add(match)
        assert seen == {0, 1, 2, 3}


class OnlyTest(tfds.core.GeneratorBasedBuilder):
    """A set without a train split, as CIFAR-10-C and CIFAR-10.1 are."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"image": tfds.features.Image(shape=(8, 6, 3)), "label": tfds.features.ClassLabel(num_classes=4)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"test": self._generate_examples()}

    def _generate_examples(self):
        for i, image in enumerate(IMAGES):
            encoded = io.BytesIO()
            Image.fromarray(image).save(encoded, "png")
            encoded.seek(0)
            yield i, {"image": encoded, "label": int(LABELS[i])}


def test_a_tfds_set_with_a_test_split_alone(tmp_path):
    builder = OnlyTest(data_dir=str(tmp_path), file_format="array_record")
    builder.download_and_prepare()
    places = {"dir": str(tmp_path), "cache_dir": str(tmp_path / "cache")}
    for _ in range(2):  # decoded, and from the cache
        images, labels = data.load_shift("only_test", RAW, **places)
        key = [(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)]
        assert sorted(key) == sorted((image.tobytes(), int(label)) for image, label in zip(IMAGES, LABELS, strict=True))
    with pytest.raises(ValueError, match="has no train split"):
        data.load("only_test", **places)
    with pytest.raises(ValueError, match=r"data.shifts are \(8, 6, 3\) with 4 classes; they must be"):
        data.load_shift("only_test", RAW._replace(classes=5), **places)


def test_names():
    assert shifts.is_corruption("blur_5_seed12") and not shifts.is_corruption("blur_6")
    with pytest.raises(ValueError, match="unknown; it must be KIND_SEVERITY or KIND_SEVERITY_seedN, with a severity"):
        shifts.corrupt(IMAGES, "fog_1")
    with pytest.raises(ValueError, match=r"or choose a corruption: gaussian_noise_SEVERITY, blur_SEVERITY"):
        data.load_shift("no_such_set_3", RAW)
    with pytest.raises(ValueError, match=r"for images, uint8 \[N, H, W, C\], not float32"):
        shifts.corrupt(np.zeros((3, 4), np.float32), "blur_1")
