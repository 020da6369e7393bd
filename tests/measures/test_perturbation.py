"""Searches, noise robustness, PAC-Bayes flatness and bounds against closed forms and plain NumPy loops."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from prunegen_jax.measures import bounds, measure, objective, pac_bayes, perturbation, search, structure, weight_noise
from prunegen_jax.networks import as_trained_model, build
from prunegen_jax.types import Dataset, TrainedModel

KEY = jax.random.key(0)


def apply(params, images):
    hidden = jax.nn.relu(
        images.reshape(images.shape[0], -1) @ params["a"]["kernel"] + params["a"]["bias"].reshape(1, -1)
    )
    return hidden @ params["b"]["kernel"] + params["b"]["bias"].reshape(1, -1)


def network(*, seed=0, scale=1.0, examples=40):
    """A ReLU network whose answers are the labels, of loss about 0.1."""
    rng = np.random.default_rng(seed)

    def params(rng):
        shapes = {"a": (3, 5), "b": (5, 4)}
        return {
            name: {
                "kernel": jnp.asarray(1.5 * rng.normal(size=shape), jnp.float32),
                "bias": jnp.asarray(rng.normal(size=shape[1]), jnp.float32),
            }
            for name, shape in shapes.items()
        }

    trained, initial = params(rng), params(rng)
    images = jnp.asarray(2 * rng.normal(size=(examples, 1, 1, 3)), jnp.float32)
    labels = jnp.argmax(apply(trained, images), axis=-1).astype(jnp.int32)
    trained["b"] = jax.tree.map(lambda w: scale * w, trained["b"])
    return TrainedModel(apply, trained, Dataset(images, labels), init_params=initial)


def numpy_losses(model, weights):
    """Loss and error of every example in NumPy, float64, for weights by name."""
    w = {name: np.asarray(leaf, np.float64) for name, leaf in weights.items()}
    x = np.asarray(model.train.images, np.float64).reshape(len(model.train), -1)
    f = np.maximum(x @ w["a/kernel"] + w["a/bias"], 0) @ w["b/kernel"] + w["b/bias"]
    y = np.asarray(model.train.labels)
    shifted = f - f.max(axis=1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(y)), y], f.argmax(axis=1) != y


def normals(model, draw, key=KEY):
    """The standard normal vectors behind a draw, from the noise itself at scale one."""
    moved = objective.weight_function(model)
    zero = {name: jnp.zeros_like(leaf) for name, leaf in moved.weights.items()}
    noise = weight_noise.add_gaussian(
        zero, jax.random.fold_in(key, draw), jnp.float32(1.0), magnitude=False, floor=jnp.float32(0.0)
    )
    return {name: np.asarray(leaf, np.float64) for name, leaf in noise.items()}


@pytest.mark.parametrize(("start", "root"), [(1.0, 3.7), (1e-3, 3.7), (1e4, 3.7e-3)])
def test_search_finds_the_crossing_from_below(start, root):
    found = search.largest_scale(lambda x: x**2, root**2, start=start, scale_tolerance=0.01)
    assert found.low <= root <= found.high <= 1.01 * found.low
    assert found.scale == found.low
    assert found.converged
    assert found.slope() == pytest.approx(2 * root, rel=0.2)
    assert found.evaluations == len(found.history)


def test_search_of_a_step_says_that_it_jumps():
    def step(x):
        return 0.0 if x < 0.3 else 1.0

    jump = search.largest_scale(step, 0.1, start=1.0, scale_tolerance=1e-3, response_tolerance=0.01)
    assert not jump.converged
    assert jump.scale == pytest.approx(0.3, rel=1e-3) and jump.scale < 0.3
    assert search.largest_scale(step, 0.1, start=1.0, scale_tolerance=1e-3).converged
    hopeless = search.largest_scale(lambda x: 1.0, 0.1, start=1.0, scale_tolerance=0.01)
    assert (hopeless.scale, hopeless.converged) == (0.0, False)
    boundless = search.largest_scale(lambda x: 0.0, 0.1, start=1.0, scale_tolerance=0.01)
    assert boundless.high == math.inf and not boundless.converged
    nan = search.largest_scale(lambda x: math.nan if x > 2 else 0.0, 0.1, start=1.0, scale_tolerance=0.01)
    assert nan.scale == pytest.approx(2.0, rel=0.01)
    within = search.largest_scale(lambda x: x, 1.0, start=0.995, scale_tolerance=1e-3, response_tolerance=0.01)
    assert (within.scale, within.evaluations) == (0.995, 1)
    with pytest.raises(ValueError, match="start=0.0 must be positive"):
        search.largest_scale(lambda x: x, 1.0, start=0.0, scale_tolerance=0.1)


def test_bisection_of_rgm():
    tried = []

    def response(x):
        tried.append(x)
        return 0.1 * (x / 0.3)

    found = search.rgm_bisection(response, 0.1)
    assert tried == [1.0, 0.5, 0.25, 0.375, 0.3125]
    assert (found.scale, found.converged) == (0.3125, True)
    missed = search.rgm_bisection(lambda x: 0.0 if x < 1.0 else 0.5, 0.1)
    assert len(missed.history) == 15 and not missed.converged
    assert missed.scale == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("magnitude", [False, True])
def test_noise_robustness_against_a_numpy_loop(magnitude):
    model = network()
    weights = {name: np.asarray(leaf, np.float64) for name, leaf in objective.weight_function(model).weights.items()}
    draws = [normals(model, r) for r in range(6)]

    def loss(sigma):
        total = 0.0
        for u in draws:
            size = {name: np.abs(w) if magnitude else np.ones_like(w) for name, w in weights.items()}
            signed = {name: np.sign(w) if magnitude else 1.0 for name, w in weights.items()}
            moved = {name: w + sigma * size[name] * signed[name] * u[name] for name, w in weights.items()}
            total += numpy_losses(model, moved)[0].mean()
        return total / len(draws)

    limit = 1.1 * numpy_losses(model, weights)[0].mean()
    root = optimize.brentq(lambda s: loss(s) - limit, 1e-5, 0.5)
    found = perturbation.noise_robustness(model, KEY, magnitude, draws=6, scale_tolerance=0.002)
    assert found.value <= root * (1 + 1e-4)
    assert found.value == pytest.approx(root, rel=0.0025)
    assert found.details["limit"] == pytest.approx(limit, rel=1e-5)
    assert found.details["converged"]
    if magnitude:
        named = perturbation.perturbation_robustness_magnitude(model, KEY, draws=6, scale_tolerance=0.002)
        assert named.value == found.value


def test_noise_robustness_has_the_tolerance_of_prunability():
    model = network()
    base = perturbation.perturbation_robustness(model, KEY)
    dense = base.details["dense"]
    assert base.details["limit"] == pytest.approx(1.1 * dense)
    absolute = perturbation.perturbation_robustness(model, KEY, tolerance="absolute", delta=0.1 * dense)
    assert absolute.value == base.value
    assert perturbation.perturbation_robustness(model, KEY, beta=0.4).value > base.value
    with pytest.raises(ValueError, match="tolerance='ratio' is not known"):
        perturbation.perturbation_robustness(model, KEY, tolerance="ratio")
    with pytest.raises(ValueError, match="draws=1 must be at least 2"):
        perturbation.perturbation_robustness(model, KEY, draws=1)


def test_standard_errors_of_the_robustness_over_seeds():
    model = network(examples=12)
    runs = [
        perturbation.perturbation_robustness(model, jax.random.key(s), draws=10, beta=0.3, scale_tolerance=0.02)
        for s in range(50)
    ]
    values = np.array([r.value for r in runs])
    assert np.sqrt(np.mean([r.sem**2 for r in runs])) == pytest.approx(values.std(), rel=0.2)


def test_noise_has_the_distribution_it_says():
    w = {"x": jnp.concatenate([jnp.full(20000, 2.0), jnp.full(20000, -0.5), jnp.zeros(20000)])}
    plain, floored = (
        np.asarray(weight_noise.add_gaussian(w, KEY, jnp.float32(0.1), magnitude=m, floor=jnp.float32(f))["x"] - w["x"])
        for m, f in ((False, 0.0), (True, 0.3))
    )
    np.testing.assert_allclose(plain.reshape(3, -1).std(axis=1), 0.1, rtol=0.03)
    expected = np.sqrt(0.01 * np.array([4.0, 0.25, 0.0]) + 0.09)
    np.testing.assert_allclose(floored.reshape(3, -1).std(axis=1), expected, rtol=0.03)
    ours, theirs = (
        np.asarray(weight_noise.add_rgm_noise(w, KEY, jnp.float32(0.5), magnitude=m, normalized=())["x"] - w["x"])
        for m in (False, True)
    )
    np.testing.assert_allclose(ours.reshape(3, -1).std(axis=1), 0.25, rtol=0.03)  # σ² as standard deviation
    expected = 0.25 * np.array([4.0, 0.25, 0.0]) + 1e-6  # σ² w² + ε² as standard deviation
    np.testing.assert_allclose(theirs.reshape(3, -1).std(axis=1), expected, rtol=0.03)


def test_rgm_noise_in_the_neutral_batch_norm():
    """γ = 1 and β = 0 get noise too: W (1 + n) and b (1 + n) + n' per output channel."""
    w = {"l/kernel": jnp.zeros((2, 50000)), "l/bias": jnp.full(50000, 3.0)}
    noisy = weight_noise.add_rgm_noise(w, KEY, jnp.float32(0.5), magnitude=False, normalized=("l/kernel",))
    s = 0.25
    kernel = np.asarray(noisy["l/kernel"])
    assert kernel.std() == pytest.approx(s * math.sqrt(1 + s**2), rel=0.03)
    assert np.corrcoef(kernel[0] ** 2, kernel[1] ** 2)[0, 1] > 0.02  # they share γ
    bias = np.asarray(noisy["l/bias"])
    assert bias.mean() == pytest.approx(3.0, abs=0.02)
    assert bias.std() == pytest.approx(math.sqrt((9 + s**2) * (1 + s**2) - 9 + s**2), rel=0.03)


