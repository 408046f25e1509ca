"""Quantizers: values, pseudo-gradients, and the packed face of each.

An operation here has two faces. Without `axis` it returns floats, as larq's function of the same name does. With `axis`
it returns a `BitArray` packed along that axis, or the floats if the values do not fit in bits (a NaN). Both faces share
one gradient.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _core
from ..bits import BitArray
from ..tape import Readable, operation

Memo = dict[Any, Any]


def _floating(name: str, x: Any) -> Any:
    if x.dtype.kind != "f":
        raise TypeError(f"{name}(): argument 'x' must hold floating-point numbers, got {x.dtype}")
    return x.astype(np.float32) if x.dtype.itemsize < 4 else x


def _packed(x: Any, axis: int, clip: float | None, memo: Memo | None) -> tuple[BitArray | None, Any]:
    """Sign bits (None if x holds a NaN) and clip-mask words, out of the memo if it has them."""
    key = (axis, clip)
    if memo is not None and key in memo:
        return memo[key]
    words, mask, nan = _core.pack(x, axis, clip)
    found = (None if nan else BitArray(words, x.shape, axis), mask)
    if memo is not None:
        memo[key] = found
    return found


def _selected(dy: Any, mask: Any, axis: int | None) -> Any:
    """`dy` where the mask bit is 1. A mask without an axis was packed in the order of memory."""
    if mask is None:
        return dy
    if axis is None:
        return _core.select(dy.reshape(-1), mask, 0).reshape(dy.shape)
    return _core.select(dy, mask, axis)


@operation
def ste_sign(x, *, clip_value=1.0, axis=None, memo=None, traced):
    """Sign with the straight-through gradient ``dy * (|x| <= clip_value)``.

    Parameters
    ----------
    x : array_like of floats
    clip_value : float or None
        None lets every gradient through.
    axis : int, optional
        Pack along this axis.
    memo : dict, optional
        Remembers the packing of an `x` that is read often and changes rarely, a weight.

    Returns
    -------
    Tensor or BitArray
        +1 where ``x >= 0`` (0 and -0.0 included), -1 elsewhere. What backward keeps is one bit per value.

    References
    ----------
    Hubara et al., "Binarized Neural Networks", arXiv:1602.02830.
    """
    x = _floating("ste_sign", x)
    # A memo serves calls that are traced and calls that are not, so it always holds the mask.
    clip = float(clip_value) if clip_value is not None and (traced[0] or memo is not None) else None
    if axis is None:
        mask = _core.pack(x.reshape(-1), 0, clip)[1] if clip is not None else None
        return _core.ste_sign(x), (mask, None)
    bits, mask = _packed(x, axis, clip, memo)
    return (_core.ste_sign(x) if bits is None else bits), (mask, axis)


@ste_sign.backward
def ste_sign(residual, dy, needed):
    return (_selected(dy, *residual),)


@operation
def approx_sign(x, *, axis=None, memo=None):
    """Sign with the gradient of its piecewise-quadratic approximation, ``(2 - 2 |x|) dy`` inside [-1, 1].

    Parameters and returns as in `ste_sign`. What backward keeps is `x` itself, or nothing where it can be recomputed.

    References
    ----------
    Liu et al., "Bi-Real Net", arXiv:1808.00278.
    """
    floats = _floating("approx_sign", x)
    bits = _packed(floats, axis, None, memo)[0] if axis is not None else None
    return (_core.approx_sign(floats) if bits is None else bits), (x,)


@approx_sign.backward
def approx_sign(residual, dy, needed):
    return (_core.approx_sign_grad(residual[0], dy),)


@operation
def hard_tanh(x, *, traced):
    """`x` clipped to [-1, 1], whose gradient counts both ends. What backward keeps is one bit per value."""
    x = _floating("hard_tanh", x)
    mask = _core.pack(x.reshape(-1), 0, 1.0)[1] if traced[0] else None
    return _core.hard_tanh(x), (mask, None)


@hard_tanh.backward
def hard_tanh(residual, dy, needed):
    return (_selected(dy, *residual),)


@operation
def step(x, *, low):
    """The two steps of `bnnlayers.math`: `sign` from -1 (0 counts as +1) and `heaviside` from 0 (0 counts as 0)."""
    x = _floating("heaviside" if low == 0 else "sign", x)
    return (np.heaviside(x, x.dtype.type(0)) if low == 0 else _core.ste_sign(x)), None


@step.backward
def step(residual, dy, needed):
    return (np.zeros_like(dy),)


@operation
def decode(x):
    """The floats of a `BitArray`, for a path that has no kernel for bits."""
    return x.numpy(), None


@decode.backward
def decode(residual, dy, needed):
    return (dy,)


class Quantized(Readable):
    """A value and the quantizer that is to be applied to it.

    It reads as floats everywhere (`_read_`), and gives a product its packed operand (`_operand_`), encoded once along
    the axis that only the product knows.
    """

    __slots__ = ("_encoded", "_floats", "quantizer", "source")

    def __init__(self, source: Any, quantizer: Any) -> None:
        self.source = source
        self.quantizer = quantizer
        self._floats: Any = None
        self._encoded: dict[int, Any] = {}

    @property
    def shape(self) -> Any:
        return self.source.shape

    def _read_(self) -> Any:
        if self._floats is None:
            self._floats = self.quantizer(self.source)
        return self._floats

    def _operand_(self, axis: int) -> Any:
        if axis not in self._encoded:
            encode = getattr(self.quantizer, "encode", None)
            self._encoded[axis] = self._read_() if encode is None else encode(self.source, axis=axis)
        return self._encoded[axis]
