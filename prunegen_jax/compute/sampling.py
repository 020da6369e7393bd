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


def skewed_standard_error(samples: np.ndarray, *, resamples: int = 400) -> float | None:
    """`standard_error` of few or skewed samples, widened so that 1.96 of it cover the mean as often as they should.

    The mean and the spread of a skewed sample are small together, where the rare large values are missing. The factor
    is the 95 % quantile of |mean* − mean| / standard error* over bootstrap resamples (the studentized bootstrap, Efron
    1981), or that of Student's t if it is larger, divided by 1.96.

    Args:
        samples: independent, `[n]`.
        resamples: number of bootstrap resamples, drawn with a fixed seed.

    Returns:
        The standard error; None for fewer than two samples.
    """
    import scipy.special  # noqa: PLC0415 - slow to import, and most measures sample nothing

    plain, n = standard_error(samples), samples.size
    if plain is None or plain == 0 or not math.isfinite(plain):
        return plain
    drawn = samples[np.random.default_rng(0).integers(0, n, (resamples, n))]
    spread = drawn.std(axis=1, ddof=1) / math.sqrt(n)
    varied = spread > 1e-9 * plain  # resamples of one value say nothing
    ratio = np.abs(drawn.mean(axis=1) - samples.mean())[varied] / spread[varied]
    student = float(scipy.special.stdtrit(n - 1, 0.975))
    return plain * max(student, float(np.quantile(ratio, 0.95))) / 1.96


def draw_subsets(key: jax.Array, size: int, draws: int, count: int) -> np.ndarray:
    """`draws` random subsets of `count` of the indices 0 … `size` − 1.

    Returns:
        Indices `[draws, count]`, each row without repetition; of all indices if `count` is more than `size`.
    """
    keys = jax.random.split(key, draws)
    return np.stack([np.asarray(jax.random.permutation(k, size))[: min(count, size)] for k in keys])