@pytest.mark.parametrize("magnitude", [False, True])
def test_sigma_against_a_numpy_loop(magnitude):
    model = network(examples=500)
    weights = {name: np.asarray(leaf, np.float64) for name, leaf in objective.weight_function(model).weights.items()}
    found, sem = pac_bayes.noise_scale(model, KEY, magnitude=magnitude)
    drop = 0.0
    for r in range(10):
        u = normals(model, r)
        std = {n: np.sqrt((found.scale * w) ** 2 + 1e-6) if magnitude else found.scale for n, w in weights.items()}
        drop += numpy_losses(model, {n: w + std[n] * u[n] for n, w in weights.items()})[1].mean() / 10
    assert found.converged
    assert abs(drop - 0.1) <= 0.01 + 1e-9  # the network itself makes no error
    assert drop == pytest.approx(found.response, abs=1e-3)
    assert 0 < sem < found.scale


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


def test_the_six_measures_share_their_scales_and_use_the_kernels_alone():
    model = network()
    names = list(pac_bayes.MEASURES)
    found = measure(model, names, key=KEY)
    scales = {name: e.details["scale"] for name, e in found.items()}
    assert len(set(scales.values())) == 2
    w = np.concatenate([np.asarray(model.params[k]["kernel"], np.float64).ravel() for k in "ab"])
    w0 = np.concatenate([np.asarray(model.init_params[k]["kernel"], np.float64).ravel() for k in "ab"])
    s, t, m = scales["pac_bayes_flatness"], scales["pac_bayes_mag_flatness"], 40
    expected = {
        "pac_bayes_flatness": 1 / s**2,
        "pac_bayes_mag_flatness": 1 / t**2,
        "pac_bayes_init": bounds.pac_bayes(np.sum((w - w0) ** 2), s, m),
        "pac_bayes_orig": bounds.pac_bayes(np.sum(w**2), s, m),
        "pac_bayes_mag_init": bounds.pac_bayes_magnitude(w - w0, np.sum((w - w0) ** 2), t, m),
        "pac_bayes_mag_orig": bounds.pac_bayes_magnitude(w - w0, np.sum(w**2), t, m),
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, rel=1e-6), name
        assert found[name].sem > 0
        one = measure(dataclasses.replace(model), [name], key=KEY)[name]  # alone: the same answer
        assert one.value == found[name].value
    root = measure(model, ["pac_bayes_init"], key=KEY, options={"pac_bayes_init": {"normalize": "sqrt_m"}})
    assert root["pac_bayes_init"].value == pytest.approx(math.sqrt(expected["pac_bayes_init"] / m))


