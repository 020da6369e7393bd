"""The Davies–Bouldin index against scikit-learn, and its product with mixup."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

from prunegen_jax.measures import clustering, input_gradients, mixup
from prunegen_jax.networks import as_trained_model, build
from prunegen_jax.types import Dataset, TrainedModel
from tests.support.feature_cases import KEY, RNG, apply, trained


def test_davies_bouldin_index_is_scikit_learns():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x, labels = rng.normal(size=(50, 7)), rng.choice([0, 3, 5, 9], 50)
        expected = metrics.davies_bouldin_score(x, labels)
        assert clustering.davies_bouldin_index(x, labels) == pytest.approx(expected, rel=1e-12)
    assert clustering.davies_bouldin_index(np.ones((6, 2)), np.arange(6) % 2) == 0.0
    with pytest.raises(ValueError, match="two classes"):
        clustering.davies_bouldin_index(np.ones((6, 2)), np.zeros(6))


def test_davies_bouldin_of_pooled_features():
    model = trained()
    estimate = clustering.davies_bouldin(model, KEY, examples=30, draws=3)  # every draw is the whole set
    activations = 2.0 * np.asarray(model.train.inputs, np.float64) + 1.0
    pooled = activations[:, :4, :4, :].max(axis=(1, 2))  # one whole 4 × 4 window in 6 × 5 pixels
    expected = metrics.davies_bouldin_score(pooled, np.asarray(model.train.labels))
    assert estimate.value == pytest.approx(expected, rel=1e-5)
    assert estimate.sem == pytest.approx(0.0, abs=1e-6)
    assert estimate.details["layer"] == "stem/kernel"
    same = clustering.davies_bouldin(model, KEY, examples=30, draws=1, layer="input").value
    assert same == pytest.approx(expected, rel=1e-5)  # the index does not change under scale and shift


def test_davies_bouldin_takes_the_first_layer():
    """In the order in which they are computed, not that of the alphabet, which is that of the parameters."""

    def ordered(*names):
        def sequence(params, images):
            hidden = images.reshape(images.shape[0], -1)
            for name in names:
                hidden = jax.nn.relu(hidden @ params[name]["kernel"])
            return hidden

        params = {name: {"kernel": jnp.eye(60) + 0.1} for name in names}
        return TrainedModel(sequence, params, trained().train)

    def layer(*names):
        return clustering.davies_bouldin(ordered(*names), KEY, draws=2).details["layer"]

    assert layer("stem", "block0", "head") == "stem/kernel"
    assert layer("block1", "block0", "head") == "block1/kernel"
    only = clustering.MEASURES["davies_bouldin"](ordered("head"), KEY)
    assert (only.status, only.reason) == ("not_applicable", "no activation between input and logits can be read")


def test_davies_bouldin_of_the_first_convolution():
    net = build("nin", input_shape=(8, 8, 3), classes=3, depth=1, width=4)
    params, stats = net.init(KEY)
    data = Dataset(jnp.asarray(RNG.normal(size=(24, 8, 8, 3)), jnp.float32), jnp.arange(24) % 3)
    estimate = clustering.davies_bouldin(as_trained_model(net, params, stats, data), KEY, draws=1)
    pad = np.pad(np.asarray(data.inputs, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    kernel = np.asarray(params["block0_conv0"]["kernel"], np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(pad, (3, 3), axis=(1, 2))[:, ::2, ::2]  # n, 4, 4, C, 3, 3
    hidden = np.einsum("nyxcij,ijco->nyxo", windows, kernel).max(axis=(1, 2))  # one 4 × 4 window
    assert estimate.details["layer"] == "block0_conv0/kernel"
    assert estimate.value == pytest.approx(metrics.davies_bouldin_score(hidden, np.asarray(data.labels)), rel=1e-4)


def test_davies_bouldin_standard_error_is_over_draws():
    model = trained(m=200)
    found = [clustering.davies_bouldin(model, jax.random.key(i), draws=8, examples=40) for i in range(25)]
    spread = np.std([e.value for e in found], ddof=1)
    assert np.mean([e.sem for e in found]) == pytest.approx(spread, rel=0.4)


def test_product():
    model = trained()
    estimate = clustering.davies_bouldin_mixup(model, KEY)
    accuracy, cluster = estimate.details["label_wise_mixup"], estimate.details["davies_bouldin"]
    assert estimate.value == pytest.approx(accuracy * cluster)
    # every draw of 10 per class and of 120 is the whole set of 30
    assert accuracy == pytest.approx(mixup.label_wise_mixup(model, KEY).value)
    assert cluster == pytest.approx(clustering.davies_bouldin(model, KEY).value)
    fewer = clustering.davies_bouldin_mixup(model, KEY, draws=3, examples=20, per_class=5)
    assert fewer.details["draws"] == 3
    assert fewer.details["davies_bouldin"] == pytest.approx(
        clustering.davies_bouldin(model, jax.random.split(KEY)[1], draws=3, examples=20).value
    )


def test_product_has_the_standard_error_of_a_product():
    model = trained(m=300)
    found = [clustering.davies_bouldin_mixup(model, jax.random.key(i)) for i in range(25)]
    spread = np.std([e.value for e in found], ddof=1)
    assert np.mean([e.sem for e in found]) == pytest.approx(spread, rel=0.4)


def test_signs():
    """Noise on the images spreads the classes; wrong labels make midpoints wrong."""
    model = trained(m=60)
    noise = jnp.asarray(RNG.normal(size=model.train.inputs.shape) * 5, jnp.float32)
    spread = TrainedModel(apply, model.params, Dataset(model.train.inputs + noise, model.train.labels))
    assert clustering.MEASURES["davies_bouldin"].sign == 1
    assert clustering.davies_bouldin(spread, KEY).value > clustering.davies_bouldin(model, KEY).value
    predicted = jnp.argmax(apply(model.params, model.train.inputs), axis=-1).astype(jnp.int32)
    right = TrainedModel(apply, model.params, Dataset(model.train.inputs, predicted))
    assert mixup.MEASURES["label_wise_mixup"].sign == 1
    assert mixup.label_wise_mixup(right, KEY).value < mixup.label_wise_mixup(model, KEY).value
    assert clustering.MEASURES["davies_bouldin_mixup"].sign == input_gradients.MEASURES["input_gradient_norm"].sign == 1


def test_a_network_without_hidden_layers():
    linear = {"kernel": jnp.ones((60, 3))}
    model = TrainedModel(lambda p, x: x.reshape(x.shape[0], -1) @ p["kernel"], linear, trained().train)
    assert clustering.MEASURES["davies_bouldin_mixup"](model, KEY).status == "not_applicable"
    assert mixup.MEASURES["label_wise_mixup"](model, KEY).status == "ok"
    with pytest.raises(ValueError, match=r"layer='block9'.*input, stem/kernel"):
        clustering.davies_bouldin(trained(), KEY, layer="block9")
    with pytest.raises(ValueError, match="draws=0"):
        mixup.label_wise_mixup(trained(), KEY, draws=0)
