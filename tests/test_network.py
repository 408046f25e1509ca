"""Batch norm, pooling, the rectifier and updates: every kernel on every level against NumPy.

Maps and updates have one order of operations, so they are NumPy's to the bit; so are the largest
values. Sums are compared within the bound of their depth, and have the same bits on every level
and at every number of threads.
"""

import re

import numpy as np
import pytest
import reference as ref
from conftest import assert_sum

import bnnlayers as lq
from bnnlayers import _core, keras
from bnnlayers.geometry import convolution
from bnnlayers.ops import elementwise, norm, pool, update

CHANNELS = [1, 2, 3, 5, 10, 31, 32, 33, 48, 63, 64, 65, 100, 127, 128, 129, 300]


@pytest.fixture
def each_thread_count():
    """Calls a function at one and at two threads, and demands the same bits of both."""
    before = _core.get_num_threads()

    def call(function, *args):
        results = []
        for count in (1, 2):
            _core.set_num_threads(count)
            results.append(function(*args))
        np.testing.assert_equal(*results)
        return results[0]

    yield call
    _core.set_num_threads(before)


# ---- batch norm ----------------------------------------------------------------------------------

# A lane adds up at most 64 rows, four at a time, then up to 64 lanes are folded into a channel; the
# rest is double precision and the rounding of the result.
DEPTH = 64 // 4 + 5 + 64 + 1


# How many rows are tried with each number of channels; the last of some are many blocks, and work for two threads.
ROWS = {channels: [1, 2, 7, 70, 513] for channels in CHANNELS}
for channels, rows in {3: 40_001, 32: 20_000, 64: 9_001, 129: 3_000}.items():
    ROWS[channels].append(rows)


EPSILON = np.float32(1e-3)


@pytest.mark.parametrize("channels", CHANNELS)
def test_moments(variant, each_thread_count, rng, channels):
    for rows in ROWS[channels]:
        x = (rng.normal(size=(rows, channels)) * 3 + rng.normal(size=channels)).astype(np.float32)
        mean, variance, inverse = each_thread_count(variant.moments, x, EPSILON)
        wide = x.astype(np.float64)
        assert_sum(mean, wide.mean(0), DEPTH, np.abs(wide).mean(0))
        # Each term has two roundings more, and a mean that is off by d adds d ** 2.
        off = np.finfo(np.float32).eps * DEPTH * np.abs(wide).mean(0)
        assert_sum(variance, wide.var(0), DEPTH + 2, wide.var(0) + off**2 / np.finfo(np.float32).eps)
        np.testing.assert_array_equal(inverse, 1 / np.sqrt(variance + EPSILON))


@pytest.mark.parametrize("channels", CHANNELS)
def test_averages_move(variant, rng, channels):
    x = rng.normal(size=(70, channels)).astype(np.float32)
    mean, variance = rng.normal(size=(2, channels)).astype(np.float32)
    rate, unbiased = np.float32(0.01), np.float32(70 / 69)
    found = variant.moments(x, EPSILON)
    expected = mean - (mean - found[0]) * rate, variance - (variance - found[1] * unbiased) * rate
    np.testing.assert_array_equal(variant.moments(x, EPSILON, mean, variance, rate, unbiased), found)
    np.testing.assert_array_equal((mean, variance), expected)


@pytest.mark.parametrize("offset", [0.0, 100.0, 1e4])
@pytest.mark.parametrize("channels", [3, 64])
def test_variance_far_from_zero(variant, rng, offset, channels):
    """The error grows with the offset, where that of a difference of squares would with its square."""
    x = (rng.normal(size=(10_000, channels)) + offset).astype(np.float32)
    mean, variance, _ = variant.moments(x, EPSILON)
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(variance, x.astype(np.float64).var(0), rtol=1e-5 + 2e-8 * offset)


@pytest.mark.parametrize("channels", CHANNELS)
def test_norm_sums(variant, each_thread_count, rng, channels):
    for rows in ROWS[channels]:
        x, dy = rng.normal(size=(2, rows, channels)).astype(np.float32)
        mean, inverse = rng.normal(size=(2, channels)).astype(np.float32)
        total, products, shift, slope = each_thread_count(variant.norm_sums, x, dy, mean, inverse)
        wide = dy.astype(np.float64)
        assert_sum(total, wide.sum(0), DEPTH, np.abs(wide).sum(0))
        wide = wide * (x.astype(np.float64) - mean) * inverse
        assert_sum(products, wide.sum(0), DEPTH + 3, np.abs(wide).sum(0))
        np.testing.assert_array_equal(shift, total / np.float32(rows))
        np.testing.assert_array_equal(slope, products * inverse / np.float32(rows))


@pytest.mark.parametrize("channels", [1, 3, 32, 64, 96, 130, 2048])
def test_norm_sums_go_on(variant, rng, channels):
    """Sums of several calls are those of one, to the bit."""
    block = variant.norm_rows(channels)
    rows = 3 * block + 7
    x, dy = rng.normal(size=(2, rows, channels)).astype(np.float32)
    mean, inverse = rng.normal(size=(2, channels)).astype(np.float32)
    for step in (block, 2 * block, 4 * block):
        before = np.zeros((2, channels))
        for first in range(0, rows, step):
            part = slice(first, first + step)
            found = variant.norm_sums(x[part], dy[part], mean, inverse, None, False, before, first)
        np.testing.assert_array_equal(found, variant.norm_sums(x, dy, mean, inverse))
        np.testing.assert_array_equal(before[0].astype(np.float32), found[0])


@pytest.mark.parametrize("channels", [3, 63, 64, 96, 130])
@pytest.mark.parametrize("rows", [0, 1, 7, 600])
def test_rows_that_lie_apart(variant, rng, rows, channels):
    """Part of the channels of an array, as one of several that are joined: the same bits, read where they lie."""
    wide = rng.standard_normal((rows, 2, channels + 70)).astype(np.float32)
    dy = rng.standard_normal((rows, 2, channels)).astype(np.float32)
    row = rng.standard_normal((4, channels)).astype(np.float32)
    for x in (wide[..., :channels], wide[..., 5 : 5 + channels], wide[:, ::-1, :channels], wide[..., :channels][:, :1]):
        whole, flow = x.copy(), dy[:, : x.shape[1]].copy()
        np.testing.assert_array_equal(variant.moments(x, EPSILON), variant.moments(whole, EPSILON))
        for function, args in {
            "norm_sums": (flow, *row[:2]),
            "normalize": tuple(row[:3]),
            "normalize_grad": (flow, *row),
        }.items():
            found, expected = (getattr(variant, function)(a, *args) for a in (x, whole))
            np.testing.assert_array_equal(found, expected)
        if channels % 32 == 0:
            for found, expected in zip(
                variant.normalize_sign(x, *row[:3], 1.0), variant.normalize_sign(whole, *row[:3], 1.0), strict=True
            ):
                np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("function", ["moments", "norm_sums"])
@pytest.mark.parametrize("channels", [3, 64, 65])
def test_sums_are_the_same_bits_on_every_level(rng, function, channels):
    x, dy = rng.normal(size=(2, 1_000, channels)).astype(np.float32)
    args = (x, EPSILON) if function == "moments" else (x, dy, x[0], x[1])
    first, *others = (getattr(v, function)(*args) for v in _core.variants.values())
    for other in others:
        np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize("channels", CHANNELS)
def test_normalize(variant, each_thread_count, rng, channels):
    for rows in ROWS[channels]:
        x = rng.normal(size=(rows, channels)).astype(np.float32)
        mean, scale, shift = rng.normal(size=(3, channels)).astype(np.float32)
        y = each_thread_count(variant.normalize, x, mean, scale, shift)
        np.testing.assert_array_equal(y, (x - mean) * scale + shift)
        y = each_thread_count(variant.normalize, x, mean, scale, None)
        np.testing.assert_array_equal(y, (x - mean) * scale)


