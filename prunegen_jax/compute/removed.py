"""Fields of older versions: giving or reading one is an error that names the replacement."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

Class = TypeVar("Class", bound=type)


def refuse(**replacements: str) -> Callable[[Class], Class]:
    """A class decorator for fields that a class no longer has.

    Args:
        replacements: name of the field → what is said about it.

    Returns:
        The decorator. The constructor then raises a ValueError for such a keyword, reading the attribute an
        AttributeError.
    """

    def decorate(cls: Class) -> Class:
        construct = cls.__init__

        @functools.wraps(construct)
        def initialize(self: Any, *args: Any, **keywords: Any) -> None:
            for name in keywords.keys() & replacements.keys():
                raise ValueError(f"{cls.__name__}({name}=...) is no longer accepted: {replacements[name]}")
            construct(self, *args, **keywords)

        def read_missing(self: Any, name: str) -> Any:  # called for attributes that are not found
            advice = f": {replacements[name]}" if name in replacements else ""
            raise AttributeError(f"{cls.__name__} has no attribute {name!r}{advice}", name=name, obj=self)

        cls.__init__, cls.__getattr__ = initialize, read_missing
        return cls

    return decorate
