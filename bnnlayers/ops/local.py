"""Locally connected products: a convolution with weights of its own at every output pixel.

The kernel comes in one of Keras's three layouts. Inside it is always (pixels, taps * C, F), and the image a row of
windows (batch, pixels, taps * C): one small matrix product per pixel, which for bits is a dense product whose groups
are the pixels. What lies outside of the image contributes nothing, whatever the operands are.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _core
from .. import geometry as geo
from ..bits import BitArray
from ..geometry import Geometry
from . import product
from .product import Layout, Product, admitted, arithmetic, operand, per_axis
from .quantize import decode


class Connections(NamedTuple):
    """Which weight joins which input to which output.

    `geometry` is the convolution's, for one image; `first` says that the kernel puts channels first.
    """

    geometry: Geometry
    implementation: int
    first: bool

    @property
    def pixels(self) -> int:
        return int(np.prod(self.geometry.outputs))

    @property
    def taps(self) -> int:
        return int(np.prod(self.geometry.kernel))

    @property
    def depth(self) -> int:
        """Inputs of one output pixel."""
        return self.taps * self.geometry.channels

    @property
    def inside(self) -> Any:
        """(pixels, taps): whether a tap lies in the image."""
        return _sources(self.geometry)[1]

    @property
    def padded(self) -> bool:
        return not self.inside.all()

    def kernel_shape(self, rank: int) -> tuple[int, ...]:
        """Of the kernel in this layout."""
        g, channels, filters = self.geometry, (self.geometry.channels,), (self.geometry.filters,)
        if self.implementation == 1:
            return self.pixels, self.depth, g.filters
        if self.implementation == 3:
            return (int(self.inside.sum()) * g.channels * g.filters,)
        inputs, outputs = g.inputs[3 - rank :], g.outputs[3 - rank :]
        if self.first:
            return channels + inputs + filters + outputs
        return inputs + channels + outputs + filters

    def packed_axis(self, rank: int) -> int:
        """The axis along which bits of the kernel are packed: its inputs, as far as they have an axis of their own."""
        return {1: 1, 2: 0 if self.first else rank, 3: 0}[self.implementation]

    def arrange(self, kernel: Any) -> Any:
        """(pixels, taps, C, F) from the kernel's own layout; zero where a tap lies outside."""
        g, pixels, taps = self.geometry, self.pixels, self.taps
        if self.implementation == 1:
            if self.first:
                return kernel.reshape(pixels, g.channels, taps, g.filters).swapaxes(1, 2)
            return kernel.reshape(pixels, taps, g.channels, g.filters)
        if self.implementation == 3:
            if self.padded:
                found = np.zeros((pixels, g.filters, taps, g.channels), kernel.dtype)
                for at, inside, part in self._parts(kernel):
                    found[at][:, inside] = part
            elif self.first:
                found = kernel.reshape(g.filters, pixels, g.channels, taps).transpose(1, 0, 3, 2)
            else:
                found = kernel.reshape(pixels, g.filters, taps, g.channels)
            return found.transpose(0, 2, 3, 1)
        source, inside = _sources(g)
        dense, index = self._dense(kernel, source, np.arange(pixels)[:, np.newaxis])
        return np.where(inside[..., np.newaxis, np.newaxis], dense[index], kernel.dtype.type(0))

    def restore(self, arranged: Any, shape: tuple[int, ...]) -> Any:
        """The kernel's own layout, with zeros where nothing is connected; the transpose of `arrange`."""
        g, pixels, taps = self.geometry, self.pixels, self.taps
        arranged = arranged.reshape(pixels, taps, g.channels, g.filters)
        if self.implementation == 1:
            return (arranged.swapaxes(1, 2) if self.first else arranged).reshape(shape)
        if self.implementation == 3:
            found = arranged.transpose(0, 3, 1, 2)
            if not self.padded:
                return (found.transpose(1, 0, 3, 2) if self.first else found).reshape(shape)
            sparse = np.empty(shape, arranged.dtype)
            for at, inside, part in self._parts(sparse):
                part[...] = found[at][:, inside]
            return sparse
        kernel = np.zeros(shape, arranged.dtype)
        source, inside = _sources(g)
        pixel, tap = np.nonzero(inside)
        dense, index = self._dense(kernel, source[pixel, tap], pixel)
        dense[index] = arranged[pixel, tap]
        return kernel

    def _parts(self, kernel: Any) -> Iterator[tuple[int, Any, Any]]:
        """Each pixel, which of its taps lie inside, and a view (F, taps inside, C) of its part of a sparse kernel."""
        filters, channels, begin = self.geometry.filters, self.geometry.channels, 0
        for pixel, inside in enumerate(self.inside):
            count = int(inside.sum())
            end = begin + count * channels
            if self.first:
                part = kernel.reshape(filters, -1)[:, begin:end].reshape(filters, channels, count).swapaxes(1, 2)
            else:
                part = kernel[begin * filters : end * filters].reshape(filters, count, channels)
            yield pixel, inside, part
            begin = end

    def _dense(self, kernel: Any, source: Any, pixel: Any) -> tuple[Any, Any]:
        """A view of a dense kernel, and the index that finds (C, F) of pairs of input and output pixel."""
        g = self.geometry
        if self.first:
            return kernel.reshape(g.channels, -1, g.filters, self.pixels), (slice(None), source, slice(None), pixel)
        return kernel.reshape(-1, g.channels, self.pixels, g.filters), (source, slice(None), pixel)

    def dense_words(self, words: Any) -> Any:
        """As `arrange`, (pixels, F, taps, words of C) from one plane of a dense kernel packed along its channels."""
        g, pixels = self.geometry, self.pixels
        source, inside = _sources(g)
        each = np.arange(pixels)[:, np.newaxis]
        if self.first:
            found = words.reshape(-1, g.filters, pixels, words.shape[-1])[source, :, each]
        else:
            found = words.reshape(-1, pixels, g.filters, words.shape[-1])[source, each]
        return np.where(inside[..., np.newaxis, np.newaxis], found, np.uint32(0)).swapaxes(1, 2)

    def column_scale(self, scale: Any) -> Any:
        """The scale of a kernel's last axis, for (pixels * F)."""
        if self.implementation == 2 and self.first:
            return np.repeat(np.tile(scale, self.pixels // len(scale)), self.geometry.filters)
        return np.tile(scale, self.pixels)


@functools.lru_cache(maxsize=64)
def _sources(g: Geometry) -> tuple[Any, Any]:
    """(pixels, taps): the input pixel that a tap reads, 0 outside, and whether it lies inside."""
    source: Any = np.zeros((1, 1), np.int64)
    inside: Any = np.ones((1, 1), bool)
    for n, out, k, s, low in zip(g.inputs, g.outputs, g.kernel, g.strides, g.pad, strict=True):
        at = np.arange(out)[:, np.newaxis] * s + np.arange(k) - low
        within = (at >= 0) & (at < n)
        outer = source[:, np.newaxis, :, np.newaxis] * n + np.where(within, at, 0)[:, np.newaxis]
        both = inside[:, np.newaxis, :, np.newaxis] & within[:, np.newaxis]
        source, inside = (a.reshape(len(source) * out, -1) for a in (outer, both))
    source = np.where(inside, source, 0)
    source.flags.writeable = inside.flags.writeable = False
    return source, inside


# ---- the operands in the form of a dense product ---------------------------------------------------------------------


def _windows(x: Any, c: Connections) -> Any:
    """(batch, pixels * depth): what each output pixel reads, zero outside of the image."""
    geometry = c.geometry._replace(batch=x.shape[0])
    if not isinstance(x, BitArray):
        return _core.im2col(x, geometry, 0.0).reshape(x.shape[0], c.pixels * c.depth)
    in_words = geometry._replace(channels=x.words.shape[-1])
    planes = []
    for plane in x.words:
        columns = _core.im2col(plane.view(np.float32), in_words, 0.0)  # moves words as they are
        taps = columns.view(np.uint32).reshape(x.shape[0], c.pixels * c.taps, in_words.channels)
        planes.append(_joined(taps, c.geometry.channels))
    scale = None if x.scale is None else np.tile(x.scale, c.pixels * c.taps)
    return BitArray(np.stack(planes), (x.shape[0], c.pixels * c.depth), 1, x.kind, x.divisor, scale)


def _masked(windows: BitArray, c: Connections) -> BitArray:
    """Signs with zeros outside of the image."""
    inside = np.repeat(c.inside.reshape(-1), c.geometry.channels)
    nonzero = np.broadcast_to(_core.pack(np.where(inside, -1.0, 1.0), 0, None)[0], windows.words.shape)
    words = np.concatenate([windows.words, nonzero])
    return BitArray(words, windows.shape, 1, "ternary", windows.divisor, windows.scale)


def _right(w: Any, c: Connections) -> Any:
    """The kernel (depth, pixels * F) of a product with a group for every pixel."""
    shape = (c.depth, c.pixels * c.geometry.filters)
    if not isinstance(w, BitArray):
        return c.arrange(w).reshape(c.pixels, c.depth, -1).swapaxes(0, 1).reshape(shape)
    bits = w.scaled(None).derived(c, lambda: _bits(w, c, shape))
    return bits if w.scale is None else bits.scaled(c.column_scale(w.scale))


def _bits(w: BitArray, c: Connections, shape: tuple[int, int]) -> BitArray:
    if c.implementation == 1 and not c.first:
        planes: Any = w.words
    elif c.implementation == 2:
        planes = [_joined(c.dense_words(plane), c.geometry.channels) for plane in w.words]
    else:
        floats = (_core.unpack(plane, w.shape[w.axis], w.axis) for plane in w.words)
        planes = [_core.pack(c.arrange(plane).reshape(c.pixels, c.depth, -1), 1, None)[0][0] for plane in floats]
    words = np.stack(planes).reshape(len(w.words), shape[1], -1)
    return BitArray(words, shape, 0, w.kind, w.divisor)


def _joined(words: Any, count: int) -> Any:
    """(..., ceil(taps * count / 32)) from (..., taps, ceil(count / 32))."""
    lead = words.shape[:-2]
    if count % 32 == 0:
        return words.reshape(*lead, words.shape[-2] * words.shape[-1])
    return _core.pack(_core.unpack(words, count, -1).reshape(*lead, words.shape[-2] * count), -1, None)[0][0]


# ---- as an operation of the tape -----------------------------------------------------------------------------------


@Product
def _product(x, w, *, connections, layout):
    c, batch = connections, len(x)
    windows = _windows(layout.last(x), c)
    if isinstance(x, BitArray) or isinstance(w, BitArray):
        if isinstance(w, BitArray) and c.padded and isinstance(windows, BitArray) and windows.kind == "sign":
            windows = _masked(windows, c)
        y = product.times(windows, _right(w, c), _dense(c, batch), 0.0, False)
    else:
        y = np.matmul(_by_pixel(windows, c, c.depth), c.arrange(w).reshape(c.pixels, c.depth, -1)).swapaxes(0, 1)
    return layout.back(y, layout.outputs), (x, w, c, layout)


@_product.backward
def _product(residual, dy, needed):
    x, w, c, layout = residual
    dy, dx, dw, batch = layout.last(dy), None, None, len(x)
    if needed[0]:
        if isinstance(w, BitArray):
            columns = product.times(
                dy.reshape(batch, c.pixels * c.geometry.filters), _right(w, c), _dense(c, batch), 0.0, True
            )
        else:
            kernel = c.arrange(w).reshape(c.pixels, c.depth, -1)
            columns = np.matmul(_by_pixel(dy, c, c.geometry.filters), kernel.swapaxes(1, 2)).swapaxes(0, 1)
        columns = columns.reshape(1, batch * c.pixels, c.depth)
        dx = layout.back(_core.col2im(columns, c.geometry._replace(batch=batch)), layout.inputs)
    if needed[1]:
        windows = _windows(layout.last(x), c)
        if isinstance(x, BitArray):
            rows = dy.reshape(batch, c.pixels * c.geometry.filters)
            by_pixel = product.reduce_by_group(windows, rows, _dense(c, batch))
        else:
            by_pixel = np.matmul(_by_pixel(windows, c, c.depth).swapaxes(1, 2), _by_pixel(dy, c, c.geometry.filters))
        dw = c.restore(by_pixel, w.shape)
    return dx, dw


def _dense(c: Connections, batch: int) -> Geometry:
    return geo.dense(batch, c.pixels * c.depth, c.pixels * c.geometry.filters, groups=c.pixels)


def _by_pixel(a: Any, c: Connections, n: int) -> Any:
    """(pixels, batch, n) from (batch, ...)."""
    return a.reshape(len(a), c.pixels, n).swapaxes(0, 1)


def connections(
    spatial: Sequence[int],
    channels: int,
    filters: int,
    kernel_size: Sequence[int],
    *,
    strides: Sequence[int],
    padding: str,
    data_format: str,
    implementation: int,
) -> Connections:
    """What `locally_connected` joins; also the shape of its kernel."""
    if implementation not in (1, 2, 3):
        raise ValueError(f"locally_connected(): argument 'implementation' must be 1, 2 or 3, got {implementation!r}")
    if padding not in ("valid", "same") or (implementation == 1 and padding != "valid"):
        allowed = "'valid'" if implementation == 1 else "'valid' or 'same'"
        raise ValueError(
            f"locally_connected(): argument 'padding' must be {allowed} for implementation {implementation}, "
            f"got {padding!r}"
        )
    geometry = geo.convolution(
        1,
        spatial,
        channels,
        kernel_size,
        filters,
        strides=strides,
        padding=padding,
        dilation=(1,) * len(kernel_size),
        function="locally_connected",
    )
    if padding == "same":  # Keras centres these windows on every stride-th pixel, unlike those of a convolution
        z, y, x = geometry.kernel
        geometry = geometry._replace(pad=(z // 2, y // 2, x // 2))
    return Connections(geometry, implementation, data_format == "channels_first")


def locally_connected(
    x: Any,
    kernel: Any,
    *,
    filters: int,
    kernel_size: Sequence[int],
    strides: Sequence[int] | int = 1,
    padding: str = "valid",
    data_format: str = "channels_last",
    implementation: int = 1,
) -> Any:
    """Convolution over one, two or three spatial axes, with a kernel of its own at every output pixel.

    Parameters
    ----------
    x : array_like or BitArray, shape (batch, spatial..., C) or (batch, C, spatial...)
        Bits are packed along the channels.
    kernel : array_like or BitArray
        Of the shape that `implementation` asks for.
    filters : int
    kernel_size : sequence of int
    strides : int or sequence of int
    padding : {"valid", "same"}
        "same" needs implementation 2 or 3.
    data_format : {"channels_last", "channels_first"}
        Of the image, and of the order in which the kernel counts inputs and outputs.
    implementation : {1, 2, 3}
        Layout of the kernel, with P output pixels and T taps.
        1: (P, T * C, F), or (P, C * T, F) for channels_first. Bits are packed along axis 1.
        2: (inputs..., C, outputs..., F), or (C, inputs..., F, outputs...): every input with every output, of which only
        what is connected counts. Bits are packed along the channels.
        3: what of that is connected, ordered by output, then input. Bits are packed along its only axis.

    Returns
    -------
    Tensor, shape (batch, outputs..., F) or (batch, F, outputs...)
        Exact if both operands are bits.

    Raises
    ------
    ValueError
        If shapes or names do not fit together.
    """
    rank = len(kernel_size)
    first = data_format == "channels_first"
    x = operand(x, 1 if first else -1)
    if rank not in (1, 2, 3) or x.ndim != rank + 2:
        raise ValueError(
            "locally_connected(): argument 'x' must have a batch, channels and an axis for each of 'kernel_size' "
            f"{tuple(kernel_size)}, got shape {x.shape}"
        )
    spatial, channels = (x.shape[2:], x.shape[1]) if first else (x.shape[1:-1], x.shape[-1])
    c = connections(
        spatial,
        channels,
        filters,
        kernel_size,
        strides=per_axis("locally_connected", "strides", strides, rank),
        padding=padding,
        data_format=data_format,
        implementation=implementation,
    )
    kernel = operand(kernel, c.packed_axis(rank))
    if kernel.shape != c.kernel_shape(rank):
        raise ValueError(
            f"locally_connected(): argument 'kernel' must have shape {c.kernel_shape(rank)}, got {kernel.shape}"
        )
    x, kernel = admitted(x, kernel)
    if isinstance(kernel, BitArray) and kernel.scale is not None and implementation == 3:
        kernel = decode(kernel)  # a scale of every single weight
    both = isinstance(x, BitArray) and isinstance(kernel, BitArray)
    if both and c.padded and x.kind == "sign" and x.planes > 1:
        x = decode(x)  # several planes of signs have no zero for what lies outside
    outputs = (x.shape[0], *c.geometry.outputs[3 - rank :], filters)
    layout = Layout((x.shape[0], *spatial, channels), outputs, first)
    return _product(arithmetic(x, kernel), x, kernel, connections=c, layout=layout)
