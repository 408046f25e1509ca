"""Normalization over a batch or over the axes of one sample.

Where float32 is normalized by channel, the last axis, kernels read and write it once per step;
anything else is NumPy's.
"""

from __future__ import annotations

import math

import numpy as np

from .. import _core
from ..bits import BitArray
from ..tape import Parts, Readable, operation

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
    x : array
    axes : tuple of int
    epsilon : float
    average : tuple, optional
        ``(mean, variance, rate, unbiased)``: moving averages, which move in place by `rate` towards the mean and
        towards the variance times `unbiased`.
    """
    if axes == tuple(range(x.ndim - 1)) and _by_channel(x, *(average or ())[:2]):
        mean, _, inverse = _core.moments(x, epsilon, *(average or ()))
        return mean, inverse
    count = _count(x, axes)
    mean = _total(x, axes) / count
    variance = _total(np.square(x - mean), axes) / count
    if average is not None:
        *moving, rate, unbiased = average
        for old, new in zip(moving, (mean, variance * variance.dtype.type(unbiased)), strict=True):
            old -= (old - new.reshape(old.shape)) * old.dtype.type(rate)
    return mean, inverse_deviation(variance, epsilon)


def inverse_deviation(variance, epsilon):
    """``1 / sqrt(variance + epsilon)``."""
    return 1 / np.sqrt(variance + variance.dtype.type(epsilon))


@operation(recompute=True)
def normalize(x, gamma, beta, *, mean, inverse, axes=None):
    """``(x - mean) * inverse * gamma + beta``.

    Parameters
    ----------
    x : array
    gamma, beta : array or None
        Broadcastable to `x`.
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
    if _by_channel(x, mean, inverse, gamma, beta) and axes in (None, tuple(range(x.ndim - 1))):
        return _core.normalize(x, mean, scale, beta), (x, gamma, _shape(beta), mean, inverse, axes, None)
    y = x - mean
    y *= scale
    if beta is not None:
        y += beta
    apart = all(p is None or _constant_over(p, axes or (), x.ndim) for p in (gamma, beta))
    return y, (x, gamma, mean, inverse, axes, apart)


@normalize.backward
def normalize(residual, dy, needed, spare):
    if len(residual) > 6:
        return _grad_by_channel(*residual, dy, needed, spare)
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


def _grad_by_channel(x, gamma, beta, mean, inverse, axes, mask, dy, needed, spare):
    """Gradients where `mask`, of bits, says which of dy count; `beta` is its shape."""
    scale = inverse if gamma is None else inverse * gamma
    dx = dgamma = dbeta = None
    if axes is not None or needed[1] or needed[2]:
        dbeta, dgamma, shift, slope = _core.norm_sums(x, dy, mean, inverse, mask)
    if needed[0] and axes is None:
        dx = (dy if mask is None else _core.select(dy, mask, -1)) * scale
    elif needed[0]:
        dx = _core.normalize_grad(x, dy, mean, scale, shift, slope, mask, spare(x))
    return dx, dgamma.reshape(gamma.shape) if needed[1] else None, dbeta.reshape(beta) if needed[2] else None


def _shape(parameter):
    return None if parameter is None else parameter.shape


@operation(parts=True)
def normalize_sign(x, gamma, beta, *, mean, inverse, axes, clip_value, traced):
    """``ste_sign(normalize(...), clip_value=clip_value, axis=-1)`` in one pass, of what is `packable`."""
    scale = inverse if gamma is None else inverse * gamma
    clip = float(clip_value) if clip_value is not None and True in traced else None
    words, mask, nan = _core.normalize_sign(x, mean, scale, beta, clip)
    value = _core.ste_sign(_core.normalize(x, mean, scale, beta)) if nan else BitArray(words, x.shape, -1)
    return value, (x, gamma, _shape(beta), mean, inverse, axes, mask)


@normalize_sign.backward
def normalize_sign(residual, dy, needed, spare):
    gradient = _grad_in_parts if isinstance(residual[0], Parts) else _grad_by_channel
    return gradient(*residual, dy, needed, spare)


# Bytes of an input that are computed again at a time.
_PART = 1 << 20


def _grad_in_parts(x, gamma, beta, mean, inverse, axes, mask, dy, needed, spare):
    """The same bits as those of `_grad_by_channel`, of an input that is computed twice and never there as a whole."""
    *lead, channels = x.shape
    rows, each, block = math.prod(lead), math.prod(lead[1:]), _core.norm_rows(channels)
    most = max(1, _PART // (4 * channels * block)) * block
    if rows <= most or axes is None:
        return _grad_by_channel(x[:], gamma, beta, mean, inverse, axes, mask, dy, needed, spare)
    dy = dy.reshape(rows, channels)
    mask = None if mask is None else mask.reshape(rows, -1)

    def there(first):
        """Operands of some rows, whole blocks of a sum."""
        part = slice(first, min(rows, first + most))
        images = slice(first // each, -(-part.stop // each))
        some = x[images].reshape(-1, channels)[first - images.start * each : part.stop - images.start * each]
        return {"x": some, "dy": dy[part], "mean": mean, "mask": None if mask is None else mask[part]}

    before = np.zeros((2, channels))
    for first in range(0, rows, most):
        sums = _core.norm_sums(**there(first), inverse=inverse, before=before, rows_before=first)
    dbeta, dgamma, shift, slope = sums
    dx = spare(x) if needed[0] else None
    if needed[0]:
        scale, out = inverse if gamma is None else inverse * gamma, dx.reshape(rows, channels)
        for first in range(0, rows, most):
            some = slice(first, first + most)
            _core.normalize_grad(**there(first), scale=scale, shift=shift, slope=slope, out=out[some])
    return dx, dgamma.reshape(gamma.shape) if needed[1] else None, dbeta.reshape(beta) if needed[2] else None


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
        return self._args[0].shape

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
