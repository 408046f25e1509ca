"""Normalization over a batch or over the axes of one sample.

Where float32 is normalized by channel, the last axis, kernels read and write it once per step;
anything else is NumPy's.
"""

from __future__ import annotations

import math

import numpy as np

from .. import _core
from ..bits import BitArray
from ..tape import Parts, operation, plain, read
from .later import Later
from .quantize import ste_sign
from .shape import Joined

_FLOAT, _INT16 = np.dtype(np.float32), np.dtype(np.int16)


def by_channel(x, *parameters):
    """Whether kernels take `x`, and the parameters hold a number for each of its channels."""
    if x.dtype not in (_FLOAT, _INT16) or x.ndim < 2:
        return False
    channels = x.shape[-1]
    for p in parameters:
        if p is not None and not (p.dtype == _FLOAT and p.size == channels == p.shape[-1]):
            return False
    return True


def _total(x, axes):
    """Sum over `axes`, kept as axes of length one, in the dtype of `x`."""
    return np.sum(x, axis=axes, keepdims=True)


def _count(x, axes):
    """How many items there are along `axes`, at least one, in the dtype of `x`."""
    return x.dtype.type(max(1, math.prod(x.shape[a] for a in axes)))


def moments(x, axes, epsilon, average=None, rectified=False):
    """Mean and ``1 / sqrt(variance + epsilon)`` over `axes`, as they broadcast to `x`.

    Parameters
    ----------
    x : array or Joined
        Each piece of a Joined is measured once; `axes` must then be all but the last.
    axes : tuple of int
    epsilon : float
    average : tuple, optional
        ``(mean, variance, rate, unbiased)``: moving averages, which move in place by `rate` towards the mean and
        towards the variance times `unbiased`.
    rectified : bool
        Whether they are those of ``relu(x)``; only where `by_channel`.
    """
    if type(x) is Joined:
        mean, variance = _moments_of_pieces(x)
    elif axes == tuple(range(x.ndim - 1)) and by_channel(x, *(average or ())[:2]):
        found = _core.moments(x, epsilon, *(average or ()), rectified=rectified)
        return found[0], found[2]  # indexed: an array that is unpacked ends in an IndexError, which takes long to make
    else:
        count = _count(x, axes)
        mean = _total(x, axes) / count
        variance = _total(np.square(x - mean), axes) / count
    if average is not None:
        *moving, rate, unbiased = average
        for old, new in zip(moving, (mean, variance * variance.dtype.type(unbiased)), strict=True):
            old -= (old - new.reshape(old.shape)) * old.dtype.type(rate)
    return mean, inverse_deviation(variance, epsilon)


def _moments_of_pieces(x):
    for piece in x.pieces:
        if piece.moments is None:
            piece.moments = _core.moments(plain(piece.array), 0.0)[:2]
    return np.concatenate([piece.moments for piece in x.pieces], axis=1)


def inverse_deviation(variance, epsilon):
    """``1 / sqrt(variance + epsilon)``."""
    return 1 / np.sqrt(variance + variance.dtype.type(epsilon))


@operation(recompute=True)
def normalize(x, gamma, beta, addend=None, *more, mean, inverse, axes=None, rectified=False, signs=()):
    """``(x - mean) * inverse * gamma + beta``; where kernels take it, of ``relu(x)`` and with an addend.

    Parameters
    ----------
    x : array
    gamma, beta : array or None
        Broadcastable to `x`.
    addend : array, optional
        Of the shape of the result, and added; only where `by_channel`.
    *more : array
        What follows `x` along the last axis; of the pieces of a `Joined`.
    mean, inverse : array
        Of `moments` or of constants; broadcastable to `x`.
    axes : tuple of int, optional
        The axes over which `mean` and `inverse` were computed from `x` itself: the gradient then goes through them.
        None if they are constants, as at inference.
    rectified : bool
        Whether ``relu(x)`` stands in the place of `x`; only where `by_channel`.
    signs : list, optional
        The clip value of `ste_sign`, replaced by what that packs along the last axis: a BitArray, None if there
        is a NaN, and the mask. Once: who runs this again finds it empty.

    References
    ----------
    Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal
    Covariate Shift", 2015.
    """
    scale = inverse if gamma is None else inverse * gamma
    if more or (by_channel(x, mean, inverse, gamma, beta) and axes in (None, tuple(range(x.ndim - 1)))):
        pieces = (x, *more)
        if signs:
            words, mask, nan, y = _core.normalize_sign(pieces, mean, scale, beta, signs.pop(), addend, rectified, True)
            signs += [None if nan else BitArray(words, y.shape, -1), mask]
        else:
            y = _core.normalize(pieces, mean, scale, beta, addend, rectified)
        return y, (x, gamma, _shape(beta), mean, inverse, axes, rectified, None, *more)
    y = x - mean
    y *= scale
    if beta is not None:
        y += beta
    apart = all(p is None or _constant_over(p, axes or (), x.ndim) for p in (gamma, beta))
    return y, (x, gamma, mean, inverse, axes, apart)