def test_what_is_missing_or_unknown():
    model = dataclasses.replace(network(), init_params=None)
    assert pac_bayes.pac_bayes_mag_orig(model, KEY).status == "not_applicable"
    assert pac_bayes.pac_bayes_orig(model, KEY).status == "ok"
    with pytest.raises(ValueError, match="compat='paper' is not known; choose among None, none, rgm"):
        pac_bayes.pac_bayes_orig(model, KEY, compat="paper")


def test_rgm_compatibility_returns_the_root_of_the_standard_deviation():
    model = network(examples=500)
    ours, _ = pac_bayes.noise_scale(model, KEY, magnitude=False)
    theirs, _ = pac_bayes.noise_scale(model, KEY, magnitude=False, compat="rgm")
    assert theirs.converged
    assert theirs.scale**2 == pytest.approx(ours.scale, rel=0.25)


def test_only_kernels_with_a_norm_have_noise_in_it():
    net = build("nin", image_shape=(8, 8, 3), classes=4, depth=1, width=4)
    data = Dataset(jnp.ones((5, 8, 8, 3)), jnp.zeros(5, jnp.int32))
    model = as_trained_model(net, *net.init(KEY), data)
    convs = tuple(f"block0_conv{i}/kernel" for i in range(3))
    assert pac_bayes.normalized_kernels(model) == convs  # not the head
    assert pac_bayes.normalized_kernels(model.folded) == ()
    rgm = build("nin", image_shape=(8, 8, 3), classes=4, depth=1, width=4, head="rgm")
    params, stats = rgm.init(KEY)
    assert pac_bayes.normalized_kernels(as_trained_model(rgm, params, stats, data)) == (*convs, "head/kernel")
    other = {"a": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "bn": {"scale": jnp.ones(2)}}
    assert pac_bayes.normalized_kernels(dataclasses.replace(network(), params=other, init_params=None)) == ("a/kernel",)
    weights = objective.weight_function(model).weights
    plain, noisy = (
        weight_noise.add_rgm_noise(weights, KEY, jnp.float32(0.5), magnitude=False, normalized=names) for names in ((), convs)
    )
    changed = {name for name in weights if not np.array_equal(plain[name], noisy[name])}
    assert changed == {name for name in weights if name.startswith("block0")}


