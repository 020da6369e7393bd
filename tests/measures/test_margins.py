"""Output margins, entropy and final loss against NumPy on a linear network."""

from __future__ import annotations

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from prunegen_jax.measures import margins
from prunegen_jax.types import Dataset, TrainedModel

KEY = jax.random.key(0)


def linear(params, images):
    return images.reshape(images.shape[0], -1) @ params["kernel"]


def trained(logits, labels):
    """A network whose logits on its training set are `logits [m, K]`."""
    logits = jnp.asarray(logits, jnp.float32)
    data = Dataset(logits[:, None, None, :], jnp.asarray(labels, jnp.int32))
    return TrainedModel(linear, {"kernel": jnp.eye(logits.shape[1])}, data)


def random_case(m, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(m, classes)), rng.integers(0, classes, m)


def test_inverse_margin_by_hand():
    # margins 1, 2, ..., 19, with one negative: the first (19 // 10) smallest is the negative one
    gaps = [float(i) for i in range(2, 20)] + [-0.5]
    logits = [[0.0, gap, min(0.0, gap) - 1.0] for gap in gaps]
    estimate = margins.inverse_margin(trained(logits, [1] * 19), KEY)
    assert estimate.value == pytest.approx(1 / 0.5**2)
    assert estimate.details["margin"] == pytest.approx(-0.5)
    assert estimate.details["negative"] is True
    json.dumps(estimate.details)


@pytest.mark.parametrize("m", [10, 29, 1203])
def test_inverse_margin_is_the_code_of_the_field(m):
    logits, labels = random_case(m)
    logits[np.arange(m), labels] += 3.0
    expected = []
    for row, label in zip(logits.astype(np.float32), labels, strict=True):
        expected.append(row[label] - max(value for c, value in enumerate(row) if c != label))
    gamma = sorted(expected)[m // 10 - 1]
    model = trained(logits, labels)
    assert margins.tenth_percentile(model) == pytest.approx(gamma, rel=1e-6)
    assert margins.inverse_margin(model, KEY).value == pytest.approx(1 / gamma**2, rel=1e-5)
    root = margins.inverse_margin(model, KEY, normalize="sqrt_m").value
    assert root == pytest.approx(math.sqrt(1 / gamma**2 / m), rel=1e-5)


def test_a_margin_of_zero_and_too_few_examples():
    assert margins.inverse_margin(trained([[1.0, 1.0]] * 10, [0] * 10), KEY).value == math.inf
    with pytest.raises(ValueError, match="10 training examples or more; got 9"):
        margins.inverse_margin(trained([[1.0, 0.0]] * 9, [0] * 9), KEY)


def test_negative_output_entropy():
    logits, labels = random_case(77)
    p = special.softmax(logits.astype(np.float32).astype(np.float64), axis=1)
    expected = -special.entr(p).sum(axis=1).mean()
    value = margins.negative_output_entropy(trained(logits, labels), KEY).value
    assert value == pytest.approx(expected, rel=1e-5)
    assert value < 0
    flat = margins.negative_output_entropy(trained(np.zeros((12, 5)), [0] * 12), KEY).value
    assert flat == pytest.approx(-math.log(5), rel=1e-6)
    sure = margins.negative_output_entropy(trained(np.eye(5)[[1] * 12] * 1e4, [0] * 12), KEY).value
    assert sure == 0.0  # no 0 · ln 0


def test_training_cross_entropy():
    logits, labels = random_case(501)
    expected = (special.logsumexp(logits, axis=1) - logits[np.arange(501), labels]).mean()
    assert margins.training_cross_entropy(trained(logits, labels), KEY).value == pytest.approx(expected, rel=1e-6)


def test_signs():
    """Pushing every example away from its boundary lowers what is held to predict a larger gap, or it is a warning."""
    logits, labels = random_case(40)
    logits[np.arange(40), labels] += 5.0
    near, far = trained(logits, labels), trained(2.0 * logits, labels)
    assert margins.MEASURES["inverse_margin"].sign == 1
    assert margins.inverse_margin(far, KEY).value < margins.inverse_margin(near, KEY).value
    assert margins.MEASURES["training_cross_entropy"].sign == 1
    assert margins.training_cross_entropy(far, KEY).value < margins.training_cross_entropy(near, KEY).value
    # confidence is held to be a sign of overfitting (Pereyra et al. 2017)
    assert margins.MEASURES["negative_output_entropy"].sign == 1
    assert margins.negative_output_entropy(far, KEY).value > margins.negative_output_entropy(near, KEY).value


def test_confidence_by_hand():
    """Softmax of two logits by the logistic function; the surest example wrong."""
    gaps, labels = np.array([2.0, -1.0, 0.5]), [0, 0, 0]
    model = trained(np.stack([gaps, np.zeros(3)], axis=1), labels)
    confidence = special.expit(np.abs(gaps))
    assert margins.training_confidence(model, KEY).value == pytest.approx(confidence.mean(), rel=1e-6)
    estimate = margins.training_calibration_error(model, KEY, bins=10)  # .88 right, .73 wrong, .62 right: a bin each
    expected = ((1 - confidence[0]) + confidence[1] + (1 - confidence[2])) / 3
    assert estimate.value == pytest.approx(expected, rel=1e-6)
    assert estimate.details["overconfidence"] == pytest.approx(confidence.mean() - 2 / 3, rel=1e-6)
    whole = margins.training_calibration_error(model, KEY, bins=1)
    assert whole.value == pytest.approx(abs(confidence.mean() - 2 / 3), rel=1e-6)
    with pytest.raises(ValueError, match="bins=0 must be at least 1"):
        margins.training_calibration_error(model, KEY, bins=0)


def test_calibration_error_is_a_loop_over_bins():
    logits, labels = random_case(1203)
    p = special.softmax(3 * logits, axis=1)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == labels
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    found = margins.training_calibration_error(trained(3 * logits, labels), KEY)
    assert found.value == pytest.approx(expected, rel=1e-5)
    assert margins.training_confidence(trained(3 * logits, labels), KEY).value == pytest.approx(confidence.mean())
