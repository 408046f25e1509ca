"""Normalization over a batch or over the axes of one sample.

Where float32 is normalized by channel, the last axis, kernels read and write it once per step;
anything else is NumPy's.
"""

from __future__ import annotations

import math

import numpy as np

from .. import _core
from ..tape import operation


def _by_channel(x, *parameters):
    """Whether kernels take `x`, and the parameters hold a number for each of its channels."""
    channels = x.shape[-1:]
    return (
        x.dtype == np.float32
        and x.ndim > 1
        and all(
            p is None or (p.dtype == np.float32 and p.shape[-1:] == channels == (p.size,))
            for p in parameters
        )
    )


def _flat(parameter):
    return None if parameter is None else parameter.reshape(-1)


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
    if _by_channel(x, gamma, beta, mean, inverse):
        y = _core.normalize(x, _flat(mean), _flat(scale), _flat(beta))
        return y, (x, gamma, mean, inverse, axes, True)
    y = x - mean
    y *= scale
    if beta is not None:
        y += beta
    apart = all(p is None or _constant_over(p, axes or (), x.ndim) for p in (gamma, beta))
    return y, (x, gamma, mean, inverse, axes, apart)


@normalize.backward
def normalize(residual, dy, needed):
    x, gamma, mean, inverse, axes, apart = residual
    if _by_channel(x, gamma, mean, inverse) and axes in (None, tuple(range(x.ndim - 1))) and apart:
        return _grad_by_channel(x, gamma, mean, inverse, axes, dy, needed)
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


def _grad_by_channel(x, gamma, mean, inverse, axes, dy, needed):
    mean, inverse = _flat(mean), _flat(inverse)
    scale = inverse if gamma is None else inverse * _flat(gamma)
    if axes is None and not (needed[1] or needed[2]):
        return dy * scale, None, None
    shift, slope = _core.norm_sums(x, dy, mean)
    slope *= inverse
    dx = None
    if needed[0] and axes is None:
        dx = dy * scale
    elif needed[0]:
        count = _count(x, axes)
        dx = _core.normalize_grad(x, dy, mean, scale, shift / count, slope * inverse / count)
    shape = (1,) * (x.ndim - 1) + shift.shape
    return dx, slope.reshape(shape) if needed[1] else None, shift.reshape(shape) if needed[2] else None


def _constant_over(parameter, axes, ndim):
    """Whether a parameter has one value along all of `axes` of an input of `ndim` axes."""
    lead = ndim - parameter.ndim
    return all(axis < lead or parameter.shape[axis - lead] == 1 for axis in axes)
