"""The part that each column of a CSV plays, by its name or by patterns."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prunegen_jax.judging.table import REPLICATES

TARGETS = ("gap", "test_error", "test_loss")
CONFOUNDERS = ("train_loss", "parameters", "batch_size")
ALIASES = {  # how others call our columns, lower case, without the prefixes below
    "gap": ("gap", "gen_gap", "generalization_gap", "generalisation_gap"),
    "test_error": ("test_error", "gen_error", "test_err"),
    "test_loss": ("test_loss", "gen_loss", "test_cross_entropy"),
    "train_loss": ("train_loss", "final_loss", "train_cross_entropy", "final_train_loss"),
    "parameters": ("parameters", "params", "num_params", "n_params", "num_parameters", "parameter_count"),
    "batch_size": ("batch_size", "train_batch_size"),
}
_MOST_NAMES = 40  # columns in a message
_HYPERPARAMETER = re.compile(r"(hp|hparams?|hyperparameters?)[._](?=.)", re.IGNORECASE)
_NUMBERED = re.compile(r"(hp|hparam)\d+$", re.IGNORECASE)
_MEASURE = re.compile(r"(complexity|measures?)\.(?=.)", re.IGNORECASE)
_CONFOUNDER = re.compile(r"confounder\.(?=.)", re.IGNORECASE)
_NAMES = ("name", "model", "row", "id", "index", "model_id", "experiment_id", "")
_STATUS = ("status", "is.converged", "is_converged", "converged")
_BOOKKEEPING = (
    "test_size",
    "train_accuracy",
    "train_acc",
    "test_accuracy",
    "test_acc",
    "train_error",
    "is.high_train_accuracy",
)


def assign(
    header: Sequence[str],
    *,
    target: str | None,
    hyperparameters: str | None,
    measures: str | None,
    numeric: Sequence[str],
) -> dict[str, Any]:
    """The part that each column plays.

    Args:
        header: the columns' names.
        target: shell patterns of the targets, separated by commas; None to find them by name, as the others.
        hyperparameters: patterns of the hyperparameters.
        measures: patterns of the measures.
        numeric: the columns that hold any number.

    Returns:
        {"hyperparameters": {axis: column}, "measures": ..., "targets": ..., "confounders": ..., "name": column or
        None, "status": column or None, "unused": [column]}.

    Raises:
        ValueError: if a pattern matches no column, or no target or no measure is found.
    """
    free = list(header)

    def claim(columns: Mapping[str, str]) -> dict[str, str]:
        for column in columns.values():
            free.remove(column)
        return dict(columns)

    parts: dict[str, Any] = {}
    if target is not None:
        parts["targets"] = claim({_short(c): c for c in _matching(target, free, header, "--target")})
    if hyperparameters is not None:
        parts["hyperparameters"] = claim(
            {_axis(c): c for c in _matching(hyperparameters, free, header, "--hyperparameters")}
        )
    if measures is not None:
        parts["measures"] = claim({_measure(c): c for c in _matching(measures, free, header, "--measures")})
    if target is None:
        parts["targets"] = claim({_short(c): c for c in free if _short(c) in TARGETS})
    if hyperparameters is None:
        named = [c for c in free if _HYPERPARAMETER.match(c) or _NUMBERED.match(c) or c.lower() in REPLICATES]
        parts["hyperparameters"] = claim({_axis(c): c for c in named})
    else:  # a seed still tells repeats apart
        parts["hyperparameters"] |= claim({_axis(c): c for c in free if _axis(c).lower() in REPLICATES})
    for part, choices in (("name", _NAMES), ("status", _STATUS)):
        parts[part] = next((c for choice in choices for c in free if c.lower() == choice), None)
        if parts[part] is not None:
            free.remove(parts[part])
    for column in list(free):  # another target is not a measure, even if it is not judged
        if _short(column) in TARGETS or column.lower() in _BOOKKEEPING:
            free.remove(column)
            parts.setdefault("unused", []).append(column)
    # a confounder that is a measure too stays a measure, and is judged
    prefixed = claim({_CONFOUNDER.sub("", c): c for c in free if _CONFOUNDER.match(c)})
    if measures is None:
        foreign = any(_MEASURE.match(c) and not c.startswith("measure.") for c in free)
        named = [c for c in free if _MEASURE.match(c) or (c in numeric and not foreign)]
        parts["measures"] = claim({_measure(c): c for c in named})
    plain = {_confounder(c): c for c in header if _confounder(c) in CONFOUNDERS and c in numeric}
    parts["confounders"] = prefixed | {k: c for k, c in plain.items() if k not in prefixed}
    parts["unused"] = parts.get("unused", []) + [c for c in free if c not in plain.values()]
    _check(parts, header)
    return parts


def explain(parts: Mapping[str, Any]) -> list[str]:
    """One line per part: which columns were taken as what."""
    lines = []
    for part in ("targets", "hyperparameters", "measures", "confounders"):
        taken = [c if c == name else f"{c} ({name})" for name, c in parts[part].items()]
        lines.append(f"taken as {part}: {', '.join(taken) or 'none'}")
    if parts["status"] is not None:
        lines.append(f"taken as status: {parts['status']}")
    if parts["unused"]:
        lines.append(f"columns not used: {', '.join(parts['unused'])}")
    return lines


def header_of_measure(name: str, values: np.ndarray) -> str:
    """The CSV column of a measure: its name, prefixed where `assign` would not take it for a measure."""
    return f"measure.{name}" if _is_special(name) or np.isnan(values).all() else name


def _is_special(name: str) -> bool:
    special = (*TARGETS, *REPLICATES, *_NAMES, *_STATUS, *_BOOKKEEPING)
    patterns = (_HYPERPARAMETER, _NUMBERED, _MEASURE, _CONFOUNDER)
    return _short(name) in special or name.lower() in special or any(p.match(name) for p in patterns)


def _list(names: Sequence[str]) -> str:
    """The names of columns in a message, of many the first."""
    return ", ".join(names[:_MOST_NAMES]) + (f", ... ({len(names)} in all)" if len(names) > _MOST_NAMES else "")


def _axis(column: str) -> str:
    return _HYPERPARAMETER.sub("", column, count=1)


def _measure(column: str) -> str:
    return _MEASURE.sub("", column, count=1)


def _short(column: str) -> str:
    """Our name of a target or a confounder, where the column is one; otherwise the column's own name."""
    folded = re.sub(r"^targets?\.", "", column, flags=re.IGNORECASE).lower().replace(".", "_")
    return next((name for name, others in ALIASES.items() if folded in others), column)


