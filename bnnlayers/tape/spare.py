"""Memory that a backward may write to, since nobody will read it again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .nodes import Node


# References to an array, and to the one it is a view of, as `alone` counts them of an array that
# only its caller has.
_ALONE = [0, 0]


def alone(x: Any, others: int = 0) -> bool:
    """Whether only the caller, and as many `others` as it knows of, can see the memory of an array."""
    if type(x) is not np.ndarray or sys.getrefcount(x) > _ALONE[0] + others:
        return False
    flags, base = x.flags, x.base
    if base is None:
        return flags.owndata and flags.carray
    return type(base) is np.ndarray and sys.getrefcount(base) <= _ALONE[1] and base.flags.owndata and flags.carray


def _calibrate() -> None:
    array: np.ndarray = np.empty(2)
    while not alone(array):
        _ALONE[0] += 1
    array = array.copy().reshape(1, 2)
    while not alone(array):
        _ALONE[1] += 1


# Without a global lock the counts of other threads are not seen.
if getattr(sys, "_is_gil_enabled", lambda: True)():
    _calibrate()


class Spare:
    """Arrays of a backward that nobody will read again."""

    __slots__ = ("_arrays", "_gradients", "_parents")

    def __init__(
        self, arrays: list[np.ndarray], gradients: dict[Node, Any] | None = None, parents: tuple[Any, ...] = ()
    ) -> None:
        self._arrays, self._gradients, self._parents = arrays, gradients, parents

    def __call__(self, like: np.ndarray) -> np.ndarray:
        """An array for a result of the shape and dtype of `like`, perhaps dy or a value of the residual.

        It is contiguous. What is written to an element must not depend on another element of dy or the residual that
        may have been overwritten by then.
        """
        for i, array in enumerate(self._arrays):
            if array.shape == like.shape and array.dtype == like.dtype:
                return self._arrays.pop(i)
        return np.empty(like.shape, like.dtype)

    def same(self, x: np.ndarray) -> np.ndarray:
        """A value of the residual itself, if it may be written over, else a new array like it."""
        for i, array in enumerate(self._arrays):
            if array is x:
                return self._arrays.pop(i)
        return np.empty(x.shape, x.dtype)

    def begun(self, index: int) -> np.ndarray | None:
        """The sum of what others gave as gradient of a positional argument, if there is one that nobody else has.

        A backward may add its own to it and return it.
        """
        gradient = self._gradients.get(self._parents[index]) if self._gradients else None
        return gradient if gradient is not None and alone(gradient, 1) else None


class Sparing:
    """A backward that can write over what nobody will read again, and perhaps takes `Parts`."""

    __slots__ = ("function", "parts")

    def __init__(self, function: Callable[..., Any], parts: bool = False) -> None:
        self.function, self.parts = function, parts

    def __call__(self, residual: Any, dy: Any, needed: tuple[bool, ...], spare: Spare | None = None) -> Any:
        return self.function(residual, dy, needed, spare or Spare([]))
