"""Every function of the extension, on every level this machine runs, against the reference.

What it refuses, the forms of array it reads, threads and forks are the business of `test_core_api`.
"""

import re
from pathlib import Path

import numpy as np
import product_checks as checks
import pytest
import reference as ref
from product_checks import Bits, Problem, floats, prepared, signs

from bnnlayers import _core
from bnnlayers.geometry import dense

# ---- elementwise ---------------------------------------------------------------------------------

OPERATIONS = (Path(__file__).parent.parent / "csrc" / "ops.def").read_text()
ELEMENTWISE = {
    name: signature.split(", ") for name, signature in re.findall(r'BNN_OP\((\w+), \d, "([^"]+)"', OPERATIONS)
}
PARAMETERS = {
    "clip_value": 1.3,
    "low": -1.3,
    "high": 0.5,
    "beta": 5.0,
    "threshold": 0.5,
    "levels": 3.0,
    "maximum": 0.9,
    "alpha": 0.2,
}
# Values where a quantizer or a mask changes its mind, and those that no comparison likes.
EDGES = [0.0, 0.5, 1.0, 1.3, 2.0, 1e-40, 1e30, np.inf]
GRID = np.array([*EDGES, *(-value for value in EDGES), np.nan])
NEAR = np.nextafter(np.float32([-1.3, -1, 1, 1.3]), np.float32([[-9], [9]])).ravel()

# Error in eps of the largest dy (of one, where there is none). All others only choose between their arguments and
# constants, and are exact.
ROUNDED = {
    "approx_sign_grad": 4,
    "swish_sign_grad": 8 * PARAMETERS["beta"],
    "dorefa_activations": 1,
    "dorefa_weights": 4,
    "dorefa_weights_grad": 8,
    "leaky_tanh": 4,
    "leaky_tanh_grad": 4,
}


def elementwise_arguments(name, x, rng):
    """x, a random dy, and the parameters in the precision of x."""
    dy = rng.normal(size=x.shape).astype(x.dtype)
    given = {"x": x, "t": x, "dy": dy} | {key: x.dtype.type(value) for key, value in PARAMETERS.items()}
    return [given[key] for key in ELEMENTWISE[name]]


def assert_elementwise(name, actual, arguments):
    expected = getattr(ref, name)(*(np.asarray(a, np.float64) for a in arguments))
    with np.errstate(over="ignore"):
        expected = expected.astype(actual.dtype)
    if name in ROUNDED:
        scale = np.max(np.abs(arguments[1]), initial=1) if "dy" in ELEMENTWISE[name] else 1
        eps = np.finfo(actual.dtype).eps
        np.testing.assert_allclose(actual, expected, rtol=8 * eps, atol=ROUNDED[name] * eps * scale)
    else:
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(variant, rng, name, dtype):
    # The lengths cover the empty array, every tail of a vector and more than one chunk.
    for x in (GRID, NEAR, *(2 * rng.normal(size=n) for n in (0, 1, 7, 15, 16, 17, 33, 5000))):
        arguments = elementwise_arguments(name, x.astype(dtype), rng)
        with np.errstate(all="raise"):
            result = getattr(variant, name)(*arguments)
        assert result.dtype == dtype
        assert_elementwise(name, result, arguments)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_gives_the_same_bits_on_every_level(rng, name, dtype):
    x = np.concatenate([GRID, 2 * rng.normal(size=1000)]).astype(dtype)
    arguments = elementwise_arguments(name, x, rng)
    first, *others = (getattr(core, name)(*arguments) for core in _core.variants.values())
    for other in others:
        np.testing.assert_array_equal(other, first)
        np.testing.assert_array_equal(np.signbit(other), np.signbit(first))


# ---- packing -------------------------------------------------------------------------------------

COUNTS = [0, 1, 31, 32, 33, 63, 64, 65, 127, 128, 129]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("count", COUNTS)
def test_pack_and_unpack(variant, rng, count, axis, dtype):
    shape = [3, 2, 5]
    shape[axis] = count
    x = rng.normal(size=shape).astype(dtype)
    words, mask, nan = variant.pack(x, axis, 0.7)
    assert nan is False
    assert words.dtype == mask.dtype == np.uint32
    np.testing.assert_array_equal(words, ref.pack(x, axis))
    np.testing.assert_array_equal(mask, ref.pack_bits(np.abs(x) <= 0.7, axis))

    back = variant.unpack(words[0], count, axis, dtype)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, ref.ste_sign(x))
    np.testing.assert_array_equal(variant.select(x, mask, axis), ref.ste_sign_grad(x, x, 0.7))

    words, mask, _ = variant.pack(x, axis, None)
    assert mask is None
    np.testing.assert_array_equal(words, ref.pack(x, axis))


