"""Newer measures of the function: label-wise mixup, clustering of features, their product, input gradients."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute import evaluation, lockstep
from prunegen_jax.measures.weights import check_choice
from prunegen_jax.types import Dataset, Estimate, Measure, PyTree, TrainedModel, not_applicable

PGDL = "Natekar & Sharma 2020, PGDL's first place"
FIRST = "block0_conv0"  # what our networks call the activation of their first convolution
POOL = 4  # the features are max-pooled over windows of 4 × 4


def label_wise_mixup(model: TrainedModel, key: jax.Array, *, draws: int = 10, per_class: int = 10) -> Estimate:
    """1 − a, a the accuracy on midpoints (x + x') / 2 of every two examples of one class in a draw, in [0, 1].

    Each draw takes `per_class` × K training examples; a is averaged over the draws for each class, then over classes
    in the set. That costs about `draws` × K × `per_class`² / 2 evaluations, whatever the size of the set. `sem` is over
    draws. A larger value is held to predict a larger gap.

    Raises:
        ValueError: if no draw has two examples of one class.
    """
    _check_positive(draws=draws, per_class=per_class)
    labels = np.asarray(model.train.labels)
    classes = np.unique(labels)
    picked = _draw(key, labels.size, draws, per_class * classes.size)
    pairs = [_pairs(indices, labels) for indices in picked]
    right = _midpoints_right(model, np.concatenate(pairs))
    owner = np.repeat(np.arange(draws), [len(part) for part in pairs])
    of_class = labels[np.concatenate(pairs)[:, 0]]
    table = np.full((draws, classes.size), np.nan)
    for i in range(draws):
        for j, label in enumerate(classes):
            cell = right[(owner == i) & (of_class == label)]
            table[i, j] = cell.mean() if cell.size else np.nan
    seen = ~np.isnan(table)
    if not seen.any():
        raise ValueError(f"no two examples of one class among {picked.shape[1]} drawn: label-wise mixup needs pairs")
    by_class = [table[seen[:, j], j].mean() for j in range(classes.size) if seen[:, j].any()]
    by_draw = np.array([table[i, seen[i]].mean() for i in range(draws) if seen[i].any()])
    return Estimate(1.0 - float(np.mean(by_class)), _sem(by_draw), details={"pairs": int(right.size), "draws": draws})


def davies_bouldin(
    model: TrainedModel, key: jax.Array, *, draws: int = 10, examples: int = 120, layer: str | None = None
) -> Estimate:
    """Davies–Bouldin index of the first layer's features, clustered by class; mean over draws of `examples` examples.

    (1/K) Σ_k max_{j≠k} (s_k + s_j) / ‖c_k − c_j‖, c the centroids of the classes in the draw, s the mean distance to
    them. Features: activation `layer`, max-pooled over 4 × 4 windows; default: that of the first convolution,
    "block0_conv0" of our own networks, else the first that `features` returns after the input. `sem` is over
    draws. Large: classes overlap, which is held to predict a larger gap.
    """
    _check_positive(draws=draws, examples=examples)
    assert model.features is not None  # `needs`
    names = _activation_names(model)
    hidden = [name for name in names if name not in ("input", "pooled")]
    layer = layer or (FIRST if FIRST in hidden else next(iter(hidden), None))
    if layer is None:
        return not_applicable(f"needs an activation between input and output; features has {', '.join(names)}")
    check_choice("layer", layer, names)
    labels = np.asarray(model.train.labels)
    found = []
    for indices in _draw(key, labels.size, draws, examples):
        features = _pooled_features(model.features, model.params, model.train, indices)
        found.append(davies_bouldin_index(np.asarray(features[layer], np.float64), labels[indices]))
    return Estimate(float(np.mean(found)), _sem(np.array(found)), details={"layer": layer, "draws": draws})


def davies_bouldin_mixup(
    model: TrainedModel,
    key: jax.Array,
    *,
    draws: int = 10,
    examples: int = 120,
    per_class: int = 10,
    layer: str | None = None,
) -> Estimate:
    """`davies_bouldin` · `label_wise_mixup`, the winner of the PGDL competition. `sem` by the delta method."""
    mixup_key, cluster_key = jax.random.split(key)
    cluster = davies_bouldin(model, cluster_key, draws=draws, examples=examples, layer=layer)
    if cluster.status != "ok":
        return cluster
    mixup = label_wise_mixup(model, mixup_key, draws=draws, per_class=per_class)
    sem = math.hypot(mixup.value * (cluster.sem or 0.0), cluster.value * (mixup.sem or 0.0))
    details = {"davies_bouldin": cluster.value, "label_wise_mixup": mixup.value, **cluster.details}
    return Estimate(cluster.value * mixup.value, sem, details=details)


def davies_bouldin_index(features: np.ndarray, labels: np.ndarray) -> float:
    """The Davies–Bouldin index of `features [n, F]` clustered by `labels [n]`; 0 if all centroids coincide.

    Raises:
        ValueError: for fewer than two classes.
    """
    classes = np.unique(labels)
    if classes.size < 2:
        raise ValueError("the Davies–Bouldin index takes two classes or more; got one")
    groups = [features[labels == label] for label in classes]
    centroids = np.stack([group.mean(axis=0) for group in groups])
    spread = np.array([np.linalg.norm(g - c, axis=1).mean() for g, c in zip(groups, centroids, strict=True)])
    distances = np.linalg.norm(centroids[:, None] - centroids[None, :], axis=-1)
    if np.allclose(spread, 0.0) or np.allclose(distances, 0.0):
        return 0.0
    distances[distances == 0.0] = np.inf  # also keeps a class from being compared with itself
    return float(((spread[:, None] + spread[None, :]) / distances).max(axis=1).mean())


def input_gradient_norm(model: TrainedModel, key: jax.Array) -> Estimate:
    """Mean over the training set of ‖∂ softmax(f(x)) / ∂x‖_F, x the network's input (standardized images).

    Exact, in K passes forward and back, one for each class.
    Large: the output is sensitive to the input near the data, which is held to predict a larger gap.
    """
    size = len(model.train)
    parts = [_jacobian_norms(model.apply, model.params, model.train, i) for i in evaluation.batches(size)]
    return Estimate(float(np.concatenate(parts)[:size].mean(dtype=np.float64)))


@lockstep.jit
def _jacobian_norms(apply: Any, params: PyTree, data: Dataset, indices: jax.Array) -> jax.Array:
    images, _ = data.take(indices)
    classes = jax.eval_shape(apply, params, images).shape[-1]

    def total(images: jax.Array, label: jax.Array) -> jax.Array:
        return jnp.sum(jax.nn.softmax(apply(params, images).astype(jnp.float32), axis=-1)[:, label])

    def square(label: jax.Array) -> jax.Array:  # one class at a time: K times less memory
        gradients = jax.grad(total)(images, label)
        return jnp.sum(jnp.square(gradients.reshape(indices.size, -1)), axis=-1)

    with jax.default_matmul_precision("highest"):
        return jnp.sqrt(jnp.sum(jax.lax.map(square, jnp.arange(classes)), axis=0))


@lockstep.jit
def _right(apply: Any, params: PyTree, data: Dataset, pairs: jax.Array) -> jax.Array:
    with jax.default_matmul_precision("highest"):
        first, labels = data.take(pairs[:, 0])
        second, _ = data.take(pairs[:, 1])
        return jnp.argmax(apply(params, 0.5 * (first + second)), axis=-1) == labels


def _midpoints_right(model: TrainedModel, pairs: np.ndarray) -> np.ndarray:
    if not len(pairs):
        return np.zeros(0)
    # batches of one length whatever the number of pairs, which differs from draw to draw: one program
    filled = np.arange(-(-len(pairs) // evaluation.BATCH) * evaluation.BATCH).clip(max=len(pairs) - 1)
    chunks = filled.reshape(-1, evaluation.BATCH)
    right = [np.asarray(_right(model.apply, model.params, model.train, pairs[chunk])) for chunk in chunks]
    return np.concatenate(right)[: len(pairs)].astype(np.float64)


@lockstep.jit
def _pooled_features(features: Any, params: PyTree, data: Dataset, indices: jax.Array) -> dict[str, jax.Array]:
    with jax.default_matmul_precision("highest"):
        activations = features(params, data.take(indices)[0])[1]
    pooled = {}
    for name, value in activations.items():
        if value.ndim == 4:
            window = (1, min(POOL, value.shape[1]), min(POOL, value.shape[2]), 1)
            value = jax.lax.reduce_window(value, -jnp.inf, jax.lax.max, window, window, "VALID")
        pooled[name] = value.reshape(value.shape[0], -1)
    return pooled


def _activation_names(model: TrainedModel) -> list[str]:
    """Names of the activations in the order in which `features` returns them, which what JAX returns forgets."""
    names: list[str] = []

    def trace(params: PyTree, images: jax.Array) -> None:
        names.extend(model.features(params, images)[1])

    jax.eval_shape(trace, model.params, model.train.take(np.arange(1))[0])
    return names


def _draw(key: jax.Array, size: int, draws: int, count: int) -> np.ndarray:
    """Indices `[draws, count]`, each row without repetition (all there are, if that is fewer)."""
    keys = jax.random.split(key, draws)
    return np.stack([np.asarray(jax.random.permutation(k, size))[: min(count, size)] for k in keys])


def _pairs(indices: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """All unordered pairs `[n, 2]` of distinct members of `indices` with one label."""
    first, second = np.triu_indices(indices.size, 1)
    same = labels[indices[first]] == labels[indices[second]]
    return np.stack([indices[first[same]], indices[second[same]]], axis=1)


def _sem(values: np.ndarray) -> float | None:
    return float(values.std(ddof=1) / math.sqrt(values.size)) if values.size > 1 else None


def _check_positive(**options: int) -> None:
    for name, value in options.items():
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1")


_FUNCTION = ("permutation", "neuron_scaling", "layer_scaling")
_FEATURES = ("features",)

MEASURES = {
    "label_wise_mixup": Measure(label_wise_mixup, +1, "beyond", 5.0, PGDL, (), _FUNCTION),
    "davies_bouldin": Measure(davies_bouldin, +1, "beyond", 1.2, PGDL, _FEATURES, ("permutation", "layer_scaling")),
    "davies_bouldin_mixup": Measure(
        davies_bouldin_mixup, +1, "beyond", 6.0, PGDL, _FEATURES, ("permutation", "layer_scaling")
    ),
    "input_gradient_norm": Measure(input_gradient_norm, +1, "beyond", 21.0, "Novak et al. 2018", (), _FUNCTION),
}
