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


OPERANDS = ["float x bits", "bits x float", "float x float"]


@pytest.mark.parametrize(
    ("operands", "pad"), [(o, p) for o in OPERANDS for p in (0, 1, -1, 0.3) if p != 0.3 or not o.startswith("bits")]
)
def test_floats(variant, rng, problem, operands, pad):
    bits = ["bits" in side for side in operands.split(" x ")]
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


# ---- operands of other bits ----------------------------------------------------------------------------------------


def draw(rng, kind, planes, shape):
    """Whole numbers as a float array; as bits, packed along an axis; and the largest one."""
    largest = 1 if kind == "ternary" else 2**planes - 1
    values = rng.integers(0, largest + 1, shape)
    values = {"sign": 2 * values - largest, "unit": values, "ternary": rng.integers(-1, 2, shape)}[kind]

    def bits(axis):
        if kind == "ternary":
            planes_ = [values < 0, values != 0]
        else:
            negative = (largest - values) // 2 if kind == "sign" else values
            planes_ = [negative >> i & 1 for i in range(planes)]
        return np.stack([ref.pack_bits(plane, axis) for plane in planes_])

    return values.astype(np.float32), bits, largest


KINDS = [("sign", 1), ("sign", 3), ("unit", 1), ("unit", 2), ("unit", 8), ("ternary", 2)]
SOME = {
    "2d": TWO,
    "2d, 3 each": TWO.but(filters=102, strides=(2, 1)),
    "1d 70 taps": SHAPES["1d 70 taps"],
    "65 channels": depthwise(65),
}


@pytest.mark.parametrize("pad", [0, -1])
@pytest.mark.parametrize("w_kind", KINDS, ids=str)
@pytest.mark.parametrize("x_kind", KINDS, ids=str)
@pytest.mark.parametrize("problem", SOME.values(), ids=SOME)
def test_every_kind_of_bits(variant, rng, problem, x_kind, w_kind, pad):
    x, x_bits, largest = draw(rng, *x_kind, problem.input_shape)
    kernel, kernel_bits, _ = draw(rng, *w_kind, kernel_shape(problem))
    expected = by_pixel(ref.depthwise_convolution(x, kernel, *problem.where, pad * largest))
    kinds = x_kind[0], w_kind[0]
    arguments = x_bits(-1), kernel_bits(-2), problem.geometry, pad
    y = checks.same_at_each_thread_count(variant.depthwise_xnor, *arguments, np.int32, *kinds)
    np.testing.assert_array_equal(y, expected)
    y = variant.depthwise_xnor(*arguments, np.float32, *kinds, 7)
    np.testing.assert_array_equal(y, expected.astype(np.float32) / np.float32(7))


@pytest.mark.parametrize("pad", [0, -1])
@pytest.mark.parametrize("x_kind", KINDS[1:], ids=str)
@pytest.mark.parametrize("problem", SOME.values(), ids=SOME)
def test_every_kind_of_bits_with_floats(variant, rng, problem, x_kind, pad):
    """Whole numbers, so that sums are exact."""
    x, x_bits, largest = draw(rng, *x_kind, problem.input_shape)
    kernel, dy = (
        rng.integers(-3, 4, shape).astype(np.float32) for shape in (kernel_shape(problem), problem.output_shape)
    )
    where = *problem.where, pad * largest
    y = variant.depthwise_float(x_bits(-1), kernel, problem.geometry, pad, False, x_kind[0])
    np.testing.assert_array_equal(y, by_pixel(ref.depthwise_convolution(x, kernel, *where)))
    dw = checks.same_at_each_thread_count(variant.depthwise_reduce, x_bits(-1), dy, problem.geometry, pad, x_kind[0])
    expected = ref.depthwise_kernel_gradient(x, dy, problem.kernel, *where)
    np.testing.assert_array_equal(dw, expected.reshape(dw.shape))


