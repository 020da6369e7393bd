"""Values of measures' options: what each may be, so that a wrong one is refused before any network is trained.

Types and choices are read from the annotations of the measures; ranges, and choices of plain text, are in tables here.
Rules that depend on the network, such as the number of its examples, are left to the measures.
"""

from __future__ import annotations

import collections.abc
import math
import numbers
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, Literal

from prunegen_jax.measures.convolution_norms import METHODS
from prunegen_jax.measures.estimates import NORMALIZATIONS
from prunegen_jax.measures.layer_margins import SIGNATURES
from prunegen_jax.measures.speed import DECAYS, UNITS
from prunegen_jax.measures.tails import RESCALINGS

_Rule = tuple[Callable[[Any], bool], str]


def _at_least(least: float) -> _Rule:
    return (lambda x: x >= least), f"at least {least:g}"


_POSITIVE: _Rule = (lambda x: x > 0), "positive"
_BETWEEN: _Rule = (lambda x: 0 < x < 1), "in (0, 1)"
_SHARE: _Rule = (lambda x: 0 < x <= 1), "in (0, 1]"
# Of numbers, by option, or by the module of the measure and the option.
_RANGES: dict[str, _Rule] = {
    **dict.fromkeys(("beta", "delta", "eta", "memory", "relative_error", "tolerance", "steps"), _at_least(0)),
    "burn_in": _at_least(0),
    **dict.fromkeys(
        ("batch_size", "budget", "components", "count", "bins", "draws", "epochs", "examples"), _at_least(1)
    ),
    **dict.fromkeys(("lanes", "per_class", "size", "sketch", "starts", "subset", "prunability.steps"), _at_least(1)),
    **dict.fromkeys(("block", "max_parameters", "minibatch"), _at_least(1)),
    "chains": _at_least(2),
    "llc.steps": _at_least(8),
    **dict.fromkeys(("perturbation.draws", "pac_bayes.draws", "input_margins.examples"), _at_least(2)),
    **dict.fromkeys(("drops", "masks", "gradient_noise.examples", "probes", "curvature.steps"), _at_least(2)),
    "neighbourhood.budget": _at_least(4),
    **dict.fromkeys(("clip", "damping", "end", "epsilon", "loss", "power", "rho", "scale_tolerance"), _POSITIVE),
    **dict.fromkeys(("localization", "sigmas", "start", "step_size", "target"), _POSITIVE),
    **dict.fromkeys(("confidence", "sharpness.delta"), _BETWEEN),
    **dict.fromkeys(("decay", "variance"), _SHARE),
    "lambdas": ((lambda x: x > 0.5), "above 1/2"),
    "rates": ((lambda x: 0 <= x < 1), "in [0, 1)"),
}
# Of text, likewise.
_CHOICES: dict[str, tuple[str | None, ...]] = {
    "fisher": ("empirical", "true"),
    "form": tuple(DECAYS),
    "keep": ("all", "positive"),
    "layer_margins.compat": (None, "demogen"),
    "method": ("hutchinson", "hutch++"),
    "normalize": NORMALIZATIONS,
    "pac_bayes.compat": (None, "none", "rgm"),
    "parameters": ("kernels", "all"),
    "prior": ("zero", "init"),
    "rescale": RESCALINGS,
    "scope": ("global", "layer"),
    "signature": tuple(SIGNATURES),
    "spectral": (None, *METHODS),
    "spectral.compat": (None, "rgm"),
    "perturbation.tolerance": ("relative", "absolute", "max"),
    "unit": UNITS,
}


def check_value(measure: str, option: str, value: Any, functions: Iterable[Callable[..., Any]]) -> None:
    """Checks the value of an option of a measure.

    Args:
        measure: its name.
        option: the option.
        value: what was given.
        functions: the measure's own, and that to which it passes further options; the first that has the option counts.

    Raises:
        ValueError: if the value is of another type than annotated, or out of its range or choices.
    """
    own, *_ = functions = list(functions)
    hint = next((h[option] for h in map(_hints, functions) if option in h), Any)
    given = f"{measure}.{option}={value!r}"
    if not _fits(value, hint):
        raise ValueError(f"{given} must be {_words(hint)}")
    home = own.__module__.rpartition(".")
    if home[0] != __package__:  # a measure from elsewhere: its options have meanings of its own
        return
    choices = _CHOICES.get(f"{home[2]}.{option}", _CHOICES.get(option))
    if choices and isinstance(value, str | None) and value not in choices:
        raise ValueError(f"{given} is unknown; choose among {', '.join(map(str, choices))}")
    rule = _RANGES.get(f"{home[2]}.{option}", _RANGES.get(option))
    entries = value if isinstance(value, list | tuple) else (value,)
    if rule and not (entries and all(rule[0](x) for x in entries if isinstance(x, numbers.Real))):
        raise ValueError(f"{given} must be {rule[1]}")


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function; none if they cannot be evaluated, as may be in code from elsewhere."""
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):
        return {}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type: int counts as float, but a truth value as no number."""
    kind, parts = typing.get_origin(hint), typing.get_args(hint)
    if kind in {typing.Union, types.UnionType}:
        return any(_fits(value, part) for part in parts)
    if kind is Literal:
        return value in parts
    if kind in {tuple, collections.abc.Sequence}:
        return isinstance(value, list | tuple) and all(_fits(x, parts[0]) for x in value)
    if kind is collections.abc.Callable:
        return callable(value)
    if hint in {int, float}:
        abstract = numbers.Integral if hint is int else numbers.Real
        return isinstance(value, abstract) and not isinstance(value, bool) and not math.isnan(value)
    return hint is Any or not isinstance(hint, type) or isinstance(value, hint)


def _words(hint: Any) -> str:
    """What `_fits` wants, for a message."""
    kind, parts = typing.get_origin(hint), typing.get_args(hint)
    if kind in {typing.Union, types.UnionType}:
        return " or ".join(_words(part) for part in parts)
    if kind is Literal:
        return " or ".join(map(repr, parts))
    if kind in {tuple, collections.abc.Sequence}:
        return f"a tuple of {_words(parts[0])}"
    if kind is collections.abc.Callable:
        return "a function"
    known = {int: "an integer", float: "a number", bool: "True or False", str: "text", types.NoneType: "None"}
    return known.get(hint, str(hint))
