"""Label-wise mixup: the accuracy of a network on midpoints of training examples of one class."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute import evaluation, lockstep
from prunegen_jax.compute.options import check_at_least
from prunegen_jax.compute.sampling import draw_subsets, standard_error
from prunegen_jax.measures.structure import require_real_inputs
from prunegen_jax.types import Dataset, Estimate, Measure, PyTree, TrainedModel

PGDL = "Natekar & Sharma 2020, PGDL's first place"


def label_wise_mixup(model: TrainedModel, key: jax.Array, *, draws: int = 10, per_class: int = 10) -> Estimate:
    """1 − a, a the accuracy on midpoints (x + x') / 2 of every two examples of one class in a draw, in [0, 1].

    The accuracy a is averaged over the draws for each class, then over classes in the set. That costs about
    `draws` × K × `per_class`² / 2 evaluations, whatever the size of the set. `sem` is over draws. A larger value is
    should predict a larger gap.

    Args:
        model: any.
        key: draws the examples.
        draws: number of draws.
        per_class: each draw takes `per_class` × K training examples, K the number of classes.

    Raises:
        ValueError: for numbers below 1, or if no draw has two examples of one class.
    """
    check_at_least(1, draws=draws, per_class=per_class)
    require_real_inputs(model)
    labels = np.asarray(model.train.labels)
    classes = np.unique(labels)
    subsets = draw_subsets(key, labels.size, draws, per_class * classes.size)
    pairs = [_pairs(indices, labels) for indices in subsets]
    right = _midpoints_right(model, np.concatenate(pairs))
    draw_of_pair = np.repeat(np.arange(draws), [len(part) for part in pairs])
    class_of_pair = labels[np.concatenate(pairs)[:, 0]]
    accuracy = np.full((draws, classes.size), np.nan)  # where a draw has no pair of a class
    for i in range(draws):
        for j, label in enumerate(classes):
            cell = right[(draw_of_pair == i) & (class_of_pair == label)]
            accuracy[i, j] = cell.mean() if cell.size else np.nan
    known = ~np.isnan(accuracy)
    if not known.any():
        raise ValueError(f"no two examples of one class among {subsets.shape[1]} drawn: label-wise mixup needs pairs")
    by_class = [accuracy[known[:, j], j].mean() for j in range(classes.size) if known[:, j].any()]
    by_draw = np.array([accuracy[i, known[i]].mean() for i in range(draws) if known[i].any()])
    details = {"pairs": int(right.size), "draws": draws}
    return Estimate(1.0 - float(np.mean(by_class)), standard_error(by_draw), details=details)


@lockstep.jit
def _right(apply: Any, params: PyTree, data: Dataset, pairs: jax.Array) -> jax.Array:
    with jax.default_matmul_precision("highest"):
        first, labels = data.take(pairs[:, 0])
        second, _ = data.take(pairs[:, 1])
        return jnp.argmax(apply(params, 0.5 * (first + second)), axis=-1) == labels


def _midpoints_right(model: TrainedModel, pairs: np.ndarray) -> np.ndarray:
    """Whether the midpoint of each of the `pairs [n, 2]` gets the label of the two, float64 `[n]`."""
    if not len(pairs):
        return np.zeros(0)
    # batches of one length whatever the number of pairs, which differs from draw to draw: one program
    filled = np.arange(-(-len(pairs) // evaluation.BATCH) * evaluation.BATCH).clip(max=len(pairs) - 1)
    chunks = filled.reshape(-1, evaluation.BATCH)
    right = [np.asarray(_right(model.apply, model.params, model.train, pairs[chunk])) for chunk in chunks]
    return np.concatenate(right)[: len(pairs)].astype(np.float64)


def _pairs(indices: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """All unordered pairs `[n, 2]` of distinct members of `indices` with one label."""
    first, second = np.triu_indices(indices.size, 1)
    same = labels[indices[first]] == labels[indices[second]]
    return np.stack([indices[first[same]], indices[second[same]]], axis=1)


MEASURES = {
    "label_wise_mixup": Measure(
        label_wise_mixup, +1, "beyond", 5.0, PGDL, (), ("permutation", "neuron_scaling", "layer_scaling")
    ),
}
