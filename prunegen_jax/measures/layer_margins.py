"""Margins measured in the space of a layer: the normalized margins of Jiang et al. (2019)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute import evaluation, lockstep
from prunegen_jax.compute.options import check_choice
from prunegen_jax.measures.structure import hidden_activations, margin_activations, program_of
from prunegen_jax.types import Dataset, Estimate, Measure, PyTree, TrainedModel

EPSILON = 1e-6  # inside the root of a gradient's norm, as the code of Jiang et al. (2019) has it


def normalized_margins(
    model: TrainedModel,
    key: jax.Array,
    *,
    layers: tuple[str, ...] | None = None,
    keep: str = "all",
    signature: str = "quartiles",
    log: bool = False,
    compat: str | None = None,
) -> Estimate:
    """The distribution over the training set of d_l(x) / √ν_l at several layers l; value: mean over l of the median.

    d_l = (f_y − f_c) / √(10⁻⁶ + ‖∂(f_y − f_c)/∂x^l‖²), c the best class but y: the distance to the boundary in the
    space of layer l, to first order. ν_l = Σ_k Var(x^l_k), the total variance of that layer over the training set.
    `details["features"]` holds what the regression of Jiang et al. (2019) is fitted to: "layer/statistic" → number.

    Args:
        model: any.
        key: not used.
        layers: names of pre-activations: the path of the layer's kernel; or "input". Default: those of
            `structure.margin_activations`; with the quartiles at most 20 features.
        keep: "all" examples (their code), or those of "positive" margin alone (the paper).
        signature: "quartiles": `lower` = q1 − 1.5 IQR, `q1`, `median`, `q3`, `upper` = q3 + 1.5 IQR; "observed": the
            same with fences at observed points (the code of Natekar & Sharma 2020); "moments": the mean and the central
            moments of order r = 2 … 5 to the power 1/r; "deciles": the 1st to the 9th.
        log: of ln d instead, over the positive margins.
        compat: "demogen" divides by √ν_l / m, as the code of Jiang et al. (2019) does.

    Raises:
        ValueError: for an unknown option or layer, or if no margin is left.
    """
    check_choice("keep", keep, ("all", "positive"))
    check_choice("signature", signature, tuple(SIGNATURES))
    check_choice("compat", compat, (None, "demogen"))
    names = _select_layers(model, layers)
    distances, variances = layer_distances(model, names)
    features, medians = {}, []
    for name in names:
        margins = distances[name] / math.sqrt(variances[name])
        if compat == "demogen":
            margins = margins * len(model.train)
        if keep == "positive" or log:
            margins = margins[margins > 0.0]
        if not margins.size:
            raise ValueError("no training example has a positive margin")
        margins = np.log(margins) if log else margins
        medians.append(float(np.median(margins)))
        features.update({f"{name}/{k}": float(v) for k, v in SIGNATURES[signature](margins).items()})
    details = {"features": features, "layers": list(names), "examples": int(margins.size)}
    return Estimate(float(np.mean(medians)), details=details)


def layer_distances(model: TrainedModel, names: tuple[str, ...]) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """d_l(x) of every training example, float64 `[m]`, and the total variance ν_l, for each layer named."""
    features = program_of(model).features
    size, done = len(model.train), 0
    distances: dict[str, list[np.ndarray]] = {name: [] for name in names}
    means: dict[str, Any] = dict.fromkeys(names, 0.0)
    squares = dict.fromkeys(names, 0.0)
    for indices in evaluation.batches(size):
        count = min(indices.size, size - done)
        inside = (np.arange(indices.size) < count).astype(np.float32)
        gaps, norms, moments = _layer_step(features, model.params, model.train, indices, inside, names)
        for name in names:
            distance = np.asarray(gaps, np.float64) / np.sqrt(EPSILON + np.asarray(norms[name], np.float64))
            distances[name].append(distance[:count])
            mean, square = np.asarray(moments[name][0], np.float64), float(moments[name][1])
            shift = mean - means[name]  # parallel update of mean and sum of squares
            squares[name] += square + float(np.sum(np.square(shift))) * done * count / (done + count)
            means[name] = means[name] + shift * (count / (done + count))
        done += count
    return {name: np.concatenate(parts) for name, parts in distances.items()}, {n: s / size for n, s in squares.items()}


def _quartiles(margins: np.ndarray) -> dict[str, float]:
    q1, median, q3 = np.percentile(margins, [25, 50, 75])
    reach = 1.5 * (q3 - q1)
    return {"lower": q1 - reach, "q1": q1, "median": median, "q3": q3, "upper": q3 + reach}


def _observed(margins: np.ndarray) -> dict[str, float]:
    signature = _quartiles(margins)
    below, above = margins[margins < signature["lower"]], margins[margins > signature["upper"]]
    signature["lower"] = below.max() if below.size else margins.min()
    signature["upper"] = above.min() if above.size else margins.max()
    return signature


def _moments(margins: np.ndarray) -> dict[str, float]:
    centred = margins - margins.mean()
    central = {r: np.mean(centred**r) for r in range(2, 6)}
    return {"moment1": margins.mean()} | {f"moment{r}": np.sign(c) * abs(c) ** (1 / r) for r, c in central.items()}


def _deciles(margins: np.ndarray) -> dict[str, float]:
    return {f"decile{i}": value for i, value in enumerate(np.percentile(margins, np.arange(10, 100, 10)), start=1)}


SIGNATURES: dict[str, Callable[[np.ndarray], dict[str, float]]] = {
    "quartiles": _quartiles,
    "observed": _observed,
    "moments": _moments,
    "deciles": _deciles,
}


def _select_layers(model: TrainedModel, layers: tuple[str, ...] | None) -> tuple[str, ...]:
    """The layers named, or the default of `normalized_margins`."""
    if layers is None:
        return margin_activations(model)
    for name in layers:
        check_choice("layers", name, ("input", *hidden_activations(model)))
    return tuple(layers)


def class_gap(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """f_y − max_{c ≠ y} f_c, `[n]`; where classes tie for the maximum the gradient is that of the first."""
    logits = logits.astype(jnp.float32)
    own = labels[:, None] == jnp.arange(logits.shape[-1], dtype=labels.dtype)[None, :]
    other = jnp.argmax(jnp.where(own, -jnp.inf, logits), axis=-1)
    pick = functools.partial(jnp.take_along_axis, logits, axis=-1)
    return (pick(labels[:, None]) - pick(other[:, None]))[:, 0]


@functools.partial(lockstep.jit, static_argnames="names")
def _layer_step(
    features: Any, params: PyTree, data: Dataset, indices: jax.Array, inside: jax.Array, names: tuple[str, ...]
) -> tuple[jax.Array, dict[str, jax.Array], dict[str, tuple[jax.Array, jax.Array]]]:
    """Gaps, squared gradient norms and (mean, sum of squares about it) of the activations, of one batch."""
    images, labels = data.take(indices)

    def total(offsets: dict[str, jax.Array]) -> tuple[jax.Array, tuple[jax.Array, dict[str, jax.Array]]]:
        logits, activations = features(params, images, offsets=offsets)
        gaps = class_gap(logits, labels)
        return jnp.sum(gaps), (gaps, activations)

    with jax.default_matmul_precision("highest"):
        shapes = jax.eval_shape(features, params, images)[1]
        zeros = {name: jnp.zeros(shapes[name].shape, shapes[name].dtype) for name in names}
        gradients, (gaps, activations) = jax.grad(total, has_aux=True)(zeros)
    norms, moments = {}, {}
    for name in names:
        norms[name] = jnp.sum(jnp.square(gradients[name].reshape(labels.size, -1)), axis=-1)
        values = activations[name].reshape(labels.size, -1).astype(jnp.float32)
        mean = jnp.sum(values * inside[:, None], axis=0) / jnp.sum(inside)
        moments[name] = (mean, jnp.sum(jnp.square(values - mean[None, :]) * inside[:, None]))
    return gaps, norms, moments


MEASURES = {
    "normalized_margins": Measure(
        normalized_margins, -1, "margins", 4.0, "Jiang et al. 2019", (), ("permutation", "layer_scaling")
    ),
}
