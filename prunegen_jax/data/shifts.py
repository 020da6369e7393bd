"""Further test sets: corruptions of the test images, made here, and other sets with the same labels."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

# By severity 1 to 5. Noise, blur and contrast as in CIFAR-10-C (Hendrycks & Dietterich 2019).
_NOISE = (0.04, 0.06, 0.08, 0.09, 0.10)  # standard deviation, as a fraction of 255
_BLUR = (0.4, 0.6, 0.7, 0.8, 1.0)  # standard deviation of the Gaussian kernel in pixels
_CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)  # factor of the distance from an image's mean


def gaussian_noise(images: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Adds independent Gaussian noise to every value."""
    noise = rng.standard_normal(images.shape, np.float32)
    return _rounded(images + np.float32(255 * _NOISE[severity - 1]) * noise)


def blur(images: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Convolves every channel with a Gaussian of at most 4 standard deviations; the border is repeated."""
    from scipy.ndimage import gaussian_filter1d  # noqa: PLC0415 - slow to import, and few runs shift their test sets

    values = images.astype(np.float32)
    for axis in (1, 2):
        values = gaussian_filter1d(values, _BLUR[severity - 1], axis=axis, mode="nearest")
    return _rounded(values)


def contrast(images: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Draws every channel of an image towards its mean."""
    mean = images.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    return _rounded((images - mean) * _CONTRAST[severity - 1] + mean)


def translation(images: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Moves every image by `severity` pixels up, down, left or right, drawn at random; the border is repeated."""
    n, height, width, _ = images.shape
    direction = rng.integers(4, size=n)
    down = severity * ((direction == 0).astype(int) - (direction == 1))
    right = severity * ((direction == 2).astype(int) - (direction == 3))
    rows = np.clip(np.arange(height) - down[:, None], 0, height - 1)
    columns = np.clip(np.arange(width) - right[:, None], 0, width - 1)
    return images[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


CORRUPTIONS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "gaussian_noise": gaussian_noise,
    "blur": blur,
    "contrast": contrast,
    "translation": translation,
}
_NAME = re.compile(rf"({'|'.join(CORRUPTIONS)})_([1-5])(?:_seed(\d{{1,9}}))?")


def is_corruption(name: str) -> bool:
    """Whether a name is that of a corruption made here: KIND_SEVERITY or KIND_SEVERITY_seedN, of severity 1 to 5."""
    return _NAME.fullmatch(name) is not None


def corrupt(images: np.ndarray, name: str) -> np.ndarray:
    """uint8 images `[N, H, W, C]` under the corruption `name`: "blur_3", "gaussian_noise_5_seed1"; seed 0 if not given.

    Raises:
        ValueError: for images that are not uint8, or an unknown name.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        kinds = ", ".join(CORRUPTIONS)
        rule = f"KIND_SEVERITY or KIND_SEVERITY_seedN, with a severity from 1 to 5 and KIND one of {kinds}"
        raise ValueError(f"the corruption {name!r} is unknown; it must be {rule}")
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(f"the corruption {name!r} is for images, uint8 [N, H, W, C], not {images.dtype}")
    kind, severity, seed = match[1], int(match[2]), int(match[3] or 0)
    rng = np.random.default_rng((seed, list(CORRUPTIONS).index(kind)))
    return CORRUPTIONS[kind](images, severity, rng)


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
