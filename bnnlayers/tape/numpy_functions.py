"""NumPy's functions as operations of ours, where autograd has none or one that differs from TensorFlow's."""

from __future__ import annotations

import operator

import numpy as np

from .operations import operation
from .tensor import OURS, call_numpy


@operation(linear=True)
def _getitem(x, *, index):
    return x[index], (x.shape, index)


@_getitem.backward
def _getitem(residual, dy, needed):
    shape, index = residual
    return (_put(dy, shape=shape, index=index),)


@operation(linear=True)
def _put(x, *, shape, index):
    y = np.zeros(shape, x.dtype)
    parts = index if isinstance(index, tuple) else (index,)
    if all(p is None or p is Ellipsis or isinstance(p, (int, slice, np.integer)) for p in parts):
        y[index] = x
    else:
        np.add.at(y, index, x)
    return y, index


@_put.backward
def _put(index, dy, needed):
    return (dy[index],)


@operation(linear=True)
def _copy(x):
    return x.copy(), None


@_copy.backward
def _copy(residual, dy, needed):
    return (dy,)


@operation(linear=True)
def _cast(x, *, dtype, **options):
    return x.astype(dtype, **options), None


@_cast.backward
def _cast(residual, dy, needed):
    return (dy,)


@operation(linear=True)
def _broadcast_to(x, *, shape):
    return np.broadcast_to(x, shape), None


@_broadcast_to.backward
def _broadcast_to(residual, dy, needed):
    return (dy,)


@operation(recompute=True, linear=True)
def add(x, y):
    """``x + y``."""
    return x + y, None


@add.backward
def add(residual, dy, needed):
    return dy if needed[0] else None, dy if needed[1] else None


@operation(linear=True)
def _where(condition, x, y):
    return np.where(condition, x, y), condition


@_where.backward
def _where(condition, dy, needed):
    zero = dy.dtype.type(0)
    return (
        None,
        np.where(condition, dy, zero) if needed[1] else None,
        np.where(condition, zero, dy) if needed[2] else None,
    )


@operation(linear=True)
def _clip(x, *, low, high):
    inside = np.ones(np.broadcast_shapes(x.shape, np.shape(low), np.shape(high)), bool)
    if low is not None:
        inside &= x >= low
    if high is not None:
        inside &= x <= high
    return np.clip(x, low, high), inside


@_clip.backward
def _clip(inside, dy, needed):
    return (np.where(inside, dy, dy.dtype.type(0)),)


def _clip_numpy(a, a_min=None, a_max=None, *, min=None, max=None):
    low, high = (a_min if min is None else min), (a_max if max is None else max)
    return _clip(a, low=low, high=high)


# NumPy's functions that autograd lacks or gives another derivative than TensorFlow: broadcasting
# in where and broadcast_to, and the ends of clip's interval, which belong to it. And addition, for
# which autograd keeps both arguments.
OURS |= {
    operator.getitem: _getitem,
    np.add: lambda x, y, dtype=None: add(x, y) if dtype is None else add(x, y).astype(dtype),
    np.astype: lambda x, dtype, **options: _cast(x, dtype=np.dtype(dtype), **options),
    np.broadcast_to: lambda array, shape, **_: _broadcast_to(array, shape=shape),
    np.clip: _clip_numpy,
    np.copy: lambda a, **_: _copy(a),
    np.positive: _copy,
    np.where: lambda c, *xy: _where(c, *xy) if xy else call_numpy(np.nonzero, (c,), {}),
}
