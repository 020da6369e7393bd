"""Constrained input margins: the distance to the decision boundary along the directions in which the data vary."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute import evaluation, lockstep
from prunegen_jax.compute.options import check_at_least
from prunegen_jax.compute.sampling import standard_error
from prunegen_jax.measures.layer_margins import class_gap
from prunegen_jax.measures.structure import require_real_inputs
from prunegen_jax.types import Dataset, Estimate, Measure, PyTree, TrainedModel


def constrained_margin(
    model: TrainedModel,
    key: jax.Array,
    *,
    components: int | None = None,
    variance: float = 0.9,
    examples: int = 5000,
) -> Estimate:
    """Mean over training examples of (f_y − f_c) / ‖Pᵀ ∂(f_y − f_c)/∂x‖₂: the input margin along the data's own axes.

    c is the best class but y; the k columns of P are the first principal directions of all training inputs, in units
    of the network's inputs (Mouton et al. 2024). A larger margin should predict a smaller gap; the value is not
    negated for that, and the row of `MEASURES` has the sign −1.

    Args:
        model: any.
        key: draws the examples if there are more than `examples`.
        components: k; default: as many as it takes for the share `variance` of the inputs' total variance (our choice).
        variance: in (0, 1].
        examples: how many take part in the mean; `sem` is None if that is all of them. P is of the whole set.

    Raises:
        ValueError: for options out of range.
    """
    if not 0.0 < variance <= 1.0:
        raise ValueError(f"variance={variance} must be in (0, 1]")
    check_at_least(2, examples=examples)
    if components is not None:
        check_at_least(1, components=components)
    require_real_inputs(model)
    size = len(model.train)
    indices = np.arange(size)
    if size > examples:
        indices = np.sort(np.asarray(jax.random.choice(key, size, (examples,), replace=False)))
    basis = principal_directions(model.train, components, variance)

    def step(rows: np.ndarray) -> tuple[jax.Array, jax.Array]:
        return _input_distances(model.apply, model.params, model.train, indices[rows], basis)

    gaps, norms = (x.astype(np.float64) for x in evaluation.concatenate_batches(step, indices.size))
    flat = norms == 0.0  # the network is constant along P there: no distance
    if flat.all():
        return Estimate(math.nan, status="failed", reason="the network is constant at every example")
    margins = gaps[~flat] / norms[~flat]
    sem = standard_error(margins) if size > examples else None
    details = {"components": int(basis.shape[1]), "examples": int(margins.size), "flat_examples": int(flat.sum())}
    return Estimate(float(margins.mean()), sem, details=details)


def principal_directions(data: Dataset, components: int | None, variance: float) -> np.ndarray:
    """The first principal directions of all inputs, float32 `[D, k]`, k as `constrained_margin` says."""
    size = len(data)

    def parts() -> Iterator[np.ndarray]:  # the inputs [n, D] in float64, a batch at a time
        for start, indices in enumerate(evaluation.batches(size)):
            inputs = np.asarray(data.take(indices)[0], np.float64)[: size - start * indices.size]
            yield inputs.reshape(len(inputs), -1)

    mean = sum(x.sum(axis=0) for x in parts()) / size
    if wide := mean.size > size:
        centred = np.concatenate(list(parts())) - mean
        gram = centred @ centred.T
    else:
        gram = sum((x - mean).T @ (x - mean) for x in parts())
    values, vectors = np.linalg.eigh(gram)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    rank = max(1, int(np.sum(values > 1e-12 * values[0])))
    if components is None:
        components = 1 + int(np.searchsorted(np.cumsum(values) / values.sum(), variance - 1e-12))
    vectors = vectors[:, : min(components, rank)]
    directions = centred.T @ vectors if wide else vectors
    return (directions / np.linalg.norm(directions, axis=0)).astype(np.float32)


@lockstep.jit
def _input_distances(
    apply: Any, params: PyTree, data: Dataset, indices: jax.Array, basis: jax.Array
) -> tuple[jax.Array, jax.Array]:
    images, labels = data.take(indices)

    def total(images: jax.Array) -> tuple[jax.Array, jax.Array]:
        gaps = class_gap(apply(params, images), labels)
        return jnp.sum(gaps), gaps

    with jax.default_matmul_precision("highest"):
        gradients, gaps = jax.grad(total, has_aux=True)(images)
        return gaps, jnp.linalg.norm(jnp.dot(gradients.reshape(labels.size, -1), basis), axis=-1)


MEASURES = {
    "constrained_margin": Measure(
        constrained_margin,
        -1,
        "margins",
        6.0,  # a gradient on part of the set, and the principal directions
        "Mouton et al. 2024",
        (),
        ("permutation", "neuron_scaling", "layer_scaling"),
    ),
}
