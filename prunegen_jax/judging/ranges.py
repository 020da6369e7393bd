"""The ranges of the numbers among the options of `judge`, without what judging needs."""

from __future__ import annotations

from prunegen_jax.judging.table import LARGEST_TEST


def check_numbers(test_size: int | None = None, *, folds: int = 2, level: float, seed: int, **counts: int) -> None:
    """Checks the numbers among the options of `judge`, and the size of the test set.

    Raises:
        ValueError: for one out of its range.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must be 0 or more")
    if test_size is not None and not 1 <= test_size <= LARGEST_TEST:
        raise ValueError(f"test_size is {test_size}; it must be a positive finite number of examples")
    for name, value in counts.items():
        if value < 0:
            raise ValueError(f"{name} is {value}; it must be 0 (leave it out) or more")
    if folds < 2:
        raise ValueError(f"folds is {folds}; it must be at least 2")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it must lie between 0 and 1, for example 0.95")
