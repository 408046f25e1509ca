"""Normalization over a batch or over the axes of one sample."""

from __future__ import annotations

import numpy as np

from ..tape import operation


def _total(x, axes):
    """Sum over `axes`, kept as axes of length one, in the dtype of `x`.

    A product with ones when only the last axis stays: BLAS adds in blocks, which is faster and
    loses less than one running sum.
    """
    if x.dtype.kind == "f" and x.ndim > 1 and axes == tuple(range(x.ndim - 1)):
        rows = x.reshape(-1, x.shape[-1])
        total = np.ones(len(rows), x.dtype) @ rows
        return total.reshape((1,) * (x.ndim - 1) + (-1,))
    return np.sum(x, axis=axes, keepdims=True)


def moments(x, axes):
    """Mean and biased variance over `axes`, which stay as axes of length one.

    Parameters
    ----------
    x : array
    axes : tuple of int
    """
    count = x.dtype.type(max(1, np.prod([x.shape[a] for a in axes], dtype=np.int64)))
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
    y = x - mean
    y *= scale
    if beta is not None:
        y += beta
    apart = all(p is None or _constant_over(p, axes or (), x.ndim) for p in (gamma, beta))
    return y, (x, gamma, mean, inverse, axes, apart)


@normalize.backward
def normalize(residual, dy, needed):
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
        count = x.dtype.type(max(1, np.prod([x.shape[a] for a in axes], dtype=np.int64)))
        dx = normal
        dx *= -slope / count
        dx += flow
        dx -= shift / count
        dx *= scale
    return dx, dgamma if needed[1] else None, dbeta if needed[2] else None


def _constant_over(parameter, axes, ndim):
    """Whether a parameter has one value along all of `axes` of an input of `ndim` axes."""
    lead = ndim - parameter.ndim
    return all(axis < lead or parameter.shape[axis - lead] == 1 for axis in axes)
