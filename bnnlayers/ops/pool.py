"""Pooling over windows, for any number of spatial axes.

Kernels pool float32 whose channels lie last and keep a few bits per window: which of its taps won.
Any other array is NumPy's.
"""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np

from .. import _core
from ..geometry import Geometry, convolution, low_pad, output_length
from ..tape import operation, read, recording
from .product import Product, Waiting, of_images, read_back, reduce, times


class _Windows:
    """The taps of a window, each as the part of the output it reaches and what it reads there.

    A tap that falls on padding is simply absent, so "same" needs no padded copy of the input.
    """

    def __init__(self, shape, size, strides, padding, first):
        lengths = shape[first : first + len(size)]
        axes = list(zip(lengths, size, strides, strict=True))
        spatial = [output_length(n, k, padding, s) for n, k, s in axes]
        self.shape = (*shape[:first], *spatial, *shape[first + len(size) :])
        self.first = first
        lead = (slice(None),) * first
        reached = [
            [_reach(tap - low_pad(n, k, padding, s), s, n, out) for tap in range(k)]
            for (n, k, s), out in zip(axes, spatial, strict=True)
        ]
        self.taps = [
            (lead + tuple(o for o, _ in parts), lead + tuple(i for _, i in parts))
            for parts in itertools.product(*reached)
        ]
        self.reached = reached
        self.spatial = spatial
        self.overlap = any(k > s for k, s in zip(size, strides, strict=True))

    def reaches_all(self, out):
        """Whether a tap reads an input for every output pixel."""
        parts = zip(out[self.first :], self.spatial, strict=True)
        return all((part.start, part.stop) == (0, length) for part, length in parts)

    def counts(self, ndim, dtype):
        """How many inputs each output pixel averages over, broadcastable to the output."""
        count = np.ones((1,) * ndim, dtype)
        for axis, (parts, length) in enumerate(zip(self.reached, self.spatial, strict=True)):
            along = np.zeros(length, dtype)
            for out, _ in parts:
                along[out] += 1
            shape = [1] * ndim
            shape[self.first + axis] = length
            count = count * along.reshape(shape)
        return count