@pytest.mark.parametrize("channels", CHANNELS)
def test_normalize_grad(variant, each_thread_count, rng, channels):
    for rows in ROWS[channels]:
        x, dy = rng.normal(size=(2, rows, channels)).astype(np.float32)
        mean, scale, shift, slope = rng.normal(size=(4, channels)).astype(np.float32)
        dx = each_thread_count(variant.normalize_grad, x, dy, mean, scale, shift, slope)
        np.testing.assert_array_equal(dx, ((dy - shift) - (x - mean) * slope) * scale)


# What signs and masks of channels are made of are whole words.
WORDS = {channels: ROWS[channels] for channels in CHANNELS if channels % 32 == 0} | {96: [9, 2_000], 160: [7]}


@pytest.mark.parametrize("channels", WORDS)
@pytest.mark.parametrize("clip", [None, 0.7])
def test_normalize_sign(variant, each_thread_count, rng, channels, clip):
    for rows in WORDS[channels]:
        x = rng.normal(size=(rows, 1, channels)).astype(np.float32)
        mean, scale, shift = rng.normal(size=(3, channels)).astype(np.float32)
        shift[:3], x[:, :, :3] = [-0.0, 0.0, clip or 1], mean[:3]
        for offset in (shift, None):
            words, within, nan, floats = each_thread_count(variant.normalize_sign, x, mean, scale, offset, clip)
            expected = variant.pack(variant.normalize(x, mean, scale, offset), -1, clip)
            np.testing.assert_array_equal(words, expected[0])
            assert nan is False and floats is None and (within is None) == (clip is None)
            np.testing.assert_array_equal(within, expected[1])
    x[-1, 0, 5] = np.nan
    assert variant.normalize_sign(x, mean, scale, None, clip)[2] is True


@pytest.mark.parametrize("pieces", [(32,), (64, 64), (32, 96, 64), (32,) * 9])
@pytest.mark.parametrize("rows", [0, 1, 7, 300])
def test_pieces_side_by_side(variant, each_thread_count, rng, rows, pieces):
    """Read where they lie, also apart, they give the bits of the whole."""
    channels, ends = sum(pieces), np.cumsum(pieces)[:-1]
    whole, dy = rng.standard_normal((2, 2, rows, channels)).astype(np.float32)
    row = rng.standard_normal((4, channels)).astype(np.float32)
    mask = variant.pack(whole, -1, 0.7)[1]
    for x in (tuple(np.split(whole, ends, -1)), tuple(p.copy() for p in np.split(whole, ends, -1))):
        for function, args in {
            "norm_sums": (dy, *row[:2], mask),
            "normalize": (*row[:2], None),
            "normalize_sign": (*row[:3], 1.0),
        }.items():
            function = getattr(variant, function)
            np.testing.assert_equal(each_thread_count(function, x, *args), function(whole, *args))
        expected = np.split(variant.normalize_grad(whole, dy, *row, mask), ends, -1)
        np.testing.assert_equal(each_thread_count(variant.normalize_grad, x, dy, *row, mask), tuple(expected))
        before = [rng.standard_normal(p.shape).astype(np.float32) for p in x]
        out = tuple(b.copy() for b in before)
        found = variant.normalize_grad(x, dy, *row, mask, out, True)
        assert all(f is o for f, o in zip(found, out, strict=True))
        np.testing.assert_equal(found, tuple(b + e for b, e in zip(before, expected, strict=True)))


@pytest.mark.parametrize("channels", [1, 5, 33, 64, 129])
def test_a_gradient_of_norm_is_added_to_another(variant, rng, each_thread_count, channels):
    x, dy, before = rng.normal(size=(3, 500, channels)).astype(np.float32)
    row = rng.normal(size=(4, channels)).astype(np.float32)
    out = before.copy()
    assert variant.normalize_grad(x, dy, *row, None, out, add=True) is out
    np.testing.assert_array_equal(out, before + variant.normalize_grad(x, dy, *row))
    with pytest.raises(ValueError, match=r"normalize_grad\(\).*'out'"):
        variant.normalize_grad(x, dy, *row, add=True)


def test_moments_of_a_channel_are_those_of_an_array_of_its_own(variant, rng):
    x = rng.standard_normal((3, 1000, 160)).astype(np.float32)
    for begin, end in ((0, 64), (96, 160), (10, 130)):
        part = variant.moments(x[..., begin:end].copy(), EPSILON)
        np.testing.assert_array_equal(part, variant.moments(x, EPSILON)[:, begin:end])


@pytest.mark.parametrize("channels", WORDS)
def test_gradients_under_a_mask(variant, each_thread_count, rng, channels):
    for rows in WORDS[channels]:
        x, dy = rng.normal(size=(2, rows, channels)).astype(np.float32)
        mean, inverse, scale, shift, slope = rng.normal(size=(5, channels)).astype(np.float32)
        mask = variant.pack(x, -1, 0.7)[1]
        selected = variant.select(dy, mask, -1)
        np.testing.assert_array_equal(
            each_thread_count(variant.norm_sums, x, dy, mean, inverse, mask),
            variant.norm_sums(x, selected, mean, inverse),
        )
        expected = variant.normalize_grad(x, selected, mean, scale, shift, slope)
        for out in (np.empty_like(x), x.copy(), dy.copy()):
            dx = variant.normalize_grad(x, dy, mean, scale, shift, slope, mask, out)
            assert dx is out
            np.testing.assert_array_equal(dx, expected)
        dx = variant.normalize_grad(x, selected, mean, scale, shift, slope, None, selected)
        np.testing.assert_array_equal(dx, expected)


@pytest.mark.parametrize("channels", [1, 5, 33, 64, 129])
def test_a_gradient_of_norm_may_overwrite_what_it_reads(variant, rng, each_thread_count, channels):
    x, dy = rng.normal(size=(2, 500, channels)).astype(np.float32)
    mean, scale, shift, slope = rng.normal(size=(4, channels)).astype(np.float32)
    expected = variant.normalize_grad(x, dy, mean, scale, shift, slope)

    def into(which):
        operands = [x.copy(), dy.copy(), np.full_like(x, np.nan)]
        out = operands[which]
        assert variant.normalize_grad(*operands[:2], mean, scale, shift, slope, out=out) is out
        return out

    for which in range(3):
        np.testing.assert_array_equal(each_thread_count(into, which), expected)


def assert_same_bits(found, expected):
    """Also of zeros; one NaN is like another."""
    np.testing.assert_array_equal(found, expected)
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found)[number], np.signbit(expected)[number])


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("channels", CHANNELS)
def test_norm_of_integers(variant, each_thread_count, rng, channels, rectified):
    """The same bits as of the same numbers as floats, wherever they lie."""
    for rows in (0, *ROWS[channels]):
        wide = rng.integers(-(2**15), 2**15, (rows, channels + 70)).astype(np.int16)
        dy = rng.normal(size=(rows, channels)).astype(np.float32)
        row = rng.normal(size=(4, channels)).astype(np.float32)
        apart, reverse = wide[:, :channels], wide[::-1, channels - 1 :: -1]
        for x in (apart.copy(), apart, reverse[:, :channels], apart.astype(">i2")):
            floats = x.astype(np.float32)
            for function, *args in (
                ("moments", EPSILON, None, None, 0.0, 1.0),
                ("norm_sums", dy, *row[:2], None),
                ("normalize", *row[:3], None),
                ("normalize", *row[:2], None, dy),
            ):
                function = getattr(variant, function)
                expected = function(floats, *args, rectified)
                np.testing.assert_array_equal(each_thread_count(function, x, *args, rectified), expected)
            expected = variant.normalize_grad(floats, dy, *row, rectified=rectified)
            np.testing.assert_array_equal(variant.normalize_grad(x, dy, *row, rectified=rectified), expected)
            if channels % 32 == 0:
                args = (*row[:3], 1.0, None, rectified, True)
                np.testing.assert_equal(variant.normalize_sign(x, *args), variant.normalize_sign(floats, *args))


