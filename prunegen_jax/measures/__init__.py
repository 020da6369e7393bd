"""All measures of generalization, by name: `MEASURES`, and `measure` to compute some of one network."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from prunegen_jax.compute.checks import check_finite, check_network
from prunegen_jax.compute.options import check_at_least
from prunegen_jax.measures import (
    clustering,
    curvature,
    fisher,
    gradient_noise,
    input_gradients,
    input_margins,
    layer_margins,
    llc,
    margins,
    mixup,
    neighbourhood,
    norms,
    option_values,
    pac_bayes,
    pac_bayes_dropout,
    perturbation,
    proxies,
    prunability,
    pruning_limit,
    sam,
    sharpness,
    size,
    spectral,
    speed,
    tails,
    takeuchi,
)
from prunegen_jax.measures.cache import cached
from prunegen_jax.measures.progress import with_progress
from prunegen_jax.types import Dataset, Estimate, Measure, TrainedModel

_ROWS: dict[str, Measure] = {
    **prunability.MEASURES,
    **pruning_limit.MEASURES,
    **proxies.MEASURES,
    **size.MEASURES,
    **norms.MEASURES,
    **spectral.MEASURES,
    **margins.MEASURES,
    **layer_margins.MEASURES,
    **input_margins.MEASURES,
    **perturbation.MEASURES,
    **pac_bayes.MEASURES,
    **pac_bayes_dropout.MEASURES,
    **sharpness.MEASURES,
    **neighbourhood.MEASURES,
    **llc.MEASURES,
    **sam.MEASURES,
    **curvature.MEASURES,
    **gradient_noise.MEASURES,
    **speed.MEASURES,
    **mixup.MEASURES,
    **clustering.MEASURES,
    **input_gradients.MEASURES,
    **takeuchi.MEASURES,
    **tails.MEASURES,
}

# Functions of the weights, of the history, or of the loss whatever it is. All others need classes, or a loss in nats.
_ANY_LOSS = {
    *prunability.MEASURES.keys() - {"prunability_error"},
    *proxies.MEASURES,
    "num_parameters",
    *(name for name in {**norms.MEASURES, **spectral.MEASURES} if not name.endswith("_over_margin")),
    *neighbourhood.MEASURES,
    *llc.MEASURES,
    *sam.MEASURES,
    *curvature.MEASURES.keys() - {"gauss_newton_trace", *fisher.MEASURES},
    *gradient_noise.MEASURES,
    *speed.MEASURES.keys() - {"updates_to_loss", "updates_between_losses"},
    *tails.MEASURES,
} - {"spectral_bound_from_origin", "spectral_bound_from_initialization"}  # over the margin, too

MEASURES: dict[str, Measure] = {
    name: dataclasses.replace(row, any_loss=name in _ANY_LOSS) for name, row in _ROWS.items()
}

FORWARDS_OPTIONS_TO: dict[str, Callable[..., Any]] = {  # measure → the function to which it passes further options
    **prunability.FORWARDS_OPTIONS_TO,
    **spectral.FORWARDS_OPTIONS_TO,
    **perturbation.FORWARDS_OPTIONS_TO,
    **pac_bayes.FORWARDS_OPTIONS_TO,
    **sharpness.FORWARDS_OPTIONS_TO,
    **neighbourhood.FORWARDS_OPTIONS_TO,
    **curvature.FORWARDS_OPTIONS_TO,
    **gradient_noise.FORWARDS_OPTIONS_TO,
    **takeuchi.FORWARDS_OPTIONS_TO,
}

SUBSET = "subset"  # an option of every measure but those of the history
FAST_COST = 1.0  # passes over the training set
# Cheap to run, but their programs take longer to compile, once per shape, than a small network takes to train.
_SLOW_TO_COMPILE = {"relative_flatness", *spectral.MEASURES}


def select(names: str | Iterable[str]) -> list[str]:
    """Names of measures, checked and in order.

    Args:
        names: "all"; "fast", which stands for the measures that cost at most `FAST_COST` passes and compile quickly,
            and for `prunability_prefix`, the cheap variant of prunability (together they cost less than a fifth of
            training the networks); a name; or names. "NAME:LABEL" is the measure NAME once more, with options of its
            own: "prunability:absolute".

    Raises:
        ValueError: for a name that is not in `MEASURES`.
    """
    if names == "all":
        return list(MEASURES)
    if names == "fast":
        cheap = {name for name, row in MEASURES.items() if row.cost <= FAST_COST} - _SLOW_TO_COMPILE
        return [name for name in MEASURES if name in cheap | {"prunability_prefix"}]
    selected = [names] if isinstance(names, str) else list(names)
    for name in selected:
        base, colon, label = name.partition(":")
        if base not in MEASURES:
            close = difflib.get_close_matches(base, MEASURES, n=1)
            choices = f"choose 'fast', 'all' or among {', '.join(MEASURES)}"
            raise ValueError(f"measure {name!r} is unknown; {f'did you mean {close[0]!r}?' if close else choices}")
        if colon and not label.isidentifier():
            raise ValueError(f"measure {name!r} has the label {label!r}; it must be letters, digits and _")
    return selected


def find(name: str) -> Measure:
    """The row of `MEASURES` that a name, with or without a label, stands for."""
    return MEASURES[_base(name)]


def _base(name: str) -> str:
    return name.partition(":")[0]


def measure(
    model: TrainedModel,
    names: str | Iterable[str] = "fast",
    *,
    key: jax.Array | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    progress: bool | None = None,
) -> dict[str, Estimate]:
    """Measures of one trained network. The failure of one is stated in its status and does not affect the others.

    Args:
        model: the network and its training set.
        names: "fast", "all", or names, see `select`.
        key: randomness of the measures that sample; each folds its own name in, so its estimate does not depend on
            which other measures are computed. Default `jax.random.key(0)`.
        options: measure → keyword options of that measure. Besides its own every measure takes "subset": n, to be
            computed on the first n training examples.
        progress: whether to write a line to stderr that says what is computed, once it takes longer than a few
            seconds; None: on a terminal and in a notebook.

    Returns:
        The estimates, by name.

    Raises:
        ValueError: for an unknown name, an unknown option of a measure, or a network or data set that is not one for
            classification.
    """
    selected = select(names)
    check_options(options or {})
    check_network(model.apply, model.params, model.train)
    key = jax.random.key(0) if key is None else key
    given = options or {}
    return {name: _estimate(name, model, key, dict(given.get(name, {}))) for name in with_progress(selected, progress)}


def check_options(options: Mapping[str, Mapping[str, Any]]) -> None:
    """Checks options of measures.

    Args:
        options: measure → its options.

    Raises:
        ValueError: for an unknown measure or option, or a value that it cannot have.
    """
    for name in select(list(options)):
        known = options_of(name)
        if not isinstance(options[name], Mapping):
            raise ValueError(f"the options of {name} are {options[name]!r}; they must map names to values")
        forwards = FORWARDS_OPTIONS_TO.get(_base(name))
        functions = [find(name).function, *([forwards] if forwards else []), _on_subset]
        for option, value in options[name].items():
            if option not in known:
                raise ValueError(f"{name} has no option {option!r}; it has {', '.join(known) or 'none'}")
            option_values.check_value(name, option, value, functions)


def options_of(name: str) -> list[str]:
    """The options of a measure, including those that it passes to another function."""
    base = _base(name)
    forwarded = _keywords(FORWARDS_OPTIONS_TO[base]) if base in FORWARDS_OPTIONS_TO else []
    names = dict.fromkeys([*_keywords(MEASURES[base].function), *forwarded])
    own = [option for option in names if option not in prunability.FIXED_OPTIONS.get(base, ())]
    return own if "history" in MEASURES[base].needs else [*own, SUBSET]  # a history is of the whole training set


def _on_subset(model: TrainedModel, subset: int) -> TrainedModel:
    """The model with the first `subset` of its training examples, random ones in the runs of this package."""
    check_at_least(1, subset=subset)
    if subset > len(model.train):
        raise ValueError(f"subset={subset} is larger than the training set of {len(model.train)} examples")

    def first() -> Dataset:
        return dataclasses.replace(model.train, inputs=model.train.inputs[:subset], labels=model.train.labels[:subset])

    def smaller() -> TrainedModel:
        train = cached(model.train, f"first {subset}", first)  # networks that share their data share the subset
        early = model.first_epoch and dataclasses.replace(model.first_epoch, train=train)
        return dataclasses.replace(model, train=train, first_epoch=early)

    return cached(model, f"first {subset}", smaller)


def _keywords(function: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]


def _estimate(name: str, model: TrainedModel, key: jax.Array, options: dict[str, Any]) -> Estimate:
    stream = find(name).stream or _base(name)
    stream_key = jax.random.fold_in(key, zlib.crc32(stream.encode()) & 0x7FFFFFFF)
    try:
        cached(model.train, "finite", lambda: check_finite(inputs=model.train.inputs))
        cached(model, "finite", lambda: check_finite(params=model.params))
        network = _on_subset(model, options.pop(SUBSET)) if SUBSET in options else model
        estimate = find(name)(network, stream_key, **options)
    except Exception as error:  # any exception becomes the reason of the estimate, and the other measures continue
        first = (str(error).strip() or "no message").splitlines()[0]
        reason = first if isinstance(error, ValueError) else f"{type(error).__name__}: {first}"
        return Estimate(math.nan, status="failed", reason=reason)
    if estimate.status == "ok" and math.isnan(estimate.value):
        return dataclasses.replace(estimate, status="failed", reason="the value is not a number")
    return estimate