@normalize.backward
def normalize(residual, dy, needed, spare):
    if len(residual) > 6:
        return _grad_by_channel(residual, dy, needed, spare)
    x, gamma, mean, inverse, axes, apart = residual
    others = [None] * (len(needed) - 3)
    normal = x - mean
    normal *= inverse
    if axes is None:
        dx = dy * (inverse if gamma is None else inverse * gamma) if needed[0] else None
        return dx, dy * normal if needed[1] else None, dy if needed[2] else None, *others
    if apart:
        shift, slope = _total(dy, axes), _total(dy * normal, axes)
        dgamma, dbeta = slope, shift
        flow, scale = dy, inverse if gamma is None else inverse * gamma
    else:
        dgamma, dbeta = dy * normal, dy
        flow, scale = dy if gamma is None else dy * gamma, inverse
        shift, slope = _total(flow, axes), _total(flow * normal, axes)
    dx = None
    if needed[0]:
        count = _count(x, axes)
        dx = normal
        dx *= -slope / count
        dx += flow
        dx -= shift / count
        dx *= scale
    return dx, dgamma if needed[1] else None, dbeta if needed[2] else None, *others


def _grad_by_channel(residual, dy, needed, spare):
    """Gradients where a mask, of bits, says which of dy count; of beta the residual has the shape."""
    x, gamma, beta, mean, inverse, axes, rectified, mask, *more = residual
    pieces, at = (x, *more), [0, *range(4, len(needed))]
    scale = inverse if gamma is None else inverse * gamma
    dx = [None] * len(pieces)
    dgamma = dbeta = None
    wanted = needed[0] or any(needed[4:])
    added = len(needed) > 3 and needed[3]
    if mask is not None and (added or axes is None):
        dy, mask = _core.select(dy, mask, -1), None
    if axes is not None or needed[1] or needed[2]:
        sums = _core.norm_sums(pieces, dy, mean, inverse, mask, rectified)
        shift, slope = sums[2], sums[3]
        dgamma = sums[1].reshape(gamma.shape) if needed[1] else None
        dbeta = sums[0].reshape(beta) if needed[2] else None
    if wanted and axes is None:
        dx = np.split(dy * scale, np.cumsum([p.shape[-1] for p in pieces])[:-1], -1)
        if rectified:
            dx = [np.where(p > 0, d, _FLOAT.type(0)) for p, d in zip(pieces, dx, strict=True)]
    elif wanted:
        out = tuple([spare.begun(i) for i in at])
        add = True not in [o is None for o in out]
        if not add:
            out = tuple([_like(p, spare) for p in pieces]) if more or added else (spare(dy),)
        dx = _core.normalize_grad(pieces, dy, mean, scale, shift, slope, mask, out, add, rectified)
    return (dx[0], dgamma, dbeta, dy if added else None, *dx[1:])[: len(needed)]


def _like(piece, spare):
    """Where the gradient of a piece is written: over it, if it is there for nobody else and of floats."""
    return spare.same(piece) if piece.dtype == _FLOAT else np.empty(piece.shape, _FLOAT)


def _shape(parameter):
    return None if parameter is None else parameter.shape


@operation(parts=True)
def normalize_sign(x, gamma, beta, addend=None, *more, mean, inverse, axes, rectified=False, clip_value, traced):
    """``ste_sign(normalize(...), clip_value=clip_value, axis=-1)`` in one pass, of whole words of channels."""
    scale = inverse if gamma is None else inverse * gamma
    clip = float(clip_value) if clip_value is not None and True in traced else None
    pieces = (x, *more)
    words, mask, nan, _ = _core.normalize_sign(pieces, mean, scale, beta, clip, addend, rectified)
    if nan:
        value = _core.ste_sign(_core.normalize(pieces, mean, scale, beta, addend, rectified))
    else:
        value = BitArray(words, _joined_shape(pieces), -1)
    return value, (x, gamma, _shape(beta), mean, inverse, axes, rectified, mask, *more)


