"""The functions of TensorFlow that larq's scripts call, under TensorFlow's names and arguments, on NumPy.

Each takes anything array-like, returns a `Tensor`, and is differentiable on a tape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .tape import convert_to_tensor

__all__ = [
    "abs",
    "clip_by_value",
    "concat",
    "reduce_all",
    "reduce_any",
    "reduce_max",
    "reduce_mean",
    "reduce_min",
    "reduce_prod",
    "reduce_sum",
    "split",
    "where",
]


def _reduction(name: str, function: Callable[..., Any], word: str) -> Callable[..., Any]:
    def reduce(input_tensor: Any, axis: Any = None, keepdims: bool = False, name: str | None = None) -> Any:
        axis = tuple(axis) if isinstance(axis, (list, np.ndarray)) else axis
        return function(convert_to_tensor(input_tensor), axis=axis, keepdims=keepdims)

    reduce.__name__ = reduce.__qualname__ = name
    reduce.__doc__ = f"{word} of a tensor over `axis` (an int, several, or None for all)."
    return reduce


reduce_sum = _reduction("reduce_sum", np.sum, "Sum")
reduce_mean = _reduction("reduce_mean", np.mean, "Mean")
reduce_max = _reduction("reduce_max", np.max, "Maximum")
reduce_min = _reduction("reduce_min", np.min, "Minimum")
reduce_prod = _reduction("reduce_prod", np.prod, "Product")
reduce_all = _reduction("reduce_all", np.all, "Conjunction")
reduce_any = _reduction("reduce_any", np.any, "Disjunction")


def abs(x: Any, name: str | None = None) -> Any:
    """Absolute value."""
    return np.abs(convert_to_tensor(x))


def clip_by_value(t: Any, clip_value_min: Any, clip_value_max: Any, name: str | None = None) -> Any:
    """`t` clipped to ``[clip_value_min, clip_value_max]``."""
    return np.clip(convert_to_tensor(t), clip_value_min, clip_value_max)


def where(condition: Any, x: Any = None, y: Any = None, name: str | None = None) -> Any:
    """`x` where the condition holds and `y` elsewhere; with neither, the indices at which it holds."""
    if x is None and y is None:
        return convert_to_tensor(np.argwhere(np.asarray(condition)))
    if x is None or y is None:
        raise ValueError("where(): arguments 'x' and 'y' must be given together, got one of them")
    return np.where(convert_to_tensor(condition), convert_to_tensor(x), convert_to_tensor(y))


def concat(values: Sequence[Any], axis: int, name: str | None = None) -> Any:
    """The values joined along an axis."""
    return np.concatenate([convert_to_tensor(v) for v in values], axis=axis)


def split(value: Any, num_or_size_splits: int | Sequence[int], axis: int = 0, name: str | None = None) -> list[Any]:
    """A list of equal parts, or of parts of the given sizes, along an axis."""
    value = convert_to_tensor(value)
    length = value.shape[axis]
    if isinstance(num_or_size_splits, int):
        if num_or_size_splits < 1 or length % num_or_size_splits:
            raise ValueError(
                f"split(): argument 'num_or_size_splits' must divide axis {axis} of length {length}, "
                f"got {num_or_size_splits}"
            )
        sizes = [length // num_or_size_splits] * num_or_size_splits
    else:
        sizes = list(num_or_size_splits)
        if sum(sizes) != length:
            raise ValueError(
                f"split(): argument 'num_or_size_splits' must sum to {length}, the length of axis {axis}, got {sizes}"
            )
    parts, start = [], 0
    before = (slice(None),) * (axis % value.ndim)
    for size in sizes:
        parts.append(value[(*before, slice(start, start + size))])
        start += size
    return parts
