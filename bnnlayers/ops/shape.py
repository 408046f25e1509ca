"""Operations that move values without changing them. All of them can be run again for free."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tape import Tensor, operation
from .later import Later, integers

_FLOAT, _INT16 = np.dtype(np.float32), np.dtype(np.int16)
# Channels from which on what reads a joined array reads it where it lies.
_WIDE = 64


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


class _Roomy(np.ndarray):
    """Memory with room for more along its last axis; `ends` has where that begins, until an array claims it.

    It owns its memory, or NumPy would name the array that does as the base of its views.
    """

    ends: set[int]

    @staticmethod
    def of(x: np.ndarray) -> _Roomy | None:
        """The memory that `x` is the beginning of."""
        base: Any = x
        while isinstance(base, np.ndarray):
            if type(base) is _Roomy:
                return base if x.ctypes.data == base.ctypes.data and x.strides == base.strides else None
            base = base.base
        return None

    def claim(self, begin: int, end: int) -> bool:
        """Whether the caller, and nobody else, may write there."""
        if end > self.shape[-1]:
            return False
        try:
            self.ends.remove(begin)
        except KeyError:
            return False
        return True


def _joined(arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    """Arrays side by side along the last axis. What grows by several calls is copied in few of them."""
    first, begin = arrays[0], 0
    end = sum([a.shape[-1] for a in arrays])
    memory = _Roomy.of(first)
    if memory is not None and memory.claim(first.shape[-1], end):
        begin, arrays = first.shape[-1], arrays[1:]
    else:
        memory = _Roomy((*first.shape[:-1], end if memory is None else end + end // 2), first.dtype)
        memory.ends = set()
    plain = memory.view(np.ndarray)
    np.concatenate(arrays, -1, out=plain[..., begin:end])
    memory.ends.add(end)
    if end == memory.shape[-1] and begin == 0:
        return plain
    # Others see it as theirs.
    plain.flags.writeable = False
    return plain[..., :end]


@operation(recompute=True, joins=True)
def concatenate(*arrays, axis=-1):
    """Arrays one after the other along `axis`.

    The result of a call whose first array is the result of another may lie in memory that both share; it is read-only
    then.
    """
    axis = range(arrays[0].ndim)[axis]
    sizes = [a.shape[axis] for a in arrays]
    alike = all(a.dtype == _FLOAT and a.shape[:-1] == arrays[0].shape[:-1] for a in arrays)
    if alike and axis == arrays[0].ndim - 1 > 0 and sizes[0] >= _WIDE and len(arrays) > 1:
        return _joined(arrays), (axis, sizes)
    return np.concatenate(arrays, axis), (axis, sizes)


@concatenate.backward
def concatenate(residual, dy, needed):
    axis, sizes = residual
    parts = np.split(dy, np.cumsum(sizes)[:-1], axis)
    return tuple(part if n else None for part, n in zip(parts, needed, strict=True))


class _Piece:
    """An array that lies in joined ones, and what was measured of it."""

    __slots__ = ("array", "moments")

    def __init__(self, array: Tensor) -> None:
        self.array = array
        self.moments: Any = None


class Joined(Later):
    """``concatenate(*arrays)`` along the last axis, for readers that take the pieces where they lie.

    A dense block of which only such readers ask has no joined array: each of its pieces is measured once, and its
    gradient has memory of its own.
    """

    def __init__(self, pieces: list[_Piece]) -> None:
        self.pieces = pieces
        self.shape = (*pieces[0].array.shape[:-1], sum([p.array.shape[-1] for p in pieces]))

    @staticmethod
    def of(arrays: Any) -> Joined | None:
        """If kernels can take the pieces: of enough channels, in whole words."""
        rows = {x.shape[:-1] for x in arrays}
        if len(rows) > 1 or () in rows:
            return None
        for x in arrays:
            channels = x.shape[-1]
            if not isinstance(x, (Tensor, Later)) or x.dtype != _FLOAT or channels < _WIDE or channels % 32:
                return None
        pieces: list[_Piece] = []
        for x in arrays:
            pieces += x.pieces if type(x) is Joined else [_Piece(integers(x))]
        return Joined(pieces)

    @property
    def arrays(self) -> list[Tensor]:
        return [p.array for p in self.pieces]

    def _compute(self) -> Tensor:
        return concatenate(*[a.astype(_FLOAT) if a.dtype == _INT16 else a for a in self.arrays])


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