@normalize_sign.backward
def normalize_sign(residual, dy, needed, spare):
    x, *_, axes, rectified, _ = residual[:8]
    added = len(needed) > 3 and needed[3]
    if isinstance(x, Parts) and not (axes is None or rectified or added or residual[8:]):
        return _grad_in_parts(residual, dy, needed, spare)
    return _grad_by_channel(_whole(residual), dy, needed, spare)


def _whole(residual):
    return tuple([r[:] if type(r) is Parts else r for r in residual])


# Bytes of an input that are computed again at a time.
_PART = 1 << 20


def _grad_in_parts(residual, dy, needed, spare):
    """The same bits as those of `_grad_by_channel`, of an input that is computed twice and never there as a whole."""
    x, gamma, beta, mean, inverse, _, _, mask = residual
    *lead, channels = x.shape
    rows, each, block = math.prod(lead), math.prod(lead[1:]), _core.norm_rows(channels)
    most = max(1, _PART // (4 * channels * block)) * block
    if rows <= most:
        return _grad_by_channel(_whole(residual), dy, needed, spare)
    dy = dy.reshape(rows, channels)
    mask = None if mask is None else mask.reshape(rows, -1)

    def there(first, most):
        """Operands of some rows."""
        part = slice(first, min(rows, first + most))
        images = slice(first // each, -(-part.stop // each))
        some = x[images].reshape(-1, channels)[first - images.start * each : part.stop - images.start * each]
        return {"x": some, "dy": dy[part], "mean": mean, "mask": None if mask is None else mask[part]}

    before = np.zeros((2, channels))
    for first in range(0, rows, most):  # whole blocks of a sum
        sums = _core.norm_sums(**there(first, most), inverse=inverse, before=before, rows_before=first)
    dbeta, dgamma, shift, slope = sums
    dx = spare(x) if needed[0] else None
    if needed[0]:
        scale, out = inverse if gamma is None else inverse * gamma, dx.reshape(rows, channels)
        most = max(1, most // each) * each  # whole images, of which none is computed for two parts
        for first in range(0, rows, most):
            some = slice(first, first + most)
            _core.normalize_grad(**there(first, most), scale=scale, shift=shift, slope=slope, out=out[some])
    dgamma = dgamma.reshape(gamma.shape) if needed[1] else None
    return (dx, dgamma, dbeta.reshape(beta) if needed[2] else None, None)[: len(needed)]


def _joined_shape(pieces):
    if len(pieces) == 1:
        return pieces[0].shape
    return (*pieces[0].shape[:-1], sum([p.shape[-1] for p in pieces]))


class Normalized(Later):
    """``normalize(*args, **parameters)`` that is yet to be computed, where `by_channel`, for readers that may want its
    signs, or a sum with it.

    The signs are made in the same pass, and if they have the only reader there are no floats. Backward then keeps one
    bit per value in their place.

    Parameters
    ----------
    readers : int
        How many will read it.
    """

    def __init__(self, *args, readers, **parameters):
        self._args, self._parameters = args, parameters
        self._readers = readers
        x, _, _, _, *more = args
        self.shape = _joined_shape((x, *more))

    def _compute(self, **more):
        value = normalize(*self._args, **self._parameters, **more)
        self._args = ()
        return value

    def signs(self, clip_value, axis):
        """`ste_sign` along `axis`."""
        packed = None
        ndim = len(self.shape)
        if self._value is None and axis % ndim == ndim - 1 and self.shape[-1] % 32 == 0:
            if self._readers == 1:
                return normalize_sign(*self._args, **self._parameters, clip_value=clip_value)
            clip = None if clip_value is None else float(clip_value)
            signs = [clip]
            self._value = self._compute(signs=signs)
            packed = {(axis, clip, "sign"): tuple(signs)}
            signs.clear()
        return ste_sign(self, clip_value=clip_value, axis=axis, memo=packed)

    def plus(self, addend, readers):
        """The sum, which is to have so many readers, or None if it takes a pass of its own."""
        fits = getattr(addend, "shape", None) == self.shape and addend.dtype == _FLOAT
        if not fits or self._readers > 1 or self._value is not None or self._args[3] is not None:
            return None
        x, gamma, beta, _, *more = self._args
        return Normalized(x, gamma, beta, read(addend), *more, **self._parameters, readers=readers)


def _constant_over(parameter, axes, ndim):
    """Whether a parameter has one value along all of `axes` of an input of `ndim` axes."""
    lead = ndim - parameter.ndim
    return all(axis < lead or parameter.shape[axis - lead] == 1 for axis in axes)
