"""Clustering of a layer's features by class: the Davies–Bouldin index, and its product with label-wise mixup."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute import lockstep
from prunegen_jax.compute.options import check_at_least, check_choice
from prunegen_jax.compute.sampling import draw_subsets, mean_and_standard_error
from prunegen_jax.measures.mixup import PGDL, label_wise_mixup
from prunegen_jax.measures.structure import first_activation, hidden_activations, program_of
from prunegen_jax.types import Dataset, Estimate, Measure, PyTree, TrainedModel

POOL = 4  # the features are max-pooled over windows of 4 × 4


def davies_bouldin(
    model: TrainedModel, key: jax.Array, *, draws: int = 10, examples: int = 120, layer: str | None = None
) -> Estimate:
    """Davies–Bouldin index of the first layer's features, clustered by class; mean over draws of `examples` examples.

    (1/K) Σ_k max_{j≠k} (s_k + s_j) / ‖c_k − c_j‖, c the centroids of the classes in the draw, s the mean distance to
    them. The features are max-pooled over 4 × 4 windows. `sem` is over draws. Large: classes overlap, which is held to
    predict a larger gap.

    Args:
        model: any.
        key: draws the examples.
        draws: number of draws.
        examples: number of examples of a draw.
        layer: name of a pre-activation: the path of the layer's kernel; or "input". Default: the first layer's.

    Raises:
        ValueError: for numbers below 1, an unknown layer, or a draw with fewer than two classes.
    """
    check_at_least(1, draws=draws, examples=examples)
    layer = layer or first_activation(model)
    check_choice("layer", layer, ("input", *hidden_activations(model)))
    features_of = program_of(model).features
    labels = np.asarray(model.train.labels)
    values = []
    for indices in draw_subsets(key, labels.size, draws, examples):
        features = _pooled_features(features_of, model.params, model.train, indices)
        values.append(davies_bouldin_index(np.asarray(features[layer], np.float64), labels[indices]))
    value, sem = mean_and_standard_error(np.array(values))
    return Estimate(value, sem, details={"layer": layer, "draws": draws})


def davies_bouldin_mixup(
    model: TrainedModel,
    key: jax.Array,
    *,
    draws: int = 10,
    examples: int = 120,
    per_class: int = 10,
    layer: str | None = None,
) -> Estimate:
    """`davies_bouldin` · `label_wise_mixup`, the winner of the PGDL competition. `sem` by the delta method.

    Args:
        model: any.
        key: draws the examples.
        draws: as in `davies_bouldin` and `label_wise_mixup`.
        examples: as in `davies_bouldin`.
        per_class: as in `label_wise_mixup`.
        layer: as in `davies_bouldin`.

    Raises:
        ValueError: as `davies_bouldin` and `label_wise_mixup` do.
    """
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
        raise ValueError("the Davies–Bouldin index needs two classes or more; got one")
    groups = [features[labels == label] for label in classes]
    centroids = np.stack([group.mean(axis=0) for group in groups])
    spread = np.array([np.linalg.norm(g - c, axis=1).mean() for g, c in zip(groups, centroids, strict=True)])
    distances = np.linalg.norm(centroids[:, None] - centroids[None, :], axis=-1)
    if np.allclose(spread, 0.0) or np.allclose(distances, 0.0):
        return 0.0
    distances[distances == 0.0] = np.inf  # also keeps a class from being compared with itself
    return float(((spread[:, None] + spread[None, :]) / distances).max(axis=1).mean())


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


_INVARIANT = ("permutation", "layer_scaling")

MEASURES = {
    "davies_bouldin": Measure(davies_bouldin, +1, "beyond", 1.2, PGDL, (), _INVARIANT),
    "davies_bouldin_mixup": Measure(davies_bouldin_mixup, +1, "beyond", 6.0, PGDL, (), _INVARIANT),
}