def test_integers_and_floats_side_by_side(variant, each_thread_count, rng):
    whole = rng.integers(-600, 600, (500, 160)).astype(np.float32)
    pieces = whole[:, :32], whole[:, 32:96].astype(np.int16), whole[:, 96:].copy()
    dy, before = rng.normal(size=(2, 500, 160)).astype(np.float32)
    row = rng.normal(size=(4, 160)).astype(np.float32)
    for function, args in {
        "norm_sums": (dy, *row[:2]),
        "normalize": (*row[:2], None),
        "normalize_sign": (*row[:3], 1.0),
        "normalize_grad": (dy, *row),
    }.items():
        expected = getattr(variant, function)(whole, *args)
        if function == "normalize_grad":
            expected = tuple(np.split(expected, [32, 96], -1))
        np.testing.assert_equal(each_thread_count(getattr(variant, function), pieces, *args), expected)
    out = tuple(p.copy() for p in np.split(before, [32, 96], -1))
    found = variant.normalize_grad(pieces, dy, *row, None, out, True)
    np.testing.assert_array_equal(np.concatenate(found, -1), before + variant.normalize_grad(whole, dy, *row))
    with pytest.raises(TypeError, match=r"normalize_grad\(\): argument 'out'"):
        variant.normalize_grad(pieces[1], dy[:, 32:96], *row[:, 32:96], out=pieces[1].copy())
    with pytest.raises(TypeError, match=r"moments\(\): argument 'x' must be a float32 array, got int32"):
        variant.moments(pieces[1].astype(np.int32), EPSILON)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("special", [[-0.0, 0, -1e-45, 1e-45], [np.nan, -np.inf, np.inf]])
def test_norm_of_what_is_rectified(variant, each_thread_count, rng, channels, special):
    """The same bits as after a pass of the rectifier."""
    for rows in ROWS[channels][:5]:
        x, dy = rng.normal(size=(2, rows, channels)).astype(np.float32)
        x.flat[rng.integers(0, x.size, 5)] = rng.choice(np.float32(special), 5)
        mean, scale, shift, slope = rng.normal(size=(4, channels)).astype(np.float32)
        y, positive = variant.rectify(x, np.inf, np.inf, True)
        for function, *args in (
            ("moments", EPSILON, None, None, 0.0, 1.0),
            ("norm_sums", dy, mean, scale, None),
            ("normalize", mean, scale, shift, None),
            ("normalize", mean, scale, None, dy),
        ):
            found = each_thread_count(getattr(variant, function), x, *args, True)
            assert_same_bits(found, getattr(variant, function)(y, *args))
        expected = variant.normalize_grad(y, dy, mean, scale, shift, slope)
        expected = variant.select(expected.reshape(-1), positive, 0).reshape(x.shape)
        found = each_thread_count(variant.normalize_grad, x, dy, mean, scale, shift, slope, None, None, False, True)
        assert_same_bits(found, expected)


@pytest.mark.parametrize("channels", CHANNELS)
def test_normalize_adds(variant, each_thread_count, rng, channels):
    for rows in ROWS[channels]:
        x, addend = rng.normal(size=(2, rows, channels)).astype(np.float32)
        mean, scale, shift = rng.normal(size=(3, channels)).astype(np.float32)
        y = each_thread_count(variant.normalize, x, mean, scale, shift, addend)
        np.testing.assert_array_equal(y, (x - mean) * scale + shift + addend)


@pytest.mark.parametrize("channels", WORDS)
@pytest.mark.parametrize("rectified", [False, True])
def test_signs_and_floats_of_a_sum(variant, each_thread_count, rng, channels, rectified):
    for rows in WORDS[channels]:
        x, addend = rng.normal(size=(2, rows, channels)).astype(np.float32)
        mean, scale, shift = rng.normal(size=(3, channels)).astype(np.float32)
        expected = variant.normalize(x, mean, scale, shift, addend, rectified)
        for floats in (False, True):
            args = x, mean, scale, shift, 0.7, addend, rectified, floats
            words, within, nan, y = each_thread_count(variant.normalize_sign, *args)
            np.testing.assert_array_equal(words, variant.pack(expected, -1, 0.7)[0])
            np.testing.assert_array_equal(within, variant.pack(expected, -1, 0.7)[1])
            assert nan is False and (y is None) == (not floats)
            if floats:
                np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "axis"), [((7, 65), 1), ((33, 20), 0), ((3, 40, 5), 1), ((300,), 0), ((0, 4), 1)])
def test_select_may_overwrite_what_it_reads(variant, rng, dtype, shape, axis):
    dy = rng.normal(size=shape).astype(dtype)
    mask = variant.pack(dy, axis, 0.7)[1]
    expected = variant.select(dy, mask, axis)
    for out in (np.full_like(dy, np.nan), dy):
        assert variant.select(dy, mask, axis, out) is out
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "axis"), [((7, 64), 1), ((7, 65), 1), ((33, 20), 0), ((3, 40, 5), 1), ((0, 4), 1)])
def test_select_adds(variant, each_thread_count, rng, dtype, shape, axis):
    dy, before = rng.normal(size=(2, *shape)).astype(dtype)
    mask = variant.pack(dy, axis, 0.7)[1]
    expected = before + variant.select(dy, mask, axis)
    np.testing.assert_array_equal(
        each_thread_count(lambda: variant.select(dy, mask, axis, before.copy(), True)), expected
    )
    np.testing.assert_array_equal(variant.select(dy, mask, axis, None, True), variant.select(dy, mask, axis))