# ---- what else a caller relies on ----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@np.errstate(invalid="ignore")
def test_a_value_that_is_not_finite_reaches_exactly_its_outputs(variant, rng, value):
    problem = depthwise(37, 2, pads=((0, 0), (0, 0)))
    geometry, where = problem.geometry, problem.where
    x, kernel = floats(rng, problem.input_shape), floats(rng, kernel_shape(problem))
    dy, signed = floats(rng, problem.output_shape), signs(rng, kernel_shape(problem))
    x[1, 2, 3, 36] = dy[0, 1, 1, 73] = kernel[0, 2, 36, 1] = value
    packed = ref.pack(signs(rng, problem.input_shape))
    for y, expected in [
        (variant.depthwise_float(x, ref.pack(signed, -2), geometry, 0, False),
         ref.depthwise_convolution(x, signed, *where)),
        (variant.depthwise_float(packed, kernel, geometry, 0, False),
         ref.depthwise_convolution(ref.unpack(packed[0], 37), kernel, *where)),
        (variant.depthwise_float(dy, ref.pack(signed, -2), geometry, 0, True),
         ref.depthwise_input_gradient(dy, signed, problem.spatial, *where)),
        (variant.depthwise_reduce(packed, dy, geometry, 0),
         ref.depthwise_kernel_gradient(ref.unpack(packed[0], 37), dy, problem.kernel, *where)),
    ]:  # fmt: skip
        expected = expected.reshape(y.shape)
        finite = np.isfinite(expected)
        assert not finite.all()
        np.testing.assert_array_equal(np.isfinite(y), finite)
        np.testing.assert_array_equal(y[~finite], expected[~finite])


def test_a_result_does_not_depend_on_the_batch_around_it(variant, rng):
    problem = SHAPES["2d many parts"]
    x, kernel = floats(rng, problem.input_shape), floats(rng, kernel_shape(problem))
    everything = variant.depthwise_float(x, kernel, problem.geometry, 0, False)
    alone = problem.but(batch=1).geometry
    for image, expected in zip(x, everything, strict=True):
        one = variant.depthwise_float(image[np.newaxis], kernel, alone, 0, False)
        np.testing.assert_array_equal(one[0], expected)


def test_what_is_refused(variant, rng):
    problem = depthwise(40, 2)
    x, kernel, dy = (floats(rng, s) for s in (problem.input_shape, kernel_shape(problem), problem.output_shape))
    bits, words, geometry = ref.pack(x), ref.pack(kernel, -2), problem.geometry
    grouped = geometry._replace(groups=1)
    for error, name, function, arguments in [
        (ValueError, "geometry", variant.depthwise_float, (x, kernel, grouped, 0, False)),
        (ValueError, "x", variant.depthwise_float, (x[:1], kernel, geometry, 0, False)),
        (ValueError, "w", variant.depthwise_float, (x, kernel[..., :1], geometry, 0, False)),
        (ValueError, "w", variant.depthwise_float, (x, words[..., :1], geometry, 0, False)),
        (TypeError, "x", variant.depthwise_float, (x.astype(np.float64), kernel, geometry, 0, False)),
        (TypeError, "w", variant.depthwise_float, (bits, words, geometry, 0, False)),
        (TypeError, "x", variant.depthwise_float, (bits, kernel, geometry, 0, True)),
        (ValueError, "pad", variant.depthwise_float, (dy, kernel, geometry, 1, True)),
        (ValueError, "pad", variant.depthwise_float, (bits, kernel, geometry, 0.5, False)),
        (ValueError, "x_kind", variant.depthwise_float, (bits, kernel, geometry, 0, False, "int8")),
        (TypeError, "x", variant.depthwise_xnor, (x, words, geometry, 0, np.int32)),
        (TypeError, "w", variant.depthwise_xnor, (bits, kernel, geometry, 0, np.int32)),
        (ValueError, "x", variant.depthwise_xnor, (bits, words, geometry, 0, np.int32, "ternary")),
        (ValueError, "w", variant.depthwise_xnor, (bits, words, geometry, 0, np.int32, "sign", "ternary")),
        (TypeError, "dtype", variant.depthwise_xnor, (bits, words, geometry, 0, np.int64)),
        (ValueError, "dy", variant.depthwise_reduce, (x, x, geometry, 0)),
        (TypeError, "dy", variant.depthwise_reduce, (x, bits, geometry, 0)),
    ]:
        with pytest.raises(error, match=rf"{function.__name__}\(\).*'{name}'"):
            function(*arguments)
