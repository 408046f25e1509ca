"""Depthwise convolution: every channel has filters of its own, and only taps are summed.

Its kernel is (taps..., C, M): channel c gives the outputs c * M ... c * M + M - 1. So a scale of the channels, on
either side, multiplies the output and takes no bits from the operands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .. import _core
from .. import geometry as geo
from ..bits import BitArray
from ..geometry import Geometry
from . import product
from .product import Image, Product, admitted, per_axis


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
    if isinstance(x, BitArray) or isinstance(w, BitArray):
        y = product.times(x, _by_group(w), geometry, pad, transposed)
    else:
        y = (_float_transposed if transposed else _float_times)(x, w, geometry, pad)
    return y if scale is None else y * scale


def _reduce(x: Any, dy: Any, geometry: Geometry, pad: float) -> Any:
    """The kernel gradient (taps, C, M)."""
    taps, shape = int(np.prod(geometry.kernel)), (geometry.channels, geometry.filters // geometry.channels)
    if not isinstance(x, BitArray):
        return _float_reduce(x, dy, geometry, pad).reshape(taps, *shape)
    dw = product.reduce(x.scaled(None), dy, geometry, pad, False).reshape(taps, *shape)
    return dw if x.scale is None else dw * x.scale[:, np.newaxis]


def _by_group(w: Any) -> Any:
    """(taps..., C, M) as the kernel (taps..., 1, C * M) of a convolution with C groups."""
    shape = (*w.shape[:-2], 1, w.shape[-2] * w.shape[-1])
    if not isinstance(w, BitArray):
        return w.reshape(shape)
    return w.derived("by group", lambda: _bits_by_group(w, shape))


def _bits_by_group(w: BitArray, shape: tuple[int, ...]) -> BitArray:
    planes = [_core.unpack(plane, w.shape[w.axis], w.axis).reshape(shape) for plane in w.words]
    return BitArray(np.concatenate([_core.pack(p, -2, None)[0] for p in planes]), shape, -2, w.kind, w.divisor)


# ---- floats: one tap after the other, since a matrix product of one column per group would be slower ----------------
#
# Every image by itself, which stays in the cache, and with every channel M times, so that all is elementwise.


def _windows(geometry: Geometry) -> Iterator[tuple[int, tuple[slice, ...]]]:
    """Each tap, and what all output pixels read of a padded image through it."""
    axes = list(zip(geometry.outputs, geometry.strides, geometry.dilation, strict=True))
    for i, tap in enumerate(np.ndindex(*geometry.kernel)):
        spans = (slice(t * d, t * d + n * s, s) for t, (n, s, d) in zip(tap, axes, strict=True))
        yield i, tuple(spans)


def _pads(geometry: Geometry) -> list[tuple[int, int]]:
    axes = zip(
        geometry.inputs,
        geometry.outputs,
        geometry.kernel,
        geometry.strides,
        geometry.dilation,
        geometry.pad,
        strict=True,
    )
    return [(low, max(0, (out - 1) * s + (k - 1) * d + 1 - low - n)) for n, out, k, s, d, low in axes]


def _images(x: Any, geometry: Geometry, pad: float) -> Iterator[Any]:
    """Images with padding around them, channels repeated."""
    pads, times = [*_pads(geometry), (0, 0)], geometry.filters // geometry.channels
    for image in x.reshape(geometry.batch, *geometry.inputs, geometry.channels):
        image = np.pad(image, pads, constant_values=pad) if any(map(any, pads)) else image
        yield np.repeat(image, times, axis=-1) if times > 1 else image


def _float_times(x: Any, w: Any, geometry: Geometry, pad: float) -> Any:
    w = w.reshape(-1, geometry.filters)
    y = np.zeros((geometry.batch, *geometry.outputs, geometry.filters), np.result_type(x, w))
    term = np.empty(y.shape[1:], y.dtype)
    for image, out in zip(_images(x, geometry, pad), y, strict=True):
        for tap, window in _windows(geometry):
            out += np.multiply(image[window], w[tap], out=term)
    return y


def _float_transposed(dy: Any, w: Any, geometry: Geometry, pad: float) -> Any:
    w = w.reshape(-1, geometry.filters)
    dy = dy.reshape(geometry.batch, *geometry.outputs, geometry.filters)
    pads = _pads(geometry)
    dx = np.empty((geometry.batch, *geometry.inputs, geometry.channels), np.result_type(dy, w))
    padded = np.empty((*(sum(p) + n for p, n in zip(pads, geometry.inputs, strict=True)), geometry.filters), dx.dtype)
    inside = tuple(slice(low, low + n) for (low, _), n in zip(pads, geometry.inputs, strict=True))
    term = np.empty(dy.shape[1:], dx.dtype)
    for image, out in zip(dy, dx, strict=True):
        padded[...] = 0
        for tap, window in _windows(geometry):
            padded[window] += np.multiply(image, w[tap], out=term)
        found = padded[inside]
        out[...] = found if found.shape == out.shape else found.reshape(*out.shape, -1).sum(axis=-1)
    return dx


def _float_reduce(x: Any, dy: Any, geometry: Geometry, pad: float) -> Any:
    dy = dy.reshape(geometry.batch, *geometry.outputs, geometry.filters)
    dw = np.zeros((int(np.prod(geometry.kernel)), geometry.filters), np.result_type(x, dy))
    term = np.empty(dy.shape[1:], dw.dtype)
    for image, out in zip(_images(x, geometry, pad), dy, strict=True):
        for tap, window in _windows(geometry):
            dw[tap] += np.multiply(image[window], out, out=term).reshape(-1, geometry.filters).sum(axis=0)
    return dw


# ---- as an operation of the tape -----------------------------------------------------------------------------------


@Product
def _product(x, w, *, geometry, pad, layout):
    y = _times(layout.last(x), w, geometry, pad, False)
    return layout.back(y, layout.outputs), (x, w, geometry, pad, layout)


@_product.backward
def _product(residual, dy, needed):
    x, w, geometry, pad, layout = residual
    dy, dx, dw = layout.last(dy), None, None
    if needed[0]:
        dx = layout.back(_times(dy, w, geometry, 0.0, True), layout.inputs)
    if needed[1]:
        dw = _reduce(layout.last(x), dy, geometry, pad).reshape(w.shape)
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
    image = Image("depthwise_conv", x, kernel, data_format, -2)
    channels, rank = image.channels, image.rank
    if image.kernel.shape[-2] != channels:
        raise ValueError(
            "depthwise_conv(): argument 'kernel' must have the channels of 'x' on axis -2, "
            f"got shapes {image.x.shape} and {image.kernel.shape}"
        )
    filters = channels * image.kernel.shape[-1]
    geometry = geo.convolution(
        image.batch,
        image.spatial,
        channels,
        image.kernel.shape[:-2],
        filters,
        strides=per_axis("depthwise_conv", "strides", strides, rank),
        padding=padding,
        dilation=per_axis("depthwise_conv", "dilation_rate", dilation_rate, rank),
        groups=channels,
        function="depthwise_conv",
    )
    x, kernel = admitted(image.x, image.kernel, pad_values)
    kind = ("float", "signed", "xnor")[isinstance(x, BitArray) + isinstance(kernel, BitArray)]
    layout = image.layout(geometry.outputs, filters)
    return _product(kind, x, kernel, geometry=geometry, pad=float(pad_values), layout=layout)
