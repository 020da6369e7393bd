"""The PAC-Bayes and sharpness bounds of Jiang et al. (2020) as functions of the noise that a network tolerates.

Raw values C; the bound on the generalization gap is √(C / m). w are the kernel entries, ω of them, w⁰ those before
training, m the number of training examples. Numbers are those of that paper's measures. Its sharpness bounds are
written with ln(m / σ) but have no σ of their own: here α stands for it, by our reading.
"""

from __future__ import annotations

import math

import numpy as np

FLOOR = 1e-3  # ε
DELTA = 0.05  # δ of (59) and (60)


def pac_bayes(square: float, sigma: float, m: int) -> float:
    """‖·‖² / (4σ²) + ln(m / σ) + 10, with ‖w − w⁰‖² (48) or ‖w‖² (49)."""
    return square / (4 * sigma**2) + math.log(m / sigma) + 10


def sharpness(square: float, alpha: float, omega: int, m: int) -> float:
    """‖·‖² ln(2ω) / (4α²) + ln(m / α) + 10, with ‖w − w⁰‖² (51) or ‖w‖² (52); α for σ by our reading, see above."""
    return square * math.log(2 * omega) / (4 * alpha**2) + math.log(m / alpha) + 10


def pac_bayes_magnitude(away: np.ndarray, square: float, sigma: float, m: int, *, floor: float = FLOOR) -> float:
    """¼ Σ_j ln[(ε² + (σ² + 1) R²/ω) / (ε² + σ² (w_j − w_j⁰)²)] + ln(m / σ) + 10.

    `away [ω]` is w − w⁰ and `square` is R²: ‖w − w⁰‖² (56) or ‖w‖² (57). The denominator keeps w_j − w_j⁰ in both.
    """
    return _magnitude(away, (sigma**2 + 1) * square, sigma, m, floor)


def sharpness_magnitude(
    away: np.ndarray, square: float, alpha: float, m: int, *, floor: float = FLOOR, delta: float = DELTA
) -> float:
    """¼ Σ_j ln[(ε² + (α² + 4 ln(2ω/δ)) R²/ω) / (ε² + α² (w_j − w_j⁰)²)] + ln(m / α) + 10, (59) and (60).

    α for σ in the logarithm by our reading, see above.

    Raises:
        ValueError: if δ is not between 0 and 1.
    """
    if not 0.0 < delta < 1.0:
        raise ValueError(f"delta={delta} must lie between 0 and 1")
    return _magnitude(away, (alpha**2 + 4 * math.log(2 * away.size / delta)) * square, alpha, m, floor)


def _magnitude(away: np.ndarray, numerator: float, scale: float, m: int, floor: float) -> float:
    ratios = (floor**2 + numerator / away.size) / (floor**2 + scale**2 * np.square(away))
    return 0.25 * float(np.sum(np.log(ratios))) + math.log(m / scale) + 10
