"""Operations that move values without changing them. All of them can be run again for free."""

from __future__ import annotations

import numpy as np

from ..tape import operation


@operation(recompute=True)
def reshape(x, *, shape):
    """`x` with another shape of as many elements."""
    return x.reshape(shape), x.shape


@reshape.backward
def reshape(shape, dy, needed):
    return (dy.reshape(shape),)


@operation(recompute=True)
def transpose(x, *, axes):
    """`x` with its axes in another order."""
    return x.transpose(axes), axes


@transpose.backward
def transpose(axes, dy, needed):
    return (dy.transpose(np.argsort(axes)),)


@operation(recompute=True, joins=True)
def concatenate(*arrays, axis=-1):
    """Arrays one after the other along `axis`."""
    return np.concatenate(arrays, axis), (axis, [a.shape[axis] for a in arrays])


@concatenate.backward
def concatenate(residual, dy, needed):
    axis, sizes = residual
    parts = np.split(dy, np.cumsum(sizes)[:-1], axis)
    return tuple(part if n else None for part, n in zip(parts, needed, strict=True))


@operation(recompute=True)
def pad(x, *, widths, value=0.0):
    """`x` with `value` around it.

    Parameters
    ----------
    x : array
    widths : sequence of (int, int)
        Elements before and after, for each axis.
    value : float
    """
    inside = tuple(slice(low, low + n) for (low, _), n in zip(widths, x.shape, strict=True))
    return np.pad(x, widths, constant_values=value), inside


@pad.backward
def pad(inside, dy, needed):
    return (dy[inside],)


@operation(recompute=True)
def repeat(x, *, times, first=1):
    """Every pixel repeated ``times[i]`` times along spatial axis ``first + i``."""
    y = x
    for axis, count in enumerate(times, first):
        y = np.repeat(y, count, axis)
    return y, (x.shape, times, first)


@repeat.backward
def repeat(residual, dy, needed):
    shape, times, first = residual
    split, summed = [], []
    for axis, length in enumerate(shape):
        split.append(length)
        if first <= axis < first + len(times):
            split.append(times[axis - first])
            summed.append(len(split) - 1)
    return (dy.reshape(split).sum(axis=tuple(summed)),)


@operation(recompute=True)
def combine(x, *, weights, first=1):
    """The matrix ``weights[i]`` applied along spatial axis ``first + i``."""
    return _along(x, weights, first), (weights, first)


@combine.backward
def combine(residual, dy, needed):
    weights, first = residual
    return (_along(dy, [w.T for w in weights], first),)


def _along(x, matrices, first):
    for axis, matrix in enumerate(matrices, first):
        x = np.moveaxis(np.tensordot(matrix.astype(x.dtype), x, (1, axis)), 0, axis)
    return x