def packed_levels(x, levels):
    return np.rint(np.clip(x, 0, 1) * x.dtype.type(levels)).astype(int)


def expected_planes(x, kind, parameter):
    """By the definitions, in the precision of x."""
    if kind == "unit":
        return [x > 0]
    if kind == "ternary":
        nonzero = (np.abs(x) >= x.dtype.type(parameter)) & (x != 0)
        return [(x < 0) & nonzero, nonzero]
    levels = packed_levels(x, parameter)
    return [levels >> i & 1 for i in range(int(parameter).bit_length())]


KINDS = [("unit", 0.0), ("ternary", 0.7), ("ternary", 0.0)]
KINDS += [("levels", float(2**k - 1)) for k in (1, 2, 3, 8, 16)]


def assert_packed(variant, x, axis, kind, parameter, clip):
    words, mask, nan = variant.pack(x, axis, clip, kind, parameter)
    assert nan is False
    expected = np.stack([ref.pack_bits(plane, axis) for plane in expected_planes(x, kind, parameter)])
    np.testing.assert_array_equal(words, expected)
    inside = np.abs(x) <= x.dtype.type(clip)
    if kind == "levels":
        inside &= x >= 0
    np.testing.assert_array_equal(mask, ref.pack_bits(inside, axis))
    again, none, _ = variant.pack(x, axis, None, kind, parameter)
    assert none is None
    np.testing.assert_array_equal(again, words)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize(("kind", "parameter"), KINDS)
def test_pack_kinds(variant, rng, kind, parameter, axis, dtype):
    for count in COUNTS:
        shape = [3, 2, 5]
        shape[axis] = count
        assert_packed(variant, rng.normal(size=shape).astype(dtype), axis, kind, parameter, 1.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("kind", "parameter"), KINDS)
def test_pack_kinds_at_their_edges(variant, kind, parameter, axis, dtype):
    """What lies at a threshold or half-way between two levels, and next to it."""
    exact = np.array([*GRID[~np.isnan(GRID)], 0.7, *(np.arange(9) / 2 / max(parameter, 1)), 1 / 3, 0.1])
    x = np.concatenate([exact, -exact]).astype(dtype)
    x = np.concatenate([x, np.nextafter(x, dtype(9)), np.nextafter(x, dtype(-9))])[:, np.newaxis]
    assert_packed(variant, x if axis == 0 else x.T, axis, kind, parameter, 1.0)


@pytest.mark.parametrize(("kind", "parameter"), KINDS)
@pytest.mark.parametrize("shape", [(0,), (1,), (40,), (0, 33), (33, 0), (700, 600), (600, 17)])
def test_pack_kinds_of_every_shape(variant, rng, kind, parameter, shape):
    x = floats(rng, shape)
    for axis in range(len(shape)):
        assert_packed(variant, x, axis, kind, parameter, 0.9)


@pytest.mark.parametrize(("kind", "parameter"), KINDS)
@pytest.mark.parametrize("axis", [0, 1])
def test_pack_kinds_notice_a_nan(variant, rng, kind, parameter, axis):
    for position in range(0, 67 * 3, 7):
        x = floats(rng, (67, 3) if axis == 0 else (3, 67))
        x.flat[position] = np.nan
        with np.errstate(all="raise"):
            assert variant.pack(x, axis, 1.0, kind, parameter)[2] is True


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("levels", [1.0, 3.0, 255.0])
def test_levels_are_those_of_the_quantizer(variant, rng, levels, dtype):
    x = np.concatenate([rng.normal(size=4000), np.arange(-1, 600) / (2 * levels)]).astype(dtype)
    words = variant.pack(x, 0, None, "levels", levels)[0]
    codes = sum(ref.unpack_bits(plane, len(x)).astype(dtype) * 2**i for i, plane in enumerate(words))
    np.testing.assert_array_equal(codes / dtype(levels), variant.dorefa_activations(x, dtype(levels)))


