"""The local learning coefficient: how fast the volume of weights with nearly the trained loss shrinks, by sampling.

Of kernels and biases of the network with batch norm folded into them (`fold=False`: of the network as it is).
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prunegen_jax.compute.options import check_at_least, check_positive
from prunegen_jax.compute.sampling import chains_standard_error, split_r_hat
from prunegen_jax.measures.langevin import Density, sample
from prunegen_jax.measures.objective import weight_function
from prunegen_jax.types import Estimate, Measure, NotApplicableError, TrainedModel

R_HAT = 1.1  # the most at which chains count as sampling one distribution
LEAST_ACCEPTANCE = 0.2  # of Metropolis-adjusted steps
STUCK = 0.01  # acceptance below which chains say nothing
LEAST_UNADJUSTED = 0.9  # that unadjusted steps would have, beyond which their step size biases them
DRIFT = 0.05  # of the estimate, by which the two halves of the chains may differ whatever the standard error is
CHECKS = 8  # Metropolis-adjusted steps that tell the latter


def llc(
    model: TrainedModel,
    key: jax.Array,
    *,
    localization: float = 100.0,
    chains: int = 4,
    burn_in: int = 300,
    steps: int = 700,
    step_size: float | None = None,
    minibatch: int | None = None,
    fold: bool = True,
    batch_size: int | None = None,
) -> Estimate:
    """λ̂ = nβ (E[L̂(w)] − L̂(w*)) under the density ∝ exp(−nβ L̂(w) − (γ/2) ‖w − w*‖²), nβ = m / ln m, γ = `localization`.

    w* are the trained weights. Of d weights λ̂ is d/2 where the loss is regular, as γ → 0, and less where directions are
    flat; of a quadratic loss it is ½ Σ_i nβ h_i / (nβ h_i + γ), h_i the eigenvalues of H. The density is sampled by
    Langevin chains that start at w*, see `langevin`. The standard error counts the autocorrelation of the chains and
    how far they differ. It cannot see an error that all of them share: details["converged"] is False, and
    details["problems"] say why, if the chains do not agree (split R̂ above 1.1) or still drift, if too few steps are
    accepted, or if λ̂ is negative: then w* is not a minimum of the training loss, and λ̂ is not a learning coefficient.

    Args:
        model: any; L̂ is taken for a negative log-likelihood.
        key: randomness of the chains.
        localization: γ.
        chains: number of chains.
        burn_in: steps of each chain that are not used.
        steps: further steps of each chain.
        step_size: ε; None: adapted during the burn-in.
        minibatch: examples per step, for large training sets. Steps are then not corrected: `step_size` has to be
            given, and the acceptance that a correction would have is measured in a few steps at the end. None: all
            examples, with the correction.
        fold: fold batch norm into the weights first.
        batch_size: examples per chunk; changes nothing but speed.

    Raises:
        ValueError: if γ or ε is not positive, for fewer than two chains, eight steps or one example per step, or for a
            minibatch without a step size.
    """
    _check_options(localization, chains, burn_in, steps, step_size, minibatch)
    size = len(model.train)
    if size < 2:
        raise NotApplicableError("nβ = m / ln m needs two training examples")
    network = weight_function(model, fold=fold)
    nbeta, dtype = size / math.log(size), jnp.result_type(*network.weights.values())
    numbers = (jnp.asarray(x, dtype) for x in (nbeta, localization))
    density = Density(network.objective(batch_size), network.weights, *numbers)
    starts = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (chains, *leaf.shape)), network.weights)
    first = jnp.asarray(1 / (nbeta + localization) if step_size is None else step_size, dtype)
    adapted = burn_in if step_size is None else 0
    run = sample(density, starts, key, first, steps=burn_in + steps, adapted=adapted, minibatch=minibatch)
    acceptance = np.asarray(run.acceptance, np.float64)[burn_in:].mean()
    if minibatch is not None:
        check = sample(density, run.last, jax.random.fold_in(key, 0), run.step_size, steps=CHECKS)
        acceptance = np.asarray(check.acceptance, np.float64).mean()
    details = {**network.details(), "nbeta": nbeta, "step_size": float(run.step_size), "acceptance": float(acceptance)}
    return _estimate(nbeta * np.asarray(run.rises, np.float64)[burn_in:].T, details, minibatch is not None)


def _check_options(
    localization: float, chains: int, burn_in: int, steps: int, step_size: float | None, minibatch: int | None
) -> None:
    check_positive(localization=localization, step_size=1.0 if step_size is None else step_size)
    check_at_least(2, chains=chains)
    check_at_least(8, steps=steps)
    check_at_least(0, burn_in=burn_in)
    check_at_least(1, minibatch=1 if minibatch is None else minibatch)
    if step_size is None and (minibatch is not None or burn_in == 0):
        raise ValueError(
            f"step_size=None needs a burn-in in which it can be adapted and the Metropolis correction; give a number "
            f"with burn_in={burn_in}, minibatch={minibatch}"
        )


def _estimate(rises: np.ndarray, details: dict[str, Any], unadjusted: bool) -> Estimate:
    """The estimate from nβ (L̂(w) − L̂(w*)) of each chain after the burn-in, `[chains, steps]`."""
    bad = int(np.sum(~np.isfinite(rises).all(axis=1)))
    if bad:
        reason = f"the loss is not finite in {bad} of {len(rises)} chains: a smaller step_size is needed"
        return Estimate(math.nan, status="failed", reason=reason, details=details)
    if details["acceptance"] < STUCK and not unadjusted:
        reason = f"only {details['acceptance']:.2g} of the steps are accepted: a smaller step_size is needed"
        return Estimate(math.nan, status="failed", reason=reason, details=details)
    value, (sem, effective), r_hat = float(rises.mean()), chains_standard_error(rises), split_r_hat(rises)
    halves = np.array_split(rises, 2, axis=1)
    drift = float(halves[1].mean() - halves[0].mean())
    drift_sem = math.hypot(*(chains_standard_error(half)[0] for half in halves))
    least = LEAST_UNADJUSTED if unadjusted else LEAST_ACCEPTANCE
    tests = {
        f"the chains do not agree: R-hat {r_hat:.3g}": r_hat > R_HAT,
        f"the chains drift by {drift:.3g}": abs(drift) > max(3 * drift_sem, DRIFT * abs(value)),
        f"the step size is too large: acceptance {details['acceptance']:.2g}": details["acceptance"] < least,
        "negative: the weights are not a minimum of the training loss": value < 0,
    }
    problems = [words for words, failed in tests.items() if failed]
    details |= {"r_hat": r_hat if math.isfinite(r_hat) else None, "drift": drift, "effective_draws": effective}
    details |= {"chains": rises.mean(axis=1).tolist(), "converged": not problems, "problems": problems}
    return Estimate(value, sem, details=details)


MEASURES = {"llc": Measure(llc, +1, "flatness", 12_000.0, "Lau et al. 2023", (), ("permutation",))}
