"""McAllester's (2013) PAC-Bayes bound for dropped weights: the theory behind random prunability.

Q: weights s ∘ (w + ε), with masks s_j = 0 with probability a (else 1) and ε ∼ N(0, σ²), all of them independent. The
prior is the same with w replaced by 0 (or by the initial weights w⁰), so KL(Q‖P) = (1 − a) ‖w − prior‖² / (2σ²). For a
loss in [0, L], λ > ½ fixed in advance, with probability 1 − δ over the draw of m training examples,

    L(Q) ≤ (L̂(Q) + (λ L / m) (KL(Q‖P) + ln(1/δ))) / (1 − 1/(2λ)).

What is certified: with probability at least 1 − δ over the training sample and the draws of the estimate, the expected
loss min(ℓ, L) on new examples of the *randomised* network s ∘ (w + ε) is at most the value, for the best (a, σ, λ) of
the grids; these must be chosen before the data are seen. δ/2 is spent on the bound, over all (a, σ, λ), and δ/2 on
L̂(Q), over all (a, σ): the training set is split into `draws` parts, each evaluated with weights of its own drawn from
Q, and the mean replaced by its upper confidence limit (inverse of the binary KL; Hoeffding 1963 has it for independent
parts of different means). Nothing is certified of the network without noise, of magnitude pruning, of the loss beyond
L, or of examples that are not drawn as the training examples were; and images are taken as they are after
standardisation. Every parameter is in Q, biases too: one that were not would make the KL infinite. So the network must
have no batch norm left in it; what is bound in `apply` counts as fixed before the data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute import lockstep, trees
from prunegen_jax.compute.evaluation import cross_entropy
from prunegen_jax.compute.options import check_choice
from prunegen_jax.measures import structure
from prunegen_jax.types import Dataset, Estimate, Measure, PyTree, TrainedModel, not_applicable

RATES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
SIGMAS = (0.01, 0.03, 0.1, 0.3, 1.0)
LAMBDAS = (0.6, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)


def pac_bayes_dropout(
    model: TrainedModel,
    key: jax.Array,
    *,
    rates: Sequence[float] = RATES,
    sigmas: Sequence[float] = SIGMAS,
    lambdas: Sequence[float] = LAMBDAS,
    clip: float = 4.0,
    confidence: float = 0.05,
    draws: int = 128,
    prior: str = "zero",
    fold: bool = True,
) -> Estimate:
    """The smallest bound (nats, loss clipped at L = `clip`) over drop rates a, noise σ and λ.

    Details: the best "rate", "sigma" and "lambda", its "kl", "training_loss" L̂(Q) as estimated and
    its upper limit, the bound with the estimate "plugged_in" (not certified), and whether it is "vacuous" (above L).
    All σ and a share their normal and uniform variates, which depend on the key alone.

    Args:
        model: any.
        key: randomness of the draws.
        rates: the grid of drop rates a.
        sigmas: the grid of σ.
        lambdas: the grid of λ.
        clip: L.
        confidence: δ.
        draws: number of parts of the training set, each evaluated with weights of its own.
        prior: "zero", or "init" for the initial weights.
        fold: fold batch norm into the weights first.

    Raises:
        ValueError: for grids that are empty or out of range, an unknown prior, δ or L out of range, no draws.
    """
    check_choice("prior", prior, ("zero", "init"))
    _check(rates, sigmas, lambdas, clip, confidence, draws)
    network = structure.select_network(model, fold=fold)
    needs = "needs a network without normalization layers, all of whose parameters are weights"
    if behind := structure.normalized_kernels(network):
        return not_applicable(f"{needs}; one is behind {behind[0]}: fold them (fold=True)")
    if left := structure.affine_leftovers(network):
        return not_applicable(f"{needs}; {left[0]} scales or shifts what is not the output of one layer")
    if prior == "init" and network.init_params is None:
        return structure.NO_INITIAL_WEIGHTS
    centre = network.init_params if prior == "init" else jax.tree.map(jnp.zeros_like, network.params)
    square = trees.squared_norm(trees.subtract(network.params, centre))
    m, pairs = len(network.train), len(rates) * len(sigmas)
    parts = np.array_split(np.arange(m), min(draws, m))
    risk = math.log(2 * pairs / confidence) / len(parts)
    tail = math.log(2 * pairs * len(lambdas) / confidence)
    best: dict[str, float] = {"bound": math.inf}
    for rate in rates:
        for sigma in sigmas:
            means = clipped_losses(network, parts, key, rate, sigma, clip)
            loss, sem = float(means.sum()), float(means.std(ddof=1) * math.sqrt(len(parts))) if len(parts) > 1 else 0.0
            kl = (1 - rate) * square / (2 * sigma**2)
            for lam in lambdas:
                plain, value, above = (
                    mcallester(x, kl + tail, lam, clip, m)
                    for x in (loss, *(upper_limit(y, parts, clip, risk) for y in (loss, min(loss + sem, clip))))
                )
                if value < best["bound"]:
                    best = {"bound": value, "sem": above - value, "plugged_in": plain, "training_loss": loss}
                    best |= {"rate": rate, "sigma": sigma, "lambda": lam, "kl": kl}
    bound, sem = best.pop("bound"), best.pop("sem")
    details = {**best, "folded": structure.is_folded(model, fold=fold), "clip": clip, "confidence": confidence}
    return Estimate(bound, sem, details={**details, "vacuous": bound >= clip})


def mcallester(loss: float, penalty: float, lam: float, clip: float, m: int) -> float:
    """(L̂(Q) + λ L · `penalty` / m) / (1 − 1/(2λ)), `penalty` = KL(Q‖P) + ln(1/δ)."""
    return (loss + lam * clip * penalty / m) / (1 - 1 / (2 * lam))


def upper_limit(loss: float, parts: Sequence[np.ndarray], clip: float, budget: float) -> float:
    """Upper confidence limit of the mean loss from independent parts of the data, which differ by one in size.

    Each part's sum over the largest part's size, over L, lies in [0, 1]; their mean is `loss` times a known factor.
    """
    factor = sum(map(len, parts)) / (len(parts) * max(map(len, parts)))
    return min(clip * inverse_kl(min(loss * factor / clip, 1.0), budget) / factor, clip)


def inverse_kl(mean: float, budget: float) -> float:
    """max { q : kl(mean ‖ q) ≤ `budget` } of Bernoulli means in [0, 1]: an upper confidence limit of a mean.

    For n draws in [0, 1] with that mean, and `budget` = ln(1/δ) / n, the expectation is at most q with probability
    1 − δ (Chernoff; Hoeffding 1963).
    """

    def divergence(q: float) -> float:
        with np.errstate(divide="ignore"):
            left = 0.0 if mean == 0 else mean * (math.log(mean) - math.log(q))
            return left + (0.0 if mean == 1 else (1 - mean) * (math.log1p(-mean) - np.log1p(-q)))

    low, high = mean, 1.0
    for _ in range(100):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if divergence(max(middle, 1e-300)) <= budget else (low, middle)
    return high


def clipped_losses(
    network: TrainedModel, parts: Sequence[np.ndarray], key: jax.Array, rate: float, sigma: float, clip: float
) -> np.ndarray:
    """Σ_i min(ℓ_i, L) / m over each part of the data, with weights of its own drawn from Q, `[parts]`."""
    longest = max(map(len, parts))
    indices = np.stack([np.pad(part, (0, longest - len(part)), mode="edge") for part in parts])
    numbers = [jnp.float32(x) for x in (rate, sigma, clip)]
    losses = _clipped(network.apply, network.params, network.train, indices, key, *numbers)
    used = np.stack([np.arange(longest) < len(part) for part in parts])
    return np.sum(np.asarray(losses, np.float64) * used, axis=1) / used.sum()


@lockstep.jit
def _clipped(
    apply: Any, params: PyTree, data: Dataset, indices: Any, key: jax.Array, rate: Any, sigma: Any, clip: Any
) -> jax.Array:
    def one(part: tuple[jax.Array, jax.Array]) -> jax.Array:
        number, chosen = part
        images, labels = data.take(chosen)
        logits = apply(_draw(params, jax.random.fold_in(key, number), rate, sigma), images).astype(jnp.float32)
        losses = cross_entropy(logits, labels)
        return jnp.where(jnp.isfinite(losses), jnp.minimum(losses, clip), clip)

    with jax.default_matmul_precision("highest"):
        return jax.lax.map(one, (jnp.arange(indices.shape[0]), indices))


def _draw(params: PyTree, key: jax.Array, rate: jax.Array, sigma: jax.Array) -> PyTree:
    leaves, structure = jax.tree.flatten(params)

    def one(w: jax.Array, key: jax.Array) -> jax.Array:
        mask_key, noise_key = jax.random.split(key)
        noisy = w + sigma.astype(w.dtype) * jax.random.normal(noise_key, w.shape, w.dtype)
        return jnp.where(jax.random.uniform(mask_key, w.shape) >= rate, noisy, jnp.zeros_like(w))

    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(structure, [one(w, k) for w, k in zip(leaves, keys, strict=True)])


def _check(
    rates: Sequence[float],
    sigmas: Sequence[float],
    lambdas: Sequence[float],
    clip: float,
    confidence: float,
    draws: int,
) -> None:
    grids: dict[str, tuple[Sequence[float], Any, str]] = {
        "rates": (rates, lambda a: 0 <= a < 1, "in [0, 1)"),
        "sigmas": (sigmas, lambda s: s > 0, "positive"),
        "lambdas": (lambdas, lambda x: x > 0.5, "above 1/2"),
        "clip": ((clip,), lambda c: c > 0, "positive"),
        "confidence": ((confidence,), lambda d: 0 < d < 1, "in (0, 1)"),
        "draws": ((draws,), lambda r: r >= 1, "at least 1"),
    }
    for name, (values, rule, words) in grids.items():
        if not values or not all(rule(x) for x in values):
            raise ValueError(f"{name}={values} must be {words}")


MEASURES = {
    "pac_bayes_dropout": Measure(pac_bayes_dropout, +1, "flatness", float(len(RATES) * len(SIGMAS)), "McAllester 2013")
}