@pytest.mark.parametrize("shape", [(40,), (1,), (0,), (0, 33), (33, 0), (2, 3, 4, 5), (700, 600)])
def test_pack_shapes(variant, rng, shape):
    x = floats(rng, shape)
    for axis in range(len(shape)):
        words, mask, nan = variant.pack(x, axis, 1.0)
        assert not nan
        np.testing.assert_array_equal(words, ref.pack(x, axis))
        np.testing.assert_array_equal(mask, ref.pack_bits(np.abs(x) <= 1, axis))
        np.testing.assert_array_equal(variant.unpack(words[0], shape[axis], axis), ref.ste_sign(x))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("axis", [0, 1])
def test_pack_edges(variant, axis, dtype):
    """-0.0 is positive, denormals count, infinities have a sign and lie outside every clip."""
    x = GRID[~np.isnan(GRID)].astype(dtype)
    x = np.concatenate([x, NEAR.astype(dtype)] * 4).reshape(-1, 1)
    x = x if axis == 0 else x.T
    words, mask, nan = variant.pack(x, axis, float(dtype(1.3)))
    assert not nan
    np.testing.assert_array_equal(words, ref.pack(x, axis))
    np.testing.assert_array_equal(mask, ref.pack_bits(np.abs(x) <= dtype(1.3), axis))


@pytest.mark.parametrize("value", [0.1, 0.2, 0.3, 0.7, 1.1, 1.3])
def test_the_mask_is_inclusive_in_the_precision_of_x(variant, value):
    """0.1 as float32 is above 0.1 as float64; pack agrees with the elementwise gradient."""
    x = np.float32([value, -value])
    assert variant.pack(x, 0, value)[1] == [0b11]
    np.testing.assert_array_equal(variant.ste_sign_grad(x, np.float32(1), value), [1, 1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("axis", [0, 1])
def test_pack_notices_a_nan_anywhere(variant, rng, axis, dtype):
    for position in range(0, 133 * 3, 7):
        x = rng.normal(size=(133, 3) if axis == 0 else (3, 133)).astype(dtype)
        x.flat[position] = np.nan if position % 2 else -np.nan
        with np.errstate(all="raise"):
            words, mask, nan = variant.pack(x, axis, 1.0)
        assert nan is True
        # The NaN's neighbours keep their bits, its own mask bit is 0.
        np.testing.assert_array_equal(mask, ref.pack_bits(np.abs(x) <= 1, axis))
        np.testing.assert_array_equal(ref.unpack_bits(words[0], 133, axis)[~np.isnan(x)], (x < 0)[~np.isnan(x)])


def test_select_drops_what_the_mask_hides(variant):
    dy = np.float32([np.nan, np.inf, 3.0, -0.0])
    mask = ref.pack_bits([False, False, True, True])
    np.testing.assert_array_equal(variant.select(dy, mask, 0), [0, 0, 3, 0])


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("lead", [(), (1,), (3, 2), (0,)])
def test_all_set(variant, count, lead):
    inside = np.ones((*lead, count), bool)
    assert variant.all_set(ref.pack_bits(inside), count) is True
    for at in range(inside.size):
        inside.flat[at] = False
        assert variant.all_set(ref.pack_bits(inside), count) is False
        inside.flat[at] = True
    with pytest.raises(ValueError, match="words"):
        variant.all_set(ref.pack_bits(inside), count + 32)


# ---- dense ---------------------------------------------------------------------------------------

DENSE = [(5, k, 10) for k in COUNTS] + [(5, 65, n) for n in (0, 1, 31, 32, 33, 64, 65)]
DENSE += [(m, 40, 33) for m in (0, 1, 2, 3, 4, 6, 7)] + [(70, 2100, 130)]
# Few rows, which take several panels of columns together, some of them in part.
DENSE += [(m, k, n) for m in (1, 2, 3) for k, n in ((20, 64), (33, 127), (160, 128), (300, 300))]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(65, 32), (3, 2100), (1, 9000)])
def test_long_rows_without_a_nan_have_none(variant, shape, dtype):
    """A spilled mask once kept what was on the stack before."""
    x = np.ones(shape, dtype)
    for clip in (None, 1.0):
        assert not variant.pack(x, -1, clip)[2]
        x[-1, -1] = np.nan
        assert variant.pack(x, -1, clip)[2]
        x[-1, -1] = 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("m", "k", "n"), DENSE)