@pytest.mark.parametrize("shape", [(0, 3), (5, 0), (0, 0), (2, 0, 64)])
def test_norm_of_nothing(variant, shape):
    x, channel = np.zeros(shape, np.float32), np.ones(shape[-1], np.float32)
    mean, variance, inverse = variant.moments(x, EPSILON)
    np.testing.assert_array_equal((mean, variance), np.zeros((2, shape[-1])))
    np.testing.assert_array_equal(inverse, 1 / np.sqrt(np.full(shape[-1], EPSILON)))
    np.testing.assert_array_equal(variant.norm_sums(x, x, channel, channel), np.zeros((4, shape[-1])))
    assert variant.normalize(x, channel, channel, None).shape == shape
    assert variant.normalize_grad(x, x, channel, channel, channel, channel).shape == shape
    if shape[-1] % 32 == 0:
        words, within, nan, _ = variant.normalize_sign(x, channel, channel, None, 1.0)
        assert words.shape == (1, *shape[:-1], shape[-1] // 32) and within.shape == words.shape[1:] and not nan


def test_norm_does_not_hide_what_is_not_finite(variant, rng):
    x = rng.normal(size=(300, 4)).astype(np.float32)
    x[200] = [np.nan, np.inf, -np.inf, 0]
    mean, variance, inverse = variant.moments(x, EPSILON)
    np.testing.assert_array_equal(mean[:3], [np.nan, np.inf, -np.inf])
    assert np.isnan(variance[:3]).all() and np.isnan(inverse[:3]).all()
    assert np.isfinite(mean[3]) and np.isfinite(variance[3])


def test_norm_reads_any_layout(variant, rng):
    x = np.asfortranarray(rng.normal(size=(6, 5, 40)).astype(np.float32))[:, ::2]
    np.testing.assert_array_equal(variant.moments(x, EPSILON), variant.moments(x.copy(), EPSILON))
    dy = np.broadcast_to(np.float32(2), x.shape)
    np.testing.assert_array_equal(variant.norm_sums(x, dy, x[0, 0], x[0, 1])[0], np.full(40, 2 * 18))


@pytest.mark.parametrize("shape", [(9, 6), (4, 5, 3, 33)])
@pytest.mark.parametrize("gamma", [True, False])
@pytest.mark.parametrize("beta", [True, False])
@pytest.mark.parametrize("inference", [True, False])
def test_normalization_is_that_of_numpy(rng, shape, gamma, beta, inference):
    """The kernels that float32 goes through, and NumPy's path, which float64 does."""
    axes = tuple(range(len(shape) - 1))
    values = rng.normal(size=shape), *rng.normal(size=(2, shape[-1]))
    weights = rng.normal(size=shape)
    results = []
    for dtype in (np.float32, np.float64):
        x, *parameters = (lq.constant(v.astype(dtype)) for v in values)
        parameters = [p if on else None for p, on in zip(parameters, (gamma, beta), strict=True)]
        moving = np.zeros(shape[-1], dtype), np.ones(shape[-1], dtype)
        mean, inverse = norm.moments(np.asarray(x), axes, 1e-3, (*moving, 0.1, 1.5))
        assert mean.dtype == inverse.dtype == dtype
        sources = [x, *(p for p in parameters if p is not None)]
        with lq.GradientTape() as tape:
            for source in sources:
                tape.watch(source)
            y = norm.normalize(x, *parameters, mean=mean, inverse=inverse, axes=None if inference else axes)
        assert y.dtype == dtype
        results.append([*moving, y, *tape.gradient(y, sources, output_gradients=weights.astype(dtype))])
    for actual, expected in zip(*results, strict=True):
        assert actual.dtype == np.float32 and actual.shape == expected.shape
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(7,), (1, 7), (1, 1, 7), (5, 1, 7), (1,), (5, 1, 1)])
def test_parameters_of_other_shapes(rng, shape):
    """A number per channel may have leading axes; anything else broadcasts as NumPy does."""
    x, gamma = rng.normal(size=(5, 4, 7)).astype(np.float32), rng.normal(size=shape).astype(np.float32)
    mean, inverse = norm.moments(x, (0, 1), 1e-3)
    source = lq.constant(gamma)
    with lq.GradientTape() as tape:
        tape.watch(source)
        y = norm.normalize(x, source, None, mean=mean, inverse=inverse, axes=(0, 1))
    normal = (x - mean) * inverse
    np.testing.assert_allclose(y, normal * gamma, rtol=1e-5, atol=1e-6)
    gradient = tape.gradient(y, source)
    axes = tuple(i for i, n in enumerate((1,) * (3 - len(shape)) + shape) if n == 1)
    expected = normal.sum(axis=axes, keepdims=True).reshape(shape)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)


class Chain:
    """A convolution, a batch norm, and a convolution that takes the signs of what comes out; also in between."""

    def __init__(self, channels=32, between=False, **arguments):
        keras.utils.set_random_seed(2)
        x = keras.layers.Input((6, 6, 4))
        y = normalized = keras.layers.BatchNormalization(**arguments)(lq.layers.QuantConv2D(channels, 3)(x))
        self.last = lq.layers.QuantConv2D(8, 3, input_quantizer="ste_sign", kernel_quantizer="ste_sign")
        y = self.last(y)
        self.model = keras.models.Model(x, [y, normalized] if between else y)

    def __call__(self, x, training):
        y = self.model(x, training=training)
        return y[0] if isinstance(y, list) else y

    def train(self, x):
        """Outputs, gradients of a loss, the weights of the norm, and the operations that keep something."""
        with lq.GradientTape() as tape:
            y = self(x, training=True)
            loss = np.sum(y * np.cos(np.arange(y.size).reshape(y.shape).astype(np.float32)))
        kept = [name for name, _ in tape.kept()]
        gradients = tape.gradient(loss, self.model.trainable_variables)
        return [y, *gradients, *self.model.get_weights(), self(x, training=False)], kept


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("channels", [8, 32])
def test_signs_of_what_is_normalized(rng, scale, center, channels):
    """The same bits as through floats, which are made where someone else reads them."""
    x = lq.constant(rng.normal(size=(3, 6, 6, 4)).astype(np.float32))
    (one, kept), (other, kept_between) = (
        Chain(channels, between, scale=scale, center=center).train(x) for between in (False, True)
    )
    assert ("normalize_sign" in kept) == (channels == 32) and "normalize_sign" not in kept_between
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_signs_of_what_is_normalized_to_nan(rng):
    x = rng.normal(size=(3, 6, 6, 4)).astype(np.float32)
    x[1, 2, 3] = np.nan
    chain = Chain()
    assert np.isnan(chain.train(lq.constant(x))[0][0]).all()
    assert chain.last.arithmetic == ("signed",)


def test_who_reads_what_is_normalized():
    """Only a layer of ours that takes signs waits for it."""

    class Watching(lq.layers.QuantConv2D):
        def call(self, inputs):
            assert isinstance(inputs, lq.Tensor)
            return super().call(inputs)

    class Shifted(keras.layers.BatchNormalization):
        def call(self, inputs, training=None):
            return super().call(inputs, training=training) + 1

    x = lq.constant(np.ones((2, 5, 5, 32), np.float32))
    for norm_class, conv, quantizer in (
        (keras.layers.BatchNormalization, Watching, "ste_sign"),
        (Shifted, lq.layers.QuantConv2D, "ste_sign"),
        (keras.layers.BatchNormalization, lq.layers.QuantConv2D, "ste_tern"),
        (keras.layers.BatchNormalization, lq.layers.QuantConv2D, "approx_sign"),
        (keras.layers.BatchNormalization, lq.layers.QuantConv2D, None),
    ):
        model = keras.models.Sequential([norm_class(input_shape=(5, 5, 32)), conv(4, 3, input_quantizer=quantizer)])
        with lq.GradientTape() as tape:
            model(x, training=True)
        assert "normalize_sign" not in [name for name, _ in tape.kept()]
        assert isinstance(model.layers[0](x), lq.Tensor)


SIGNS = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}


class Counting:
    """A product of bits whose only reader is a norm, or what leads to one."""

    KINDS = {
        "signs": SIGNS,
        "long": {**SIGNS, "filters": 160},
        "padded": {**SIGNS, "padding": "same", "pad_values": 1.0, "strides": 2},
        "ternary": {"input_quantizer": "ste_tern", "kernel_quantizer": "ste_tern"},
        "levels": {"input_quantizer": lq.quantizers.DoReFa(2), "kernel_quantizer": "ste_sign"},
        "scaled": {"input_quantizer": "ste_sign", "kernel_quantizer": "magnitude_aware_sign"},
        "floats": {"kernel_quantizer": "ste_sign"},
        "rectified": {**SIGNS, "activation": "relu"},
        "biased": {**SIGNS, "use_bias": True},
        "first": {**SIGNS, "data_format": "channels_first"},
    }

    def __init__(self, kind, between, waits=True, channels=128):
        keras.utils.set_random_seed(3)
        layers, options = keras.layers, {"use_bias": False, "filters": 64, "kernel_size": 3, **self.KINDS[kind]}
        first = options.get("data_format") == "channels_first"
        inputs = layers.Input((channels, 8, 8) if first else (8, 8, channels))
        self.layer = lq.layers.QuantConv2D(**options)
        x = product = self.layer(inputs)
        if between == "pool":
            x = layers.MaxPooling2D(2, data_format="channels_first" if first else None)(x)
        elif between == "join":
            x = layers.concatenate(
                [layers.Conv2D(64, 3, **{k: options[k] for k in ("padding", "strides") if k in options})(inputs), x]
            )
        x = layers.BatchNormalization(axis=1 if first else -1)(x)
        if between == "twice":
            x = layers.concatenate([x, layers.BatchNormalization(scale=False)(product)])
        self.model = keras.models.Model(inputs, x if waits else [x, product])

    def train(self, x):
        with lq.GradientTape() as tape:
            tape.watch(x)
            y = self.model(x, training=True)
            y = y[0] if isinstance(y, list) else y
            loss = np.sum(y * np.cos(np.arange(y.size).reshape(y.shape).astype(np.float32)))
        gradients = tape.gradient(loss, [x, *self.model.trainable_variables])
        y = self.model(x, training=False)
        return [y[0] if isinstance(y, list) else y, *gradients, *self.model.get_weights()]


