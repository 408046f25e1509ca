"""Convolution geometry: "same", "valid" and "causal" become integers. Imports nothing of ours.

The rules are TensorFlow's: "same" pads so that ``out = ceil(in / stride)``, with the smaller half on the low side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

Triple = tuple[int, int, int]


class Geometry(NamedTuple):
    """What a kernel needs to know of a convolution; three spatial axes always, lower ranks lead with ones."""

    batch: int
    groups: int
    channels: int
    filters: int
    inputs: Triple
    outputs: Triple
    kernel: Triple
    strides: Triple
    dilation: Triple
    pad: Triple


def output_length(length: int, kernel: int, padding: str, stride: int, dilation: int = 1) -> int:
    """Pixels along one axis of a convolution's output (never negative)."""
    span = (kernel - 1) * dilation + 1
    if padding in ("same", "causal"):
        span = 1
    return max(0, (length - span + stride) // stride)


def low_pad(length: int, kernel: int, padding: str, stride: int, dilation: int = 1) -> int:
    """Pixels of padding before the first input pixel of one axis."""
    span = (kernel - 1) * dilation + 1
    if padding == "valid":
        return 0
    if padding == "causal":
        return span - 1
    out = output_length(length, kernel, padding, stride, dilation)
    return max((out - 1) * stride + span - length, 0) // 2


def transposed_length(
    length: int, kernel: int, padding: str, stride: int, dilation: int = 1, output_padding: int | None = None
) -> int:
    """Pixels along one axis of a transposed convolution's output, as Keras chooses them (never negative)."""
    span = (kernel - 1) * dilation + 1
    if output_padding is None:
        return length * stride + (0 if padding == "same" else max(span - stride, 0))
    cut = span // 2 * 2 if padding == "same" else 0
    return max(0, (length - 1) * stride + span - cut + output_padding)


def _triple(values: Sequence[int], fill: int) -> Triple:
    filled = (fill,) * (3 - len(values)) + tuple(int(v) for v in values)
    return (filled[0], filled[1], filled[2])


def convolution(
    batch: int,
    spatial: Sequence[int],
    channels: int,
    kernel: Sequence[int],
    filters: int,
    *,
    strides: Sequence[int],
    padding: str,
    dilation: Sequence[int],
    groups: int = 1,
    function: str = "conv",
) -> Geometry:
    """The geometry of a convolution of 1, 2 or 3 spatial axes; messages name `function`."""
    if padding not in ("valid", "same", "causal"):
        raise ValueError(f"{function}(): argument 'padding' must be 'valid', 'same' or 'causal', got {padding!r}")
    axes = list(zip(spatial, kernel, strides, dilation, strict=True))
    for n, k, s, d in axes:
        if padding == "valid" and n + s < (k - 1) * d + 1:
            raise ValueError(
                f"{function}(): the kernel {tuple(kernel)} with dilation {tuple(dilation)} is larger than the image "
                f"{tuple(spatial)}: the output would have a negative size"
            )
    return Geometry(
        batch,
        groups,
        channels,
        filters,
        _triple(spatial, 1),
        _triple([output_length(n, k, padding, s, d) for n, k, s, d in axes], 1),
        _triple(kernel, 1),
        _triple(strides, 1),
        _triple(dilation, 1),
        _triple([low_pad(n, k, padding, s, d) for n, k, s, d in axes], 0),
    )


def transposed_convolution(
    batch: int,
    spatial: Sequence[int],
    channels: int,
    kernel: Sequence[int],
    filters: int,
    *,
    strides: Sequence[int],
    padding: str,
    dilation: Sequence[int],
    output_padding: Sequence[int] | None = None,
) -> Geometry:
    """The convolution that a transposed one runs backwards, from `filters` to `channels` and onto `spatial` pixels."""
    if padding not in ("valid", "same"):
        raise ValueError(f"conv_transpose(): argument 'padding' must be 'valid' or 'same', got {padding!r}")
    more = (None,) * len(spatial) if output_padding is None else output_padding
    axes = zip(spatial, kernel, strides, dilation, more, strict=True)
    image = [transposed_length(n, k, padding, s, d, extra) for n, k, s, d, extra in axes]
    axes_of_image = zip(image, kernel, strides, dilation, strict=True)
    return Geometry(
        batch,
        1,
        filters,
        channels,
        _triple(image, 1),
        _triple(spatial, 1),
        _triple(kernel, 1),
        _triple(strides, 1),
        _triple(dilation, 1),
        _triple([low_pad(n, k, padding, s, d) for n, k, s, d in axes_of_image], 0),
    )


def dense(rows: int, depth: int, columns: int, groups: int = 1) -> Geometry:
    """A matrix product is a convolution of one tap over an image of ``rows`` pixels."""
    one = (1, 1, 1)
    return Geometry(1, groups, depth, columns, (1, 1, rows), (1, 1, rows), one, one, one, (0, 0, 0))
