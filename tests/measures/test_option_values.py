"""Values of measures' options: wrong ones are refused by the registry, before any network is looked at."""

from __future__ import annotations

import inspect
import math

import pytest

from prunegen_jax.measures import FORWARDS_OPTIONS_TO, MEASURES, SUBSET, check_options, options_of
from prunegen_jax.types import Estimate, Measure

# By option: a value that no measure can have it at.
OUT_OF_RANGE = {
    "batch_size": 0, "bins": 0, "beta": -1, "budget": 0, "clip": 0.0, "components": 0, "confidence": 1.0, "count": 0,
    "decay": 0.0, "delta": -1e-9, "draws": 0, "drops": 1, "end": 0.0, "epochs": 0, "epsilon": 0.0, "eta": -1.0,
    "examples": 0, "lambdas": (1.0, 0.5), "lanes": 0, "loss": -0.1, "masks": 1, "memory": -1.0, "per_class": 0,
    "power": 0.0, "probes": 1, "rates": (0.0, 1.0), "relative_error": -0.1, "rho": 0.0, "scale_tolerance": 0.0,
    "sigmas": (0.0,), "size": 0, "sketch": 0, "start": 0.0, "starts": 0, "steps": -1, "subset": 0, "target": -1.0,
    "tolerance": -1.0, "variance": 1.1, "block": 0, "damping": 0.0, "max_parameters": 0,
    "burn_in": -1, "chains": 1, "localization": 0.0, "minibatch": 0, "step_size": 0.0,
}  # fmt: skip
PAIRS = [(name, option) for name in MEASURES for option in options_of(name)]


def default(name, option):
    if option == SUBSET:  # has none: without it all examples are taken
        return 5
    for function in (MEASURES[name].function, FORWARDS_OPTIONS_TO.get(name)):
        known = inspect.signature(function).parameters if function else {}
        if option in known and known[option].kind is inspect.Parameter.KEYWORD_ONLY:
            return known[option].default
    raise AssertionError(f"{name} has no {option}")


def test_defaults_fit():
    for name, option in PAIRS:
        check_options({name: {option: default(name, option)}})


def test_every_option_refuses_what_it_cannot_be():
    """Numbers out of range, unknown names, and other types."""
    for name, option in PAIRS:
        usual, wrong = default(name, option), [object(), math.nan]
        if isinstance(usual, bool):
            wrong += [1, "yes"]
        elif isinstance(usual, str):
            wrong += ["no such choice", 3] if option != "layer" else [3]
        elif isinstance(usual, int | float):
            wrong += [OUT_OF_RANGE[option], "many", True]
        elif isinstance(usual, tuple):
            wrong += [OUT_OF_RANGE[option], 0.5, ("many",)]
        elif option in OUT_OF_RANGE:
            wrong += [OUT_OF_RANGE[option]]
        for value in wrong:
            with pytest.raises(ValueError, match=rf"{name}\.{option}=.* (must be|is unknown; choose among)"):
                check_options({name: {option: value}})


@pytest.mark.parametrize(
    ("name", "option", "value", "sentence"),
    [
        ("prunability", "beta", -1, r"prunability\.beta=-1 must be at least 0"),
        ("prunability_prefix", "steps", 0, r"prunability_prefix\.steps=0 must be at least 1"),
        ("prunability", "beta", "0,2", r"prunability\.beta='0,2' must be a number"),
        ("prunability", "tolerance", "relativ", r"must be 'relative' or 'absolute' or 'max'"),
        ("product_of_spectral_norms", "compat", "demogen", r"is unknown; choose among None, rgm"),
        ("normalized_margins", "layers", "input", r"must be a tuple of text or None"),
        ("sharpness_mag_init", "delta", 1.0, r"must be in \(0, 1\)"),
        ("parameter_norm", "fold", 0, r"must be True or False"),
    ],
)
def test_sentences(name, option, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_options({name: {option: value}})


def test_what_measures_can_have():
    check_options({"prunability": {"beta": 1, "prunable": lambda path, leaf: True, "lanes": None}})
    check_options(
        {"prunability": {"beta": math.inf}, "normalized_margins": {"layers": ("input",), "compat": "demogen"}}
    )
    check_options({"pac_bayes_dropout": {"rates": [0.0, 0.5]}})


def test_a_measure_from_elsewhere_has_options_of_its_own(monkeypatch):
    def mine(model, key, *, beta: float = 0.0, kind: NoSuchType = None, other=1):  # noqa: F821
        return Estimate(beta)

    monkeypatch.setitem(MEASURES, "mine", Measure(mine, 1, "size", 0.0, "this test"))
    check_options({"mine": {"beta": -3.0, "kind": "anything", "other": "x"}})