def test_xnor_matmul(variant, rng, m, k, n, dtype):
    a, b = (rng.normal(size=shape).astype(dtype) for shape in ((m, k), (k, n)))
    product = checks.same_at_each_thread_count(variant.xnor_matmul, a, b)
    assert product.dtype == np.int32
    np.testing.assert_array_equal(product, ref.dense(ref.ste_sign(a), ref.ste_sign(b)))


@pytest.mark.parametrize("rows", [1, 4, 5])
def test_a_large_operand_is_read_by_turns_from_either_end(variant, rng, rows):
    depth, columns = 8192, 1100
    x, kernel, dy = signs(rng, (rows, depth)), signs(rng, (depth, columns)), floats(rng, (rows, columns))
    geometry = dense(rows, depth, columns)
    forward, back = (variant.prepare(ref.pack(kernel[np.newaxis], -2), 1, depth, transposed) for transposed in (0, 1))
    expected, bits = ref.dense(x, kernel)[np.newaxis], ref.pack(x[np.newaxis])
    first = variant.signed_right(dy[np.newaxis], back, geometry, 0.0, True)
    for _ in range(3):
        y = checks.same_at_each_thread_count(variant.xnor, bits, forward, geometry, 0, False, np.int32)
        np.testing.assert_array_equal(y, expected)
        again = checks.same_at_each_thread_count(variant.signed_right, dy[np.newaxis], back, geometry, 0.0, True)
        np.testing.assert_array_equal(again, first)


@pytest.mark.parametrize(("m", "k", "n"), DENSE)
def test_a_dense_layer_is_a_convolution(variant, rng, m, k, n):
    x, kernel, dy = signs(rng, (m, k)), signs(rng, (k, n)), floats(rng, (m, n))
    geometry = dense(m, k, n)
    right = variant.prepare(ref.pack(kernel[np.newaxis], -2), 1, k, False)
    image = ref.pack(x[np.newaxis])
    y = variant.xnor(image, right, geometry, 0, False, np.int32)
    np.testing.assert_array_equal(y, ref.dense(x, kernel)[np.newaxis])
    for dtype in (np.int16, np.float32):
        same = variant.xnor(image, right, geometry, 0, False, dtype)
        assert same.dtype == dtype
        np.testing.assert_array_equal(same, y)

    back = variant.prepare(ref.pack(kernel[np.newaxis], -2), 1, k, True)
    dx = variant.signed_right(dy[np.newaxis], back, geometry, 0.0, True)
    checks.assert_sum(dx[0], dy @ kernel.T.astype(float), n, np.abs(dy) @ np.ones((n, k)))


# ---- convolution ---------------------------------------------------------------------------------

