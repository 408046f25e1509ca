"""Layers that combine several tensors, and the functions of the same names."""

from __future__ import annotations

import functools
import operator

from ...ops import merge
from ...ops import shape as shape_ops
from ...ops.norm import Normalized
from ...ops.product import Waiting
from ...tape import read
from ..structure import TensorShape
from .arguments import ConfiguredLayer


def _rank_up(x, rank):
    """`x` with axes of length one after its first, so that it has `rank` axes."""
    missing = rank - len(x.shape)
    if not missing:
        return x
    return shape_ops.reshape(x, shape=(x.shape[0], *(1,) * missing, *x.shape[1:]))


def _of_one_rank(inputs):
    rank = max(len(x.shape) for x in inputs)
    return [_rank_up(x, rank) for x in inputs]


def _broadcast_dims(a, b):
    if a == b or b == 1:
        return a
    if a == 1:
        return b
    if a is None or b is None:
        return None
    raise ValueError(f"{a} and {b}")


class _Merge(ConfiguredLayer):
    """A layer that combines a list of tensors of broadcastable shapes."""

    fewest = 1

    def build(self, input_shape):
        self._check(input_shape)
        self.compute_output_shape(input_shape)
        super().build(input_shape)

    def _check(self, input_shape):
        if isinstance(input_shape, TensorShape) or len(input_shape) < self.fewest:
            count = "exactly 2 inputs" if self.fewest == 2 else "a list of at least 1 input"
            raise ValueError(
                f"A `{type(self).__name__}` layer should be called on {count}. Received: input_shape={input_shape}"
            )

    def call(self, inputs):
        return self._merge(_of_one_rank(inputs))

    def _merge(self, inputs):
        return functools.reduce(self.combine, inputs)

    def compute_output_shape(self, input_shape):
        self._check(input_shape)
        rank = max(len(s) for s in input_shape)
        shapes = [(s[0], *(1,) * (rank - len(s)), *s[1:]) for s in input_shape]
        try:
            return TensorShape(functools.reduce(_broadcast_dims, dims) for dims in zip(*shapes, strict=True))
        except ValueError:
            raise ValueError(
                f"Inputs have incompatible shapes. Received shapes {[tuple(s) for s in input_shape]}"
            ) from None


class Add(_Merge):
    """Sum of the inputs."""

    combine = staticmethod(merge.add)

    def call(self, inputs, later=0):
        *others, last = _of_one_rank(inputs)
        return merge.total(self._merge(others), last, later) if others else read(last)

    def _waits(self, readers):
        return all(r._knows(Normalized) for r in readers)

    def _knows(self, kind):
        return kind is Normalized and type(self).call is Add.call


class Subtract(_Merge):
    """The first input minus the second."""

    combine = staticmethod(operator.sub)
    fewest = 2

    def _check(self, input_shape):
        super()._check(input_shape)
        if len(input_shape) != 2:
            raise ValueError(
                f"A `Subtract` layer should be called on exactly 2 inputs. Received: input_shape={input_shape}"
            )


class Multiply(_Merge):
    """Product of the inputs."""

    combine = staticmethod(merge.multiply)


class Average(_Merge):
    """Mean of the inputs."""

    combine = staticmethod(merge.add)

    def _merge(self, inputs):
        return super()._merge(inputs) / len(inputs)


class Maximum(_Merge):
    """Elementwise largest of the inputs."""

    combine = staticmethod(merge.maximum)


class Minimum(_Merge):
    """Elementwise smallest of the inputs."""

    combine = staticmethod(merge.minimum)


class Concatenate(_Merge):
    """The inputs one after the other along `axis`."""

    def __init__(self, axis=-1, **kwargs):
        super().__init__(**kwargs)
        self._configure(axis=axis)

    def call(self, inputs, later=0):
        if later and self.axis % len(inputs[0].shape) == len(inputs[0].shape) - 1:
            joined = shape_ops.Joined.of(inputs)
            if joined is not None:
                return joined
        return shape_ops.concatenate(*inputs, axis=self.axis)

    def _waits(self, readers):
        return all(r._knows(shape_ops.Joined) for r in readers)

    def _knows(self, kind):
        return kind in (shape_ops.Joined, Waiting) and type(self).call is Concatenate.call

    def compute_output_shape(self, input_shape):
        self._check(input_shape)
        ranks = {len(s) for s in input_shape}
        axis = self.axis
        if len(ranks) == 1 and -min(ranks) <= axis < min(ranks):
            axis %= min(ranks)
            joined = [s[axis] for s in input_shape]
            shapes = [[*s[:axis], *s[axis + 1 :]] for s in input_shape]
            known = [{d for d in dims if d is not None} for dims in zip(*shapes, strict=True)]
            if all(len(dims) <= 1 for dims in known):
                rest = [next(iter(dims), None) for dims in known]
                total = None if None in joined else sum(joined)
                return TensorShape((*rest[:axis], total, *rest[axis:]))
        raise ValueError(
            "A `Concatenate` layer requires inputs with matching shapes except for the "
            f"concatenation axis {self.axis}. Received: {[tuple(s) for s in input_shape]}"
        )


def _function(layer):
    def merge(inputs, **kwargs):
        return layer(**kwargs)(inputs)

    merge.__name__ = merge.__qualname__ = layer.__name__.lower()
    merge.__doc__ = f"Apply a new `{layer.__name__}` layer to `inputs`; keywords are its arguments."
    return merge


add, subtract, multiply = _function(Add), _function(Subtract), _function(Multiply)
average, maximum, minimum = _function(Average), _function(Maximum), _function(Minimum)


def concatenate(inputs, axis=-1, **kwargs):
    """Apply a new `Concatenate` layer to `inputs`."""
    return Concatenate(axis=axis, **kwargs)(inputs)


__all__ = [
    "Add",
    "Average",
    "Concatenate",
    "Maximum",
    "Minimum",
    "Multiply",
    "Subtract",
    "add",
    "average",
    "concatenate",
    "maximum",
    "minimum",
    "multiply",
    "subtract",
]
