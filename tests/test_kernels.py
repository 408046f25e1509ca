"""Every function of the extension, on every level this machine runs, against the reference."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import product_checks as checks
import pytest
import reference as ref
from product_checks import Problem, floats, prepared, signs

from bnnlayers import _core
from bnnlayers.geometry import dense

# ---- elementwise ---------------------------------------------------------------------------------

# Values where a quantizer or a mask changes its mind, and those that no comparison likes.
EDGES = [0.0, 0.5, 1.0, 1.3, 2.0, 1e-40, 1e30, np.inf]
GRID = np.array([*EDGES, *(-value for value in EDGES), np.nan])
NEAR = np.nextafter(np.float32([-1.3, -1, 1, 1.3]), np.float32([[-9], [9]])).ravel()

ELEMENTWISE = {  # name -> the arguments after x
    "ste_sign": (),
    "ste_sign_grad": ("dy", 1.3),
    "approx_sign": (),
    "approx_sign_grad": ("dy",),
    "hard_tanh": (),
    "hard_tanh_grad": ("dy",),
    "clip": (-1.3, 0.5),
    "clip_grad": ("dy", -1.3, 0.5),
}
ROUNDED = ("approx_sign_grad",)  # all others only choose between their arguments and constants


def elementwise_arguments(name, x, rng):
    dy = rng.normal(size=x.shape).astype(x.dtype)
    return [x, *(dy if a == "dy" else x.dtype.type(a) for a in ELEMENTWISE[name])]


def assert_elementwise(name, actual, arguments):
    expected = getattr(ref, name)(*(np.asarray(a, np.float64) for a in arguments))
    if name in ROUNDED:
        np.testing.assert_allclose(actual, expected, rtol=4 * np.finfo(actual.dtype).eps)
    else:
        np.testing.assert_array_equal(actual, expected.astype(actual.dtype))


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


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_broadcasts(variant, rng, name):
    x, dy = floats(rng, (3, 1, 5)), floats(rng, (4, 1))
    arguments = [x, *(dy if a == "dy" else np.float32(a) for a in ELEMENTWISE[name])]
    result = getattr(variant, name)(*arguments)
    assert_elementwise(name, result, np.broadcast_arrays(*arguments))


def test_elementwise_out_and_where(variant, rng):
    x = floats(rng, (4, 5))
    out, where = np.full((4, 5), 7, np.float32), x > 0.2
    assert variant.ste_sign(x, out=out, where=where) is out
    np.testing.assert_array_equal(out, np.where(where, ref.ste_sign(x), 7))
    np.testing.assert_array_equal(variant.ste_sign(x, out=x), ref.ste_sign(out * 0 + x))


def test_a_python_number_does_not_promote(variant):
    x = np.float32([0.1, 0.2])
    result = variant.ste_sign_grad(x, x, 0.1)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, np.float32([0.1, 0]))


@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.int16, np.int32, np.int64, np.uint8, bool])
def test_elementwise_other_types(variant, dtype):
    x = np.array([-1, 0, 1]).astype(dtype)
    np.testing.assert_array_equal(variant.ste_sign(x), ref.ste_sign(x))


# ---- array layouts -------------------------------------------------------------------------------


def misaligned(x):
    buffer = np.zeros(x.nbytes + 1, np.uint8)
    result = buffer[1:].view(x.dtype).reshape(x.shape)
    result[...] = x
    return result


def strided(x):
    result = np.zeros([2 * n for n in x.shape], x.dtype)[(slice(None, None, 2),) * x.ndim]
    result[...] = x
    return result


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


LAYOUTS = {
    "strided": strided,
    "reversed": lambda x: np.flip(np.flip(x).copy()),
    "fortran": np.asfortranarray,
    "read-only": read_only,
    "misaligned": misaligned,
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder()),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_of_arrays(variant, rng, layout):
    """Each function reads every layout, and leaves its input alone."""
    problem = Problem(groups=3, filters=12)
    x, kernel = floats(rng, problem.input_shape), floats(rng, problem.kernel_shape)
    dy = floats(rng, problem.output_shape)
    words, mask, _ = variant.pack(x, -1, 1.0)
    right = prepared(variant, problem, kernel)
    geometry = problem.geometry
    columns = variant.im2col(x, geometry, 0.0)
    calls = {
        "ste_sign": (variant.ste_sign, x),
        "ste_sign_grad": (variant.ste_sign_grad, x, x, 1.0),
        "xnor_matmul": (variant.xnor_matmul, x, np.swapaxes(x, -1, -2)),
        "pack last": (lambda x: variant.pack(x, -1, 1.0)[0], x),
        "pack first": (lambda x: variant.pack(x, 0, 1.0)[0], x),
        "mask": (lambda x: variant.pack(x, 1, 1.0)[1], x),
        "pack float64": (lambda x: variant.pack(x, 1, None)[0], x.astype(np.float64)),
        "unpack": (lambda w: variant.unpack(w, 33, 1), words[0]),
        "select": (lambda dy, m: variant.select(dy, m, -1), x, mask),
        "prepare": (lambda w: variant.prepare(w, 3, 33, False), ref.pack(kernel, -2)),
        "xnor": (lambda w: variant.xnor(w, right, geometry, 1, False, np.int32), words),
        "signed_right": (lambda x: variant.signed_right(x, right, geometry, 0.5, False), x),
        "signed_left": (lambda w, k: variant.signed_left(w, k, geometry, 1), words, kernel),
        "signed_reduce": (lambda w, d: variant.signed_reduce(w, d, geometry, 1), words, dy),
        "im2col": (lambda x: variant.im2col(x, geometry, 0.5), x),
        "col2im": (lambda c: variant.col2im(c, geometry), columns),
    }
    for name, (function, *arguments) in calls.items():
        plain = function(*arguments)
        changed = [LAYOUTS[layout](a) if isinstance(a, np.ndarray) else a for a in arguments]
        before = [np.array(a) for a in changed]
        np.testing.assert_array_equal(function(*changed), plain, err_msg=name)
        for a, b in zip(changed, before, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)


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


@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.int64, np.uint8, bool])
def test_pack_other_types(variant, dtype):
    x = np.array([-1, 0, 1, 3]).astype(dtype)
    words, mask, _ = variant.pack(x, 0, 1.0)
    np.testing.assert_array_equal(words, ref.pack(x, 0))
    np.testing.assert_array_equal(mask, ref.pack_bits(np.abs(x.astype(float)) <= 1, 0))


def test_pack_takes_a_list(variant):
    assert variant.pack([1.0, -2.0, 3.0], 0, None)[0].tolist() == [[0b010]]


def test_select_drops_what_the_mask_hides(variant):
    dy = np.float32([np.nan, np.inf, 3.0, -0.0])
    mask = ref.pack_bits([False, False, True, True])
    np.testing.assert_array_equal(variant.select(dy, mask, 0), [0, 0, 3, 0])


# ---- dense ---------------------------------------------------------------------------------------

DENSE = [(5, k, 10) for k in COUNTS] + [(5, 65, n) for n in (0, 1, 31, 32, 33, 64, 65)]
DENSE += [(m, 40, 33) for m in (0, 1, 2, 3, 4, 6, 7)] + [(70, 2100, 130)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("m", "k", "n"), DENSE)
def test_xnor_matmul(variant, rng, m, k, n, dtype):
    a, b = (rng.normal(size=shape).astype(dtype) for shape in ((m, k), (k, n)))
    product = checks.same_at_each_thread_count(variant.xnor_matmul, a, b)
    assert product.dtype == np.int32
    np.testing.assert_array_equal(product, ref.dense(ref.ste_sign(a), ref.ste_sign(b)))


def test_xnor_matmul_broadcasts(variant, rng):
    a, b = floats(rng, (3, 1, 4, 33)), floats(rng, (2, 33, 5))
    expected = ref.ste_sign(a) @ ref.ste_sign(b)
    np.testing.assert_array_equal(variant.xnor_matmul(a, b), expected)
    out = np.empty((3, 2, 4, 5), np.int32)
    assert variant.xnor_matmul(a, b, out=out) is out
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(
        variant.xnor_matmul(a, b.swapaxes(-1, -2), axes=[(-2, -1), (-1, -2), (-2, -1)]), expected
    )


@pytest.mark.parametrize("side", [0, 1])
def test_xnor_matmul_refuses_nan(variant, rng, side):
    operands = [floats(rng, (4, 40)), floats(rng, (40, 5))]
    operands[side][3, 2] = np.nan
    with pytest.raises(ValueError, match=r"xnor_matmul.*NaN"):
        variant.xnor_matmul(*operands)


@pytest.mark.parametrize(("m", "k", "n"), DENSE)
def test_a_dense_layer_is_a_convolution(variant, rng, m, k, n):
    x, kernel, dy = signs(rng, (m, k)), signs(rng, (k, n)), floats(rng, (m, n))
    geometry = dense(m, k, n)
    right = variant.prepare(ref.pack(kernel[np.newaxis], -2), 1, k, False)
    image = ref.pack(x[np.newaxis])
    y = variant.xnor(image, right, geometry, 0, False, np.int32)
    np.testing.assert_array_equal(y, ref.dense(x, kernel)[np.newaxis])

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


@pytest.mark.parametrize("pad", [0, 1, -1])
@pytest.mark.parametrize("check", [checks.check_xnor, checks.check_signed_left, checks.check_signed_reduce])
def test_products_of_packed_inputs(variant, rng, problem, check, pad):
    check(variant, problem, rng, pad)


@pytest.mark.parametrize("pad", [0.0, -1.0, 0.3])
@pytest.mark.parametrize("check", [checks.check_signed_right, checks.check_im2col])
def test_products_of_float_inputs(variant, rng, problem, check, pad):
    check(variant, problem, rng, pad)


@pytest.mark.parametrize(
    "check",
    [checks.check_xnor_transposed, checks.check_signed_right_transposed, checks.check_col2im],
)
def test_transposed_products(variant, rng, problem, check):
    check(variant, problem, rng)


def assert_same_where_not_finite(actual, expected):
    expected = expected.reshape(actual.shape)
    finite = np.isfinite(expected)
    assert not finite.all()
    np.testing.assert_array_equal(np.isfinite(actual), finite)
    np.testing.assert_array_equal(actual[~finite], expected[~finite])


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
    gradient = variant.signed_reduce(ref.pack(x), dy, geometry, 0)
    expected = ref.convolution_kernel_gradient(x, dy, problem.kernel, *where)
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


# ---- threads and processes -----------------------------------------------------------------------


def test_concurrent_calls_on_shared_inputs(rng, threads):
    problem = SHAPES["2d more than one panel and chunk"]
    x, kernel = floats(rng, problem.input_shape), signs(rng, problem.kernel_shape)
    words, right = _core.pack(x, -1, None)[0], prepared(_core, problem, kernel)

    def calls(_):
        return (
            _core.xnor(words, right, problem.geometry, 0, False, np.int32),
            _core.signed_right(x, right, problem.geometry, 0.0, False),
            _core.pack(x, 1, 1.0)[1],
        )

    expected = calls(None)
    with ThreadPoolExecutor(4) as pool:
        for results in pool.map(calls, range(6)):
            for result, wanted in zip(results, expected, strict=True):
                np.testing.assert_array_equal(result, wanted)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_fork_after_a_threaded_call(rng):
    a, b = floats(rng, (256, 2000)), floats(rng, (2000, 256))
    before = _core.get_num_threads()
    _core.set_num_threads(2)
    expected = _core.xnor_matmul(a, b)
    child = os.fork()
    if child == 0:
        signal.alarm(10)  # a hang ends the child by signal
        os._exit(0 if np.array_equal(_core.xnor_matmul(a, b), expected) else 1)
    _, status = os.waitpid(child, 0)
    _core.set_num_threads(before)
    assert status == 0


def test_thread_count_is_kept_and_checked():
    before = _core.get_num_threads()
    assert before >= 1
    for bad, error in ((0, ValueError), (-1, ValueError), ("2", TypeError), (1.5, TypeError)):
        with pytest.raises(error, match="set_num_threads"):
            _core.set_num_threads(bad)
        assert _core.get_num_threads() == before
    _core.set_num_threads(3)
    assert _core.get_num_threads() == 3
    _core.set_num_threads(before)


def test_variants_have_every_function():
    assert next(iter(_core.variants)) == _core.level
    assert list(_core.variants)[-1] == "portable"
    names = {name for name in vars(_core.variants["portable"]) if not name.startswith("_")}
    assert names >= {*ELEMENTWISE, "pack", "unpack", "select", "prepare", "xnor", "xnor_matmul"}
    assert names >= {"signed_right", "signed_left", "signed_reduce", "im2col", "col2im"}
    for core in _core.variants.values():
        assert {name for name in vars(core) if not name.startswith("_")} == names


# ---- bad arguments -------------------------------------------------------------------------------

GOOD = Problem()
HUGE = 2**40


def bad_geometries():
    geometry = GOOD.geometry
    one = (1, 1, 1)
    return {
        "negative batch": geometry._replace(batch=-1),
        "wrong batch": geometry._replace(batch=3),
        "no group": geometry._replace(groups=0),
        "groups that do not divide": geometry._replace(groups=2),
        "wrong channels": geometry._replace(channels=65),
        "wrong filters": geometry._replace(filters=65),
        "negative filters": geometry._replace(filters=-10),
        "zero stride": geometry._replace(strides=(1, 0, 1)),
        "negative stride": geometry._replace(strides=(1, 1, -1)),
        "zero dilation": geometry._replace(dilation=(0, 1, 1)),
        "zero kernel": geometry._replace(kernel=(1, 0, 3)),
        "negative pad": geometry._replace(pad=(0, -1, 0)),
        "wrong inputs": geometry._replace(inputs=(1, 5, 5)),
        "negative inputs": geometry._replace(inputs=(1, -5, -4)),
        "negative outputs": geometry._replace(outputs=(1, -5, -4)),
        "outputs out of sight": geometry._replace(outputs=(1, HUGE, HUGE)),
        "huge kernel": geometry._replace(kernel=(HUGE, HUGE, HUGE)),
        "huge filters": geometry._replace(filters=2**62),
        "beyond int64": geometry._replace(channels=2**70),
        "a float": geometry._replace(channels=33.0),
        "two axes": geometry._replace(kernel=(3, 3)),
        "four axes": geometry._replace(kernel=(1, 1, 3, 3)),
        "text": geometry._replace(strides="abc"),
        "short": tuple(geometry)[:-1],
        "none": None,
        "number": 3,
        "nested wrong": (one,) * 10,
    }


@pytest.mark.parametrize("bad", bad_geometries())
def test_bad_geometry(variant, rng, bad):
    geometry = bad_geometries()[bad]
    x, kernel = floats(rng, GOOD.input_shape), floats(rng, GOOD.kernel_shape)
    dy = floats(rng, GOOD.output_shape)
    words, right = ref.pack(x), prepared(variant, GOOD, kernel)
    back = prepared(variant, GOOD, kernel, transposed=True)
    columns = variant.im2col(x, GOOD.geometry, 0.0)
    calls = {
        "xnor": lambda: variant.xnor(words, right, geometry, 0, False, np.int32),
        "signed_right": lambda: variant.signed_right(x, right, geometry, 0.0, False),
        "signed_right ": lambda: variant.signed_right(dy, back, geometry, 0.0, True),
        "signed_left": lambda: variant.signed_left(words, kernel, geometry, 0),
        "signed_reduce": lambda: variant.signed_reduce(words, dy, geometry, 0),
        "im2col": lambda: variant.im2col(x, geometry, 0.0),
        "col2im": lambda: variant.col2im(columns, geometry),
    }
    if bad == "wrong filters":  # of no concern to these two
        del calls["im2col"], calls["col2im"]
    if bad == "wrong inputs":  # sound, and these two make such an array
        del calls["signed_right "], calls["col2im"]
    for name, call in calls.items():
        with pytest.raises((TypeError, ValueError), match=name.strip()):
            call()


BAD = {
    "pack: axis": lambda core, a: core.pack(a.x, 4, None),
    "pack: negative axis": lambda core, a: core.pack(a.x, -5, None),
    "pack: huge axis": lambda core, a: core.pack(a.x, 2**70, None),
    "pack: no axis": lambda core, a: core.pack(np.float32(1), 0, None),
    "pack: objects": lambda core, a: core.pack(np.array([object()]), 0, None),
    "pack: text": lambda core, a: core.pack(["a"], 0, None),
    "pack: complex": lambda core, a: core.pack(np.ones(3, complex), 0, None),
    "pack: ragged": lambda core, a: core.pack([[1.0], [1.0, 2.0]], 0, None),
    "pack: clip": lambda core, a: core.pack(a.x, 0, "1"),
    "unpack: dtype of words": lambda core, a: core.unpack(a.x, 33, 0),
    "unpack: int64 words": lambda core, a: core.unpack(a.words[0].astype(np.int64), 33, -1),
    "unpack: count": lambda core, a: core.unpack(a.words[0], 65, -1),
    "unpack: small count": lambda core, a: core.unpack(a.words[0], 32, -1),
    "unpack: negative count": lambda core, a: core.unpack(a.words[0], -1, -1),
    "unpack: axis": lambda core, a: core.unpack(a.words[0], 33, 4),
    "unpack: dtype": lambda core, a: core.unpack(a.words[0], 33, -1, np.complex64),
    "unpack: not a dtype": lambda core, a: core.unpack(a.words[0], 33, -1, "nonsense"),
    "unpack: 0-d": lambda core, a: core.unpack(np.uint32(1), 1, 0),
    "select: shape of mask": lambda core, a: core.select(a.x, a.mask[:1], -1),
    "select: rank of mask": lambda core, a: core.select(a.x, a.mask[0], -1),
    "select: dtype of mask": lambda core, a: core.select(a.x, a.mask.astype(float), -1),
    "select: axis": lambda core, a: core.select(a.x, a.mask, 4),
    "prepare: dtype": lambda core, a: core.prepare(a.kernel, 1, 33, False),
    "prepare: rank": lambda core, a: core.prepare(a.packed[0, 0, 0, 0], 1, 33, False),
    "prepare: channels": lambda core, a: core.prepare(a.packed, 1, 65, False),
    "prepare: negative channels": lambda core, a: core.prepare(a.packed, 1, -1, False),
    "prepare: groups": lambda core, a: core.prepare(a.packed, 0, 33, False),
    "prepare: groups divide": lambda core, a: core.prepare(a.packed, 2, 33, False),
    "prepare: huge": lambda core, a: core.prepare(a.packed, 1, 2**62, False),
    "xnor: dtype": lambda core, a: core.xnor(a.x, a.right, a.geometry, 0, False, np.int32),
    "xnor: rank": lambda core, a: core.xnor(a.words[0, 0, 0], a.right, a.geometry, 0, False, np.int32),
    "xnor: batch": lambda core, a: core.xnor(a.words[:, :1], a.right, a.geometry, 0, False, np.int32),
    "xnor: pixels": lambda core, a: core.xnor(a.words[:, :, 1:], a.right, a.geometry, 0, False, np.int32),
    "xnor: words": lambda core, a: core.xnor(a.words[..., :1], a.right, a.geometry, 0, False, np.int32),
    "xnor: pad": lambda core, a: core.xnor(a.words, a.right, a.geometry, 0.5, False, np.int32),
    "xnor: pad nan": lambda core, a: core.xnor(a.words, a.right, a.geometry, np.nan, False, np.int32),
    "xnor: result": lambda core, a: core.xnor(a.words, a.right, a.geometry, 0, False, np.float64),
    "xnor: blob dtype": lambda core, a: core.xnor(a.words, a.x, a.geometry, 0, False, np.int32),
    "xnor: blob size": lambda core, a: core.xnor(a.words, a.right[:-64], a.geometry, 0, False, np.int32),
    "xnor: empty blob": lambda core, a: core.xnor(a.words, a.right[:0], a.geometry, 0, False, np.int32),
    "xnor: none": lambda core, a: core.xnor(None, None, a.geometry, 0, False, np.int32),
    "signed_right: rank": lambda core, a: core.signed_right(a.x[0, 0, 0], a.right, a.geometry, 0.0, False),
    "signed_right: channels": lambda core, a: core.signed_right(a.x[..., 1:], a.right, a.geometry, 0.0, False),
    "signed_right: pixels": lambda core, a: core.signed_right(a.x[:, 1:], a.right, a.geometry, 0.0, False),
    "signed_right: blob": lambda core, a: core.signed_right(a.x, a.right[:-64], a.geometry, 0.0, False),
    "signed_right: pad": lambda core, a: core.signed_right(a.x, a.right, a.geometry, "0", False),
    "signed_right: complex": lambda core, a: core.signed_right(a.x + 1j, a.right, a.geometry, 0.0, False),
    "signed_left: kernel": lambda core, a: core.signed_left(a.words, a.kernel[..., 1:], a.geometry, 0),
    "signed_left: taps": lambda core, a: core.signed_left(a.words, a.kernel[1:], a.geometry, 0),
    "signed_left: depth": lambda core, a: core.signed_left(a.words, a.kernel[:, :, 1:], a.geometry, 0),
    "signed_left: pad": lambda core, a: core.signed_left(a.words, a.kernel, a.geometry, 2),
    "signed_reduce: dy": lambda core, a: core.signed_reduce(a.words, a.dy[..., 1:], a.geometry, 0),
    "signed_reduce: pixels": lambda core, a: core.signed_reduce(a.words, a.dy[:, 1:], a.geometry, 0),
    "signed_reduce: pad": lambda core, a: core.signed_reduce(a.words, a.dy, a.geometry, 0.5),
    "im2col: integers": lambda core, a: core.im2col(a.words, a.geometry, 0.0),
    "im2col: channels": lambda core, a: core.im2col(a.x[..., 1:], a.geometry, 0.0),
    "col2im: rows": lambda core, a: core.col2im(a.columns[:, 1:], a.geometry),
    "col2im: rank": lambda core, a: core.col2im(a.columns[0], a.geometry),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_argument(variant, rng, case):
    class a:
        x, kernel = floats(rng, GOOD.input_shape), floats(rng, GOOD.kernel_shape)
        dy = floats(rng, GOOD.output_shape)
        words, mask = ref.pack(x), ref.pack_bits(np.abs(x) <= 1)
        packed = ref.pack(kernel, -2)
        geometry = GOOD.geometry
        right = prepared(variant, GOOD, kernel)
        columns = variant.im2col(x, geometry, 0.0)

    with pytest.raises((TypeError, ValueError), match=case.split(":")[0]):
        BAD[case](variant, a)


def test_wrong_number_of_arguments(variant):
    for name in ("pack", "unpack", "select", "prepare", "xnor", "signed_right", "im2col", "col2im"):
        with pytest.raises(TypeError):
            getattr(variant, name)()
        with pytest.raises(TypeError):
            getattr(variant, name)(*range(12))
