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
    "cast",
    "clip_by_value",
    "concat",
    "exp",
    "float16",
    "float32",
    "float64",
    "int32",
    "int64",
    "matmul",
    "maximum",
    "minimum",
    "ones_like",
    "reduce_all",
    "reduce_any",
    "reduce_max",
    "reduce_mean",
    "reduce_min",
    "reduce_prod",
    "reduce_sum",
    "reshape",
    "sign",
    "split",
    "sqrt",
    "square",
    "tanh",
    "where",
    "zeros_like",
]

float16, float32, float64, int32, int64 = np.float16, np.float32, np.float64, np.int32, np.int64


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


def _unary(name: str, function: Callable[..., Any], doc: str) -> Callable[..., Any]:
    def apply(x: Any, name: str | None = None) -> Any:
        return function(convert_to_tensor(x))

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = doc
    return apply


def _binary(name: str, function: Callable[..., Any], doc: str) -> Callable[..., Any]:
    def apply(x: Any, y: Any, name: str | None = None) -> Any:
        return function(convert_to_tensor(x), convert_to_tensor(y))

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = doc
    return apply


abs = _unary("abs", np.abs, "Absolute value.")
exp = _unary("exp", np.exp, "Exponential.")
sign = _unary("sign", np.sign, "-1, 0 or 1: unlike `math.sign`, zero is no +1.")
sqrt = _unary("sqrt", np.sqrt, "Square root.")
square = _unary("square", np.square, "Square.")
tanh = _unary("tanh", np.tanh, "Hyperbolic tangent.")
maximum = _binary("maximum", np.maximum, "The larger of two values, element by element.")
minimum = _binary("minimum", np.minimum, "The smaller of two values, element by element.")


def matmul(a: Any, b: Any, name: str | None = None) -> Any:
    """Matrix product."""
    return np.matmul(convert_to_tensor(a), convert_to_tensor(b))


def cast(x: Any, dtype: Any, name: str | None = None) -> Any:
    """The values in another dtype."""
    return convert_to_tensor(x).astype(dtype)


def reshape(tensor: Any, shape: Sequence[int], name: str | None = None) -> Any:
    """The same values in another shape; -1 stands for what is left."""
    return np.reshape(convert_to_tensor(tensor), tuple(shape))


def zeros_like(input: Any, dtype: Any = None, name: str | None = None) -> Any:
    """Zeros of the same shape."""
    return convert_to_tensor(np.zeros_like(np.asarray(convert_to_tensor(input)), dtype))


def ones_like(input: Any, dtype: Any = None, name: str | None = None) -> Any:
    """Ones of the same shape."""
    return convert_to_tensor(np.ones_like(np.asarray(convert_to_tensor(input)), dtype))


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