def _confounder(column: str) -> str:
    """The confounder that a column holds, which may be a measure or a hyperparameter too."""
    return "" if _CONFOUNDER.match(column) else _short(_measure(_axis(column)))


def _matching(patterns: str, free: Sequence[str], header: Sequence[str], option: str) -> list[str]:
    columns: list[str] = []
    for pattern in (p.strip() for p in patterns.split(",")):
        matches = [c for c in free if fnmatch.fnmatchcase(c, pattern) and c not in columns]
        # `gap` also finds the column that we would call so
        matches = matches or [c for c in free if option == "--target" and _short(c) == pattern and c not in columns]
        if not matches:
            raise ValueError(f"{option}: no column matches {pattern!r}; the columns are {_list(header)}")
        columns += matches
    return columns


def _check(parts: Mapping[str, Any], header: Sequence[str]) -> None:
    if not parts["targets"]:
        raise ValueError(
            f"no target column found among {_list(header)}; name one with --target, "
            f"or call it {', '.join(TARGETS)} or gen.gap"
            + ("; cells have to be separated by commas, semicolons or tabs" if len(header) == 1 else "")
        )
    if not parts["measures"]:
        raise ValueError(
            f"no measure column found among {_list(header)}; name some with --measures, or call them complexity.*"
        )
