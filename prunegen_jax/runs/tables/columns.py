"""The part that each column of a CSV plays, by its name or by patterns."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prunegen_jax.judging.table import REPLICATES
from prunegen_jax.runs.tables.accuracies import TEST, TRAIN, find_accuracy, fold, is_accuracy, is_held_out_result

TARGETS = ("gap", "test_error", "test_loss", "loss_gap", "ece", "brier")
CONFOUNDERS = ("train_loss", "parameters", "batch_size")
ALIASES = {  # how others call our columns, lower case, without the prefixes below
    "gap": ("gap", "gen_gap", "generalization_gap", "generalisation_gap"),
    "test_error": ("test_error", "gen_error", *(f"{split}_{end}" for split in TEST for end in ("err", "error"))),
    "test_loss": ("test_loss", "gen_loss", *(f"{split}_{end}" for split in TEST for end in ("cross_entropy", "loss"))),
    "loss_gap": ("loss_gap",),
    "ece": ("ece", "test_ece", "expected_calibration_error"),
    "brier": ("brier", "test_brier", "brier_score"),
    "train_loss": ("train_loss", "final_loss", "train_cross_entropy", "final_train_loss"),
    "parameters": ("parameters", "params", "num_params", "n_params", "num_parameters", "parameter_count"),
    "batch_size": ("batch_size", "train_batch_size"),
}
_MOST_NAMES = 40  # columns in a message
_HYPERPARAMETER = re.compile(r"(hp|hparams?|hyperparameters?)[._](?=.)", re.IGNORECASE)
_NUMBERED = re.compile(r"(hp|hparam)\d+$", re.IGNORECASE)
_MEASURE = re.compile(r"(complexity|measures?)\.(?=.)", re.IGNORECASE)
_TARGET = re.compile(r"targets?\.(?=.)", re.IGNORECASE)
_CONFOUNDER = re.compile(r"confounder\.(?=.)", re.IGNORECASE)
_NAMES = ("name", "model", "row", "id", "index", "model_id", "experiment_id", "")
_STATUS = ("status", "is.converged", "is_converged", "converged", "state")
_BOOKKEEPING = ("test_size", "train_error", "is.high_train_accuracy")
_ABOUT_MEASURES = re.compile(r"(sem|version)\.(?=.)", re.IGNORECASE)  # standard errors, and what made the numbers


def assign(
    header: Sequence[str],
    *,
    target: str | None,
    hyperparameters: str | None,
    measures: str | None,
    numeric: Sequence[str],
    higher_is_better: bool = False,
) -> dict[str, Any]:
    """The part that each column plays.

    Args:
        header: the columns' names.
        target: shell patterns of the targets, separated by commas; None to find them by name, as the others.
        hyperparameters: patterns of the hyperparameters.
        measures: patterns of the measures.
        numeric: the columns that hold any number.
        higher_is_better: whether in the columns that `target` matches larger is better.

    Returns:
        {"hyperparameters": {axis: column}, "measures": ..., "targets": ..., "confounders": ..., "turned": the columns
        among the targets in which larger is better, "gap": the columns of train and test accuracy to subtract or None,
        "name": column or None, "status": column or None, "unused": [column]}.

    Raises:
        ValueError: if a pattern matches no column, no target or no measure is found, or a measure is known to be a
            result on held-out data.
    """
    if higher_is_better and target is None:
        raise ValueError("--higher-is-better applies to the columns of --target; give --target too")
    free = list(header)
    accuracies = find_accuracy(numeric, TRAIN), find_accuracy(numeric, TEST)

    def claim(columns: Mapping[str, str]) -> dict[str, str]:
        for column in columns.values():
            free.remove(column)
        return dict(columns)

    parts: dict[str, Any] = {"gap": None, "turned": [], "unused": []}
    if target is not None:
        parts["targets"] = claim(_named_targets(target, free, header, accuracies, parts))
        parts["turned"] = [c for c in parts["targets"].values() if higher_is_better or is_accuracy(c)]
    if hyperparameters is not None:
        parts["hyperparameters"] = claim(
            {_axis(c): c for c in _matching(hyperparameters, free, header, "--hyperparameters")}
        )
    if measures is not None:
        parts["measures"] = claim({_measure(c): c for c in _matching(measures, free, header, "--measures")})
    if target is None:
        parts["targets"] = claim(_found_targets(free, accuracies, parts))
    if hyperparameters is None:
        named = [c for c in free if _HYPERPARAMETER.match(c) or _NUMBERED.match(c) or c.lower() in REPLICATES]
        parts["hyperparameters"] = claim({_axis(c): c for c in named})
    else:  # a seed still tells repeats apart
        parts["hyperparameters"] |= claim({_axis(c): c for c in free if _axis(c).lower() in REPLICATES})
    for part, choices in (("name", _NAMES), ("status", _STATUS)):
        words = [c for c in free if c.lower() != "state" or c not in numeric]
        parts[part] = next((c for choice in choices for c in words if c.lower() == choice), None)
        if parts[part] is not None:
            free.remove(parts[part])
    for column in list(free):  # another target is not a measure, even if it is not judged
        prefixed = _MEASURE.match(column) or _CONFOUNDER.match(column)
        is_aside = column.lower() in _BOOKKEEPING or _ABOUT_MEASURES.match(column)
        if _is_result(column) or is_aside or (column in accuracies and not prefixed):
            free.remove(column)
            parts["unused"] += [column] if column not in (parts["gap"] or ()) else []
    # a confounder that is a measure too stays a measure, and is judged
    prefixed = claim({_CONFOUNDER.sub("", c): c for c in free if _CONFOUNDER.match(c)})
    if measures is None:
        foreign = any(_MEASURE.match(c) and not c.startswith("measure.") for c in free)
        named = [c for c in free if _MEASURE.match(c) or (c in numeric and not foreign)]
        parts["measures"] = claim({_measure(c): c for c in named})
    plain = {_confounder(c): c for c in header if _confounder(c) in CONFOUNDERS and c in numeric}
    parts["confounders"] = prefixed | {k: c for k, c in plain.items() if k not in prefixed}
    parts["unused"] += [c for c in free if c not in plain.values()]
    _check(parts, header)
    return parts


def explain(parts: Mapping[str, Any]) -> list[str]:
    """One line per part: which columns were taken as what."""
    lines = []
    for part in ("targets", "hyperparameters", "measures", "confounders"):
        taken = [_words(name, c, part == "targets" and c in parts["turned"]) for name, c in parts[part].items()]
        if part == "targets" and parts["gap"]:
            taken.insert(0, " - ".join(parts["gap"]) + " (gap)")
        lines.append(f"taken as {part}: {', '.join(taken) or 'none'}")
        if part == "hyperparameters" and not taken:
            lines[-1] += "; name the columns that were varied (hyperparameters='lr,width', --hyperparameters=lr,width)"
    if parts["status"] is not None:
        lines.append(f"taken as status: {parts['status']}")
    if parts["unused"]:
        lines.append(f"columns not used: {', '.join(parts['unused'])}")
    return lines


def _words(name: str, column: str, is_turned: bool) -> str:
    """What a column was taken as."""
    if is_turned and not is_accuracy(column):
        return f"{column} (larger is better)"
    words = f"1 - {column}" if is_turned else column
    return words if words == name else f"{words} ({name})"


def is_target(column: str) -> bool:
    """Whether a column is a target, or an accuracy that becomes one, by its name."""
    return _short(column) in TARGETS or is_accuracy(column)


def header_of_measure(name: str, values: np.ndarray) -> str:
    """The CSV column of a measure: its name, prefixed where `assign` would not take it for a measure."""
    return f"measure.{name}" if _is_special(name) or np.isnan(values).all() else name


def header_of_target(name: str) -> str:
    """The CSV column of a target: its name, prefixed where `assign` would not take it for a target."""
    return name if name in TARGETS else f"target.{name}"


def _target(column: str) -> str:
    short = _short(column)
    return short if short in TARGETS else _TARGET.sub("", column, count=1)


def _is_special(name: str) -> bool:
    special = (*TARGETS, *REPLICATES, *_NAMES, *_STATUS, *_BOOKKEEPING)
    patterns = (_HYPERPARAMETER, _NUMBERED, _MEASURE, _CONFOUNDER, _TARGET)
    is_result = is_held_out_result(name) or find_accuracy([name], TRAIN + TEST) is not None
    return is_result or _short(name) in special or name.lower() in special or any(p.match(name) for p in patterns)


def _list(names: Sequence[str]) -> str:
    """The names of columns in a message, of many the first."""
    return ", ".join(names[:_MOST_NAMES]) + (f", ... ({len(names)} in all)" if len(names) > _MOST_NAMES else "")


def _axis(column: str) -> str:
    return _HYPERPARAMETER.sub("", column, count=1)


def _measure(column: str) -> str:
    return _MEASURE.sub("", column, count=1)


def _short(column: str) -> str:
    """Our name of a target or a confounder, where the column is one; otherwise the column's own name."""
    folded = fold(column)
    return next((name for name, others in ALIASES.items() if folded in others), column)


