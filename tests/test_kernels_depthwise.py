"""The depthwise kernels, on every level this machine runs, against the reference."""

import numpy as np
import product_checks as checks
import pytest
import reference as ref
from conftest import assert_sum
from product_checks import Problem, by_pixel, floats, signs


def depthwise(channels=33, multiplier=1, **changes):
    return Problem(channels=channels, filters=channels * multiplier, groups=channels, **changes)


WIDTHS = {
    f"{c} channels, {m} each": depthwise(c, m, pads=((1, 1), (0, 1)))
    for c in (1, 3, 31, 32, 33, 63, 64, 65, 127, 128, 129)
    for m in ((1, 2, 3) if c in (1, 3, 31, 33, 64, 129) else (1,))
} | {"17 channels, 40 each": depthwise(17, 40), "520 channels": depthwise(520)}
ONE = depthwise(40, spatial=(9,), kernel=(3,), strides=(1,), dilation=(1,), pads=((1, 1),))
TWO = depthwise(34, spatial=(7, 6))
THREE = depthwise(
    spatial=(4, 3, 5), kernel=(2, 3, 2), strides=(1, 1, 1), dilation=(1, 1, 1), pads=((0, 1), (1, 1), (1, 0))
)
SHAPES = {
    "1d": ONE,
    "1d strided": ONE.but(strides=(2,)),
    "1d causal dilated": ONE.but(dilation=(2,), pads=((4, 0),)),
    "1d only padding": ONE.but(spatial=(2,), kernel=(2,), pads=((5, 4),)),
    "1d 70 taps": ONE.but(spatial=(80,), kernel=(70,), pads=((20, 20),)),
    "1d 300 taps, 2 each": ONE.but(spatial=(310,), kernel=(300,), pads=((7, 9),), filters=80),
    "1d 300 taps": ONE.but(spatial=(310,), kernel=(300,), pads=((7, 9),)),
    "2d valid": TWO.but(pads=((0, 0), (0, 0))),
    "2d pointwise": TWO.but(kernel=(1, 1), pads=((0, 0), (0, 0))),
    "2d strided": TWO.but(strides=(2, 2)),
    "2d strided unevenly": TWO.but(strides=(3, 2), pads=((0, 1), (1, 1))),
    "2d dilated": TWO.but(dilation=(2, 3), pads=((2, 2), (3, 3))),
    "2d strided and dilated": TWO.but(strides=(3, 2), dilation=(2, 3), pads=((2, 1), (0, 3)), filters=68),
    "2d even kernel": TWO.but(kernel=(2, 4), pads=((0, 1), (1, 2))),
    "2d large kernel": TWO.but(kernel=(7, 7), pads=((3, 3), (3, 3))),
    "2d kernel beyond image": TWO.but(spatial=(2, 3), kernel=(5, 4), pads=((2, 2), (1, 2))),
    "2d no output": TWO.but(spatial=(2, 9), kernel=(5, 4), pads=((0, 0), (0, 0))),
    "2d empty batch": TWO.but(batch=0),
    "2d many parts": depthwise(70, spatial=(19, 17), batch=7),
    "2d stride beyond kernel": TWO.but(kernel=(2, 1), strides=(3, 2), pads=((0, 0), (0, 0)), filters=68),
    "3d": THREE,
    "3d strided": THREE.but(strides=(2, 1, 3), filters=99),
    "3d dilated": THREE.but(dilation=(2, 1, 2), pads=((1, 1), (0, 2), (2, 1))),
}
PROBLEMS = WIDTHS | SHAPES


def kernel_shape(problem):
    return (*problem.kernel, problem.channels, problem.filters // problem.channels)


def taps(problem):
    return int(np.prod(problem.kernel))


@pytest.fixture(params=PROBLEMS)
def problem(request):
    return PROBLEMS[request.param]


@pytest.mark.parametrize("pad", [0, 1, -1])
def test_bits_times_bits(variant, rng, problem, pad):
    x, kernel = signs(rng, problem.input_shape), signs(rng, kernel_shape(problem))
    expected = by_pixel(ref.depthwise_convolution(x, kernel, *problem.where, pad))
    arguments = ref.pack(x), ref.pack(kernel, -2), problem.geometry, pad
    for dtype in (np.int32, np.float32):
        y = checks.same_at_each_thread_count(variant.depthwise_xnor, *arguments, dtype)
        assert y.dtype == dtype
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("pad", [0, 1, -1, 0.3])
@pytest.mark.parametrize("operands", ["float x bits", "bits x float", "float x float"])
def test_floats(variant, rng, problem, operands, pad):
    bits = ["bits" in side for side in operands.split(" x ")]
    if bits[0] and pad == 0.3:
        pytest.skip("no bit stands for this padding")
    x = (signs if bits[0] else floats)(rng, problem.input_shape)
    kernel = (signs if bits[1] else floats)(rng, kernel_shape(problem))
    left, right = ref.pack(x) if bits[0] else x, ref.pack(kernel, -2) if bits[1] else kernel
    y = checks.same_at_each_thread_count(variant.depthwise_float, left, right, problem.geometry, pad, False)
    assert y.dtype == np.float32
    expected = ref.depthwise_convolution(x, kernel, *problem.where, pad)
    magnitude = ref.depthwise_convolution(np.abs(x), np.abs(kernel), *problem.where, abs(pad))
    assert_sum(y, by_pixel(expected), taps(problem), by_pixel(magnitude))


@pytest.mark.parametrize("bits", [True, False])
def test_input_gradient(variant, rng, problem, bits):
    dy, kernel = floats(rng, problem.output_shape), (signs if bits else floats)(rng, kernel_shape(problem))
    right = ref.pack(kernel, -2) if bits else kernel
    dx = checks.same_at_each_thread_count(variant.depthwise_float, dy, right, problem.geometry, 0, True)
    assert dx.dtype == np.float32
    where = (problem.spatial, *problem.where)
    expected = ref.depthwise_input_gradient(dy, kernel, *where)
    magnitude = ref.depthwise_input_gradient(np.abs(dy), np.abs(kernel), *where)
    depth = taps(problem) * kernel.shape[-1]
    assert_sum(dx, by_pixel(expected), depth, by_pixel(magnitude))


@pytest.mark.parametrize("pad", [0, 1, -1])
@pytest.mark.parametrize("bits", [True, False])
def test_kernel_gradient(variant, rng, problem, bits, pad):
    x, dy = (signs if bits else floats)(rng, problem.input_shape), floats(rng, problem.output_shape)
    left = ref.pack(x) if bits else x
    dw = checks.same_at_each_thread_count(variant.depthwise_reduce, left, dy, problem.geometry, pad)
    assert dw.dtype == np.float32
    where = (problem.kernel, *problem.where)
    expected = ref.depthwise_kernel_gradient(x, dy, *where, pad)
    magnitude = ref.depthwise_kernel_gradient(np.abs(x), np.abs(dy), *where, abs(pad))
    shape = (taps(problem), *kernel_shape(problem)[-2:])
    assert_sum(dw, expected.reshape(shape), problem.batch * problem.pixels, magnitude.reshape(shape))
