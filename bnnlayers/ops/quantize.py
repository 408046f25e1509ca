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
from ..tape import THROUGH, Readable, Spare, Tensor, operation

Memo = dict[Any, Any]
_FLOAT = np.dtype(np.float32)


def _floating(name: str, x: Any) -> Any:
    if x.dtype.kind != "f":
        raise TypeError(f"{name}(): argument 'x' must hold floating-point numbers, got {x.dtype}")
    return x.astype(np.float32) if x.dtype.itemsize < 4 else x


def _packed(x: Any, axis: int, clip: float | None, memo: Memo | None, kind: str = "sign", *parameter: Any) -> Any:
    """Bits of a kind (None if x holds a NaN) and clip-mask words, out of the memo if it has them."""
    key = (axis, clip, kind, *parameter)
    if memo is not None and key in memo:
        return memo[key]
    words, mask, nan = _core.pack(x, axis, clip, kind, *parameter)
    if memo is None:
        return None if nan else BitArray(words, x.shape, axis, kind), mask
    # Weights that are clipped to the interval of their gradient all have one: then there is nothing to select.
    if mask is not None and _core.all_set(mask, x.shape[axis]):
        mask = None
    memo[key] = found = (None if nan else BitArray(words, x.shape, axis, kind), mask)
    return found


def _ste(
    x: Any,
    value: Any,
    clip_value: float | None,
    axis: int | None,
    memo: Memo | None,
    traced: tuple[bool, ...],
    *kind: Any,
) -> Any:
    """Value and residual of a quantizer with a straight-through gradient; `value(x)` gives its floats."""
    # A memo serves calls that are traced and calls that are not, so it always holds the mask.
    clip = float(clip_value) if clip_value is not None and (traced[0] or memo is not None) else None
    if axis is None:
        mask = _core.pack(x.reshape(-1), 0, clip)[1] if clip is not None else None
        return value(x), (mask, None)
    bits, mask = _packed(x, axis, clip, memo, *kind)
    if bits is None:
        return value(x), (mask, axis)
    return bits, THROUGH if mask is None else (mask, axis)


def _selected(spare: Spare, dy: Any, mask: Any, axis: int | None) -> Any:
    """`dy` where the mask bit is 1, added to what others gave. A mask without an axis is in the order of memory."""
    if mask is None:
        return dy
    begun = spare.begun(0)
    add = begun is not None and begun.dtype == dy.dtype
    dx: Any = begun if add else spare(dy)
    if axis is None:
        _core.select(dy.reshape(-1), mask, 0, dx.reshape(-1), add)
    else:
        _core.select(dy, mask, axis, dx, add)
    return dx


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
    return _ste(x, _core.ste_sign, clip_value, axis, memo, traced, "sign")


@ste_sign.backward
def ste_sign(residual, dy, needed, spare):
    return (_selected(spare, dy, *residual),)


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
def swish_sign(x, *, beta=5.0, axis=None, memo=None):
    """Sign with the gradient of SignSwish, ``beta (2 - beta x tanh(beta x / 2)) / (1 + cosh(beta x)) dy``.

    Parameters and returns as in `ste_sign`. What backward keeps is `x` itself, or nothing where it can be recomputed.

    References
    ----------
    Darabi et al., "BNN+: Improved Binary Network Training", arXiv:1812.11800.
    """
    floats = _floating("swish_sign", x)
    bits = _packed(floats, axis, None, memo)[0] if axis is not None else None
    return (_core.swish_sign(floats) if bits is None else bits), (x, float(beta))


@swish_sign.backward
def swish_sign(residual, dy, needed):
    x, beta = residual
    return (_core.swish_sign_grad(x, dy, beta),)


@operation
def ste_heaviside(x, *, clip_value=1.0, axis=None, memo=None, traced):
    """1 where ``x > 0`` and 0 elsewhere, with the gradient of `ste_sign`; parameters and returns as there."""
    x = _floating("ste_heaviside", x)
    return _ste(x, _core.ste_heaviside, clip_value, axis, memo, traced, "unit")


@ste_heaviside.backward
def ste_heaviside(residual, dy, needed, spare):
    return (_selected(spare, dy, *residual),)


@operation
def ste_tern(x, *, threshold=0.05, clip_value=1.0, axis=None, memo=None, traced):
    """-1, 0 or +1: the sign of `x` where ``|x| >= threshold``; otherwise as `ste_sign`.

    References
    ----------
    Li et al., "Ternary Weight Networks", arXiv:1605.04711.
    """
    x = _floating("ste_tern", x)
    threshold = abs(float(threshold))
    if not np.isfinite(threshold):
        axis = None  # gives values that are not of this kind

    def value(x):
        return _core.ste_tern(x, threshold)

    return _ste(x, value, clip_value, axis, memo, traced, "ternary", threshold)