def _by_alias(columns: Sequence[str], name: str) -> list[str]:
    """The columns that `_short` calls so, the first alias first."""
    return sorted((c for c in columns if _short(c) == name), key=lambda c: ALIASES[name].index(fold(c)))


def _is_result(column: str) -> bool:
    """Whether a column is another target or another result on held-out data, and is not called a measure."""
    if _MEASURE.match(column) or _CONFOUNDER.match(column):
        return False
    return _short(column) in TARGETS or _TARGET.match(column) is not None or is_held_out_result(column)


def _found_targets(
    free: Sequence[str], accuracies: tuple[str | None, str | None], parts: dict[str, Any]
) -> dict[str, str]:
    """The columns of targets by name; sets `parts["turned"]` and `parts["gap"]` where accuracies stand in for them."""
    found = {name: c for name in TARGETS for c in reversed(_by_alias(free, name))}
    found |= {_target(c): c for c in free if _TARGET.match(c) and _short(c) not in TARGETS}
    if accuracies[1] in free:
        if "test_error" not in found:
            found["test_error"] = accuracies[1]
            parts["turned"] = [accuracies[1]]
        parts["gap"] = accuracies if accuracies[0] and "gap" not in found else None
    return found


def _named_targets(
    patterns: str,
    free: Sequence[str],
    header: Sequence[str],
    accuracies: tuple[str | None, str | None],
    parts: dict[str, Any],
) -> dict[str, str]:
    """The columns of --target; sets `parts["gap"]` where the gap has to be computed from the accuracies."""
    columns: dict[str, str] = {}
    for pattern in (p.strip() for p in patterns.split(",")):
        has_column = any(fnmatch.fnmatchcase(c, pattern) or _target(c) == pattern for c in free)
        if pattern == "gap" and not has_column and all(accuracies):
            parts["gap"] = accuracies
            continue
        if pattern == "test_error" and not has_column and accuracies[1]:
            pattern = accuracies[1]
        rest = [c for c in free if c not in columns.values()]
        for c in _matching(pattern, rest, header, "--target", computed=_computed(accuracies)):
            error = "test_error" if "test_error" not in columns else f"1 - {c}"
            columns[error if is_accuracy(c) else _target(c)] = c
    return columns