@pytest.mark.parametrize("between", ["", "pool", "join", "twice"])
@pytest.mark.parametrize("kind", Counting.KINDS)
def test_integers_instead_of_floats(rng, kind, between):
    """The same bits, whether a norm gets the integers of a product or, since others read it too, its floats."""
    if kind == "first" and between:
        return
    x = rng.normal(size=(3, 8, 8, 128)).astype(np.float32)
    x = lq.constant(x.transpose(0, 3, 1, 2).copy() if kind == "first" else x)
    integers, floats = (Counting(kind, between, waits).train(x) for waits in (True, False))
    for a, b in zip(integers, floats, strict=True):
        np.testing.assert_array_equal(a, b)


def test_which_integers_are_kept(rng):
    """Those of long sums, in two bytes each; those of short ones are computed again."""
    found = {}
    for channels in (32, 128):
        counting = Counting("signs", "", channels=channels)
        x = lq.constant(rng.normal(size=(3, 8, 8, channels)).astype(np.float32))
        with lq.GradientTape() as tape:
            y = counting.model(x, training=True)
        assert y.shape == (3, 6, 6, 64)
        found[channels] = dict(tape.kept())
    assert found[128]["normalize"] - found[32].get("normalize", 0) == 2 * 3 * 6 * 6 * 64


def test_integers_on_the_tapes_that_follow_them(rng):
    """One tape watches the kernel, the other only what comes later."""
    counting = Counting("signs", "")
    x = lq.constant(rng.normal(size=(3, 8, 8, 128)).astype(np.float32))
    offset = counting.model.layers[-1].beta
    with lq.GradientTape() as one, lq.GradientTape(watch_accessed_variables=False) as other:
        other.watch(offset)
        y = np.sum(counting.model(x, training=True) ** 2)
    assert "product, xnor" not in dict(other.kept())
    kernel, shift = one.gradient(y, [counting.layer.kernel, offset])
    assert np.any(kernel)
    np.testing.assert_array_equal(other.gradient(y, offset), shift)


def test_integers_that_would_not_fit(rng):
    """Sums of more than 32,767 products stay floats."""
    keras.utils.set_random_seed(4)
    conv, norm = lq.layers.QuantConv2D(4, 3, use_bias=False, **SIGNS), keras.layers.BatchNormalization()
    model = keras.models.Sequential([keras.layers.InputLayer((3, 3, 4096)), conv, norm])
    x = np.ones((2, 3, 3, 4096), np.float32)
    conv.set_weights([np.ones((3, 3, 4096, 4), np.float32)])
    np.testing.assert_allclose(model(x), 9 * 4096 / np.sqrt(1 + 1e-3), rtol=1e-6)
    assert conv.arithmetic == ("xnor",)


def test_a_reader_of_integers_may_be_overridden():
    class Watching(keras.layers.BatchNormalization):
        def call(self, inputs, training=None):
            assert isinstance(inputs, lq.Tensor) and inputs.dtype == np.float32
            return super().call(inputs, training=training)

    for reader in (
        Watching(),
        keras.layers.BatchNormalization(axis=1),
        keras.layers.BatchNormalization(dtype="float64"),
    ):
        conv = lq.layers.QuantConv2D(32, 3, **SIGNS)
        model = keras.models.Sequential([keras.layers.InputLayer((6, 6, 8)), conv, reader])
        x = np.ones((2, 6, 6, 8), np.float32)
        np.testing.assert_array_equal(model(x), reader(conv(x)))


def residual_blocks(kind, channels, between, **arguments):
    """Blocks of a rectified product, its norm, and the sum with what the block reads; `between`, all are outputs."""
    keras.utils.set_random_seed(5)
    layers = keras.layers
    binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "padding": "same", "use_bias": False}
    x = y = layers.Input((6, 6, channels))
    parts = []
    for _ in range(3):
        new = y
        if kind == "norm first":
            parts.append(new := layers.BatchNormalization(**arguments)(new))
        activation = None if kind in ("ReLU", "Activation") else "relu"
        parts.append(new := lq.layers.QuantConv2D(channels, 3, activation=activation, **binary)(new))
        if activation is None:
            parts.append(new := (layers.ReLU() if kind == "ReLU" else layers.Activation("relu"))(new))
        if kind != "norm first":
            parts.append(new := layers.BatchNormalization(**arguments)(new))
        if kind == "both sides":
            parts.append(y := layers.BatchNormalization()(y))
        parts.append(y := y + new if kind == "operator" else layers.Add()([new, y]))
    y = layers.Dense(3)(layers.Flatten()(y))
    return keras.models.Model(x, [y, *parts] if between else y)


def train(model, x):
    """Outputs, gradients and weights after a step, outputs then, and what was kept."""
    with lq.GradientTape() as tape:
        y = model(x, training=True)
        y = y[0] if isinstance(y, list) else y
        loss = np.sum(y * np.cos(np.arange(y.size).reshape(y.shape).astype(np.float32)))
    kept = tape.kept()
    gradients = tape.gradient(loss, model.trainable_variables)
    after = model(x, training=False)
    return [y, *gradients, *model.get_weights(), after[0] if isinstance(after, list) else after], kept


KINDS = ["Add", "operator", "both sides", "ReLU", "Activation", "norm first"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [8, 32, 65])
@pytest.mark.parametrize("arguments", [{}, {"scale": False}, {"center": False}, {"trainable": False}, {"axis": [1, 3]}])
def test_residual_blocks(rng, kind, channels, arguments):
    """The same bits in few passes as in many, which are made where someone else reads what is in between."""
    x = lq.constant(rng.normal(size=(3, 6, 6, channels)).astype(np.float32))
    (one, kept), (other, kept_between) = (
        train(residual_blocks(kind, channels, between, **arguments), x) for between in (False, True)
    )
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
    assert sum(size for _, size in kept) <= sum(size for _, size in kept_between)
    names, between = ([name for name, _ in k] for k in (kept, kept_between))
    assert "add" in between and "relu" in between
    if "axis" not in arguments and kind != "norm first":
        assert "relu" not in names and names.count("add") == 1


def test_a_residual_block_of_nan(rng):
    x = rng.normal(size=(3, 6, 6, 32)).astype(np.float32)
    x[1, 2, 3] = np.nan
    for kind in KINDS:
        one, other = (train(residual_blocks(kind, 32, between), lq.constant(x))[0] for between in (False, True))
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


class Dense:
    """A block in which every norm reads all maps so far, which are joined for those norms alone unless `whole`."""

    def __init__(self, whole=False, frozen=(), widths=(64, 64, 96, 64)):
        keras.utils.set_random_seed(2)
        outputs = []
        inputs = keras.layers.Input((6, 6, 4))
        x = keras.layers.Conv2D(widths[0], 3, padding="same")(inputs)
        binary = dict(padding="same", input_quantizer="ste_sign", kernel_quantizer="ste_sign")
        for i, width in enumerate(widths[1:]):
            y = keras.layers.BatchNormalization(trainable=i not in frozen)(x)
            x = keras.layers.concatenate([x, lq.layers.QuantConv2D(width, 3, **binary)(y)])
            outputs += [x] if whole else []
        y = keras.layers.Activation("relu")(keras.layers.BatchNormalization()(x))
        self.model = keras.models.Model(inputs, [keras.layers.Dense(3)(y), *outputs])

    def train(self, x):
        """Output, gradients of a loss, the weights, the output at inference, and the names of all operations."""

        def run(training):
            y = self.model(x, training=training)
            return y[0] if isinstance(y, list) else y

        with lq.GradientTape(persistent=True) as tape:
            tape.watch(x)
            y = run(True)
            loss = np.sum(y * np.cos(np.arange(y.size).reshape(y.shape).astype(np.float32)))
        names = [name for name, _ in tape.kept()]
        sources = [x, *self.model.trainable_variables]
        gradients = tape.gradient(loss, sources)
        np.testing.assert_equal(tape.gradient(loss, sources), gradients)
        return [y, *gradients, *self.model.get_weights(), run(False)], names


