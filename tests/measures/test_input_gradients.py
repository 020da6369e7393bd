"""Input gradients against dense Jacobians."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from prunegen_jax.measures import input_gradients
from tests.support.feature_cases import KEY, trained


def test_input_gradient_norm_is_that_of_the_jacobian():
    model = trained()
    first, second = (np.asarray(model.params[name], np.float64) for name in ("first", "second"))
    norms = []
    for x in 2 * np.asarray(model.train.inputs, np.float64).reshape(30, -1) + 1:
        hidden = np.tanh(x @ first)
        p = special.softmax(hidden @ second)
        jacobian = 2 * (np.diag(p) - np.outer(p, p)) @ second.T @ np.diag(1 - hidden**2) @ first.T  # [3, 60]
        norms.append(np.linalg.norm(jacobian))
    assert input_gradients.input_gradient_norm(model, KEY).value == pytest.approx(np.mean(norms), rel=1e-4)
