"""Normalization over a batch or over the axes of one sample.

Where float32 is normalized by channel, the last axis, kernels read and write it once per step;
anything else is NumPy's.
"""

from __future__ import annotations

import math

import numpy as np

from .. import _core
from ..bits import BitArray
from ..tape import Readable, operation, plain
from .shape import Joined

_FLOAT = np.dtype(np.float32)


def _by_channel(x, *parameters):
    """Whether kernels take `x`, and the parameters hold a number for each of its channels."""
    if x.dtype != _FLOAT or x.ndim < 2:
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


def moments(x, axes, epsilon, average=None):
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
    """
    if type(x) is Joined:
        mean, variance = _moments_of_pieces(x)
    elif axes == tuple(range(x.ndim - 1)) and _by_channel(x, *(average or ())[:2]):
        mean, _, inverse = _core.moments(x, epsilon, *(average or ()))
        return mean, inverse
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
def normalize(x, gamma, beta, *more, mean, inverse, axes=None):
    """``(x - mean) * inverse * gamma + beta``.

    Parameters
    ----------
    x : array
    gamma, beta : array or None
        Broadcastable to `x`.
    *more : array
        What follows `x` along the last axis; of the pieces of a `Joined`.
    mean, inverse : array
        Of `moments` or of constants; broadcastable to `x`.
    axes : tuple of int, optional
        The axes over which `mean` and `inverse` were computed from `x` itself: the gradient then goes through them.
        None if they are constants, as at inference.

    References
    ----------
    Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal
    Covariate Shift", 2015.
    """
    scale = inverse if gamma is None else inverse * gamma
    if more or (_by_channel(x, mean, inverse, gamma, beta) and axes in (None, tuple(range(x.ndim - 1)))):
        y = _core.normalize((x, *more), mean, scale, beta)
        return y, (x, gamma, _shape(beta), mean, inverse, axes, None, *more)
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
    normal = x - mean
    normal *= inverse
    if axes is None:
        dx = dy * (inverse if gamma is None else inverse * gamma) if needed[0] else None
        return dx, dy * normal if needed[1] else None, dy if needed[2] else None
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
    return dx, dgamma if needed[1] else None, dbeta if needed[2] else None


def _grad_by_channel(residual, dy, needed, spare):
    """Gradients where a mask, of bits, says which of dy count; of beta the residual has the shape."""
    x, gamma, beta, mean, inverse, axes, mask, *more = residual
    pieces, at = (x, *more), [0, *range(3, len(needed))]
    scale = inverse if gamma is None else inverse * gamma
    dx = [None] * len(pieces)
    dgamma = dbeta = None
    wanted = any(needed[i] for i in at)
    if axes is not None or needed[1] or needed[2]:
        dbeta, dgamma, shift, slope = _core.norm_sums(pieces, dy, mean, inverse, mask)
        dgamma = dgamma.reshape(gamma.shape) if needed[1] else None
        dbeta = dbeta.reshape(beta) if needed[2] else None
    if wanted and axes is None:
        dx = (dy if mask is None else _core.select(dy, mask, -1)) * scale
        dx = np.split(dx, np.cumsum([p.shape[-1] for p in pieces])[:-1], -1)
    elif wanted:
        out = tuple([spare.begun(i) for i in at])
        add = all(o is not None for o in out)
        if not add:
            out = tuple([spare.same(p) for p in pieces]) if more else (spare(x),)
        dx = _core.normalize_grad(pieces, dy, mean, scale, shift, slope, mask, out, add)
    return dx[0], dgamma, dbeta, *dx[1:]


def _shape(parameter):
    return None if parameter is None else parameter.shape


@operation
def normalize_sign(x, gamma, beta, *more, mean, inverse, axes, clip_value, traced):
    """``ste_sign(normalize(...), clip_value=clip_value, axis=-1)`` in one pass, of what is `packable`."""
    scale = inverse if gamma is None else inverse * gamma
    clip = float(clip_value) if clip_value is not None and True in traced else None
    pieces = (x, *more)
    words, mask, nan = _core.normalize_sign(pieces, mean, scale, beta, clip)
    if nan:
        value = _core.ste_sign(_core.normalize(pieces, mean, scale, beta))
    else:
        value = BitArray(words, _joined_shape(pieces), -1)
    return value, (x, gamma, _shape(beta), mean, inverse, axes, mask, *more)


@normalize_sign.backward
def normalize_sign(residual, dy, needed, spare):
    return _grad_by_channel(residual, dy, needed, spare)


def _joined_shape(pieces):
    return (*pieces[0].shape[:-1], sum([p.shape[-1] for p in pieces]))


class Normalized(Readable):
    """``normalize(*args, **parameters)`` that is yet to be computed, for a reader that may want nothing but its signs.

    It reads as floats. The signs are made without them, in one pass over what is normalized, and backward keeps one bit
    per value in their place.
    """

    def __init__(self, *args, **parameters):
        self._args, self._parameters = args, parameters
        self._floats = None

    @staticmethod
    def packable(x):
        """Whether kernels can take the signs of `x`, normalized over all axes but the last."""
        return _by_channel(x) and x.shape[-1] % 32 == 0

    @property
    def shape(self):
        x, _, _, *more = self._args
        return _joined_shape((x, *more))

    @property
    def dtype(self):
        return self._args[0].dtype

    def _read_(self):
        if self._floats is None:
            self._floats = normalize(*self._args, **self._parameters)
        return self._floats

    def signs(self, clip_value):
        """As bits along the last axis, with the gradient of `ste_sign`."""
        return normalize_sign(*self._args, **self._parameters, clip_value=clip_value)


def _constant_over(parameter, axes, ndim):
    """Whether a parameter has one value along all of `axes` of an input of `ndim` axes."""
    lead = ndim - parameter.ndim
    return all(axis < lead or parameter.shape[axis - lead] == 1 for axis in axes)
