"""One check for each product of the extension, against the reference, for any geometry.

`test_kernels` calls them over the shapes that break kernels, `test_kernels_property` over random
ones. Every check runs at one and at two threads and demands the same bits.
"""

from dataclasses import dataclass, replace

import numpy as np
import reference as ref
from conftest import assert_sum

from bnnlayers import _core
from bnnlayers.geometry import Geometry


def triple(values, fill):
    return (fill,) * (3 - len(values)) + tuple(values)


@dataclass(frozen=True)
class Problem:
    """A convolution by its numbers. `pads` has one (low, high) pair for each spatial axis."""

    spatial: tuple = (5, 4)
    kernel: tuple = (3, 3)
    channels: int = 33
    filters: int = 10
    strides: tuple = (1, 1)
    dilation: tuple = (1, 1)
    pads: tuple = ((1, 1), (1, 1))
    groups: int = 1
    batch: int = 2

    @property
    def outputs(self):
        axes = zip(self.spatial, self.kernel, self.pads, self.strides, self.dilation, strict=True)
        return tuple(ref.output_length(*axis) for axis in axes)

    @property
    def pixels(self):
        return int(np.prod(self.outputs))

    @property
    def depth(self):
        """Terms of one output's sum."""
        return int(np.prod(self.kernel)) * self.channels // self.groups

    @property
    def where(self):
        """Strides, dilation and pads, as the reference takes them."""
        return self.strides, self.dilation, self.pads

    @property
    def geometry(self):
        return Geometry(
            self.batch,
            self.groups,
            self.channels,
            self.filters,
            triple(self.spatial, 1),
            triple(self.outputs, 1),
            triple(self.kernel, 1),
            triple(self.strides, 1),
            triple(self.dilation, 1),
            triple([low for low, _ in self.pads], 0),
        )

    @property
    def input_shape(self):
        return (self.batch, *self.spatial, self.channels)

    @property
    def output_shape(self):
        return (self.batch, *self.outputs, self.filters)

    @property
    def kernel_shape(self):
        return (*self.kernel, self.channels // self.groups, self.filters)

    def but(self, **changes):
        return replace(self, **changes)


def signs(rng, shape):
    return rng.choice(np.array([-1, 1], np.float32), shape)


def floats(rng, shape):
    return rng.normal(size=shape).astype(np.float32)


def read_only(*arrays):
    for array in arrays:
        array.flags.writeable = False


def same_at_each_thread_count(function, *arguments):
    """The result at one thread, after comparing its bits with that at two; arguments stay as is."""
    read_only(*(a for a in arguments if isinstance(a, np.ndarray)))
    before = _core.get_num_threads()
    try:
        results = []
        for count in (1, 2):
            _core.set_num_threads(count)
            results.append(function(*arguments))
    finally:
        _core.set_num_threads(before)
    one, two = results
    assert (one.shape, one.dtype) == (two.shape, two.dtype)
    assert one.tobytes() == two.tobytes()
    return one


def prepared(core, problem, kernel, transposed=False):
    return core.prepare(ref.pack(kernel, -2), problem.groups, problem.channels, transposed)


def by_pixel(y):
    """(batch, *spatial, columns) -> (batch, pixels, columns), the shape of every product."""
    return y.reshape(len(y), int(np.prod(y.shape[1:-1])), y.shape[-1])


@dataclass(frozen=True)
class Bits:
    """An operand by what its bits stand for."""

    kind: str
    planes: int

    @property
    def largest(self):
        """The value that padding multiplies."""
        return 1 if self.kind == "ternary" else 2**self.planes - 1

    def draw(self, rng, shape, axis):
        """Values, and words packed along `axis`."""
        planes = rng.random((self.planes, *shape)) < 0.5
        if self.kind == "ternary":
            planes[0] &= planes[1]
            values = np.where(planes[1], np.where(planes[0], -1, 1), 0)
        else:
            bits = np.where(planes, -1, 1) if self.kind == "sign" else planes
            values = sum((2**i * plane.astype(np.int64) for i, plane in enumerate(bits)), np.zeros(shape, np.int64))
        return values, np.stack([ref.pack_bits(plane, axis) for plane in planes])

    def __str__(self):
        return f"{self.kind} x{self.planes}"


def check_bits(core, problem, rng, pad, left, right):
    x, words = left.draw(rng, problem.input_shape, -1)
    kernel, kernel_words = right.draw(rng, problem.kernel_shape, -2)
    expected = by_pixel(ref.convolution(x, kernel, *problem.where, pad * left.largest, problem.groups))
    prepared = core.prepare(kernel_words, problem.groups, problem.channels, False)
    for dtype in (np.int32, np.float32):
        arguments = (words, prepared, problem.geometry, pad, False, dtype, left.kind, right.kind, right.planes)
        y = same_at_each_thread_count(core.xnor, *arguments)
        assert y.dtype == dtype
        np.testing.assert_array_equal(y, expected)


def check_bits_transposed(core, problem, rng, left, right):
    x, words = left.draw(rng, problem.output_shape, -1)
    kernel, kernel_words = right.draw(rng, problem.kernel_shape, -2)
    expected = ref.convolution_input_gradient(x, kernel, problem.spatial, *problem.where, problem.groups)
    prepared = core.prepare(kernel_words, problem.groups, problem.channels, True)
    arguments = (words, prepared, problem.geometry, 0, True, np.int32, left.kind, right.kind, right.planes)
    y = same_at_each_thread_count(core.xnor, *arguments)
    np.testing.assert_array_equal(y, by_pixel(expected))


def check_xnor(core, problem, rng, pad):
    x, kernel = signs(rng, problem.input_shape), signs(rng, problem.kernel_shape)
    expected = by_pixel(ref.convolution(x, kernel, *problem.where, pad, problem.groups))
    right = prepared(core, problem, kernel)
    for dtype in (np.int32, np.float32):
        y = same_at_each_thread_count(core.xnor, ref.pack(x), right, problem.geometry, pad, False, dtype)
        assert y.dtype == dtype
        np.testing.assert_array_equal(y, expected)


def check_xnor_transposed(core, problem, rng):
    x, kernel = signs(rng, problem.output_shape), signs(rng, problem.kernel_shape)
    expected = ref.convolution_input_gradient(x, kernel, problem.spatial, *problem.where, problem.groups)
    y = same_at_each_thread_count(
        core.xnor,
        ref.pack(x),
        prepared(core, problem, kernel, transposed=True),
        problem.geometry,
        0,
        True,
        np.int32,
    )
    np.testing.assert_array_equal(y, by_pixel(expected))


def assert_convolution(y, problem, x, kernel, pad):
    assert y.dtype == np.float32
    expected = ref.convolution(x, kernel, *problem.where, pad, problem.groups)
    magnitude = ref.convolution(np.abs(x), np.abs(kernel), *problem.where, abs(pad), problem.groups)
    assert_sum(y, by_pixel(expected), problem.depth, by_pixel(magnitude))


def assert_input_gradient(dx, problem, dy, kernel):
    assert dx.dtype == np.float32
    where = (problem.spatial, *problem.where, problem.groups)
    expected = ref.convolution_input_gradient(dy, kernel, *where)
    magnitude = ref.convolution_input_gradient(np.abs(dy), np.abs(kernel), *where)
    depth = int(np.prod(problem.kernel)) * problem.filters // problem.groups
    assert_sum(dx, by_pixel(expected), depth, by_pixel(magnitude))


def assert_kernel_gradient(gradient, problem, x, dy, pad):
    assert gradient.dtype == np.float32
    taps = int(np.prod(problem.kernel))
    shape = (taps, problem.channels // problem.groups, problem.filters)
    where = (problem.kernel, *problem.where)
    expected = ref.convolution_kernel_gradient(x, dy, *where, pad, problem.groups)
    magnitude = ref.convolution_kernel_gradient(np.abs(x), np.abs(dy), *where, abs(pad), problem.groups)
    depth = problem.batch * problem.pixels
    assert_sum(gradient, expected.reshape(shape), depth, magnitude.reshape(shape))


def check_signed_right(core, problem, rng, pad):
    x, kernel = floats(rng, problem.input_shape), signs(rng, problem.kernel_shape)
    y = same_at_each_thread_count(core.signed_right, x, prepared(core, problem, kernel), problem.geometry, pad, False)
    assert_convolution(y, problem, x, kernel, pad)


def check_signed_right_transposed(core, problem, rng):
    dy, kernel = floats(rng, problem.output_shape), signs(rng, problem.kernel_shape)
    right = prepared(core, problem, kernel, transposed=True)
    dx = same_at_each_thread_count(core.signed_right, dy, right, problem.geometry, 0.0, True)
    assert_input_gradient(dx, problem, dy, kernel)


def check_signed_left(core, problem, rng, pad):
    x, kernel = signs(rng, problem.input_shape), floats(rng, problem.kernel_shape)
    y = same_at_each_thread_count(core.signed_left, ref.pack(x), kernel, problem.geometry, pad)
    assert_convolution(y, problem, x, kernel, pad)


def check_direct(core, problem, rng, pad):
    x, kernel = floats(rng, problem.input_shape), floats(rng, problem.kernel_shape)
    y = same_at_each_thread_count(core.direct, x, kernel, problem.geometry, pad)
    assert_convolution(y, problem, x, kernel, pad)


def check_direct_transposed(core, problem, rng):
    x, kernel = floats(rng, problem.output_shape), floats(rng, problem.kernel_shape)
    y = same_at_each_thread_count(core.direct, x, turned(kernel, problem.groups), problem.geometry, 0, True)
    assert_input_gradient(y, problem, x, kernel)


def check_direct_reduce(core, problem, rng, pad):
    x, dy = floats(rng, problem.input_shape), floats(rng, problem.output_shape)
    gradient = same_at_each_thread_count(core.direct_reduce, x, dy, problem.geometry, pad)
    assert_kernel_gradient(gradient, problem, x, dy, pad)


def check_signed_reduce(core, problem, rng, pad):
    x, dy = signs(rng, problem.input_shape), floats(rng, problem.output_shape)
    gradient = same_at_each_thread_count(core.signed_reduce, ref.pack(x), dy, problem.geometry, pad)
    assert_kernel_gradient(gradient, problem, x, dy, pad)


def turned(kernel, groups):
    """The kernel that runs backwards, (taps..., C / groups, F) -> (taps..., F / groups, C): swapped in each group."""
    parts = np.split(kernel, groups, axis=-1)
    return np.concatenate([np.swapaxes(part, -1, -2) for part in parts], axis=-1)


def check_signed_left_transposed(core, problem, rng):
    x, kernel = signs(rng, problem.output_shape), floats(rng, problem.kernel_shape)
    right = turned(kernel, problem.groups)
    y = same_at_each_thread_count(core.signed_left, ref.pack(x), right, problem.geometry, 0, True)
    assert_input_gradient(y, problem, x, kernel)


def check_signed_reduce_transposed(core, problem, rng):
    x, dy = signs(rng, problem.output_shape), floats(rng, problem.input_shape)
    gradient = same_at_each_thread_count(core.signed_reduce, ref.pack(x), dy, problem.geometry, 0, True)
    where = (problem.kernel, *problem.where, 0, problem.groups)
    expected = turned(ref.convolution_kernel_gradient(dy, x, *where), problem.groups)
    magnitude = turned(ref.convolution_kernel_gradient(np.abs(dy), np.abs(x), *where), problem.groups)
    depth = problem.batch * max(problem.pixels, int(np.prod(problem.spatial)))
    assert_sum(gradient, expected.reshape(gradient.shape), depth, magnitude.reshape(gradient.shape))


def check_im2col(core, problem, rng, pad):
    for dtype in (np.float32, np.float64):
        x = rng.normal(size=problem.input_shape).astype(dtype)
        columns = same_at_each_thread_count(core.im2col, x, problem.geometry, pad)
        expected = ref.im2col(x, problem.kernel, *problem.where, pad, problem.groups)
        assert columns.dtype == dtype
        np.testing.assert_array_equal(columns, expected)


def check_col2im(core, problem, rng):
    taps = int(np.prod(problem.kernel))
    shape = (problem.groups, problem.batch * problem.pixels, problem.depth)
    for dtype in (np.float32, np.float64):
        columns = rng.normal(size=shape).astype(dtype)
        x = same_at_each_thread_count(core.col2im, columns, problem.geometry)
        assert x.dtype == dtype
        where = (problem.input_shape, problem.kernel, *problem.where)
        assert_sum(
            x.reshape(problem.input_shape),
            ref.col2im(columns, *where),
            taps,
            ref.col2im(np.abs(columns), *where),
        )
