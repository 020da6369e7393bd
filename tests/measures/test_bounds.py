"""Bounds against their formulas."""

from __future__ import annotations

import numpy as np
import pytest

from prunegen_jax.measures import bounds


def test_bounds_against_their_formulas():
    rng = np.random.default_rng(0)
    w, w0 = rng.normal(size=7), rng.normal(size=7)
    s, m, e = 0.3, 500, 1e-3
    assert bounds.pac_bayes(2.0, s, m) == pytest.approx(2.0 / (4 * 0.09) + np.log(500 / 0.3) + 10)
    assert bounds.sharpness(2.0, s, 7, m) == pytest.approx(2.0 * np.log(14) / (4 * 0.09) + np.log(500 / 0.3) + 10)
    for square in (np.sum((w - w0) ** 2), np.sum(w**2)):
        pac = sharp = np.log(m / s) + 10
        for a, b in zip(w, w0, strict=True):
            below = e**2 + s**2 * (a - b) ** 2
            pac += 0.25 * np.log((e**2 + (s**2 + 1) * square / 7) / below)
            sharp += 0.25 * np.log((e**2 + (s**2 + 4 * np.log(2 * 7 / 0.05)) * square / 7) / below)
        assert bounds.pac_bayes_magnitude(w - w0, square, s, m) == pytest.approx(pac)
        assert bounds.sharpness_magnitude(w - w0, square, s, m) == pytest.approx(sharp)
