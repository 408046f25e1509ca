"""Pooling layers: windows and whole images, for one to three spatial axes."""

from __future__ import annotations

import numpy as np

from ...geometry import output_length
from ...ops import pool
from ...ops.product import Waiting
from ..base_layer import InputSpec
from ..structure import TensorShape
from .arguments import ConfiguredLayer, data_format_of, integers, padding_of


class _Pooling(ConfiguredLayer):
    """{what} of each window.

    Parameters
    ----------
    pool_size : int or sequence of int
        The window, one entry per spatial axis.
    strides : int or sequence of int, optional
        By default `pool_size`.
    padding : {{"valid", "same"}}
        With "same" the windows reach over the border; what lies outside is not counted.
    data_format : {{"channels_last", "channels_first"}}, optional
    """

    rank: int

    def __init__(self, pool_size=2, strides=None, padding="valid", data_format=None, **kwargs):
        super().__init__(**kwargs)
        pool_size = integers(pool_size, self.rank, "pool_size")
        self._configure(
            pool_size=pool_size,
            strides=pool_size if strides is None else integers(strides, self.rank, "strides"),
            padding=padding_of(padding, ("valid", "same")),
            data_format=data_format_of(data_format),
        )
        self.input_spec = InputSpec(ndim=self.rank + 2)

    @property
    def _first(self):
        return 2 if self.data_format == "channels_first" else 1

    def call(self, inputs, later=0):
        more = {"later": True} if later else {}
        return type(self).pool_function(
            inputs,
            size=self.pool_size,
            strides=self.strides,
            padding=self.padding,
            first=self._first,
            **more,
        )

    def _takes_largest(self):
        return type(self).call is _Pooling.call and type(self).pool_function is pool.max_pool_of

    def _waits(self, readers):
        return self._takes_largest() and len(readers) == 1 and readers[0]._knows(Waiting)

    def _knows(self, kind):
        # The product of an image need not outlast its pooling.
        return kind is Waiting and self._takes_largest()

    def compute_output_shape(self, input_shape):
        shape = list(input_shape)
        for i, (k, s) in enumerate(zip(self.pool_size, self.strides, strict=True)):
            n = shape[self._first + i]
            shape[self._first + i] = None if n is None else output_length(n, k, self.padding, s)
        if 0 in shape[self._first : self._first + self.rank]:
            raise ValueError(
                f"One of the dimensions in the output of {self.name} is <= 0: the window "
                f"{self.pool_size} is larger than the image. Received input shape "
                f"{tuple(input_shape)}."
            )
        return TensorShape(shape)


class _GlobalPooling(ConfiguredLayer):
    """{what} over all pixels of each channel.

    Parameters
    ----------
    data_format : {{"channels_last", "channels_first"}}, optional
    keepdims : bool
        Whether the spatial axes stay, with size one.
    """

    rank: int

    def __init__(self, data_format=None, keepdims=False, **kwargs):
        super().__init__(**kwargs)
        self._configure(data_format=data_format_of(data_format), keepdims=keepdims)
        self.input_spec = InputSpec(ndim=self.rank + 2)

    @property
    def _axes(self):
        first = 2 if self.data_format == "channels_first" else 1
        return tuple(range(first, first + self.rank))

    def call(self, inputs):
        return type(self).reduction(inputs, axis=self._axes, keepdims=self.keepdims)

    def compute_output_shape(self, input_shape):
        shape = [1 if i in self._axes else d for i, d in enumerate(input_shape)]
        if not self.keepdims:
            shape = [d for i, d in enumerate(shape) if i not in self._axes]
        return TensorShape(shape)


def _family(base, name, what, **members):
    """The classes of one kind of pooling for one, two and three spatial axes."""
    for rank in (1, 2, 3):
        body = {"__doc__": (base.__doc__ or "").format(what=what), "__module__": __name__, "rank": rank}
        yield type(f"{name}{rank}D", (base,), {**body, **members})


MaxPooling1D, MaxPooling2D, MaxPooling3D = _family(
    _Pooling, "MaxPooling", "Largest value", pool_function=staticmethod(pool.max_pool_of)
)
AveragePooling1D, AveragePooling2D, AveragePooling3D = _family(
    _Pooling, "AveragePooling", "Mean", pool_function=staticmethod(pool.average_pool)
)
GlobalMaxPooling1D, GlobalMaxPooling2D, GlobalMaxPooling3D = _family(
    _GlobalPooling, "GlobalMaxPooling", "Largest value", reduction=staticmethod(np.max)
)
GlobalAveragePooling1D, GlobalAveragePooling2D, GlobalAveragePooling3D = _family(
    _GlobalPooling, "GlobalAveragePooling", "Mean", reduction=staticmethod(np.mean)
)
MaxPool1D, MaxPool2D, MaxPool3D = MaxPooling1D, MaxPooling2D, MaxPooling3D
AvgPool1D, AvgPool2D, AvgPool3D = AveragePooling1D, AveragePooling2D, AveragePooling3D
GlobalMaxPool1D, GlobalMaxPool2D, GlobalMaxPool3D = (
    GlobalMaxPooling1D,
    GlobalMaxPooling2D,
    GlobalMaxPooling3D,
)
GlobalAvgPool1D, GlobalAvgPool2D, GlobalAvgPool3D = (
    GlobalAveragePooling1D,
    GlobalAveragePooling2D,
    GlobalAveragePooling3D,
)

__all__ = [
    "AveragePooling1D",
    "AveragePooling2D",
    "AveragePooling3D",
    "AvgPool1D",
    "AvgPool2D",
    "AvgPool3D",
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "GlobalAveragePooling3D",
    "GlobalAvgPool1D",
    "GlobalAvgPool2D",
    "GlobalAvgPool3D",
    "GlobalMaxPool1D",
    "GlobalMaxPool2D",
    "GlobalMaxPool3D",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "GlobalMaxPooling3D",
    "MaxPool1D",
    "MaxPool2D",
    "MaxPool3D",
    "MaxPooling1D",
    "MaxPooling2D",
    "MaxPooling3D",
]
