"""Checks of options: each error names the option, its value and the rule that it breaks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def check_choice(option: str, value: Any, choices: Iterable[Any]) -> None:
    """Checks that an option is one of its choices.

    Args:
        option: name of the option.
        value: what was given.
        choices: what may be given.

    Raises:
        ValueError: if `value` is not one of `choices`.
    """
    names = tuple(choices)
    if value not in names:
        raise ValueError(f"{option}={value!r} is unknown; choose among {', '.join(map(str, names))}")


def check_at_least(least: float, **options: float) -> None:
    """Checks that options, given by name, are not smaller than `least`.

    Raises:
        ValueError: for the first that is, or is not a number.
    """
    for name, value in options.items():
        if not value >= least:
            raise ValueError(f"{name}={value} must be at least {least}")


def check_positive(**options: float) -> None:
    """Checks that options, given by name, are larger than zero.

    Raises:
        ValueError: for the first that is not.
    """
    for name, value in options.items():
        if not value > 0:
            raise ValueError(f"{name}={value} must be positive")