@ste_tern.backward
def ste_tern(residual, dy, needed, spare):
    return (_selected(spare, dy, *residual),)


@operation
def dorefa_activations(x, *, k_bit=2, axis=None, traced):
    """`x` clipped to [0, 1] and rounded, half to even, to multiples of ``1 / (2**k_bit - 1)``.

    The gradient is ``dy`` inside of [0, 1]. Packed, it is `k_bit` planes of {0, 1}.

    References
    ----------
    Zhou et al., "DoReFa-Net", arXiv:1606.06160.
    """
    x = _floating("dorefa_quantizer", x)
    levels = 2**k_bit - 1
    clip = 1.0 if traced[0] else None
    if axis is None:
        mask = None if clip is None else _core.pack(x.reshape(-1), 0, clip, "levels", 1.0)[1]
        return _core.dorefa_activations(x, float(levels)), (mask, None)
    words, mask, nan = _core.pack(x, axis, clip, "levels", float(levels))
    value = BitArray(words, x.shape, axis, "unit", levels)
    return (_core.dorefa_activations(x, float(levels)) if nan else value), (mask, axis)


@dorefa_activations.backward
def dorefa_activations(residual, dy, needed, spare):
    return (_selected(spare, dy, *residual),)


@operation
def dorefa_weights(x, *, k_bit=2, axis=None, memo=None):
    """DoReFa weights: ``2 round((tanh(x) / (2 max|tanh(x)|) + 1/2) n) / n - 1`` with ``n = 2**k_bit - 1``.

    The gradient takes the maximum for a constant: ``(1 - tanh(x)**2) / max|tanh(x)| dy``. Packed, it is `k_bit` planes
    of signs.
    """
    floats = _floating("dorefa_quantizer", x)
    levels = 2**k_bit - 1
    key = ("dorefa", axis, k_bit)
    if memo is not None and key in memo:
        value, maximum = memo[key]
        return value, (x, maximum)
    limited = np.tanh(floats)
    maximum = float(np.max(np.abs(limited), initial=0))
    value = _core.dorefa_weights(limited, maximum, float(levels))
    if axis is not None:
        # The integer of the levels from +1 down to -1 has a bit where the sign of its plane is negative.
        words, _, nan = _core.pack((1 - value) / 2, axis, None, "levels", float(levels))
        value = value if nan else BitArray(words, x.shape, axis, "sign", levels)
    if memo is not None:
        memo[key] = value, maximum
    return value, (x, maximum)


@dorefa_weights.backward
def dorefa_weights(residual, dy, needed):
    x, maximum = residual
    return (_core.dorefa_weights_grad(np.tanh(x), dy, maximum),)


@operation
def scaled(bits, scale):
    """Packed signs times a factor for each entry of the last axis; still packed, and differentiable in both.

    Parameters
    ----------
    bits : BitArray
        Without a scale.
    scale : array_like of shape (bits.shape[-1],), or with leading axes of length one

    Returns
    -------
    BitArray
    """
    scale = np.asarray(scale, np.float32)
    return bits.scaled(scale.reshape(-1)), (bits, scale)


@scaled.backward
def scaled(residual, dy, needed):
    bits, scale = residual
    dbits = dy * scale.reshape(-1) if needed[0] else None
    dscale = None
    if needed[1]:
        dscale = np.sum(dy * bits.numpy(), axis=tuple(range(dy.ndim - 1))).reshape(scale.shape)
    return dbits, dscale


@operation
def hard_tanh(x, *, traced):
    """`x` clipped to [-1, 1], whose gradient counts both ends. What backward keeps is one bit per value."""
    x = _floating("hard_tanh", x)
    mask = _core.pack(x.reshape(-1), 0, 1.0)[1] if traced[0] else None
    return _core.hard_tanh(x), (mask, None)


@hard_tanh.backward
def hard_tanh(residual, dy, needed, spare):
    return (_selected(spare, dy, *residual),)


@operation
def leaky_tanh(x, *, alpha=0.2):
    """`x` inside of [-1, 1], and slope `alpha` beyond."""
    return _core.leaky_tanh(_floating("leaky_tanh", x), float(alpha)), (x, float(alpha))


@leaky_tanh.backward
def leaky_tanh(residual, dy, needed):
    x, alpha = residual
    return (_core.leaky_tanh_grad(x, dy, alpha),)


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

    __slots__ = ("_encoded", "_floats", "kind", "quantizer", "source")

    def __init__(self, source: Any, quantizer: Any) -> None:
        self.source = source
        self.quantizer = quantizer
        # Of the bits, if to pack them is all that the quantizer would do.
        floats = type(source) is Tensor and source.dtype is _FLOAT
        self.kind: str | None = getattr(quantizer, "_packs", None) if floats else None
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