DEPTHS = {f"{c} channels": Problem(channels=c) for c in COUNTS}
WIDTHS = {f"{f} filters": Problem(filters=f) for f in (0, 1, 31, 32, 33, 64, 65, 129)}
GROUPS = {
    f"{c} -> {f} in {g} groups": Problem(channels=c, filters=f, groups=g)
    for c, f, g in [
        (64, 64, 2),
        (66, 6, 2),
        (4, 4, 2),
        (96, 33, 3),
        (93, 99, 3),
        (10, 20, 10),
        (130, 130, 2),
        (0, 4, 2),
    ]
}
ONE = Problem((7,), (3,), strides=(1,), dilation=(1,), pads=((0, 0),))
TWO = Problem((7, 6))
THREE = Problem((4, 3, 5), (2, 3, 2), strides=(1, 1, 1), dilation=(1, 1, 1), pads=((0, 1), (1, 1), (1, 0)))
SHAPES = {
    "1d": ONE,
    "1d strided": ONE.but(strides=(2,), pads=((1, 1),)),
    "1d causal dilated": ONE.but(dilation=(2,), pads=((4, 0),)),
    "1d one pixel": ONE.but(spatial=(1,), pads=((2, 2),)),
    "1d no output": ONE.but(spatial=(2,)),
    "1d only padding": ONE.but(spatial=(2,), kernel=(2,), pads=((5, 4),)),
    "2d valid": TWO.but(pads=((0, 0), (0, 0))),
    "2d same": TWO,
    "2d pointwise": TWO.but(kernel=(1, 1), pads=((0, 0), (0, 0))),
    "2d strided pointwise": TWO.but(kernel=(1, 1), strides=(3, 2), pads=((0, 0), (0, 0))),
    "2d strided": TWO.but(strides=(2, 3), pads=((0, 1), (1, 1))),
    "2d dilated": TWO.but(dilation=(2, 3), pads=((2, 2), (3, 3))),
    "2d strided and dilated": TWO.but(strides=(3, 2), dilation=(2, 3), pads=((2, 1), (0, 3))),
    "2d even kernel": TWO.but(kernel=(2, 4), pads=((0, 1), (1, 2))),
    "2d kernel beyond image": TWO.but(spatial=(2, 3), kernel=(5, 4), pads=((2, 2), (1, 2))),
    "2d no output": TWO.but(spatial=(2, 9), kernel=(5, 4), pads=((0, 0), (0, 0))),
    "2d empty batch": TWO.but(batch=0),
    "2d grouped, strided, dilated": TWO.but(
        channels=66, filters=12, groups=6, strides=(2, 1), dilation=(1, 2), pads=((1, 1), (2, 0))
    ),
    "2d of few channels": Problem((5, 37), channels=3, filters=70, batch=2),
    "2d more than one panel and chunk": Problem((10, 9), channels=70, filters=70, batch=5),
    "3d": THREE,
    "3d strided": THREE.but(strides=(2, 1, 3)),
    "3d dilated, grouped": THREE.but(
        channels=34, filters=4, groups=2, dilation=(2, 1, 2), pads=((1, 1), (0, 2), (2, 1))
    ),
}
PROBLEMS = DEPTHS | WIDTHS | GROUPS | SHAPES


@pytest.fixture(params=PROBLEMS)
def problem(request):
    return PROBLEMS[request.param]


@pytest.mark.parametrize("check", [checks.check_xnor, checks.check_signed_left, checks.check_signed_reduce])
def test_products_of_packed_inputs(variant, rng, problem, check):
    for pad in (0, 1, -1):
        check(variant, problem, rng, pad)


@pytest.mark.parametrize(
    "check", [checks.check_signed_right, checks.check_direct, checks.check_direct_reduce, checks.check_im2col]
)
def test_products_of_float_inputs(variant, rng, problem, check):
    for pad in (0.0, -1.0, 0.3):
        check(variant, problem, rng, pad)


@pytest.mark.parametrize(
    "check",
    [
        checks.check_xnor_transposed,
        checks.check_signed_right_transposed,
        checks.check_signed_left_transposed,
        checks.check_direct_transposed,
        checks.check_signed_reduce_transposed,
        checks.check_col2im,
    ],
)
def test_transposed_products(variant, rng, problem, check):
    check(variant, problem, rng)


OPERANDS = [Bits("sign", 1), Bits("sign", 3), Bits("unit", 1), Bits("unit", 4), Bits("ternary", 2)]
PAIRS = [(left, right) for left in OPERANDS for right in OPERANDS if (left, right) != (OPERANDS[0], OPERANDS[0])]
SMALL = ["33 channels", "65 channels", "1 channels", "0 channels", "66 -> 6 in 2 groups", "10 -> 20 in 10 groups"]
SMALL += ["2d strided and dilated", "2d more than one panel and chunk", "1d only padding", "3d dilated, grouped"]
SMALL += ["2d pointwise", "2d empty batch", "0 filters"]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("left", "right"), PAIRS, ids=lambda bits: str(bits))
def test_products_of_every_kind_of_bits(variant, rng, left, right, name):
    for pad in (0, 1, -1):
        checks.check_bits(variant, PROBLEMS[name], rng, pad, left, right)
    checks.check_bits_transposed(variant, PROBLEMS[name], rng, left, right)


@pytest.mark.parametrize("planes", [8, 14])
def test_sums_up_to_the_largest_integers(variant, planes):
    """All bits set: the greatest sums, and every count at its limit."""
    depth = 2**31 // 2 ** (planes + 8) - 1
    words = np.stack([ref.pack_bits(np.ones((1, depth), bool))] * planes)
    kernel = np.stack([ref.pack_bits(np.ones((1, depth, 3), bool), -2)] * 8)
    right = variant.prepare(kernel, 1, depth, False)
    y = variant.xnor(words[:, np.newaxis], right, dense(1, depth, 3), 0, False, np.int32, "unit", "unit", 8)
    np.testing.assert_array_equal(y, np.full((1, 1, 3), depth * (2**planes - 1) * 255))


