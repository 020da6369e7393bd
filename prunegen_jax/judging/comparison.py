"""One measure compared with one target on a case, and what several statistics of the two have in common."""

from __future__ import annotations

import dataclasses

import numpy as np

from prunegen_jax.judging import information, kendall, robustness, uncertainty
from prunegen_jax.judging.case import Case
from prunegen_jax.judging.parallel import lazy


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """What the functions of a statistic get.

    Attributes:
        case: the table that is judged, with its grid and the pairs of its models.
        name: the measure's name.
        target_name: the target's name.
        test_size: number of test examples behind the target, None where their noise is not weighed.
        folds: folds of the k-fold R2.
        seed: of the split into folds.
    """

    case: Case
    name: str
    target_name: str
    test_size: int | None = None
    folds: int = 10
    seed: int = 0

    @property
    def measure(self) -> np.ndarray:
        """The measure of every configuration `[n]`, `nan` where it has no value."""
        return self.case.table.measures[self.name]

    @property
    def target(self) -> np.ndarray:
        """The target of every configuration `[n]`, `nan` where it has no value."""
        return self.case.table.targets[self.target_name]

    @property
    def sign(self) -> int:
        """1 if a larger measure is believed to mean a larger target, -1 if a smaller one."""
        return self.case.table.signs.get(self.name, 1)

    @lazy
    def known(self) -> np.ndarray:
        """Which configurations `[n]` have both values."""
        return ~(np.isnan(self.measure) | np.isnan(self.target))

    @lazy
    def tau_b(self) -> float:
        """Kendall's tau-b."""
        return kendall.tau(self.measure, self.target)

    @lazy
    def granulated(self) -> kendall.Granulated:
        """Psi, its axes and its cells."""
        return kendall.granulated(self.measure, self.target, self.case.pairs)

    @lazy
    def pair_counts(self) -> np.ndarray:
        """`information.pair_counts` of the configurations with both values, `[2, cells]`."""
        return information.pair_counts(self.measure[self.known], self.target[self.known], self._conditions)

    @lazy
    def least_information(self) -> tuple[float, int]:
        """K, and the place of the set of hyperparameters that attains it (-1 for none)."""
        return information.from_counts(self.pair_counts, self._conditions).minimum

    @lazy
    def sign_error(self) -> robustness.SignError:
        """The robust sign error over the single models, of the measure turned by its believed sign."""
        options = {"axes": len(self.case.models_grid.axes), "test_size": self.test_size}
        return robustness.sign_error(*self._models, self.case.plan, **options)

    def weighted_sign_errors(self, by_configuration: np.ndarray) -> np.ndarray:
        """Mean, 90th percentile and worst sign error, `[3, draws]`, under weights `[draws, configurations]`."""
        kept = ~np.isnan(self.sign_error.losses)
        options = {"kept": kept, "test_size": self.test_size}
        return robustness.weighted_sign_error(*self._models, self.case.plan, by_configuration, **options)

    @property
    def _conditions(self) -> information.Conditions:
        return self.case.given if self.known.all() else self.case.given.take(self.known)

    @property
    def _models(self) -> tuple[np.ndarray, np.ndarray]:
        """Measure, turned by its believed sign, and target of every single model, repeats included."""
        models = self.case.models
        return models.signs.get(self.name, 1) * models.measures[self.name], models.targets[self.target_name]


@dataclasses.dataclass(frozen=True, eq=False)
class Resample:
    """A comparison under the random weights of a bootstrap over configurations.

    Attributes:
        data: the comparison.
        by_configuration: weights `[draws, configurations]` with mean one.
    """

    data: Comparison
    by_configuration: np.ndarray

    @lazy
    def weights(self) -> np.ndarray:
        """How often each row of `data.measure` counts, `[draws, n]`."""
        return self.by_configuration[:, self.data.case.grid.configurations]

    @lazy
    def taus(self) -> tuple[np.ndarray, np.ndarray]:
        """tau-a and tau-b, each `[draws]`."""
        return kendall.weighted_tau(self.data.measure, self.data.target, self.weights)

    @lazy
    def psi(self) -> np.ndarray:
        """Psi `[draws]`, with the variance of a sum over pairs of models."""
        data = self.data
        draws = kendall.weighted_granulated(data.measure, data.target, data.case.pairs, self.weights)
        variance = pair_variance(data.case, psi_terms(data))
        return np.clip(uncertainty.rescaled(draws, data.granulated.value, variance), -1, 1)

    @lazy
    def sign_errors(self) -> np.ndarray:
        """Mean, 90th percentile and worst sign error, `[3, draws]`."""
        return self.data.weighted_sign_errors(self.by_configuration)


def psi_terms(data: Comparison) -> kendall.Terms:
    """Psi as a sum over pairs of configurations."""
    return kendall.granulated_terms(data.measure, data.target, data.case.pairs)


def pair_variance(case: Case, terms: kendall.Terms) -> float:
    """Sampling variance of a sum over pairs of the case's configurations."""
    return uncertainty.pair_variance(terms.first, terms.second, terms.residual, case.grid.configurations)
