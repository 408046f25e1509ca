"""Normalization over a batch or over the axes of one sample.

Where float32 is normalized by channel, the last axis, kernels read and write it once per step;
anything else is NumPy's.
"""

from __future__ import annotations

import math

import numpy as np

from .. import _core
from ..tape import operation

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


def moments(x, axes):
    """Mean and biased variance over `axes`, which stay as axes of length one.

    Parameters
    ----------
    x : array
    axes : tuple of int
    """
    if axes == tuple(range(x.ndim - 1)) and _by_channel(x):
        mean, variance = _core.moments(x).reshape(2, *(1,) * len(axes), -1)
        return mean, variance
    count = _count(x, axes)
    mean = _total(x, axes) / count
    return mean, _total(np.square(x - mean), axes) / count


@operation(recompute=True)
def normalize(x, gamma, beta, *, mean, variance, epsilon, axes=None):
    """``(x - mean) / sqrt(variance + epsilon) * gamma + beta``.

    Parameters
    ----------
    x : array
    gamma, beta : array or None
        Broadcastable to `x`.
    mean, variance : array
        Broadcastable to `x`.
    epsilon : float
    axes : tuple of int, optional
        The axes over which `mean` and `variance` were computed from `x` itself: the gradient then
        goes through them. None if they are constants, as at inference.

    References
    ----------
    Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal
    Covariate Shift", 2015.
    """
    inverse = 1 / np.sqrt(variance + variance.dtype.type(epsilon))
    scale = inverse if gamma is None else inverse * gamma
    if _by_channel(x, mean, scale, beta) and axes in (None, tuple(range(x.ndim - 1))):
        return _core.normalize(x, mean, scale, beta), (x, gamma, mean, inverse, axes, None)
    y = x - mean
    y *= scale
    if beta is not None:
        y += beta
    apart = all(p is None or _constant_over(p, axes or (), x.ndim) for p in (gamma, beta))
    return y, (x, gamma, mean, inverse, axes, apart)


@normalize.backward
def normalize(residual, dy, needed, spare):
    x, gamma, mean, inverse, axes, apart = residual
    if apart is None:
        return _grad_by_channel(x, gamma, mean, inverse, axes, dy, needed, spare)
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


def _grad_by_channel(x, gamma, mean, inverse, axes, dy, needed, spare):
    scale = inverse if gamma is None else inverse * gamma
    dx = dgamma = dbeta = None
    if axes is not None or needed[1] or needed[2]:
        dbeta, dgamma = _core.norm_sums(x, dy, mean).reshape(2, *(1,) * (x.ndim - 1), -1)
        dgamma = dgamma * inverse
    if needed[0] and axes is None:
        dx = dy * scale
    elif needed[0]:
        count = _count(x, axes)
        dx = _core.normalize_grad(x, dy, mean, scale, dbeta / count, dgamma * inverse / count, spare(x))
    return dx, dgamma if needed[1] else None, dbeta if needed[2] else None


def _constant_over(parameter, axes, ndim):
    """Whether a parameter has one value along all of `axes` of an input of `ndim` axes."""
    lead = ndim - parameter.ndim
    return all(axis < lead or parameter.shape[axis - lead] == 1 for axis in axes)
