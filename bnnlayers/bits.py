"""`BitArray`, the one packed type, and the plain functions that pack and unpack.

Canonical layout: ``uint32[planes, ..., ceil(n / 32)]`` with the packed axis moved last, least significant bit first,
a sign bit of 1 for a negative value, and zeros in the tail of the last word. It is what prints and what files hold.
What a kernel reads instead is prepared on demand, cached here, and never leaves the process.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import _core

if TYPE_CHECKING:
    from .tape import Node

Words = NDArray[np.uint32]
_UINT32 = np.dtype(np.uint32)


# A network asks for the same few in every step.
@functools.lru_cache(maxsize=1024)
def _packing(shape: tuple[int, ...], axis: int) -> tuple[int, tuple[int, ...]]:
    """The axis counted from the first, and the shape of the words of a plane."""
    axis = axis % len(shape)
    return axis, (*shape[:axis], *shape[axis + 1 :], -(-shape[axis] // 32))


class BitArray:
    """An immutable array whose values are a few bits each, packed along one axis.

    Parameters
    ----------
    words : ndarray of uint32, shape (planes, ..., ceil(n / 32))
        Canonical words; see the module's text.
    shape : tuple of int
        Logical shape, with the packed axis in its place.
    axis : int
        The packed axis of `shape`.
    kind : {"sign", "unit", "ternary"}
        What a bit stands for. Plane i of "sign" is +1 or -1 and counts 2**i times, that of "unit" is 0 or 1 and counts
        2**i times. "ternary" has a plane of signs (0 where the value is) and one that says which values are not zero.
    divisor : int
        Divides the sum over the planes.
    scale : ndarray of float32, shape (shape[-1],), optional
        Multiplies the last axis.

    Notes
    -----
    ``np.asarray(bits)`` gives the logical values as float32. A product of the library takes a `BitArray` as it is.
    """

    __slots__ = ("__weakref__", "_cache", "_node", "axis", "divisor", "kind", "scale", "shape", "words")

    dtype = np.dtype(np.float32)
    __array_priority__ = 200

    def __init__(
        self,
        words: Words,
        shape: tuple[int, ...],
        axis: int,
        kind: str = "sign",
        divisor: int = 1,
        scale: NDArray[np.float32] | None = None,
    ) -> None:
        axis, packed = _packing(shape, axis)
        if words.shape[1:] != packed or words.dtype != _UINT32 or (kind == "ternary" and len(words) != 2):
            raise ValueError(
                f"BitArray: expected words of dtype uint32 and shape (planes, {str(packed)[1:]} for shape {shape} "
                f"packed along axis {axis}, got {words.dtype} {words.shape}"
            )
        words.setflags(write=False)
        self.words = words
        self.shape = tuple(shape)
        self.axis = axis
        self.kind = kind
        self.divisor = divisor
        self.scale = scale
        self._cache: dict[Any, Any] = {}
        self._node: Node | None = None

    def _with_node(self, node: Node | None) -> BitArray:
        copy = object.__new__(BitArray)
        copy.words, copy.shape, copy.axis, copy.kind = self.words, self.shape, self.axis, self.kind
        copy.divisor, copy._cache, copy.scale, copy._node = self.divisor, self._cache, self.scale, node
        return copy

    def scaled(self, scale: NDArray[np.float32] | None) -> BitArray:
        """The same bits with another scale of the last axis, or none."""
        copy = self._with_node(None)
        copy.scale = scale
        return copy

    def moved_last(self) -> BitArray:
        """The same values with the packed axis last, where their words already lie; a moved array has no scale."""
        if self.axis == self.ndim - 1:
            return self
        shape = (*self.shape[: self.axis], *self.shape[self.axis + 1 :], self.shape[self.axis])
        return BitArray(self.words, shape, -1, self.kind, self.divisor)

    def __getitem__(self, items: slice) -> BitArray:
        """A range along the first axis, which must not be the packed one."""
        if self.axis == 0 or not isinstance(items, slice):
            raise TypeError("a BitArray has ranges along its first axis only, where that is not packed")
        words = self.words[:, items]
        return BitArray(words, (words.shape[1], *self.shape[1:]), self.axis, self.kind, self.divisor, self.scale)

    @property
    def ndim(self) -> int:
        """Number of logical axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of logical values."""
        return math.prod(self.shape)

    @property
    def planes(self) -> int:
        """Bits kept per value."""
        return self.words.shape[0]

    @property
    def is_signs(self) -> bool:
        """Whether every value is +1 or -1."""
        return self.kind == "sign" and self.divisor == 1 and self.scale is None and len(self.words) == 1

    @property
    def nbytes(self) -> int:
        """Bytes of the canonical words."""
        return self.words.nbytes

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a BitArray without axes")
        return self.shape[0]

    @property
    def terms(self) -> tuple[tuple[float, BitArray], ...]:
        """The value, before divisor and scale, as a sum of coefficients times arrays of one sign each.

        A bit u of {0, 1} is (1 + s) / 2, and a ternary value is half the sum of two signs that differ where it is zero.
        """
        if self.is_signs:
            return self.split()  # which is this array itself: in its own cache it would have to wait for the collector
        return self.derived("terms", self.split)

    def derived(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` returns, made once: another form of these bits, which must not depend on their scale."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def split(self) -> tuple[tuple[float, BitArray], ...]:
        """The same as `terms`, made anew: what is read once must not hold them until backward."""
        if self.kind == "sign" and self.planes == 1:
            return ((1.0, self if self.is_signs else self._signs(self.words)),)
        if self.kind == "sign":
            return tuple((float(2**i), self._signs(self.words[i : i + 1])) for i in range(self.planes))
        if self.kind == "ternary":
            sign, nonzero = self.words[:1], self.words[1:]
            return ((0.5, self._signs(sign)), (0.5, self._signs(sign | self._inverse(nonzero))))
        one = (2**self.planes - 1) / 2, self._signs(np.zeros_like(self.words[:1]))
        return (one, *((2.0**i / 2, self._signs(self._inverse(self.words[i : i + 1]))) for i in range(self.planes)))

    def halves(self) -> tuple[BitArray, int, BitArray]:
        """Low planes, the weight of the high ones, and those; their sum is the value before divisor and scale."""
        half = self.planes // 2
        low, high = (BitArray(words, self.shape, self.axis, self.kind) for words in np.split(self.words, [half]))
        return low, 2**half, high

    def _signs(self, words: Words) -> BitArray:
        return BitArray(words, self.shape, self.axis)

    def _inverse(self, words: Words) -> Words:
        """Every bit turned but those of the tail."""
        turned = ~words
        if tail := self.shape[self.axis] % 32:
            turned[..., -1] &= np.uint32(2**tail - 1)
        return turned

    def numpy(self, dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """The logical values as a plain array."""
        if self.kind == "sign" and self.planes == 1:
            values = _core.unpack(self.words[0], self.shape[self.axis], self.axis, dtype)
        else:
            values = np.zeros(self.shape, dtype)
            for c, s in self.split():
                values += c * _core.unpack(s.words[0], s.shape[s.axis], s.axis, dtype)
        if self.divisor != 1:
            values /= values.dtype.type(self.divisor)
        return values if self.scale is None else values * self.scale

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("a BitArray cannot be read as an array without a copy")
        values = self.numpy()
        return values if dtype is None else values.astype(dtype, copy=False)

    def prepare(self, groups: int, channels: int, transposed: bool) -> NDArray[np.uint8]:
        """The right operand of a product in the layout of this machine's kernels, made once.

        Parameters
        ----------
        groups, channels : int
            Of the convolution; `channels` counts all groups.
        transposed : bool
            Whether the product runs from filters to channels (input gradients, transposed layers).
        """
        key = (groups, channels, transposed)
        return self.derived(key, lambda: _core.prepare(self.words, groups, channels, transposed))

    def __repr__(self) -> str:
        return f"<BitArray {self.kind} shape={self.shape} axis={self.axis} planes={self.planes} bytes={self.nbytes}>"


def pack_bits(x: ArrayLike, axis: int = -1) -> BitArray:
    """Pack the signs of an array into bits.

    Parameters
    ----------
    x : array_like of real numbers
    axis : int, optional
        The axis along which 32 neighbours share a word.

    Returns
    -------
    BitArray
        Of kind "sign": a bit is 1 where ``x < 0``, so that 0 and -0.0 count as +1.

    Raises
    ------
    ValueError
        If `x` holds a NaN, which no bit can hold, or has no axis `axis`.
    TypeError
        If `x` is not an array of real numbers.
    """
    x = np.asarray(x)
    words, _, nan = _core.pack(x, axis, None)
    if nan:
        raise ValueError("pack_bits(): argument 'x' holds NaN; expected numbers, since a bit cannot hold NaN")
    return BitArray(words, x.shape, axis)


def unpack_bits(words: ArrayLike, count: int, axis: int = -1, dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """The inverse of `pack_bits` on canonical words of one plane.

    Parameters
    ----------
    words : array_like of uint32, shape (..., ceil(count / 32))
    count : int
        Logical length of the packed axis.
    axis : int, optional
        Where the packed axis goes in the result.
    dtype : float32 or float64

    Returns
    -------
    ndarray
        +1 where the bit is 0, -1 where it is 1.
    """
    return _core.unpack(np.asarray(words), count, axis, dtype)
