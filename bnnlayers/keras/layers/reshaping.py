"""Padding and upsampling of images."""

from __future__ import annotations

import numpy as np

from ...ops import shape as shape_ops
from ..base_layer import InputSpec
from ..structure import TensorShape
from .arguments import ConfiguredLayer, data_format_of, integers


class _ZeroPadding(ConfiguredLayer):
    """Zeros around an image.

    Parameters
    ----------
    padding : int or sequence
        One number for all sides, one per spatial axis, or a pair (before, after) per axis.
    data_format : {"channels_last", "channels_first"}, optional
    """

    rank: int

    def __init__(self, padding=1, data_format=None, **kwargs):
        super().__init__(**kwargs)
        pairs = self._pairs(padding)
        self._configure(padding=pairs[0] if self.rank == 1 else pairs, data_format=data_format_of(data_format))
        self._widths = pairs
        self.input_spec = InputSpec(ndim=self.rank + 2)

    def _pairs(self, padding):
        if self.rank == 1:
            return (integers(padding, 2, "padding", allow_zero=True),)
        sides = (padding,) * self.rank if hasattr(padding, "__index__") else tuple(padding)
        if len(sides) != self.rank:
            raise ValueError(f"`padding` should have {self.rank} elements. Received: {padding}.")
        return tuple(integers(side, 2, "padding", allow_zero=True) for side in sides)

    def _all_widths(self):
        none = (0, 0)
        if self.data_format == "channels_first":
            return (none, none, *self._widths)
        return (none, *self._widths, none)

    def call(self, inputs):
        return shape_ops.pad(inputs, widths=self._all_widths())

    def compute_output_shape(self, input_shape):
        return TensorShape(
            None if d is None else d + sum(w) for d, w in zip(input_shape, self._all_widths(), strict=True)
        )


class ZeroPadding1D(_ZeroPadding):
    __doc__ = _ZeroPadding.__doc__
    rank = 1


class ZeroPadding2D(_ZeroPadding):
    __doc__ = _ZeroPadding.__doc__
    rank = 2


class ZeroPadding3D(_ZeroPadding):
    __doc__ = _ZeroPadding.__doc__
    rank = 3


class UpSampling2D(ConfiguredLayer):
    """Images ``size[0]`` by ``size[1]`` times as large.

    Parameters
    ----------
    size : int or sequence of int
    data_format : {"channels_last", "channels_first"}, optional
    interpolation : {"nearest", "bilinear"}
        Pixels are repeated, or between their centres lies a straight line.
    """

    def __init__(self, size=2, data_format=None, interpolation="nearest", **kwargs):
        super().__init__(**kwargs)
        if interpolation not in ("nearest", "bilinear"):
            raise ValueError(
                f"UpSampling2D: `interpolation` must be 'nearest' or 'bilinear'. Received: {interpolation!r}"
            )
        self._configure(
            size=integers(size, 2, "size"),
            data_format=data_format_of(data_format),
            interpolation=interpolation,
        )
        self.input_spec = InputSpec(ndim=4)

    @property
    def _first(self):
        return 2 if self.data_format == "channels_first" else 1

    def call(self, inputs):
        first = self._first
        if self.interpolation == "nearest":
            return shape_ops.repeat(inputs, times=self.size, first=first)
        lengths = inputs.shape[first : first + 2]
        weights = [_between(length, times) for length, times in zip(lengths, self.size, strict=True)]
        return shape_ops.combine(inputs, weights=weights, first=first)

    def compute_output_shape(self, input_shape):
        shape = list(input_shape)
        for axis, times in enumerate(self.size, self._first):
            shape[axis] = None if shape[axis] is None else shape[axis] * times
        return TensorShape(shape)


def _between(length, times):
    """Row i holds the weights with which the pixels of a line enter pixel i of the longer one."""
    places = (np.arange(length * times) + 0.5) / times - 0.5
    low = np.floor(places).astype(int)
    share = (places - low).astype(np.float32)
    weights = np.zeros((length * times, length), np.float32)
    rows = np.arange(length * times)
    np.add.at(weights, (rows, np.maximum(low, 0)), 1 - share)
    np.add.at(weights, (rows, np.minimum(low + 1, length - 1)), share)
    return weights


__all__ = ["UpSampling2D", "ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D"]
