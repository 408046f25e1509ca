"""Products: dense and convolution. The types of the two operands choose the arithmetic.

| left \\ right | array                          | BitArray       |
|---------------|--------------------------------|----------------|
| array         | "float": BLAS, after an im2col | "signed"       |
| BitArray      | "signed"                       | "xnor"         |

Floats that are few in a sum meet floats, or signs as floats, in kernels of their own. Every product is a convolution; a
matrix product has one tap. Inside, images are channels-last with flat pixels.
"""

from __future__ import annotations

import functools
import itertools
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .. import _core
from .. import geometry as geo
from ..bits import BitArray
from ..geometry import Geometry
from ..tape import Tensor, operation, read
from ..tape.nodes import observers
from . import blas
from .later import Later
from .quantize import Quantized, decode

_FLOAT, _FLOAT64, _INT16 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int16)


def operand(x: Any, axis: int) -> Any:
    """What a product reads of `x` when it reduces along `axis`: a BitArray, or a Tensor or array."""
    if isinstance(x, BitArray):
        return x
    if hasattr(x, "_operand_"):
        return x._operand_(axis)
    x = read(x)
    return x if isinstance(x, np.ndarray) else np.asarray(x)


def arithmetic(x: Any, w: Any, transposed: bool = False) -> str:
    """Which kernels a product of these operands runs: "xnor", "signed" or "float".

    A scale on the axis that is summed over is multiplied into the other operand, which then is float.
    """
    packed = isinstance(x, BitArray) + isinstance(w, BitArray)
    if packed == 2 and (x.scale is not None or (transposed and w.scale is not None)):
        packed = 1
    return ("float", "signed", "xnor")[packed]


# ---- the four products and their two gradients, on channels-last operands ------------------------------------------
#
# A convolution runs from the geometry's inputs to its outputs. Its input gradient, and a transposed convolution, run
# backwards over the same geometry and kernel: `transposed`. So one function is forward and input gradient of both.


def times(
    x: Any, w: Any, geometry: Geometry, pad: float, transposed: bool, out: Any = None, gradient: bool = False
) -> Any:
    """(batch, pixels, columns) from x (batch, ..., depth) and w (taps..., C / groups, F); `out` if that can be.

    Of a `gradient`, x, what is zero may be left out.
    """
    scale = None
    left, right = isinstance(x, BitArray), isinstance(w, BitArray)
    if right and w.scale is not None:
        if transposed:  # the scale lies on the axis that is summed over
            x, left = _floats(x) * w.scale, False
        else:
            scale = w.scale
        w = w.scaled(None)
    if left and x.scale is not None:
        w, right = _floats(w) * _along_depth(x.scale, geometry, transposed), False
        x = x.scaled(None)
    if left and right:
        y = _integer_times(x, w, geometry, pad, transposed)
        divisor = x.divisor * w.divisor
        if divisor != 1:
            np.divide(y, y.dtype.type(divisor), out=y)
    elif left or right:
        y = _signed_times(x, w, geometry, pad, transposed, out, gradient)
    else:
        y = _float_times(x, w, geometry, pad, transposed)
    return y if scale is None else y * scale