def assert_same_where_not_finite(actual, expected):
    expected = expected.reshape(actual.shape)
    finite = np.isfinite(expected)
    assert not finite.all()
    np.testing.assert_array_equal(np.isfinite(actual), finite)
    np.testing.assert_array_equal(actual[~finite], expected[~finite])


# Wide enough for lists of what is not zero, and large enough that somebody looks whether most is; the last but one has
# images too large for lists of columns.
MOSTLY_ZERO = {
    "odd": Problem(spatial=(12, 11), channels=130, filters=70, batch=3),
    "groups": Problem(spatial=(9, 9), channels=256, filters=130, groups=2, batch=2),
    "strided": Problem(spatial=(20, 21), kernel=(3, 2), channels=129, filters=64, strides=(2, 3), batch=5),
    "dilated": Problem(spatial=(11, 13), channels=128, filters=64, dilation=(2, 1), pads=((2, 2), (1, 1))),
    "deep": Problem(spatial=(5, 4), kernel=(2, 2), channels=128, filters=600, pads=((0, 0), (1, 0)), batch=3),
    "large": Problem(spatial=(65, 64), kernel=(1, 1), channels=64, filters=5, pads=((0, 0), (0, 0)), batch=1),
    "one pixel": Problem(spatial=(1, 1), kernel=(1, 1), channels=257, filters=200, pads=((0, 0), (0, 0)), batch=99),
}


@pytest.mark.parametrize("problem", MOSTLY_ZERO.values(), ids=MOSTLY_ZERO)
@pytest.mark.parametrize("some", [0.2, 0.0])
def test_gradients_of_which_most_is_zero(variant, rng, problem, some):
    x, kernel = signs(rng, problem.input_shape), signs(rng, problem.kernel_shape)
    dy = floats(rng, problem.output_shape) * (rng.random(problem.output_shape) < some)
    right = prepared(variant, problem, kernel, transposed=True)
    backwards = (dy, right, problem.geometry, 0.0, True, None, True)
    checks.assert_input_gradient(
        checks.same_at_each_thread_count(variant.signed_right, *backwards), problem, dy, kernel
    )
    gradient = checks.same_at_each_thread_count(variant.signed_reduce, ref.pack(x), dy, problem.geometry, 0.0)
    checks.assert_kernel_gradient(gradient, problem, x, dy, 0)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_of_a_gradient_that_is_mostly_zero_no_value_is_lost(variant, rng, value):
    """What is not finite reaches those sums that it is a term of, and no other."""
    problem = Problem(spatial=(14, 13), channels=130, filters=70, batch=2)
    x, kernel = signs(rng, problem.input_shape), signs(rng, problem.kernel_shape)
    dy = floats(rng, problem.output_shape) * (rng.random(problem.output_shape) < 0.2)
    dy[1, 13, 5, 69] = value
    right = prepared(variant, problem, kernel, transposed=True)
    dx = variant.signed_right(dy, right, problem.geometry, 0.0, True, None, True)
    reached = np.zeros(problem.input_shape[:3], bool)
    reached[1, 12:, 4:7] = True
    assert (np.isfinite(dx).all(-1) != reached.reshape(2, -1)).all()
    gradient = variant.signed_reduce(ref.pack(x), dy, problem.geometry, 0.0)
    lost = ~np.isfinite(gradient)
    assert lost[:6, :, 69].all()  # the last row of the kernel reads padding there
    assert lost.sum() == 6 * problem.channels


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@np.errstate(invalid="ignore")
def test_a_value_that_is_not_finite_reaches_exactly_its_outputs(variant, rng, value):
    problem = Problem((6, 5), channels=37, filters=34, pads=((0, 0), (0, 0)))
    geometry, where = problem.geometry, problem.where
    x, dy = signs(rng, problem.input_shape), floats(rng, problem.output_shape)
    signed, kernel = signs(rng, problem.kernel_shape), floats(rng, problem.kernel_shape)
    dy[0, 1, 1, 33] = kernel[0, 2, 36, 33] = value
    with_value = floats(rng, problem.input_shape)
    with_value[1, 2, 3, 36] = value
    right, back = (prepared(variant, problem, signed, transposed) for transposed in (False, True))

    y = variant.signed_right(with_value, right, geometry, 0.0, False)
    assert_same_where_not_finite(y, ref.convolution(with_value, signed, *where))
    dx = variant.signed_right(dy, back, geometry, 0.0, True)
    expected = ref.convolution_input_gradient(dy, signed, problem.spatial, *where)
    assert_same_where_not_finite(dx, expected)
    y = variant.signed_left(ref.pack(x), kernel, geometry, 0)
    assert_same_where_not_finite(y, ref.convolution(x, kernel, *where))
    assert_same_where_not_finite(variant.direct(x, kernel, geometry, 0), ref.convolution(x, kernel, *where))
    gradient = variant.signed_reduce(ref.pack(x), dy, geometry, 0)
    expected = ref.convolution_kernel_gradient(x, dy, problem.kernel, *where)
    assert_same_where_not_finite(gradient, expected)
    gradient = variant.direct_reduce(x, dy, geometry, 0)
    assert_same_where_not_finite(gradient, expected)