def _computed(accuracies: tuple[str | None, str | None]) -> str:
    """Which targets can be computed from the columns of train and test accuracy, in words; "" for none."""
    train, test = accuracies
    both = f"gap and test_error are computed from {train} and {test}"
    return both if train and test else f"test_error is computed from {test}" if test else ""


def _confounder(column: str) -> str:
    """The confounder that a column holds, which may be a measure or a hyperparameter too."""
    return "" if _CONFOUNDER.match(column) else _short(_measure(_axis(column)))


def _matching(
    patterns: str, free: Sequence[str], header: Sequence[str], option: str, *, computed: str = ""
) -> list[str]:
    columns: list[str] = []
    for pattern in (p.strip() for p in patterns.split(",")):
        matches = [c for c in free if fnmatch.fnmatchcase(c, pattern) and c not in columns]
        if option == "--measures":
            if pattern in matches and _is_result(pattern):
                raise ValueError(
                    f"--measures: {pattern!r} is a result on held-out data, which a measure must not use; to judge it "
                    f"anyway, rename the column to measure.{pattern}"
                )
            matches = [c for c in matches if not _is_result(c)]
        # `gap` also finds the column that we would call so
        matches = matches or [c for c in free if option == "--target" and _target(c) == pattern and c not in columns]
        if not matches:
            rest = f"; {computed}" if computed else ""
            raise ValueError(f"{option}: no column matches {pattern!r}; the columns are {_list(header)}{rest}")
        columns += matches
    return columns


def _check(parts: Mapping[str, Any], header: Sequence[str]) -> None:
    if not parts["targets"] and not parts["gap"]:
        raise ValueError(
            f"no target column found among {_list(header)}; name one with --target, "
            f"or call it {', '.join(TARGETS[:3])} or gen.gap"
            + ("; cells must be separated by commas, semicolons or tabs" if len(header) == 1 else "")
        )
    if not parts["measures"]:
        raise ValueError(
            f"no measure column found among {_list(header)}; name some with --measures, or call them complexity.*"
        )
