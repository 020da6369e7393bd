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


def split_r_hat(chains: np.ndarray) -> float:
    """Split R̂ (Gelman et al. 2013): 1 if all halves of all chains have one mean, larger the more these differ.

    Args:
        chains: draws `[C, n]` of C chains, n of at least 4.

    Returns:
        √((n − 1)/n + B/(n W)), B/n the variance of the means of the 2C halves, of n draws each, and W the mean of their
        variances; infinite if no chain moves.
    """
    _, within, total = _split(chains)
    return math.sqrt(total / within) if within > 0 else math.inf


def chains_standard_error(chains: np.ndarray) -> tuple[float, float]:
    """Standard error of the mean of draws that depend on each other, `[C, n]`, and the effective number of draws.

    The effective number is 2Cn divided by 1 + 2 Σ_t ρ_t, with the autocorrelations ρ_t of all halves of chains about
    their common mean (Vehtari et al. 2021), summed as long as they are positive and fall (Geyer 1992). The standard
    error is that of so many independent draws, or that of the means of chains as independent if it is larger.
    """
    halves, within, total = _split(chains)
    if total == 0:
        return 0.0, float(chains.size)
    count, n = halves.shape
    spectrum = np.fft.rfft(halves - halves.mean(axis=1, keepdims=True), 2 * n, axis=1)
    covariances = np.fft.irfft(np.abs(spectrum) ** 2, 2 * n, axis=1)[:, :n].mean(axis=0) / (n - 1)
    correlations = 1 - (within - covariances) / total
    correlations[0] = 1
    pairs = correlations[: n // 2 * 2].reshape(-1, 2).sum(axis=1)
    ended = np.flatnonzero(pairs <= 0)
    pairs = np.minimum.accumulate(pairs[: ended[0]] if len(ended) else pairs)
    effective = count * n / max(1.0, 2 * float(pairs.sum()) - 1)
    return max(math.sqrt(total / effective), standard_error(chains.mean(axis=1)) or 0.0), effective


def _split(chains: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Halves of chains `[2C, n]`, the mean of their variances, and the variance of draws that their means add to it."""
    n = chains.shape[1] // 2
    halves = np.concatenate([chains[:, :n], chains[:, -n:]])
    within = float(halves.var(axis=1, ddof=1).mean())
    return halves, within, within * (n - 1) / n + float(halves.mean(axis=1).var(ddof=1))


def draw_subsets(key: jax.Array, size: int, draws: int, count: int) -> np.ndarray:
    """`draws` random subsets of `count` of the indices 0 … `size` − 1.

    Returns:
        Indices `[draws, count]`, each row without repetition; of all indices if `count` is more than `size`.
    """
    keys = jax.random.split(key, draws)
    return np.stack([np.asarray(jax.random.permutation(k, size))[: min(count, size)] for k in keys])
