"""Every measure of generalization, by name: `MEASURES`, and `measure` to compute some on one network."""

from __future__ import annotations

import dataclasses
import inspect
import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from prunegen_jax.measures import (
    beyond,
    curvature,
    gradient_noise,
    input_margins,
    layer_margins,
    margins,
    neighbourhood,
    norms,
    pac_bayes,
    pac_bayes_dropout,
    perturbation,
    proxies,
    prunability,
    sharpness,
    size,
    spectral,
    speed,
    tails,
)
from prunegen_jax.types import Estimate, Measure, TrainedModel

MEASURES: dict[str, Measure] = {
    **prunability.MEASURES,
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
    **curvature.MEASURES,
    **gradient_noise.MEASURES,
    **speed.MEASURES,
    **beyond.MEASURES,
    **tails.MEASURES,
}

HANDS_ON: dict[str, Callable[..., Any]] = {  # measure → the function that it hands further options on to
    **prunability.HANDS_ON,
    **perturbation.HANDS_ON,
    **pac_bayes.HANDS_ON,
    **sharpness.HANDS_ON,
    **neighbourhood.HANDS_ON,
}

FAST_COST = 1.0  # passes over the training set
# Cheap to run, but their programs take longer to compile, once per shape, than a small network takes to train.
_SLOW_TO_COMPILE = {"relative_flatness", *spectral.MEASURES}


def select(names: str | Iterable[str]) -> list[str]:
    """Names of measures: "all", "fast", or a list, checked.

    "fast" stands for what costs at most `FAST_COST` passes and compiles quickly, and for `prunability_prefix`, the
    cheap reading of prunability; together they cost less than a fifth of training the networks.

    Raises:
        ValueError: for a name that is not in `MEASURES`.
    """
    if names == "all":
        return list(MEASURES)
    if names == "fast":
        cheap = {name for name, row in MEASURES.items() if row.cost <= FAST_COST} - _SLOW_TO_COMPILE
        return [name for name in MEASURES if name in cheap | {"prunability_prefix"}]
    chosen = [names] if isinstance(names, str) else list(names)
    for name in chosen:
        if name not in MEASURES:
            raise ValueError(f"measure {name!r} is not known; choose 'fast', 'all' or among {', '.join(MEASURES)}")
    return chosen


def measure(
    model: TrainedModel,
    names: str | Iterable[str] = "fast",
    *,
    key: jax.Array | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Estimate]:
    """Measures of one trained network, by name. One that fails says so in its status and leaves the others alone.

    Args:
        model: the network and its training set.
        names: "fast", "all", or names of `MEASURES`.
        key: randomness of the measures that sample; each folds its own name in, so the answer does not depend on
            which others are asked for. Default `jax.random.key(0)`.
        options: measure → keyword options of that measure.

    Raises:
        ValueError: for a name, or an option of a measure, that is not known.
    """
    chosen = select(names)
    check_options(options or {})
    key = jax.random.key(0) if key is None else key
    return {name: _one(name, model, key, dict((options or {}).get(name, {}))) for name in chosen}


def check_options(options: Mapping[str, Mapping[str, Any]]) -> None:
    """ValueError if `options`, measure → its options, has a measure or an option that is not known."""
    for name in select(list(options)):
        known = options_of(name)
        if not isinstance(options[name], Mapping):
            raise ValueError(f"the options of {name} are {options[name]!r}; they must map names to values")
        for option in options[name]:
            if option not in known:
                raise ValueError(f"{name} has no option {option!r}; it has {', '.join(known) or 'none'}")


def options_of(name: str) -> list[str]:
    """The options of a measure; those it hands on to another function among them."""
    function = MEASURES[name].function
    passed_on = _keywords(HANDS_ON[name]) if name in HANDS_ON else []
    found = dict.fromkeys([*_keywords(function), *passed_on])
    return [option for option in found if option not in prunability.FIXED.get(name, ())]


def _keywords(function: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]


def _one(name: str, model: TrainedModel, key: jax.Array, options: dict[str, Any]) -> Estimate:
    stream = MEASURES[name].stream or name
    own = jax.random.fold_in(key, zlib.crc32(stream.encode()) & 0x7FFFFFFF)
    try:
        estimate = MEASURES[name](model, own, **options)
    except Exception as error:  # whatever it is, it goes into the answer, and the other measures go on
        first = (str(error).strip() or "no message").splitlines()[0]
        reason = first if isinstance(error, ValueError) else f"{type(error).__name__}: {first}"
        return Estimate(math.nan, status="failed", reason=reason)
    if estimate.status == "ok" and math.isnan(estimate.value):
        return dataclasses.replace(estimate, status="failed", reason="the value is not a number")
    return estimate
