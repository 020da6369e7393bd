"""Results that several measures of one network share: computed once, kept with the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def cached(owner: Any, name: str, compute: Callable[[], Any]) -> Any:
    """The result of `compute()`, computed once per model: a dozen measures share one pass for the margins, for example.

    It is kept in the instance itself, which is immutable: a changed copy (`dataclasses.replace`) has none.

    Args:
        owner: the model.
        name: identifies the result among those of `owner`; it must tell all options on which the result depends.
        compute: a function without arguments.
    """
    results = owner.__dict__.setdefault("_cached", {})
    if name not in results:
        results[name] = compute()
    return results[name]
