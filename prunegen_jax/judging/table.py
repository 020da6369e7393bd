"""The table that is judged: one trained model per row.

Columns play four parts. Hyperparameters are what the sweep varied, replicates (seeds) among them; measures are judged;
targets say how well a model generalizes (larger = worse); confounders are plain explanations that a measure has to
beat. Nothing is dropped silently: a model that is not to be judged (not converged, diverged) is in `left_out`, with the
reason, and its numbers are in `left_out_rows`.
"""

from __future__ import annotations

import dataclasses

import numpy as np

PARTS = ("hyperparameters", "measures", "targets", "confounders")
REPLICATES = ("seed", "repeat", "replicate", "copy", "trial")
LARGEST_TEST = 10**15  # examples of a test set: a float counts so far


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Trained models, one per row; `n` of them. Numbers are float64, `nan` for a missing one.

    Attributes:
        names: the models' names.
        hyperparameters: the values `[n]` of each axis, numbers or strings.
        measures: the values `[n]` of each measure.
        targets: the values `[n]` of each target; larger is worse.
        families: the family of a measure, by name.
        signs: 1 for a measure that is believed to rise with the target, -1 for one that falls; 1 if not given.
        left_out: models that are not judged, with the reason.
        left_out_rows: their rows, as far as they have numbers; None for none.
        notes: what the columns were taken as, one sentence each.
        test_size: number of test examples behind the targets; None if it is not known.
        replicates: names of hyperparameters that tell repeats of one configuration apart.
        confounders: the values `[n]` of plain explanations that a measure has to beat.
        statuses: how the training of each model ended; empty if it is not known.

    Raises:
        ValueError: if a column does not have one value per model, or a sign is neither 1 nor -1.
    """

    names: tuple[str, ...]
    hyperparameters: dict[str, np.ndarray]
    measures: dict[str, np.ndarray]
    targets: dict[str, np.ndarray]
    families: dict[str, str] = dataclasses.field(default_factory=dict)
    signs: dict[str, int] = dataclasses.field(default_factory=dict)
    left_out: tuple[tuple[str, str], ...] = ()
    left_out_rows: Table | None = None
    notes: tuple[str, ...] = ()
    test_size: int | None = None
    replicates: tuple[str, ...] = REPLICATES
    confounders: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    statuses: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for part in PARTS:
            for name, column in getattr(self, part).items():
                if np.shape(column) != (len(self.names),):
                    raise ValueError(
                        f"column {name!r} of {part} has shape {np.shape(column)}; "
                        f"it needs one value for each of the {len(self.names)} models"
                    )
        for name, sign in self.signs.items():
            if sign not in (-1, 1):
                raise ValueError(f"the sign of measure {name!r} is {sign!r}; choose 1 or -1")

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: np.ndarray) -> Table:
        """The models at `rows` (indices or a mask), in that order."""
        index = np.arange(len(self))[rows]
        taken = {part: {k: v[index] for k, v in getattr(self, part).items()} for part in PARTS}
        names, statuses = (tuple(words[i] for i in index if words) for words in (self.names, self.statuses))
        return dataclasses.replace(self, names=names, statuses=statuses, **taken)

    def with_left_out(self) -> Table:
        """This table with the models that were left out put back, as far as they have numbers."""
        other = self.left_out_rows
        if other is None:
            return self
        joined = {
            part: {k: np.concatenate([v, getattr(other, part)[k]]) for k, v in getattr(self, part).items()}
            for part in PARTS
        }
        names = self.names + other.names
        return dataclasses.replace(self, names=names, left_out=(), left_out_rows=None, statuses=(), **joined)
