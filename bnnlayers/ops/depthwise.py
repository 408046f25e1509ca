"""Depthwise convolution: every channel has filters of its own, and only taps are summed.

Its kernel is (taps..., C, M): channel c gives the outputs c * M ... c * M + M - 1. So a scale of the channels, on
either side, multiplies the output and takes no bits from the operands.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _core
from .. import geometry as geo
from ..bits import BitArray
from ..geometry import Geometry
from . import product
from .product import Image, Layout, Product, admitted, hashable, operands, per_axis, read_back


def _times(x: Any, w: Any, geometry: Geometry, pad: float, transposed: bool) -> Any:
    """(batch, ..., C * M) from x (batch, ..., C), or the other way round."""
    scale = None
    if isinstance(w, BitArray) and w.scale is not None:
        scale, w = np.tile(w.scale, geometry.channels), w.scaled(None)
        if transposed:
            x, scale = x * scale, None
    if isinstance(x, BitArray) and x.scale is not None:
        by_channel = np.repeat(x.scale, geometry.filters // geometry.channels)
        scale, x = by_channel if scale is None else scale * by_channel, x.scaled(None)
    if _in_kernels(x, w):
        y = _kernel_times(x, w, geometry, pad, transposed)
    else:
        y = product.times(x, w.reshape(*w.shape[:-2], 1, -1), geometry, pad, transposed)
    return y if scale is None else y * scale


def _kernel_times(x: Any, w: Any, geometry: Geometry, pad: float, transposed: bool) -> Any:
    if isinstance(w, BitArray):
        packed = isinstance(x, BitArray) and math.prod(geometry.kernel) << x.planes + w.planes < 2**31
        if packed:
            divisor = x.divisor * w.divisor
            return _core.depthwise_xnor(x.words, w.words, geometry, pad, np.float32, x.kind, w.kind, divisor)
        # A kernel is small, so what is not plain signs may as well be floats.
        w = w.words if not isinstance(x, BitArray) and w.kind == "sign" and w.planes == 1 else w.numpy()
    if isinstance(x, BitArray):
        return _core.depthwise_float(x.words, w / np.float32(x.divisor), geometry, pad, transposed, x.kind)
    return _core.depthwise_float(x, w, geometry, pad, transposed)


def _reduce(x: Any, dy: Any, geometry: Geometry, pad: float) -> Any:
    """The kernel gradient (taps, C, M)."""
    if not _in_kernels(x, dy):
        return product.reduce(x, dy, geometry, pad, False)
    if not isinstance(x, BitArray):
        return _core.depthwise_reduce(x, dy, geometry, pad)
    dw = _core.depthwise_reduce(x.words, dy, geometry, pad, x.kind) / np.float32(x.divisor)
    return dw if x.scale is None else dw * x.scale[:, np.newaxis]


def _in_kernels(x: Any, w: Any) -> bool:
    """Whether the depthwise kernels take these operands: they know bits and float32, no other floats."""
    return all(isinstance(a, BitArray) or a.dtype == np.float32 for a in (x, w))


# ---- as an operation of the tape -----------------------------------------------------------------------------------


@functools.partial(Product, effort=2)
def _product(x, w, *, geometry, pad, layout, traced):
    y = _times(layout.last(x), w, geometry, pad, False)
    return layout.back(y, layout.outputs), (*read_back(x, w, traced), w.shape, geometry, pad, layout)


@_product.backward
def _product(residual, dy, needed):
    x, w, shape, geometry, pad, layout = residual
    dy, dx, dw = layout.last(dy), None, None
    if needed[0]:
        dx = layout.back(_times(dy, w, geometry, 0.0, True), layout.inputs)
    if needed[1]:
        dw = _reduce(layout.last(x), dy, geometry, pad).reshape(shape)
    return dx, dw


def depthwise_conv(
    x: Any,
    kernel: Any,
    *,
    strides: Sequence[int] | int = 1,
    padding: str = "valid",
    data_format: str = "channels_last",
    dilation_rate: Sequence[int] | int = 1,
    pad_values: float = 0.0,
) -> Any:
    """Depthwise convolution over one, two or three spatial axes.

    Parameters
    ----------
    x : array_like or BitArray, shape (batch, spatial..., C) or (batch, C, spatial...)
        Bits are packed along the channels.
    kernel : array_like or BitArray, shape (taps..., C, M)
        Bits are packed along the channels, axis -2.
    strides, dilation_rate : int or sequence of int
    padding : {"valid", "same", "causal"}
    data_format : {"channels_last", "channels_first"}
    pad_values : float
        What padding adds to the image: any number, but bits can only be padded with 0, +1 or -1; another value runs on
        floats.

    Returns
    -------
    Tensor, shape (batch, spatial..., C * M) or (batch, C * M, spatial...)
        Exact if both operands are bits.

    Raises
    ------
    ValueError
        If shapes or names do not fit together.
    """
    x, kernel = operands(x, kernel, data_format)
    spread = hashable(strides), padding, hashable(dilation_rate)
    geometry, layout = _plan(x.shape, kernel.shape, data_format, *spread)
    x, kernel = admitted(x, kernel, pad_values)
    kind = ("float", "signed", "xnor")[isinstance(x, BitArray) + isinstance(kernel, BitArray)]
    return _product(kind, x, kernel, geometry=geometry, pad=float(pad_values), layout=layout)


# A network asks for the same few in every step.
@functools.lru_cache(maxsize=1024)
def _plan(
    shape: tuple[int, ...],
    kernel: tuple[int, ...],
    data_format: str,
    strides: Sequence[int] | int,
    padding: str,
    dilation: Sequence[int] | int,
) -> tuple[Geometry, Layout]:
    image = Image("depthwise_conv", shape, kernel, data_format)
    channels, rank = image.channels, image.rank
    if kernel[-2] != channels:
        raise ValueError(
            "depthwise_conv(): argument 'kernel' must have the channels of 'x' on axis -2, "
            f"got shapes {shape} and {kernel}"
        )
    filters = channels * kernel[-1]
    geometry = geo.convolution(
        image.batch,
        image.spatial,
        channels,
        kernel[:-2],
        filters,
        strides=per_axis("depthwise_conv", "strides", strides, rank),
        padding=padding,
        dilation=per_axis("depthwise_conv", "dilation_rate", dilation, rank),
        groups=channels,
        function="depthwise_conv",
    )
    return geometry, image.layout(geometry.outputs, filters)
