"""The C extension. Arrays in, arrays out; every function checks its arguments and releases the GIL while it computes.

Geometry arguments are `bnnlayers.geometry.Geometry` tuples. Packed operands are canonical (see `bnnlayers.bits`);
`prepare` makes the opaque right operand of this level. Results of products have the shape (batch, pixels, columns).
Where a shape below says `batch, ...`, any axes that hold batch * pixels items in order will do. A blob's size is
checked, its level is not.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .geometry import Geometry

Words = NDArray[np.uint32]

level: str  # the level of the functions below
variants: dict[str, SimpleNamespace]  # every level this machine runs, best first; each has all functions below

ste_sign: np.ufunc
ste_sign_grad: np.ufunc
approx_sign: np.ufunc
approx_sign_grad: np.ufunc
hard_tanh: np.ufunc
hard_tanh_grad: np.ufunc
clip: np.ufunc
dorefa_activations: np.ufunc
dorefa_activations_grad: np.ufunc
dorefa_weights: np.ufunc
dorefa_weights_grad: np.ufunc
leaky_tanh: np.ufunc
leaky_tanh_grad: np.ufunc
ste_heaviside: np.ufunc
ste_heaviside_grad: np.ufunc
ste_tern: np.ufunc
ste_tern_grad: np.ufunc
swish_sign: np.ufunc
swish_sign_grad: np.ufunc
clip_grad: np.ufunc
xnor_matmul: np.ufunc  # gufunc (m,k),(k,n)->(m,n), float32/float64 signs in, int32 out; NaN raises ValueError

def get_num_threads() -> int: ...
def set_num_threads(count: int) -> None: ...  # a forked child stays at 1

# function(0), ..., function(count - 1), each once, on the threads of large calls. Raises what the first call that fails
# does, after which none begins.
def share(function: Callable[[int], object], count: int, /) -> None: ...

# Freed arrays, if `modest` only those of 8 MB or more, wait in the process for new ones while it is held more often
# than released; what is in use and what waits are at most what was in use at some time, and `memory_slack` of that.
def hold_memory(modest: bool, /) -> None: ...
def release_memory(modest: bool, /) -> None: ...
def memory_holders() -> int: ...
def memory_slack(in_use: int, /) -> int: ...

# Bits of x along `axis`: (words uint32[planes, ..., ceil(n/32)] with the axis moved last, mask words of the same shape
# without the leading plane axis where |x| <= clip, or None if clip is None, whether x holds a NaN).
# kind "sign": x < 0. "unit": x > 0. "ternary": the signs of what is not zero, and what is not zero, which is where
# |x| >= parameter and x != 0. "levels": the integer nearest to parameter * clip(x, 0, 1), halves to even, with bit i in
# plane i; parameter is 2**k - 1 for k planes, 1 to 16, and the mask is where 0 <= x <= clip.
def pack(
    x: ArrayLike, axis: int, clip: float | None, kind: str = "sign", parameter: float = 0.0
) -> tuple[Words, Words | None, bool]: ...

# +-1 from sign words[..., ceil(count/32)] (no plane axis), the packed axis moved back to `axis`.
def unpack(words: Words, count: int, axis: int, dtype: Any = np.float32) -> NDArray[Any]: ...

# dy where the mask bit is 1, else 0. `mask` is as `pack` returns it for an array of dy's shape and `axis`; `out` is a
# writable C array of dy's shape and dtype, dy itself for example; `add` adds to what it holds.
def select(
    dy: ArrayLike, mask: Words, axis: int, out: NDArray[Any] | None = None, add: bool = False
) -> NDArray[Any]: ...

# Whether all bits are one of words[..., ceil(count/32)], as of a mask that hides nothing.
def all_set(words: Words, count: int) -> bool: ...

# words: uint32[planes, taps..., filters, ceil(channels/groups/32)].
def prepare(words: Words, groups: int, channels: int, transposed: bool) -> NDArray[np.uint8]: ...

# x: uint32[planes, batch, ..., ceil(C/32)]; pad in {0, 1, -1}, times the largest value of x; dtype int32 or float32.
# left, right_kind: "sign", "unit" or "ternary", with 1 to 16 planes (ternary: 2) each, whose sums fit int32.
# transposed: runs from the geometry's outputs to its inputs (x then has the geometry's output pixels and `filters`
# bits); pad must be 0.
def xnor(
    x: Words,
    right: NDArray[np.uint8],
    geometry: Geometry,
    pad: float,
    transposed: bool,
    dtype: Any,
    left: str = "sign",
    right_kind: str = "sign",
    right_planes: int = 1,  # ternary: 2
) -> NDArray[Any]: ...

# x: float32[batch, ..., C] and prepared signs. pad: any float.
def signed_right(
    x: NDArray[np.float32],
    right: NDArray[np.uint8],
    geometry: Geometry,
    pad: float,
    transposed: bool,
    out: NDArray[np.float32] | None = None,
    gradient: bool = False,
) -> NDArray[np.float32]: ...

# x: packed signs, w: float32[taps..., C/groups, F]; pad in {0, 1, -1}.
def signed_left(
    x: Words, w: NDArray[np.float32], geometry: Geometry, pad: float, transposed: bool = False
) -> NDArray[np.float32]: ...

# kernel gradient: x packed signs, dy float32[batch, ..., F] -> float32[taps, C/groups, F]; pad in {0, 1, -1}.
# by_group: the same as float32[groups, taps * C/groups, F/groups].
def signed_reduce(
    x: Words,
    dy: NDArray[np.float32],
    geometry: Geometry,
    pad: float,
    transposed: bool = False,
    by_group: bool = False,
) -> NDArray[np.float32]: ...

# The products of floats, for short sums. direct: x float32[batch, ..., C], w as for signed_left, pad any float.
# direct_reduce: the kernel gradient, dy and result as for signed_reduce.
def direct(
    x: NDArray[np.float32], w: NDArray[np.float32], geometry: Geometry, pad: float, transposed: bool = False
) -> NDArray[np.float32]: ...
def direct_reduce(
    x: NDArray[np.float32], dy: NDArray[np.float32], geometry: Geometry, pad: float
) -> NDArray[np.float32]: ...

# Depthwise products: the geometry has as many groups as channels, and filters = channels * M. Kinds and pad are those
# of xnor. x: uint32[planes, batch, ..., ceil(C/32)]; w: uint32[planes, taps..., M, ceil(C/32)]; dtype int32 or float32;
# a float32 result is divided by `divisor`.
def depthwise_xnor(
    x: Words,
    w: Words,
    geometry: Geometry,
    pad: float,
    dtype: Any,
    x_kind: str = "sign",
    w_kind: str = "sign",
    divisor: float = 1.0,
) -> NDArray[Any]: ...

# x: float32[batch, ..., C] with any pad, or bits as above; w: float32[taps..., C, M] or, if x is floats, signs
# uint32[1, taps..., M, ceil(C/32)]. transposed: x has the geometry's output pixels and C * M channels, and is floats;
# pad must be 0.
def depthwise_float(
    x: NDArray[Any], w: NDArray[Any], geometry: Geometry, pad: float, transposed: bool, x_kind: str = "sign"
) -> NDArray[np.float32]: ...

# kernel gradient: x as above, dy float32[batch, ..., C * M] -> float32[taps, C, M].
def depthwise_reduce(
    x: NDArray[Any], dy: NDArray[np.float32], geometry: Geometry, pad: float, x_kind: str = "sign"
) -> NDArray[np.float32]: ...

# float32/float64 [batch, ..., C] -> [groups, batch*pixels, taps*C/groups], and its transpose (a sum over the taps).
def im2col(x: NDArray[Any], geometry: Geometry, pad: float) -> NDArray[Any]: ...
def col2im(columns: NDArray[Any], geometry: Geometry) -> NDArray[Any]: ...

# Batch norm of float32 x[..., C]; dy has the shape of x, the other operands C numbers, along their last axis. A mask is
# uint32[..., C / 32], where C must be whole words; dy counts where it has a bit. moments: mean, biased variance and
# 1 / sqrt(variance + epsilon) (3, C), those of zeros without rows; then average -= (average - value) * rate, in place,
# of mean and variance * unbiased. norm_sums (4, C): of dy; of dy * (x - mean) * inverse; the first over the number of
# rows; the second times inverse over it. Rows may be summed in several calls, of multiples of norm_rows(C) but in the
# last: `before` (2, C), of zeros at first, is continued in place, and the last result is that of all. normalize:
# (x - mean) * scale + shift + addend. normalize_sign: that as words uint32[1, ..., C / 32] of signs and, unless clip is
# None, of magnitudes up to clip; whether there is a NaN; and, if asked for, the floats. normalize_grad:
# ((dy - shift) - (x - mean) * slope) * scale; `out` as in select, x or dy for example. Rectified, x counts as 0 unless
# it is positive or NaN, and the gradient is 0 unless it is positive.
def moments(
    x: ArrayLike,
    epsilon: float,
    mean: NDArray[np.float32] | None = None,
    variance: NDArray[np.float32] | None = None,
    rate: float = 0.0,
    unbiased: float = 1.0,
    rectified: bool = False,
) -> NDArray[np.float32]: ...
def norm_rows(channels: int) -> int: ...
def norm_sums(
    x: ArrayLike,
    dy: ArrayLike,
    mean: ArrayLike,
    inverse: ArrayLike,
    mask: Words | None = None,
    rectified: bool = False,
    before: NDArray[np.float64] | None = None,
    rows_before: int = 0,
) -> NDArray[np.float32]: ...
def normalize(
    x: ArrayLike,
    mean: ArrayLike,
    scale: ArrayLike,
    shift: ArrayLike | None,
    addend: ArrayLike | None = None,
    rectified: bool = False,
) -> NDArray[np.float32]: ...
def normalize_sign(
    x: ArrayLike,
    mean: ArrayLike,
    scale: ArrayLike,
    shift: ArrayLike | None,
    clip: float | None,
    addend: ArrayLike | None = None,
    rectified: bool = False,
    floats: bool = False,
) -> tuple[Words, Words | None, bool, NDArray[np.float32] | None]: ...
def normalize_grad(
    x: ArrayLike,
    dy: ArrayLike,
    mean: ArrayLike,
    scale: ArrayLike,
    shift: ArrayLike,
    slope: ArrayLike,
    mask: Words | None = None,
    out: NDArray[np.float32] | None = None,
    add: bool = False,
    rectified: bool = False,
) -> NDArray[np.float32]: ...

# Windows of float32[batch, ..., C] -> float32[batch, *outputs, C], always with three spatial axes, and back. The
# geometry has as many filters as channels, no dilation, and every window reaches the input. winner: which tap won, a
# binary digit in each plane of uint32[ceil(log2(taps)), batch, pixels, ceil(C/32)]; None if not traced.
def max_pool(
    x: ArrayLike, geometry: Geometry, traced: bool, out: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.float32], Words | None]: ...
def max_pool_grad(dy: ArrayLike, winner: Words, geometry: Geometry) -> NDArray[np.float32]: ...
def average_pool(x: ArrayLike, geometry: Geometry) -> NDArray[np.float32]: ...
def average_pool_grad(dy: ArrayLike, geometry: Geometry) -> NDArray[np.float32]: ...

# Float32 x clipped to [0, limit], and bits of 0 < x <= last in the order of memory; None if not traced.
def rectify(x: ArrayLike, limit: float, last: float, traced: bool) -> tuple[NDArray[np.float32], Words | None]: ...

# A step of "sgd", "momentum", "nesterov", "adam", "amsgrad" or "bop" in place; arrays: value, gradient, state. False,
# and nothing done, if they are not float32 of one shape in C order. Coefficients and state are those of `ops.update`.
# The new values are clipped to magnitudes of at most `limit`.
def update(
    rule: str, coefficients: tuple[float, ...], arrays: tuple[Any, ...], limit: float = ..., /
) -> bool: ...
