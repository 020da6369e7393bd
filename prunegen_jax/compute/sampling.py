"""Random samples of examples, and means over samples with their standard errors."""

from __future__ import annotations

import math

import jax
import numpy as np


def standard_error(samples: np.ndarray) -> float | None:
    """Standard error of the mean of independent `samples [n]`; None for fewer than two."""
    if samples.size < 2:
        return None
    return float(samples.std(ddof=1) / math.sqrt(samples.size))


def mean_and_standard_error(samples: np.ndarray) -> tuple[float, float | None]:
    """Mean of independent `samples [n]` and its standard error, None for fewer than two."""
    return float(samples.mean()), standard_error(samples)


def draw_subsets(key: jax.Array, size: int, draws: int, count: int) -> np.ndarray:
    """`draws` random subsets of `count` of the indices 0 … `size` − 1.

    Returns:
        Indices `[draws, count]`, each row without repetition; of all indices if `count` is more than `size`.
    """
    keys = jax.random.split(key, draws)
    return np.stack([np.asarray(jax.random.permutation(k, size))[: min(count, size)] for k in keys])
