"""Accuracies and other results in the columns of a CSV: errors and gaps from accuracies, and what no measure may be."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np

from prunegen_jax.judging.grid import unite

TEST = ("test", "val", "valid", "validation", "eval", "heldout", "holdout", "dev")  # the first that there is counts
TRAIN = ("train", "training")
_ACCURACIES = ("accuracy", "acc", "acc1", "acc_1", "top1", "top_1", "top1_accuracy", "top1_acc", "acc_top1")
_PREFIX = re.compile(r"^(targets?|summary|summary_metrics|metrics|user_attrs)[._/]", re.IGNORECASE)
_SPLIT = re.compile(rf"(^|_)({'|'.join(TEST)}|held_out|ood)(_|$)")
_RESULT = re.compile(
    r"(^|_)(acc|accuracy|top|err|error|loss|nll|xent|cross_entropy|auc|auroc|f1|score|ece|brier|perplexity)(_?\d*)(_|$)"
)
_GAP = re.compile(r"(^|_)(gen|generali[sz]ation)_(gap|error)$")
ROUNDING = 1e-12  # of a difference of two accuracies, and far below one over any two sizes
_NEAREST = 0.02  # of an example: what accuracies in single precision are off, up to a hundred thousand examples


def fold(column: str) -> str:
    """A column's name in lower case, without the prefixes of logging tools, and with "_" between its words."""
    return re.sub(r"[^a-z0-9]+", "_", _PREFIX.sub("", column).lower()).strip("_")


def find_accuracy(header: Sequence[str], splits: Sequence[str]) -> str | None:
    """The column of the accuracy on one of some splits of the data, the first of `splits` first; None for none."""
    folded = {fold(column): column for column in reversed(header)}
    names = (f"{a}_{b}" for split in splits for acc in _ACCURACIES for a, b in itertools.permutations((split, acc)))
    return next((folded[name] for name in names if name in folded), None)


def is_accuracy(column: str) -> bool:
    """Whether a column holds an accuracy on held-out data, by its name."""
    return find_accuracy([column], TEST) is not None


def is_held_out_result(column: str) -> bool:
    """Whether a column holds a result on held-out data, which no measure may know, by its name."""
    folded = fold(column)
    return bool(_GAP.search(folded) or (_SPLIT.search(folded) and _RESULT.search(folded)))


def as_fractions(values: np.ndarray, size: int | None = None) -> np.ndarray:
    """Accuracies `[n]` in [0, 1], of per cent too; of `size` examples as quotients, if that is what they are."""
    if np.nanmax(values, initial=0.0) > 1.5:
        values = values / 100
    if size is not None:
        counts = np.rint(values * size)
        if (np.abs(values * size - counts)[~np.isnan(values)] < _NEAREST).all():
            return counts / size
    return values


def gap(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Train - test accuracy `[n]`, equal where rounding alone makes a difference."""
    return unite(train - test, ROUNDING)


def as_error(column: str, values: np.ndarray, size: int | None = None) -> tuple[str, np.ndarray]:
    """A column in which larger is better, turned so that larger is worse, and what it is called then."""
    if is_accuracy(column):
        return "test_error", unite(1 - as_fractions(values, size), ROUNDING)
    known = values[~np.isnan(values)]
    if len(known) and known.min() >= 0 and known.max() <= 1:
        return f"1 - {column}", unite(1 - values, ROUNDING)
    return f"minus {column}", -values