def _reach(offset, stride, length, outputs):
    """Output pixels `o` with ``0 <= o * stride + offset < length``, and the pixels they read."""
    low = max(0, -(offset // stride))
    high = min(outputs, (length - 1 - offset) // stride + 1)
    if high <= low:
        return slice(0, 0), slice(0, 0)
    start = low * stride + offset
    return slice(low, high), slice(start, start + (high - low - 1) * stride + 1, stride)


def _geometry(x, size, strides, padding, first) -> Geometry | None:
    """The windows as kernels see them, or None if they do not take `x`."""
    if x.dtype != np.float32 or first != 1:
        return None
    return _plan(x.shape, tuple(size), tuple(strides), padding)


# A network asks for the same few in every step.
@functools.lru_cache(maxsize=1024)
def _plan(shape, size, strides, padding) -> Geometry | None:
    rank, spatial = len(size), shape[1:-1]
    if rank > 3 or len(shape) != rank + 2 or 0 in shape:
        return None
    if padding == "valid" and any(n < k for n, k in zip(spatial, size, strict=True)):
        return None
    batch, channels = shape[0], shape[-1]
    return convolution(
        batch,
        spatial,
        channels,
        size,
        channels,
        strides=strides,
        padding=padding,
        dilation=(1,) * rank,
        groups=channels,
    )


def _outputs(y, geometry, rank):
    """What a kernel wrote, with `rank` spatial axes; its own are always three."""
    return y.reshape(geometry.batch, *geometry.outputs[3 - rank :], geometry.channels)


def _lowest(dtype):
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


@operation(recompute=True)
def max_pool(x, *, size, strides, padding="valid", first=1, traced):
    """Largest value of each window.

    Parameters
    ----------
    x : array
    size, strides : tuple of int
        One entry per spatial axis.
    padding : {"valid", "same"}
    first : int
        The first spatial axis: 1 for channels_last, 2 for channels_first.

    Returns
    -------
    Tensor
        The gradient of a window goes to its first largest value in row-major order.
    """
    geometry = _geometry(x, size, strides, padding, first)
    if geometry is not None:
        y, winner = _core.max_pool(x, geometry, traced[0])
        return _outputs(y, geometry, len(size)), (winner, geometry, x.shape)
    windows = _Windows(x.shape, size, strides, padding, first)
    (out, seen), *others = windows.taps
    if windows.reaches_all(out):
        y = x[seen].copy()
    else:
        y = np.full(windows.shape, _lowest(x.dtype), x.dtype)
        others = windows.taps
    if not traced[0]:
        for out, seen in others:
            part = y[out]
            np.maximum(part, x[seen], out=part)
        return y, None
    winner = np.zeros(windows.shape, np.min_scalar_type(len(windows.taps)))
    for tap, (out, seen) in enumerate(others, len(windows.taps) - len(others)):
        best, candidate, chosen = y[out], x[seen], winner[out]
        # Taps come in row-major order, and only a strictly larger value takes over.
        better = (candidate > best).view(np.uint8).astype(winner.dtype, copy=False)
        better *= winner.dtype.type(tap)
        np.maximum(chosen, better, out=chosen)
        np.maximum(best, candidate, out=best)
    return y, (winner, windows, x.shape)


@max_pool.backward
def max_pool(residual, dy, needed):
    winner, windows, shape = residual
    if isinstance(windows, Geometry):
        return (_core.max_pool_grad(dy, winner, windows).reshape(shape),)
    dx = np.zeros(shape, dy.dtype)
    for tap, (out, seen) in enumerate(windows.taps):
        if windows.overlap:
            dx[seen] += dy[out] * (winner[out] == tap)
        else:
            np.multiply(dy[out], winner[out] == tap, out=dx[seen])
    return (dx,)


def max_pool_of(x, *, size, strides, padding="valid", first=1, later=False):
    """`max_pool` of an array or of a `Waiting` product, of which then no more than a few images are ever there.

    If `later`, the result may be `Waiting` where it is recorded: two bytes of it are kept, or none.
    """
    if type(x) is Waiting and (windows := _geometry(x, size, strides, padding, first)) is not None:
        pooled = x.instead(_Pooled, windows=windows, rank=len(size))
        return pooled if later and recording() else read(pooled)
    return max_pool(x, size=size, strides=strides, padding=padding, first=first)


# Pixels of a product that are there at a time until they are pooled; of few channels more, as many floats as a near
# cache holds. Fewer would cost more time: for each part of a batch the gradient of the kernel is added up once.
_PIXELS, _FLOATS = 1 << 13, 1 << 19


@functools.lru_cache(maxsize=1024)
def _images(geometry, windows):
    """Slices of the batch, at least one and of nearly the same length, and the geometries of each."""
    batch = max(1, geometry.batch)
    pixels = max(_PIXELS, _FLOATS // max(1, windows.channels))
    parts = -(-batch // max(1, pixels // max(1, math.prod(geometry.outputs))))
    most = -(-batch // parts)
    found = []
    for first in range(0, batch, most):
        count = min(geometry.batch - first, most)
        found.append((slice(first, first + count), geometry._replace(batch=count), windows._replace(batch=count)))
    return found


@functools.partial(Product, effort=4)
def _pooled(x, w, *, geometry, windows, rank, pad, layout, transposed, integers=False, traced):
    y = np.empty((geometry.batch, *windows.outputs, windows.channels), np.int16 if integers else np.float32)
    winners = []
    for images, some, pooled in _images(geometry, windows):
        product = times(x[images], w, some, pad, transposed)
        largest, winner = _core.max_pool(product, pooled, True in traced, None if integers else y[images])
        if integers:
            y[images] = largest
        winners.append(winner)
        del product  # before there is another
    residual = winners, *read_back(x, w, traced), w.shape, geometry, windows, pad, layout, transposed
    return _outputs(y, windows, rank), residual


@_pooled.backward
def _pooled(residual, dy, needed):
    winners, x, w, shape, geometry, windows, pad, layout, transposed = residual
    batch, *pixels, channels = layout.inputs
    dx = np.empty((batch, math.prod(pixels), channels), np.float32) if needed[0] else None
    dw = None
    for winner, (images, some, pooled) in zip(winners, _images(geometry, windows), strict=True):
        flow = _core.max_pool_grad(dy[images], winner, pooled)
        if needed[0]:
            part = dx[images]
            if (found := times(flow, w, some, 0.0, not transposed, part, True)) is not part:
                part[...] = found
        if needed[1]:
            more = reduce(x[images], flow, some, pad, transposed)
            dw = more if dw is None else np.add(dw, more, out=dw)
        del flow  # before there is another
    return layout.back(dx, layout.inputs) if needed[0] else None, dw.reshape(shape) if needed[1] else None


class _Pooled(Waiting):
    """The pooling of a product that is yet to be computed."""

    product = _pooled

    def __init__(self, kind, x, w, **parameters):
        super().__init__(kind, x, w, **parameters)
        windows, rank = parameters["windows"], parameters["rank"]
        self.shape = windows.batch, *windows.outputs[3 - rank :], windows.channels


@_pooled.part
def _pooled_of_images(images, args, parameters):
    args, parameters = of_images(images, args, parameters)
    batch = parameters["geometry"].batch
    return args, {**parameters, "windows": parameters["windows"]._replace(batch=batch)}


@operation(recompute=True)
def average_pool(x, *, size, strides, padding="valid", first=1):
    """Mean of each window; padded pixels are not counted.

    Parameters
    ----------
    x : array
    size, strides : tuple of int
        One entry per spatial axis.
    padding : {"valid", "same"}
    first : int
        The first spatial axis: 1 for channels_last, 2 for channels_first.
    """
    geometry = _geometry(x, size, strides, padding, first)
    if geometry is not None:
        y = _outputs(_core.average_pool(x, geometry), geometry, len(size))
        return y, (geometry, None, x.shape)
    windows = _Windows(x.shape, size, strides, padding, first)
    y = np.zeros(windows.shape, x.dtype)
    for out, seen in windows.taps:
        y[out] += x[seen]
    counts = windows.counts(x.ndim, x.dtype)
    y /= counts
    return y, (windows, counts, x.shape)


@average_pool.backward
def average_pool(residual, dy, needed):
    windows, counts, shape = residual
    if isinstance(windows, Geometry):
        return (_core.average_pool_grad(dy, windows).reshape(shape),)
    share = dy / counts
    dx = np.zeros(shape, dy.dtype)
    for out, seen in windows.taps:
        dx[seen] += share[out]
    return (dx,)