@pytest.mark.parametrize("frozen", [(), (1,), (0, 1, 2)])
@pytest.mark.parametrize("widths", [(64, 64, 96, 64), (32, 32, 32), (64, 80, 64)])
def test_what_is_joined_for_norms(rng, frozen, widths):
    """The same bits as from one array, which is made where someone else reads it or the pieces are too small."""
    x = lq.constant(rng.normal(size=(3, 6, 6, 4)).astype(np.float32))
    (pieces, names), (whole, names_of_whole) = (Dense(w, frozen, widths).train(x) for w in (False, True))
    assert "concatenate" in names_of_whole and ("concatenate" in names) == (widths != (64, 64, 96, 64))
    for a, b in zip(pieces, whole, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_same_array_joined_twice(rng):
    x = keras.layers.Input((5, 5, 64))
    y = keras.layers.BatchNormalization()(keras.layers.concatenate([x, x]))
    model = keras.models.Model(x, keras.layers.BatchNormalization()(keras.layers.concatenate([y, x, y])))
    x = lq.constant(rng.normal(size=(2, 5, 5, 64)).astype(np.float32))
    weights = np.cos(np.arange(2 * 25 * 320, dtype=np.float32)).reshape(2, 5, 5, 320)

    def gradient(call):
        with lq.GradientTape() as tape:
            tape.watch(x)
            loss = np.sum(call(x) * weights)
        return tape.gradient(loss, x)

    def whole(x):
        y = model.layers[2](np.concatenate([x, x], -1), training=True)
        return model.layers[4](np.concatenate([y, x, y], -1), training=True)

    np.testing.assert_allclose(gradient(lambda x: model(x, training=True)), gradient(whole), rtol=1e-5, atol=1e-6)


def test_who_reads_pieces(rng):
    """Only norms and layers that join."""

    class Watching(keras.layers.BatchNormalization):
        def call(self, inputs, training=None):
            assert isinstance(inputs, lq.Tensor)
            return super().call(inputs, training=training)

    class Doubled(keras.layers.Concatenate):
        def call(self, inputs):
            return 2 * super().call(inputs)

    a, b = keras.layers.Input((4, 64)), keras.layers.Input((4, 64))
    values = [lq.constant(rng.normal(size=(2, 4, 64)).astype(np.float32)) for _ in range(2)]
    for reader, join in (
        (keras.layers.BatchNormalization(), keras.layers.Concatenate()),
        (keras.layers.BatchNormalization(axis=1), keras.layers.Concatenate()),
        (keras.layers.BatchNormalization(), keras.layers.Concatenate(axis=1)),
        (keras.layers.BatchNormalization(dtype="float64"), keras.layers.Concatenate()),
        (Watching(), keras.layers.Concatenate()),
        (keras.layers.BatchNormalization(), Doubled()),
        (keras.layers.Dense(3), keras.layers.Concatenate()),
        (keras.layers.LayerNormalization(), keras.layers.Concatenate(axis=-1)),
        (keras.layers.Concatenate(axis=1), keras.layers.Concatenate()),
    ):
        joined = join([a, b])
        y = reader([joined, joined]) if isinstance(reader, keras.layers.Concatenate) else reader(joined)
        model = keras.models.Model([a, b], y)
        assert isinstance(join(values), lq.Tensor)
        whole = join(values)
        expected = reader([whole, whole] if isinstance(reader, keras.layers.Concatenate) else whole)
        np.testing.assert_array_equal(model(values), expected)


# ---- pooling -------------------------------------------------------------------------------------

# Spatial axes, window, strides.
WINDOWS = [
    ((6,), (2,), (2,)),
    ((7,), (3,), (1,)),
    ((9,), (2,), (5,)),
    ((6, 6), (2, 2), (2, 2)),
    ((7, 5), (2, 2), (2, 2)),
    ((7, 8), (3, 3), (2, 2)),
    ((5, 6), (3, 2), (1, 1)),
    ((4, 9), (1, 3), (2, 4)),
    ((3, 3), (1, 1), (1, 1)),
    ((3, 3), (1, 1), (2, 3)),
    ((9, 8), (5, 7), (2, 1)),
    ((3, 4, 5), (2, 3, 2), (1, 2, 2)),
]


def windows(padding, channels, batch=2):
    """Geometries of WINDOWS, with the low and high padding of each axis."""
    for spatial, size, strides in WINDOWS:
        g = convolution(
            batch, spatial, channels, size, channels,
            strides=strides, padding=padding, dilation=(1,) * len(size), groups=max(channels, 1),
        )  # fmt: skip
        pads = []
        for n, k, s, out, low in zip(spatial, size, strides, g.outputs[-len(size) :], g.pad[-len(size) :], strict=True):
            pads.append((low, max(0, (out - 1) * s + k - n - low)))
        yield g, spatial, size, strides, pads


def few_values(rng, shape):
    """Integers, so that there are ties, some of them between zeros of both signs."""
    return (rng.integers(-2, 2, shape) * rng.choice([1.0, -1.0], shape)).astype(np.float32)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("channels", [1, 3, 31, 32, 33, 64, 70])
def test_max_pool(variant, each_thread_count, rng, padding, channels):
    for g, spatial, size, strides, pads in windows(padding, channels):
        x = few_values(rng, (2, *spatial, channels))
        expected = ref.max_pool(x, size, strides, pads)
        y = each_thread_count(lambda: variant.max_pool(x, g, False)[0])  # noqa: B023
        np.testing.assert_array_equal(y.reshape(expected.shape), expected)
        y, winner = variant.max_pool(x, g, True)
        np.testing.assert_array_equal(y.reshape(expected.shape), expected)
        dy = rng.integers(-9, 9, expected.shape).astype(np.float32)
        dx = each_thread_count(variant.max_pool_grad, dy, winner, g).reshape(x.shape)
        np.testing.assert_array_equal(dx, ref.max_pool_gradient(x, dy, size, strides, pads))


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("channels", [1, 3, 32, 65])
def test_average_pool(variant, each_thread_count, rng, padding, channels):
    for g, spatial, size, strides, pads in windows(padding, channels):
        x = rng.normal(size=(2, *spatial, channels)).astype(np.float32)
        expected = ref.average_pool(x, size, strides, pads)
        y = each_thread_count(variant.average_pool, x, g).reshape(expected.shape)
        depth = int(np.prod(size)) + 1
        assert_sum(y, expected, depth, ref.average_pool(np.abs(x), size, strides, pads))
        dy = rng.normal(size=expected.shape).astype(np.float32)
        dx = each_thread_count(variant.average_pool_grad, dy, g).reshape(x.shape)
        expected = ref.average_pool_gradient(x, dy, size, strides, pads)
        assert_sum(dx, expected, depth, ref.average_pool_gradient(x, np.abs(dy), size, strides, pads))


def test_large_pools_use_threads(variant, each_thread_count, rng):
    x = few_values(rng, (4, 40, 40, 48))
    g = next(windows("valid", 48))[0]._replace(batch=4, inputs=(1, 40, 40), outputs=(1, 20, 20), kernel=(1, 2, 2))
    g = g._replace(strides=(1, 2, 2))
    y = each_thread_count(lambda: variant.max_pool(x, g, False)[0])
    np.testing.assert_array_equal(y[:, 0], ref.max_pool(x, (2, 2), (2, 2), [(0, 0)] * 2))
    winner = each_thread_count(lambda: variant.max_pool(x, g, True)[1])
    dx = each_thread_count(variant.max_pool_grad, y, winner, g)
    np.testing.assert_array_equal(dx[:, 0], ref.max_pool_gradient(x, y[:, 0], (2, 2), (2, 2), [(0, 0)] * 2))
    each_thread_count(variant.average_pool, x, g)
    each_thread_count(variant.average_pool_grad, y, g)


def test_max_pool_of_what_is_not_finite(variant):
    """A NaN stays, as in NumPy; -inf may win; the gradient goes to what was larger before a NaN."""
    g = convolution(1, (4,), 6, (4,), 6, strides=(4,), padding="valid", dilation=(1,), groups=6)
    x = np.float32(
        [
            [np.nan, 1, 1, -np.inf, np.inf, -np.inf],
            [3, np.nan, 2, -np.inf, 5, 4],
            [1, 9, np.nan, -np.inf, np.inf, -np.inf],
            [1, 0, 3, -np.inf, 0, np.inf],
        ]
    )
    y, winner = variant.max_pool(x, g, True)
    np.testing.assert_array_equal(y.ravel(), np.max(x, axis=0))
    dx = variant.max_pool_grad(np.ones_like(y), winner, g).reshape(x.shape)
    np.testing.assert_array_equal(np.argmax(dx, axis=0), [0, 0, 1, 0, 0, 3])
    np.testing.assert_array_equal(dx.sum(0), np.ones(6))


@pytest.mark.parametrize("function", [pool.max_pool, pool.average_pool])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_pooling_is_that_of_numpy(rng, function, padding):
    """The kernels that float32 goes through, and NumPy's path, which float64 does."""
    for spatial, size, strides in WINDOWS:
        x = few_values(rng, (3, *spatial, 5))
        results = []
        for dtype in (np.float32, np.float64):
            source = lq.constant(x.astype(dtype))
            with lq.GradientTape() as tape:
                tape.watch(source)
                y = function(source, size=size, strides=strides, padding=padding)
            assert y.dtype == dtype
            dy = np.arange(y.size).reshape(y.shape).astype(dtype)
            results.append((y, tape.gradient(y, source, output_gradients=dy)))
        for actual, expected in zip(*results, strict=True):
            assert actual.dtype == np.float32 and actual.shape == expected.shape
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_max_pool_writes_where_it_is_told(variant, rng):
    x = rng.normal(size=(4, 6, 6, 8)).astype(np.float32)
    y = variant.max_pool(x, SQUARES, False)[0]
    given = np.full_like(y, 7)
    assert variant.max_pool(x, SQUARES, False, given)[0] is given
    np.testing.assert_array_equal(given, y)


def test_max_pool_keeps_two_bits_of_a_square(rng):
    x = lq.constant(rng.normal(size=(2, 8, 8, 64)).astype(np.float32))
    with lq.GradientTape() as tape:
        tape.watch(x)
        y = pool.max_pool(x * 2.0, size=(2, 2), strides=(2, 2))
        kept = dict(tape.kept())
    assert kept["max_pool"] == y.size * 2 // 8


@pytest.mark.parametrize("shape", [(0, 4, 4, 3), (2, 4, 4, 0), (2, 1, 4, 3)])
def test_pooling_of_nothing(shape):
    for function in (pool.max_pool, pool.average_pool):
        x = lq.constant(np.zeros(shape, np.float32))
        with lq.GradientTape() as tape:
            tape.watch(x)
            y = function(x, size=(2, 2), strides=(2, 2))
        assert y.shape == (shape[0], shape[1] // 2, 2, shape[3])
        np.testing.assert_array_equal(tape.gradient(y, x), np.zeros(shape))


# ---- rectifier -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 1000, 300_001])
@pytest.mark.parametrize(("limit", "last"), [(np.inf, np.inf), (1.0, 1.0), (1.0, np.nextafter(np.float32(1), 0))])
def test_rectify(variant, each_thread_count, rng, count, limit, last):
    special = np.float32([0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 1e-40, np.nextafter(np.float32(1), 0)])
    x = rng.normal(size=count).astype(np.float32)
    x[::3] = rng.choice(special, len(x[::3]))
    y, mask = variant.rectify(x, limit, last, True)
    expected = np.minimum(np.maximum(x, 0), np.float32(limit))
    np.testing.assert_array_equal(y, expected)
    assert not np.signbit(y[y == 0]).any()
    np.testing.assert_array_equal(each_thread_count(lambda: variant.rectify(x, limit, last, False)[0]), y)
    dy = rng.normal(size=count).astype(np.float32)
    dx = variant.select(dy, mask, 0)
    np.testing.assert_array_equal(dx, np.where((x > 0) & (x <= last), dy, 0))
    if count % 32:
        assert mask[-1] >> count % 32 == 0


@pytest.mark.parametrize("max_value", [None, 1.0, 6.0])
def test_relu_is_that_of_numpy(max_value):
    x = np.float32([[-1, -0.0, 0, 0.5, 1, 1.5], [6, 7, np.nextafter(np.float32(6), 0), 1e-40, np.inf, -np.inf]]).T
    results = []
    for dtype in (np.float32, np.float64):
        source = lq.constant(x.astype(dtype))
        with lq.GradientTape() as tape:
            tape.watch(source)
            y = elementwise.relu(source, max_value=max_value)
        results.append((y, tape.gradient(y, source)))
    for actual, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(actual, expected)


# ---- updates -------------------------------------------------------------------------------------

f32 = np.float32
RULES = {
    update.sgd: (0, {"lr": f32(0.1)}),
    update.momentum: (1, {"lr": f32(0.1), "momentum": f32(0.9), "nesterov": False}),
    update.adam: (2, {"alpha": f32(0.01), "rest_1": f32(0.1), "rest_2": f32(0.001), "epsilon": f32(1e-7)}),
    update.bop: (1, {"gamma": f32(0.1), "threshold": f32(0.05)}),
}
CASES = [
    *((rule, states, options) for rule, (states, options) in RULES.items()),
    (update.momentum, 1, {**RULES[update.momentum][1], "nesterov": True}),
    (update.adam, 3, RULES[update.adam][1]),
]
CASE_NAMES = [rule.__name__ for rule in RULES] + ["nesterov", "amsgrad"]


def state_of(rng, states, count):
    """A value, what follows it in the rule's order, and a gradient; with what no comparison likes."""
    arrays = list(rng.normal(size=(states + 2, count)).astype(np.float32))
    arrays[1:-1] = [np.abs(a) for a in arrays[1:-1]]
    special = np.float32([0, -0.0, np.inf, np.nan, 1e-40, 1e30])
    for array in arrays:
        array[:: max(1, count // 10)] = rng.choice(special, len(array[:: max(1, count // 10)]))
    return arrays


def step(rule, states, options, arrays):
    """One step, of contiguous arrays or of what NumPy has to walk."""
    value, *state, grad = arrays
    extra = {"v_hat": state.pop()} if states == 3 else {}
    rule(value, *state, grad, **options, **extra)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("count", [0, 1, 15, 17, 64, 1000, 400_003])
@pytest.mark.parametrize(("rule", "states", "options"), CASES, ids=CASE_NAMES)
def test_updates_are_those_of_numpy(variant, threads, monkeypatch, rng, rule, states, options, count):
    monkeypatch.setattr(_core, "update", variant.update)
    arrays = state_of(rng, states, count)
    strided = [np.repeat(a, 2)[::2] for a in arrays]
    for limit in (np.inf, 0.7):
        step(rule, states, {**options, "limit": limit}, arrays)
        step(rule, states, {**options, "limit": limit}, strided)
    assert not strided[0].flags.c_contiguous or count < 2
    for actual, expected in zip(arrays, strided, strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_update_leaves_what_it_does_not_take(variant):
    value, grad = np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)
    frozen = np.ones((2, 3), np.float32)
    frozen.flags.writeable = False
    unfit = [
        (value, grad.astype(np.float64)),
        (value, grad[:, :2]),
        (value, grad.T),
        (value, grad.astype(">f4")),
        (frozen, grad),
        (value.T, grad.T),
        (value, 1.0),
        (None, grad),
    ]
    for arrays in unfit:
        assert variant.update("sgd", (0.5,), arrays) is False
    np.testing.assert_array_equal([value, frozen], np.ones((2, 2, 3)))
    assert variant.update("sgd", (0.5,), (value, grad)) is True
    np.testing.assert_array_equal(value, np.full((2, 3), 0.5))


# ---- what is refused -----------------------------------------------------------------------------

X, ROW = np.zeros((4, 6, 6, 8), np.float32), np.zeros(8, np.float32)
MAP, PAIR = np.zeros((4, 6, 32), np.float32), np.zeros((4, 6, 64), np.float32)
SQUARES = convolution(4, (6, 6), 8, (2, 2), 8, strides=(2, 2), padding="valid", dilation=(1, 1), groups=8)
WINNER = _core.max_pool(X, SQUARES, True)[1]
Y = np.zeros((4, 3, 3, 8), np.float32)
WORD = np.zeros(1, np.uint32)
WRONG = [
    ("moments", (X.astype(np.float64), EPSILON), TypeError, "argument 'x' must be a float32 array"),
    ("moments", (np.float32(1), EPSILON), ValueError, "argument 'x'"),
    ("moments", (None, EPSILON), TypeError, "argument 'x'"),
    ("moments", (X, EPSILON, ROW[:3], ROW), ValueError, "argument 'mean' must be of shape (8,)"),
    ("norm_sums", (X, X[:2], ROW, ROW), ValueError, "argument 'dy' must be of shape (4, 6, 6, 8)"),
    ("norm_sums", (X, X, ROW[:3], ROW), ValueError, "argument 'mean' must be of shape (..., 8)"),
    ("norm_sums", (X, X, ROW, None), TypeError, "argument 'inverse'"),
    ("norm_sums", (X, X, ROW, ROW, None, False, X), TypeError, "argument 'before'"),
    ("norm_sums", (X, X, ROW, ROW, None, False, np.zeros((2, 7))), ValueError, "argument 'before'"),
    ("norm_sums", (X, X, ROW, ROW, None, False, np.zeros((2, 8)), -1), ValueError, "argument 'rows_before'"),
    ("norm_rows", (0,), ValueError, "argument 'channels'"),
    ("max_pool", (X, SQUARES, True, X), ValueError, "argument 'out'"),
    ("norm_sums", (X, X, ROW, ROW, np.zeros((4, 6, 6, 1), np.uint32)), ValueError, "argument 'x' must be of shape"),
    ("norm_sums", (X, X, ROW, ROW, np.zeros((4, 6, 6, 2), np.uint32)), ValueError, "argument 'mask' must be of shape"),
    ("normalize_sign", (X, ROW, ROW, None, 1.0), ValueError, "argument 'x' must be of shape (..., 32)"),
    ("normalize_sign", (np.zeros((2, 32), np.float32), *[np.zeros(32, np.float32)] * 3, "1"), TypeError, "'clip'"),
    ("normalize", (X, ROW, np.stack([ROW, ROW]), None), ValueError, "argument 'scale' must be of shape (..., 8)"),
    ("normalize", (X, ROW, ROW, ROW[:1]), ValueError, "argument 'shift' must be of shape (..., 8)"),
    ("normalize_grad", (X, X, ROW, ROW, ROW, 1.0), TypeError, "argument 'slope' must be a float32 array"),
    ("normalize_grad", (X, X, *[ROW] * 4, None, X[:2].copy()), ValueError, "'out' must be of shape (4, 6, 6, 8)"),
    ("normalize_grad", (X, X, *[ROW] * 4, None, X.T), TypeError, "argument 'out' must be a writable C array"),
    ("normalize_grad", (X, X, *[ROW] * 4, None, np.broadcast_to(X, X.shape)), TypeError, "argument 'out'"),
    ("normalize_grad", (X, X, *[ROW] * 4, None, X.astype(float)), TypeError, "array of dtype float32"),
    ("normalize_grad", (X, X, *[ROW] * 4, None, X.tolist()), TypeError, "argument 'out'"),
    ("normalize", ((X, X), *[np.zeros(16, np.float32)] * 2, None), ValueError, "in pieces of whole words of channels"),
    ("normalize", ((), ROW, ROW, None), TypeError, "argument 'x' must be a float32 array"),
    ("normalize", ((MAP, MAP[:1]), *[ROW] * 2, None), ValueError, "argument 'x' must be of shape"),
    ("normalize", ((MAP, MAP.astype(float)), *[ROW] * 2, None), TypeError, "argument 'x' must be a float32 array"),
    ("normalize", ((MAP, MAP), *[ROW] * 2, None), ValueError, r"argument 'mean' must be of shape (..., 64)"),
    ("normalize", ((MAP, MAP[..., :0]), *[np.zeros(32, np.float32)] * 2, None), ValueError, "in pieces of whole words"),
    ("normalize_grad", ((MAP, MAP), PAIR, *[PAIR[0, 0]] * 4, None, (MAP,)), ValueError, "'out' must be a tuple like x"),
    ("normalize_grad", ((MAP, MAP), PAIR, *[PAIR[0, 0]] * 4, None, (MAP, PAIR)), ValueError, "'out' must be of shape"),
    ("normalize_grad", ((MAP, MAP), PAIR, *[PAIR[0, 0]] * 4, None, MAP), ValueError, "'out' must be a tuple like x"),
    ("select", (ROW, WORD, 0, ROW.astype(float)), TypeError, "array of dtype float32"),
    ("select", (ROW, WORD, 0, np.zeros(9, np.float32)), ValueError, "argument 'out' must be of shape (8,)"),
    ("max_pool", (X[:3], SQUARES, True), ValueError, "argument 'x'"),
    ("max_pool", (X, SQUARES._replace(dilation=(1, 1, 2)), True), ValueError, "all reach the input"),
    ("max_pool", (X, SQUARES._replace(pad=(0, 2, 0)), True), ValueError, "all reach the input"),
    ("max_pool", (X, SQUARES._replace(outputs=(1, 4, 3)), True), ValueError, "all reach the input"),
    ("max_pool", (X, SQUARES._replace(filters=16), True), ValueError, "as many filters as channels"),
    ("max_pool", (X, 5, True), TypeError, "argument 'geometry'"),
    ("average_pool", (X[..., :4], SQUARES), ValueError, "argument 'x'"),
    ("max_pool_grad", (X, WINNER, SQUARES), ValueError, "argument 'dy'"),
    ("max_pool_grad", (Y, WINNER[:1], SQUARES), ValueError, "argument 'winner' must be of shape (2, 4, 9, 1)"),
    ("max_pool_grad", (Y, Y, SQUARES), TypeError, "argument 'winner' must be a uint32 array"),
    ("average_pool_grad", (X, SQUARES), ValueError, "argument 'dy'"),
    ("rectify", (X.astype(int), 1, 1, True), TypeError, "argument 'x' must be a float32 array"),
    ("update", ("adagrad", (1.0,), (ROW, ROW)), ValueError, "argument 'rule' must be 'sgd'"),
    ("update", ("sgd", (1.0, 2.0), (ROW, ROW)), ValueError, "rule 'sgd' has 1 coefficients and 2 arrays"),
    ("update", ("adam", (1.0,) * 4, (ROW, ROW)), ValueError, "rule 'adam' has 4 coefficients and 4 arrays"),
    ("update", ("sgd", ("much",), (ROW, ROW)), TypeError, "argument 'coefficients'"),
    ("update", ("sgd", [1.0], (ROW, ROW)), TypeError, "tuple"),
]


@pytest.mark.parametrize(("function", "args", "error", "text"), WRONG)
def test_what_is_refused(variant, function, args, error, text):
    with pytest.raises(error, match=re.escape(text)):
        getattr(variant, function)(*args)