def _signed_times(x: Any, w: Any, geometry: Geometry, pad: float, transposed: bool, out: Any, gradient: bool) -> Any:
    bits = x if isinstance(x, BitArray) else w
    if bits.is_signs:
        if bits is x:
            return _core.signed_left(x.words, w.swapaxes(-1, -2) if transposed else w, geometry, pad, transposed)
        if x.dtype == _FLOAT:
            if _few(geometry, transposed) and (geometry.filters if transposed else geometry.channels) <= _FEW_CHANNELS:
                return _direct_times(x, w.derived("floats", w.numpy), geometry, pad, transposed)
            if _by_channel(geometry, transposed):
                return _by_channel_times(x, w.derived("floats", w.numpy), geometry, pad)
        right = w.prepare(geometry.groups, geometry.channels, transposed)
        return _core.signed_right(x, right, geometry, pad, transposed, out, gradient)

    only = out if bits is w and w.kind == "sign" and len(w.words) == 1 else None

    def one(x: Any, w: Any, geometry: Geometry = geometry) -> Any:
        return _signed_times(x, w, geometry, pad, transposed, only, gradient)

    def of_ones() -> Any:
        if isinstance(x, BitArray):  # the same for every image
            image = geometry._replace(batch=1)
            if geometry.kernel == geometry.strides == (1, 1, 1) and geometry.inputs == geometry.outputs:
                image = image._replace(inputs=(1, 1, 1), outputs=(1, 1, 1))
            pixels = math.prod(image.outputs if transposed else image.inputs)
            return one(_ones((1, pixels, x.shape[-1])), w, image)
        # The same for every column of a group.
        groups, shape = geometry.groups, w.shape
        if transposed:
            narrow, shape = geometry._replace(channels=groups), (*shape[:-2], 1, shape[-1])
        else:
            narrow, shape = geometry._replace(filters=groups), (*shape[:-1], groups)
        columns = geometry.channels if transposed else geometry.filters
        return np.repeat(one(x, _ones(shape, -2), narrow), columns // groups, axis=-1)

    return sum_of_terms(one, x, w, of_ones)


def _integer_times(
    x: BitArray, w: BitArray, geometry: Geometry, pad: float, transposed: bool, dtype: Any = _FLOAT
) -> Any:
    """Bits times bits, before divisors. What could exceed the kernel's int32 is put together from fewer planes."""
    many = len(x.words) > 2 or len(w.words) > 2
    if many and _depth(geometry, transposed) << (x.planes + w.planes) > np.iinfo(np.int32).max:
        low, weight, high = max(x, w, key=lambda a: a.planes).halves()
        pairs = [(half, w) if x.planes >= w.planes else (x, half) for half in (low, high)]
        y, more = (_integer_times(*pair, geometry, pad, transposed) for pair in pairs)
        more *= more.dtype.type(weight)
        return np.add(y, more, out=y)
    return _core.xnor(x.words, *_all_but_words(x.kind, w, geometry, pad, transposed, dtype))


def _all_but_words(
    kind: str, w: BitArray, geometry: Geometry, pad: float, transposed: bool, dtype: Any = _FLOAT
) -> tuple[Any, ...]:
    """What the kernel of bits times bits is told, but for the words of its left operand."""
    right = w.prepare(geometry.groups, geometry.channels, transposed)
    return right, geometry, pad, transposed, dtype, kind, w.kind, len(w.words)


def _depth(geometry: Geometry, transposed: bool) -> int:
    """Products that a result sums."""
    return math.prod(geometry.kernel) * (geometry.filters if transposed else geometry.channels) // geometry.groups


def sum_of_terms(product: Callable[[Any, Any], Any], x: Any, w: Any, of_ones: Callable[[], Any] | None = None) -> Any:
    """A product that knows signs and floats, of operands that are sums of signs.

    The first term of {0, 1} is +1 everywhere. Its product is `of_ones()` where that is given, for one packed operand:
    most of its results are the same, so it may have axes of length one.
    """
    total: Any = None
    divisor, constant = 1, 0.0
    left: Any = x.split() if isinstance(x, BitArray) else [(1.0, x)]
    right: Any = w.terms if isinstance(w, BitArray) else [(1.0, w)]
    pairs = [(c * d, a, b) for c, a in left for d, b in right]
    for a in (x, w):
        if isinstance(a, BitArray):
            divisor *= a.divisor
            if of_ones and a.kind == "unit":
                constant = pairs.pop(0)[0]
    for c, a, b in pairs:
        y = product(a, b)
        if c != 1:
            y *= y.dtype.type(c)
        total = y if total is None else np.add(total, y, out=total)
    if constant and of_ones:
        total += total.dtype.type(constant) * of_ones()
    return total if divisor == 1 else np.divide(total, total.dtype.type(divisor), out=total)


def _ones(shape: Sequence[int], axis: int = -1) -> BitArray:
    others = [n for i, n in enumerate(shape) if i != axis % len(shape)]
    return BitArray(np.zeros((1, *others, -(-shape[axis] // 32)), np.uint32), tuple(shape), axis)


def _float_times(x: Any, w: Any, geometry: Geometry, pad: float, transposed: bool) -> Any:
    groups = geometry.groups
    if x.dtype == w.dtype == _FLOAT:
        if _few(geometry, transposed):
            return _direct_times(x, w, geometry, pad, transposed)
        if _by_channel(geometry, transposed):
            return _by_channel_times(x, w, geometry, pad)
    w = _split_groups(w, groups)
    if transposed:
        w = w.transpose(0, 2, 1)
    if _one_tap(geometry):
        return blas.matmul(_split_groups(x, 1), w)
    inputs, outputs = _shapes(geometry)
    x = x.reshape(outputs if transposed else inputs)
    y = np.empty(inputs if transposed else outputs, np.result_type(x, w))
    for part, images in _parts(geometry, x):
        if transposed:
            y[part] = _core.col2im(blas.matmul(_split_groups(x[part], groups), w), images)
        else:
            rows = _join_groups(blas.matmul(_core.im2col(x[part], images, pad), w))
            y[part] = rows.reshape(y[part].shape)
    return y


def reduce(x: Any, dy: Any, geometry: Geometry, pad: float, transposed: bool) -> Any:
    """The kernel gradient (taps, C / groups, F) from the input and the gradient of the output."""
    if not isinstance(x, BitArray):
        inputs, outputs = (dy, x) if transposed else (x, dy)
        if x.dtype == dy.dtype == _FLOAT:
            if _few(geometry, False):
                return _core.direct_reduce(inputs, outputs, geometry, pad)
            if _by_channel(geometry, transposed):
                return _core.depthwise_reduce(x, dy, geometry, pad)
        inputs, outputs = (a.reshape(shape) for a, shape in zip((inputs, outputs), _shapes(geometry), strict=True))
        dw: Any = None
        for part, images in _parts(geometry, inputs):
            columns = _split_groups(inputs, 1) if _one_tap(geometry) else _core.im2col(inputs[part], images, pad)
            some = _join_groups(blas.matmul(columns.transpose(0, 2, 1), _split_groups(outputs[part], geometry.groups)))
            dw = some if dw is None else np.add(dw, some, out=dw)
        return dw.reshape(-1, geometry.channels // geometry.groups, geometry.filters)

    dw = _packed_reduce(x, dy, geometry, pad, transposed, False)
    if transposed:
        dw = dw.swapaxes(-1, -2)
    return dw if x.scale is None else dw * _along_depth(x.scale, geometry, transposed)


def reduce_by_group(x: BitArray, dy: Any, geometry: Geometry) -> Any:
    """As `reduce` of a product with one tap, but (groups, C / groups, F / groups)."""
    dw = _packed_reduce(x, dy, geometry, 0.0, False, True)
    return dw if x.scale is None else dw * x.scale.reshape(geometry.groups, -1, 1)


def _packed_reduce(x: BitArray, dy: Any, geometry: Geometry, pad: float, transposed: bool, by_group: bool) -> Any:
    if x.is_signs:
        return _core.signed_reduce(x.words, dy, geometry, pad, transposed, by_group)

    def one(x: BitArray, dy: Any, geometry: Geometry = geometry) -> Any:
        return _packed_reduce(x, dy, geometry, pad, transposed, by_group)

    def of_ones() -> Any:  # the same for every channel of a group
        groups = geometry.groups
        narrow = geometry._replace(filters=groups) if transposed else geometry._replace(channels=groups)
        return one(_ones((*x.shape[:-1], groups)), dy, narrow)

    return sum_of_terms(one, x, dy, of_ones)


def _floats(a: Any) -> Any:
    return a.numpy() if isinstance(a, BitArray) else a


def _along_depth(scale: Any, geometry: Geometry, transposed: bool) -> Any:
    """A scale of the left operand's channels, for a kernel (..., C / groups, F)."""
    if transposed:
        return scale
    by_group = scale.reshape(geometry.groups, -1)
    return np.repeat(by_group, geometry.filters // geometry.groups, axis=0).T


def _by_channel(geometry: Geometry, transposed: bool) -> bool:
    """Whether each group has one channel, as where grey images are read: then only taps are summed, for which the
    depthwise kernels are made. They take float32."""
    return geometry.channels == geometry.groups and not transposed


def _by_channel_times(x: Any, w: Any, geometry: Geometry, pad: float) -> Any:
    w = w.reshape(math.prod(geometry.kernel), geometry.channels, -1)
    return _core.depthwise_float(x, w, geometry, pad, False)


# Where the sums of a convolution of floats are so short, the kernels that read its input in place beat BLAS, whose
# columns have to be made first; where its channels are so few, they beat the tables of signs, which take four at a
# time (docs/kernels.md).
_FEW_TERMS = 288
_FEW_CHANNELS = 8


@functools.lru_cache(maxsize=1024)
def _few(geometry: Geometry, transposed: bool) -> bool:
    """Whether the kernels for short sums are taken, of float32."""
    terms = math.prod(geometry.kernel) * (geometry.filters if transposed else geometry.channels)
    return geometry.groups == 1 and terms <= _FEW_TERMS and not _one_tap(geometry)


def _direct_times(x: Any, w: Any, geometry: Geometry, pad: float, transposed: bool) -> Any:
    return _core.direct(x, w.swapaxes(-1, -2) if transposed else w, geometry, pad, transposed)


def _shapes(geometry: Geometry) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """(batch, pixels, channels) of the inputs and of the outputs."""
    inputs = geometry.batch, math.prod(geometry.inputs), geometry.channels
    return inputs, (geometry.batch, math.prod(geometry.outputs), geometry.filters)


# The columns of as many images are made at a time as fit into a cache, in bytes.
_COLUMNS = 1 << 21


def _parts(geometry: Geometry, x: Any) -> Iterator[tuple[slice, Geometry]]:
    """Slices of the batch, at least one, and the geometry of each. A sum over the batch is made in their order."""
    batch = geometry.batch
    bytes_each = math.prod(geometry.outputs) * math.prod(geometry.kernel) * geometry.channels * x.itemsize
    most = max(1, batch if _one_tap(geometry) else _COLUMNS // max(1, bytes_each))
    for first in range(0, max(1, batch), most):
        part = slice(first, min(batch, first + most))
        yield part, geometry._replace(batch=part.stop - part.start)


def _one_tap(geometry: Geometry) -> bool:
    """Whether the pixels of the output are those of the input, so that an im2col would only copy."""
    return geometry.kernel == geometry.strides == (1, 1, 1) and geometry.groups == 1


def _split_groups(a: Any, groups: int) -> Any:
    """(..., groups * n) -> (groups, rows, n)."""
    if groups == 1:  # the strides that a transposed axis of length one would have keep BLAS out
        return a.reshape(1, -1, a.shape[-1])
    return a.reshape(-1, groups, a.shape[-1] // groups).transpose(1, 0, 2)


def _join_groups(a: Any) -> Any:
    """(groups, rows, n) -> (rows, groups * n)."""
    return a[0] if len(a) == 1 else a.transpose(1, 0, 2).reshape(a.shape[1], len(a) * a.shape[2])


# ---- as operations of the tape -------------------------------------------------------------------------------------


class Layout:
    """Between the shape a caller sees and channels-last: `first` puts the channels on axis 1."""

    __slots__ = ("first", "inputs", "outputs")

    def __init__(self, inputs: Sequence[int], outputs: Sequence[int], first: bool) -> None:
        self.inputs, self.outputs, self.first = tuple(inputs), tuple(outputs), first

    def last(self, a: Any) -> Any:
        if not self.first:
            return a
        return a.moved_last() if isinstance(a, BitArray) else np.moveaxis(a, 1, -1)

    def back(self, a: Any, shape: tuple[int, ...]) -> Any:
        a = a.reshape(shape)
        return np.moveaxis(a, -1, 1) if self.first else a


class _Ran(threading.local):
    """The arithmetic of the products that this thread runs, collected in the list that is here."""

    names: list[str] | None = None


ran = _Ran()


class Product:
    """A forward with its backward, run on operands whose types choose the arithmetic.

    Bits times bits is cheap enough to be run again instead of keeping its float output. The others are where a sum is
    short, as it is at the large images near the input of a network; where it is not that short, only of large results.
    `effort` is how many values are computed for one, or take as long. With ``integers=True`` the result is int16, which
    is kept where a sum is long: it takes half the bytes, and the time grows with the sum.
    """

    SHORT, SHORTER = 256, 100
    LONG = 1024

    def __init__(self, forward: Callable[..., Any], effort: int = 1) -> None:
        self._effort = effort
        self._operations = {}
        for kind, again in itertools.product(("xnor", "signed", "float"), (0, 2, 4)):
            once = effort if kind == "xnor" else again * effort
            each = self._operations[kind, again] = operation(forward, recompute=again and once, integers=True)
            each.__name__ = f"{forward.__module__.rpartition('.')[2]}, {kind}"

    def backward(self, function: Callable[..., Any]) -> Product:
        """Decorate the backward of the operation."""
        for each in self._operations.values():
            each.backward(function)
        return self

    def part(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorate what tells how a range of the images is computed, if that may cost more than once."""
        for (kind, _), each in self._operations.items():
            each.part = function if kind != "xnor" else None
        return function

    def __call__(self, kind: str, x: Any, w: Any, **parameters: Any) -> Any:
        if ran.names is not None:
            ran.names.append(kind)
        terms = math.prod(w.shape) // max(1, parameters["layout"].outputs[-1])
        if kind == "xnor":
            again = "integers" not in parameters or terms * self._effort < self.LONG
        else:
            again = terms <= self.SHORT
        return self._operations[kind, again and (2 if terms <= self.SHORTER else 4)](x, w, **parameters)


def admitted(x: Any, w: Any, pad: float = 0.0) -> tuple[Any, Any]:
    """The operands of a product, decoded where no kernel takes their bits."""
    if isinstance(x, BitArray):
        scaled = x.scale is not None
        if pad != 0.0 and (scaled or pad not in (1.0, -1.0)):
            x = decode(x)  # no bit stands for this padding
        elif scaled and x.axis != x.ndim - 1:
            x = decode(x)  # a scale of neither the channels nor the filters
        elif isinstance(w, BitArray):
            return x, w
    if _FLOAT64 in (x.dtype, w.dtype):  # the kernels for bits times floats are float32
        x, w = (decode(a) if isinstance(a, BitArray) else a for a in (x, w))
    return x, w


@Product
def _product(x, w, *, geometry, pad, layout, transposed=False, integers=False, traced):
    if integers:
        y = _integer_times(x, w, geometry, pad, transposed, _INT16)
    else:
        y = times(layout.last(x), w, geometry, pad, transposed)
    return layout.back(y, layout.outputs), (*read_back(x, w, traced), w.shape, geometry, pad, layout, transposed)


@_product.backward
def _product(residual, dy, needed):
    x, w, shape, geometry, pad, layout, transposed = residual
    dy, dx, dw = layout.last(dy), None, None
    if needed[0]:
        dx = layout.back(times(dy, w, geometry, 0.0, not transposed, gradient=True), layout.inputs)
    if needed[1]:
        dw = reduce(layout.last(x), dy, geometry, pad, transposed).reshape(shape)
    return dx, dw


@_product.part
def of_images(images, args, parameters):
    """The arguments of a product that are those of a range of its first axis."""
    x, w = args
    geometry, layout = parameters["geometry"], parameters["layout"]
    some = x[images]
    inputs, outputs = ((some.shape[0], *shape[1:]) for shape in (layout.inputs, layout.outputs))
    if geometry.batch == layout.outputs[0]:
        geometry = geometry._replace(batch=some.shape[0])
    else:
        geometry = geo.dense(math.prod(outputs[:-1]), geometry.channels, geometry.filters)
    return (some, w), {**parameters, "geometry": geometry, "layout": Layout(inputs, outputs, layout.first)}


def read_back(x: Any, w: Any, traced: Sequence[bool]) -> tuple[Any, Any]:
    """The operands that the gradients of a product read: each gradient needs the other operand."""
    return x if traced[1] else None, w if traced[0] else None


class Waiting(Later):
    """A product that is yet to be computed, for a reader that may take it image by image, or as integers."""

    product = _product
    _integers: Any = None

    def __init__(self, kind: str, x: Any, w: Any, **parameters: Any) -> None:
        self._operands, self._parameters = (kind, x, w), parameters
        self.shape = parameters["layout"].outputs
        if ran.names is not None:
            ran.names.append(kind)

    def _compute(self) -> Any:
        return self.product(*self._operands, **self._parameters)

    def integers(self) -> Any:
        kind, x, w = self._operands
        if self._value is not None or kind != "xnor" or not self._fits(x, w):
            return self._read_()
        if self._integers is None:
            self._integers = self.product(*self._operands, **self._parameters, integers=True)
        return self._integers

    def _fits(self, x: BitArray, w: BitArray) -> bool:
        """Whether the results are integers that fit int16."""
        largest = _depth(self._parameters["geometry"], False)
        if not (x.is_signs and w.is_signs):
            largest *= ((1 << x.planes) - 1) * ((1 << w.planes) - 1)
        return x.divisor == w.divisor == 1 and w.scale is None and largest <= 0x7FFF

    def instead(self, waiting: Callable[..., Waiting], **more: Any) -> Any:
        """What else becomes of the operands."""
        return waiting(*self._operands, **self._parameters, **more)


class _Known:
    """A product of bits with signs that have not changed since: all is known but the floats of its left operand."""

    __slots__ = ("_arguments", "_axis", "_kind", "_layout", "call")

    def __init__(self, call: Any, axis: int, kind: str, arguments: tuple[Any, ...], layout: Layout) -> None:
        self.call = call
        self._axis, self._kind, self._arguments, self._layout = axis, kind, arguments, layout

    def __call__(self, x: Any) -> Any:
        """The product with the bits of `x`, or None if they are none: a NaN."""
        words, _, nan = _core.pack(x, self._axis, None, self._kind)
        if nan:
            return None
        if ran.names is not None:
            ran.names.append("xnor")
        y, layout = _core.xnor(words, *self._arguments), self._layout
        y = layout.back(y, layout.outputs) if layout.first else y.reshape(layout.outputs)
        return y.view(Tensor)


def _run(
    x: Any,
    w: Any,
    axes: tuple[int, int],
    plan: Callable[..., tuple[Geometry, Layout]],
    *how: Any,
    pad: float = 0.0,
    transposed: bool = False,
    later: bool = False,
) -> Any:
    """The product that `plan` makes of the operands' shapes and `how`, of operands that are reduced along `axes`."""
    # Where nothing is recorded and the weights stay, what this finds out is found once.
    memo = call = None
    if type(x) is Quantized and x.kind is not None and not later and not observers:
        memo = w._lasting_() if hasattr(w, "_lasting_") else None
    if memo is not None:
        call = plan, x.source.shape, x.kind, pad, how
        known = memo.get(_Known)
        if known is not None and known.call == call and (y := known(x.source)) is not None:
            return y
    x, w = operand(x, axes[0]), operand(w, axes[1])
    geometry, layout = plan(x.shape, w.shape, *how)
    x, w = admitted(x, w, pad)
    kind, pad = arithmetic(x, w, transposed), float(pad)
    if memo is not None and kind == "xnor" and w.is_signs:
        arguments = _all_but_words(x.kind, w, geometry, pad, transposed)
        memo[_Known] = _Known(call, axes[0], x.kind, arguments, layout)
    later = later and x.dtype == w.dtype == _FLOAT and not layout.first
    run = Waiting if later else _product
    return run(kind, x, w, geometry=geometry, pad=pad, layout=layout, transposed=transposed)


def matmul(x: Any, w: Any) -> Any:
    """Matrix product over the last axis of `x` and the first of `w`.

    Parameters
    ----------
    x : array_like or BitArray, shape (..., K)
    w : array_like or BitArray, shape (K, N)
        Bits are packed along K in both.

    Returns
    -------
    Tensor, shape (..., N)
        Exact if both operands are bits.

    Raises
    ------
    ValueError
        If the depths differ.
    """
    return _run(x, w, (-1, 0), _dense_plan)


# A network asks for the same few in every step.
@functools.lru_cache(maxsize=1024)
def _dense_plan(shape: tuple[int, ...], kernel: tuple[int, ...]) -> tuple[Geometry, Layout]:
    if not shape or len(kernel) != 2 or shape[-1] != kernel[0]:
        raise ValueError(
            f"matmul(): arguments 'x' and 'w' must have shapes (..., K) and (K, N), got {shape} and {kernel}"
        )
    *rows, depth = shape
    return geo.dense(math.prod(rows), depth, kernel[1]), Layout(shape, (*rows, kernel[1]), False)


def conv(
    x: Any,
    kernel: Any,
    *,
    strides: Sequence[int] | int = 1,
    padding: str = "valid",
    data_format: str = "channels_last",
    dilation_rate: Sequence[int] | int = 1,
    groups: int = 1,
    pad_values: float = 0.0,
    later: bool = False,
) -> Any:
    """Convolution over one, two or three spatial axes.

    Parameters
    ----------
    x : array_like or BitArray, shape (batch, spatial..., C) or (batch, C, spatial...)
        Bits are packed along the channels.
    kernel : array_like or BitArray, shape (taps..., C / groups, F)
        Bits are packed along axis -2.
    strides, dilation_rate : int or sequence of int
    padding : {"valid", "same", "causal"}
    data_format : {"channels_last", "channels_first"}
    groups : int
    pad_values : float
        What padding adds to the image: any number, but bits can only be padded with 0, +1 or -1; another value runs on
        floats.
    later : bool
        Whether the result may be a `Waiting`.

    Returns
    -------
    Tensor, shape (batch, spatial..., F) or (batch, F, spatial...)
        Exact if both operands are bits.

    Raises
    ------
    ValueError
        If shapes, groups or names do not fit together.
    """
    how = data_format, hashable(strides), padding, hashable(dilation_rate), groups
    return _run(x, kernel, _axes(data_format), _conv_plan, *how, pad=pad_values, later=later)


@functools.lru_cache(maxsize=1024)
def _conv_plan(
    shape: tuple[int, ...],
    kernel: tuple[int, ...],
    data_format: str,
    strides: Sequence[int] | int,
    padding: str,
    dilation: Sequence[int] | int,
    groups: int,
) -> tuple[Geometry, Layout]:
    image = Image("conv", shape, kernel, data_format)
    channels, filters = image.channels, kernel[-1]
    if groups < 1 or channels != groups * kernel[-2] or filters % groups:
        raise ValueError(
            f"conv(): argument 'groups' must split the channels of 'x' {shape} and the filters of 'kernel' "
            f"{kernel} evenly, got {groups}"
        )
    geometry = geo.convolution(
        image.batch,
        image.spatial,
        channels,
        kernel[:-2],
        filters,
        strides=per_axis("conv", "strides", strides, image.rank),
        padding=padding,
        dilation=per_axis("conv", "dilation_rate", dilation, image.rank),
        groups=groups,
    )
    return geometry, image.layout(geometry.outputs, filters)


def conv_transpose(
    x: Any,
    kernel: Any,
    *,
    strides: Sequence[int] | int = 1,
    padding: str = "valid",
    output_padding: Sequence[int] | int | None = None,
    data_format: str = "channels_last",
    dilation_rate: Sequence[int] | int = 1,
) -> Any:
    """Transposed convolution over one, two or three spatial axes: the input gradient of a convolution.

    Parameters
    ----------
    x : array_like or BitArray, shape (batch, spatial..., C) or (batch, C, spatial...)
        Bits are packed along the channels.
    kernel : array_like or BitArray, shape (taps..., F, C)
        Bits are packed along axis -2, as those of the convolution that runs the other way.
    strides, dilation_rate : int or sequence of int
    padding : {"valid", "same"}
    output_padding : int or sequence of int, optional
        Pixels that the output is longer than the shortest one that a convolution would bring to `x`'s size. By default
        the output is `strides` times as long as the input, or long enough for the kernel.
    data_format : {"channels_last", "channels_first"}

    Returns
    -------
    Tensor, shape (batch, spatial..., F) or (batch, F, spatial...)
        Exact if both operands are bits.

    Raises
    ------
    ValueError
        If shapes or names do not fit together.

    References
    ----------
    Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285.
    """
    if output_padding is not None:
        output_padding = hashable(output_padding)
    how = data_format, hashable(strides), padding, hashable(dilation_rate), output_padding
    return _run(x, kernel, _axes(data_format), _transposed_plan, *how, transposed=True)


@functools.lru_cache(maxsize=1024)
def _transposed_plan(
    shape: tuple[int, ...],
    kernel: tuple[int, ...],
    data_format: str,
    strides: Sequence[int] | int,
    padding: str,
    dilation: Sequence[int] | int,
    output_padding: Sequence[int] | int | None,
) -> tuple[Geometry, Layout]:
    image = Image("conv_transpose", shape, kernel, data_format)
    rank = image.rank
    if kernel[-1] != image.channels:
        raise ValueError(
            "conv_transpose(): argument 'kernel' must have the channels of 'x' on its last axis, "
            f"got shapes {shape} and {kernel}"
        )
    if output_padding is not None:
        output_padding = per_axis("conv_transpose", "output_padding", output_padding, rank, least=0)
    geometry = geo.transposed_convolution(
        image.batch,
        image.spatial,
        image.channels,
        kernel[:-2],
        kernel[-2],
        strides=per_axis("conv_transpose", "strides", strides, rank),
        padding=padding,
        dilation=per_axis("conv_transpose", "dilation_rate", dilation, rank),
        output_padding=output_padding,
    )
    return geometry, image.layout(geometry.inputs, kernel[-2])


def _axes(data_format: str) -> tuple[int, int]:
    """The channels of an image and of a kernel, along which a convolution reduces."""
    return 1 if data_format == "channels_first" else -1, -2


def operands(x: Any, kernel: Any, data_format: str) -> tuple[Any, Any]:
    """What a convolution reads of its operands."""
    of_image, of_kernel = _axes(data_format)
    return operand(x, of_image), operand(kernel, of_kernel)


class Image:
    """What the shapes of the operands of a convolution say."""

    def __init__(self, function: str, shape: tuple[int, ...], kernel: tuple[int, ...], data_format: str) -> None:
        if data_format not in ("channels_last", "channels_first"):
            raise ValueError(
                f"{function}(): argument 'data_format' must be 'channels_last' or 'channels_first', got {data_format!r}"
            )
        self.first = data_format == "channels_first"
        self.rank = len(kernel) - 2
        if self.rank not in (1, 2, 3) or len(shape) != self.rank + 2:
            raise ValueError(
                f"{function}(): argument 'kernel' must have one to three spatial axes and 'x' as many, "
                f"got shapes {shape} and {kernel}"
            )
        self.batch, self.channels = shape[0], shape[1 if self.first else -1]
        self.spatial = shape[2:] if self.first else shape[1:-1]

    def layout(self, pixels: Sequence[int], filters: int) -> Layout:
        """Of a product that turns this image into one of `pixels`, three axes always."""
        outputs = (self.batch, *pixels[3 - self.rank :], filters)
        return Layout((self.batch, *self.spatial, self.channels), outputs, self.first)


def hashable(value: Sequence[int] | int) -> Sequence[int] | int:
    """An argument for `per_axis` that plans can be told apart by."""
    return value if isinstance(value, int) else tuple(value)


def per_axis(function: str, name: str, value: Sequence[int] | int, rank: int, least: int = 1) -> tuple[int, ...]:
    """One integer per spatial axis."""
    values = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(values) != rank or min(values) < least:
        demand = "positive integers" if least else "integers >= 0"
        raise ValueError(f"{function}(): argument '{name}' must be {rank} {demand}, got {value!r}")
    return values