def test_a_result_does_not_depend_on_the_batch_around_it(variant, rng):
    problem = SHAPES["2d more than one panel and chunk"]
    x, kernel = floats(rng, problem.input_shape), signs(rng, problem.kernel_shape)
    right = prepared(variant, problem, kernel)
    all_images = variant.signed_right(x, right, problem.geometry, 0.0, False)
    alone = problem.but(batch=1).geometry
    for i, image in enumerate(x):
        one = variant.signed_right(image[np.newaxis], right, alone, 0.0, False)
        np.testing.assert_array_equal(one[0], all_images[i])
    all_images = variant.direct(x, kernel, problem.geometry, 0.0)
    for i, image in enumerate(x):
        np.testing.assert_array_equal(variant.direct(image[np.newaxis], kernel, alone, 0.0)[0], all_images[i])


# Distributions of floats: what a kernel in fixed point could lose.
FLOATS = {
    "normal": lambda n: n,
    "heavy tails": lambda n: n**5,
    "heavier tails": lambda n: n / (1e-4 + np.abs(n[::-1])),
    "mostly zero": lambda n: n * (np.abs(n[::-1]) > 2.5),
    "constant": lambda n: np.full_like(n, 0.3),
    "small integers": np.rint,
    "a large channel": lambda n: n * np.where(np.arange(n.shape[-1]) == 7, 1e4, 1),
    "an outlier": lambda n: n + 1e6 * (n == n.max()),
    "a dim half": lambda n: n * np.where(np.arange(n.shape[-2]) < n.shape[-2] // 2, 1e-4, 1)[:, np.newaxis],
    "tiny": lambda n: n * 1e-30,
    "huge": lambda n: n * 1e33,
}


@pytest.mark.parametrize("make", FLOATS.values(), ids=FLOATS)
@pytest.mark.parametrize(
    "problem",
    [
        Problem((14, 14), channels=128, filters=48),
        Problem((9,), (5,), 70, 33, (1,), (1,), ((2, 2),), batch=5),
        Problem((3, 40), (1, 1), 500, 40, pads=((0, 0), (0, 0))),
    ],
    ids=["3x3", "1d", "1x1"],
)
def test_a_sum_is_as_accurate_as_that_of_a_float32_product(variant, rng, problem, make):
    x = make(rng.normal(size=problem.input_shape)).astype(np.float32)
    kernel = signs(rng, problem.kernel_shape)
    y = variant.signed_right(x, prepared(variant, problem, kernel), problem.geometry, 0.0, False)
    rows = ref.im2col(x, problem.kernel, *problem.where)[0]
    flat = kernel.reshape(-1, problem.filters)
    exact, magnitude = rows.astype(np.float64) @ flat, np.abs(rows).sum(axis=1, dtype=np.float64)
    magnitude = np.where(magnitude > 0, magnitude, 1)[:, np.newaxis]

    def errors(product):
        error = np.abs(product.reshape(exact.shape) - exact)
        return error.max(), np.sqrt(np.mean((error / magnitude) ** 2))

    ours, theirs = errors(y), errors(rows.astype(np.float32) @ flat)
    assert all(a <= 2 * b for a, b in zip(ours, theirs, strict=True)), (ours, theirs)
