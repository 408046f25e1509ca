"""Small helpers under larq's names."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from .keras.utils import get_custom_objects

_T = TypeVar("_T")


def memory_as_readable_str(num_bits: int) -> str:
    """A number of bits as bytes with a binary prefix, such as ``"1.50 KiB"``."""
    value = num_bits / 8
    for suffix in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:,.2f} {suffix}"
        value /= 1024
    return f"{value:,.2f} GiB"


def register_keras_custom_object(cls: _T) -> _T:
    """Decorator: make a class known to Keras's deserialization under its own name."""
    get_custom_objects()[cls.__name__] = cls  # type: ignore[attr-defined]
    return cls


def register_alias(name: str) -> Callable[[_T], _T]:
    """Decorator: make a class known to Keras's deserialization under `name`."""

    def register(cls: _T) -> _T:
        get_custom_objects()[name] = cls
        return cls

    return register


def set_precision(precision: int = 32) -> Callable[[_T], _T]:
    """Decorator: say how many bits the values of a quantizer function need."""

    def decorate(function: _T) -> _T:
        function.precision = precision  # type: ignore[attr-defined]
        return function

    return decorate


@contextlib.contextmanager
def patch_object(object: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute for the duration of a `with` block."""
    before = getattr(object, name)
    setattr(object, name, value)
    try:
        yield
    finally:
        setattr(object, name, before)