def test_none_is_no_compatibility():
    model = network()
    assert pac_bayes.noise_scale(model, KEY, False) == pac_bayes.noise_scale(model, KEY, False, compat="none")


def test_signs_and_what_more_robust_means():
    """The same function with twice the logits stands more noise before a label changes, in relation to its weights."""
    assert {name: row.sign for name, row in perturbation.MEASURES.items()} == {
        "perturbation_robustness": -1,
        "perturbation_robustness_magnitude": -1,
    }
    assert all(row.sign == +1 for row in pac_bayes.MEASURES.values())
    # narrow margins: examples near the boundary are lost to less noise
    sturdy = network(examples=300)
    logits = np.sort(np.asarray(apply(sturdy.params, sturdy.train.images)), axis=1)
    far = np.argsort(logits[:, -2] - logits[:, -1])
    halves = [
        dataclasses.replace(sturdy, train=Dataset(sturdy.train.images[part], sturdy.train.labels[part]))
        for part in (far[:150], far[150:])
    ]
    for name, row in pac_bayes.MEASURES.items():
        assert row(halves[0], KEY).value < row(halves[1], KEY).value, name
    for name, row in perturbation.MEASURES.items():
        options = {"tolerance": "absolute", "delta": 0.05}
        assert row(halves[0], KEY, **options).value > row(halves[1], KEY, **options).value, name


def test_scaling_units_does_not_change_noise_in_proportion():
    model = network()
    c = jnp.asarray([1.0, 4.0, 0.5, 1.0, 2.0])
    a, b = model.params["a"], model.params["b"]
    scaled = {
        "a": {"kernel": a["kernel"] * c[None, :], "bias": a["bias"] * c},
        "b": {"kernel": b["kernel"] / c[:, None], "bias": b["bias"]},
    }
    other = dataclasses.replace(model, params=scaled)
    for name, row in perturbation.MEASURES.items():
        same = row(other, KEY).value == pytest.approx(row(model, KEY).value, rel=1e-4)
        assert same == ("neuron_scaling" in row.invariant), name


def test_folded_by_default_and_a_network_beyond_help():
    net = build("nin", image_shape=(8, 8, 3), classes=4, depth=1, width=4)
    params, stats = net.init(KEY)
    stats = jax.tree.map(lambda x: 0.25 * jnp.ones_like(x), stats)
    rng = np.random.default_rng(0)
    data = Dataset(jnp.asarray(rng.normal(size=(9, 8, 8, 3)), jnp.float32), jnp.asarray(np.arange(9) % 4, jnp.int32))
    model = as_trained_model(net, params, stats, data)
    found = perturbation.perturbation_robustness(model, KEY, draws=2)
    assert found.details["folded"] is True
    assert found.value == perturbation.perturbation_robustness(model.folded, KEY, draws=2).value
    raw = perturbation.perturbation_robustness(model, KEY, draws=2, fold=False)
    assert raw.details["folded"] is False and raw.value != found.value
