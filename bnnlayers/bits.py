"""`BitArray`, the one packed type, and the plain functions that pack and unpack.

Canonical layout: ``uint32[planes, ..., ceil(n / 32)]`` with the packed axis moved last, least significant bit first,
a sign bit of 1 for a negative value, and zeros in the tail of the last word. It is what prints and what files hold.
What a kernel reads instead is prepared on demand, cached here, and never leaves the process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import _core

if TYPE_CHECKING:
    from .tape import Node

Words = NDArray[np.uint32]


class BitArray:
    """An immutable array whose values are bits, packed along one axis.

    Parameters
    ----------
    words : ndarray of uint32, shape (planes, ..., ceil(n / 32))
        Canonical words; see the module's text.
    shape : tuple of int
        Logical shape, with the packed axis in its place.
    axis : int
        The packed axis of `shape`.

    Notes
    -----
    ``np.asarray(bits)`` gives the logical values as float32. A product of the library takes a `BitArray` as it is.
    """

    __slots__ = ("__weakref__", "_node", "_prepared", "axis", "kind", "shape", "words")

    dtype = np.dtype(np.float32)
    __array_priority__ = 200

    def __init__(self, words: Words, shape: tuple[int, ...], axis: int, kind: str = "sign") -> None:
        axis = axis % len(shape)
        packed = shape[:axis] + shape[axis + 1 :] + (-(-shape[axis] // 32),)
        if words.shape[1:] != packed or words.dtype != np.uint32:
            raise ValueError(
                f"BitArray: expected words of dtype uint32 and shape (planes, {str(packed)[1:]} for shape {shape} "
                f"packed along axis {axis}, got {words.dtype} {words.shape}"
            )
        words.flags.writeable = False
        self.words = words
        self.shape = tuple(shape)
        self.axis = axis
        self.kind = kind
        self._prepared: dict[Any, NDArray[np.uint8]] = {}
        self._node: Node | None = None

    def _with_node(self, node: Node | None) -> BitArray:
        copy = object.__new__(BitArray)
        copy.words, copy.shape, copy.axis, copy.kind = self.words, self.shape, self.axis, self.kind
        copy._prepared = self._prepared
        copy._node = node
        return copy

    @property
    def ndim(self) -> int:
        """Number of logical axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of logical values."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def planes(self) -> int:
        """Bits kept per value."""
        return self.words.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of the canonical words."""
        return self.words.nbytes

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a BitArray without axes")
        return self.shape[0]

    def numpy(self, dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """The logical values as a plain array."""
        return _core.unpack(self.words[0], self.shape[self.axis], self.axis, dtype)

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
            Of the convolution; both 1-axis counts cover all groups.
        transposed : bool
            Whether the product runs from filters to channels (input gradients, transposed layers).
        """
        key = (groups, channels, transposed)
        blob = self._prepared.get(key)
        if blob is None:
            blob = _core.prepare(self.words, groups, channels, transposed)
            self._prepared[key] = blob
        return blob

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
