"""Products and quantizers as operations: which arithmetic runs, and that all of them agree."""

import contextlib

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import bnnlayers as lq
from bnnlayers import ops
from bnnlayers.bits import BitArray
from bnnlayers.ops import blas, product, quantize, shape


@contextlib.contextmanager
def arithmetic():
    """The arithmetic of the products inside of the block."""
    before, product.ran.names = product.ran.names, []
    try:
        yield product.ran.names
    finally:
        product.ran.names = before


def operands(rng, x_shape, w_shape, x_axis=-1):
    """Signs as floats and as bits."""
    x, w = (np.where(rng.standard_normal(s) < 0, -1, 1).astype(np.float32) for s in (x_shape, w_shape))
    return (x, ops.pack_bits(x, x_axis)), (w, ops.pack_bits(w, 0 if w.ndim == 2 else -2))


BOXES = {(0, 0): "float", (0, 1): "signed", (1, 0): "signed", (1, 1): "xnor"}


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("depth", (1, 31, 32, 33, 64, 65))
def test_matmul_is_the_same_in_every_box(rng, box, depth):
    xs, ws = operands(rng, (3, 5, depth), (depth, 7))
    with arithmetic() as ran:
        y = ops.matmul(xs[box[0]], ws[box[1]])
    assert ran == [BOXES[box]]
    np.testing.assert_array_equal(y, xs[0] @ ws[0])
    assert isinstance(y, lq.Tensor)
    assert y.dtype == np.float32


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("data_format", ("channels_last", "channels_first"))
@pytest.mark.parametrize("pad", (0.0, 1.0, -1.0))
@pytest.mark.parametrize("groups", (1, 2))
def test_conv_is_the_same_in_every_box(rng, box, data_format, pad, groups):
    first = data_format == "channels_first"
    shape = (2, 34, 5, 6) if first else (2, 5, 6, 34)
    xs, ws = operands(rng, shape, (3, 2, 34 // groups, 8), 1 if first else -1)
    call = {"strides": (2, 1), "padding": "same", "data_format": data_format, "groups": groups, "pad_values": pad}
    expected = ops.conv(xs[0], ws[0], **call)
    with arithmetic() as ran:
        y = ops.conv(xs[box[0]], ws[box[1]], **call)
    assert ran == [BOXES[box]]
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("box", [b for b in BOXES if b != (0, 0)])
def test_gradients_are_the_same_in_every_box(rng, box):
    x = lq.constant(rng.standard_normal((2, 6, 5, 33)).astype(np.float32))
    w = lq.Variable(rng.standard_normal((3, 3, 33, 9)).astype(np.float32))
    dy = rng.integers(-8, 9, (2, 6, 5, 9)).astype(np.float32)

    def gradients(packed):
        with lq.GradientTape() as tape:
            tape.watch(x)
            sx = quantize.ste_sign(x, axis=-1 if packed[0] else None)
            sw = quantize.ste_sign(w, axis=-2 if packed[1] else None)
            y = ops.conv(sx, sw, padding="same")
        return tape.gradient(y, [x, w], output_gradients=dy)

    # Integers all along, so that no order of a sum matters.
    for ours, expected in zip(gradients(box), gradients((0, 0)), strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_bits_that_cannot_be_padded_run_on_floats(rng):
    xs, ws = operands(rng, (1, 4, 4, 40), (3, 3, 40, 5))
    with arithmetic() as ran:
        y = ops.conv(xs[1], ws[1], padding="same", pad_values=0.5)
    assert ran == ["signed"]
    np.testing.assert_array_equal(y, ops.conv(xs[0], ws[0], padding="same", pad_values=0.5))


@pytest.mark.parametrize(
    ("x", "w", "more", "message"),
    [
        ((2, 3), (4, 5), None, "matmul.*shapes"),
        ((2, 3), (3,), None, "matmul.*shapes"),
        ((2, 5, 5, 3), (3, 3, 4, 2), {}, "conv.*groups"),
        ((2, 5, 5, 4), (3, 3, 2, 3), {"groups": 2}, "conv.*groups"),
        ((2, 5, 5, 4), (3, 3, 4, 2), {"groups": 0}, "conv.*groups"),
        ((2, 5, 4), (3, 3, 4, 2), {}, "conv.*spatial axes"),
        ((2, 5, 5, 4), (3, 3, 4, 2), {"strides": 0}, "conv.*strides"),
        ((2, 5, 5, 4), (3, 3, 4, 2), {"strides": (1, -1)}, "conv.*strides"),
        ((2, 5, 5, 4), (3, 3, 4, 2), {"dilation_rate": (1, 1, 1)}, "conv.*dilation_rate"),
        ((2, 5, 5, 4), (3, 3, 4, 2), {"padding": "full"}, "conv.*padding.*full"),
        ((2, 5, 5, 4), (9, 3, 4, 2), {}, "conv.*larger than the image"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(x, w, more, message):
    x, w = np.ones(x, np.float32), np.ones(w, np.float32)
    with pytest.raises(ValueError, match=message):
        ops.matmul(x, w) if more is None else ops.conv(x, w, **more)


KINDS = {
    "unit": lambda x, axis: quantize.ste_heaviside(x, axis=axis),
    "ternary": lambda x, axis: quantize.ste_tern(x, threshold=0.5, axis=axis),
    "levels": lambda x, axis: quantize.dorefa_activations(x, k_bit=3, axis=axis),
    "weights": lambda x, axis: quantize.dorefa_weights(x, k_bit=2, axis=axis),
}


@pytest.mark.parametrize("pad", (0.0, 1.0, -1.0))
@pytest.mark.parametrize("groups", (1, 2))
@pytest.mark.parametrize(("left", "right"), [(a, b) for a in (*KINDS, None) for b in (*KINDS, None) if a or b])
def test_every_kind_of_bits_is_what_floats_give(rng, left, right, groups, pad):
    """Forward and both gradients, one or both operands packed, the transposed product too."""
    x = lq.constant(rng.standard_normal((2, 7, 6, 34)).astype(np.float32))
    w = lq.constant(rng.standard_normal((3, 2, 34 // groups, 12)).astype(np.float32))
    dy = rng.integers(-8, 9, (2, 4, 6, 12)).astype(np.float32)

    def run(packed):
        with lq.GradientTape() as tape:
            tape.watch(x), tape.watch(w)
            qx, qw = (
                KINDS[kind](a, axis if packed else None) if kind else a
                for kind, a, axis in ((left, x, -1), (right, w, -2))
            )
            y = ops.conv(qx, qw, strides=(2, 1), padding="same", groups=groups, pad_values=pad)
        return [np.asarray(a) for a in (y, *tape.gradient(y, [x, w], output_gradients=dy))]

    with arithmetic() as ran:
        ours = run(True)
    assert ran == ["xnor" if left and right else "signed"]
    for actual, expected in zip(ours, run(False), strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_bits_runs_backwards(rng, name):
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 4, 3, 34), (3, 2, 12, 34)))
    call = {"strides": 2, "padding": "same"}
    floats = [np.asarray(KINDS[name](a, None)) for a in (x, w)]
    bits = [KINDS[name](a, axis) for a, axis in ((x, -1), (w, -2))]
    expected = ops.conv_transpose(*floats, **call)
    for pair in ((bits[0], bits[1]), (bits[0], floats[1]), (floats[0], bits[1])):
        actual = ops.conv_transpose(*pair, **call)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_dense_products_of_units_with_floats(rng):
    x, w = (np.abs(rng.standard_normal(shape)).astype(np.float32) for shape in ((70, 33), (33, 40)))
    bits = KINDS["levels"](x, -1), KINDS["levels"](w, 0)
    np.testing.assert_allclose(ops.matmul(bits[0], w), bits[0].numpy() @ w, rtol=1e-5)
    np.testing.assert_allclose(ops.matmul(x, bits[1]), x @ bits[1].numpy(), rtol=1e-5)


def test_sums_beyond_the_integers_of_the_kernel_take_fewer_planes_at_a_time():
    x, w = np.ones((2, 70000), np.float32), np.ones((70000, 3), np.float32)
    bits = (quantize.dorefa_activations(a, k_bit=8, axis=axis) for a, axis in ((x, -1), (w, 0)))
    with arithmetic() as ran:
        y = ops.matmul(*bits)
    assert ran == ["xnor"]
    np.testing.assert_allclose(y, np.full((2, 3), 70000), rtol=1e-6)


@pytest.mark.parametrize("axis", (0, 1, -1))
@pytest.mark.parametrize("k_bit", (1, 2, 5, 8))
def test_both_modes_of_dorefa_have_two_faces_with_one_gradient(rng, k_bit, axis):
    x = lq.constant(rng.standard_normal((3, 4, 33)).astype(np.float32))
    dy = rng.standard_normal(x.shape).astype(np.float32)
    for function in (quantize.dorefa_activations, quantize.dorefa_weights):
        with lq.GradientTape(persistent=True) as tape:
            tape.watch(x)
            floats, bits = function(x, k_bit=k_bit), function(x, k_bit=k_bit, axis=axis)
        assert isinstance(bits, BitArray)
        assert bits.planes == k_bit
        np.testing.assert_allclose(np.asarray(bits), floats, rtol=0, atol=1e-7)
        np.testing.assert_array_equal(
            tape.gradient(bits, x, output_gradients=dy), tape.gradient(floats, x, output_gradients=dy)
        )


@pytest.mark.parametrize("name", ("ste_sign", "approx_sign", "swish_sign", "ste_heaviside", "ste_tern"))
def test_quantizers_have_two_faces_with_one_gradient(rng, name):
    function = getattr(quantize, name)
    x = lq.constant(rng.standard_normal((3, 4, 33)).astype(np.float32))
    dy = rng.standard_normal(x.shape).astype(np.float32)
    for axis in (0, 1, -1):
        with lq.GradientTape(persistent=True) as tape:
            tape.watch(x)
            floats, bits = function(x), function(x, axis=axis)
        assert isinstance(bits, BitArray)
        np.testing.assert_array_equal(np.asarray(bits), floats)
        np.testing.assert_array_equal(
            tape.gradient(bits, x, output_gradients=dy), tape.gradient(floats, x, output_gradients=dy)
        )


@pytest.mark.parametrize("name", ("ste_sign", "approx_sign", "swish_sign", "ste_heaviside", "ste_tern"))
def test_nan_is_kept_as_a_float(name):
    x = np.array([[1.0, np.nan, -1.0]], np.float32)
    y = getattr(quantize, name)(x, axis=-1)
    assert isinstance(y, lq.Tensor)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))


def test_integers_are_refused():
    with pytest.raises(TypeError, match="ste_sign.*floating-point"):
        quantize.ste_sign(np.arange(3))


def test_a_straight_through_quantizer_keeps_one_bit_per_value(rng):
    x = lq.constant(rng.standard_normal((8, 1024)).astype(np.float32))
    with lq.GradientTape() as tape:
        tape.watch(x)
        y = quantize.ste_sign(x, axis=-1)
    assert tape.kept() == [("ste_sign", x.size // 8)]
    del y


def test_a_memo_serves_reads_with_and_without_a_tape(rng):
    w = lq.Variable(rng.standard_normal((40, 8)).astype(np.float32))
    memo = {}
    first = quantize.ste_sign(w, axis=0, memo=memo)
    with lq.GradientTape() as tape:
        second = quantize.ste_sign(w, axis=0, memo=memo)
    assert second.words is first.words
    gradient = tape.gradient(second, w, output_gradients=np.ones((40, 8), np.float32))
    np.testing.assert_array_equal(gradient, np.abs(w.numpy()) <= 1)


@pytest.mark.parametrize(
    "terms, rows, columns, kept",
    [
        (64, 100, 48, True),
        (64, 100, 65, False),
        (128, 100, 65, True),
        (128, 12000, 48, False),
        (300, 12000, 48, True),
    ],
)
def test_a_product_of_floats_is_kept_where_its_sums_are_long_or_it_is_small(terms, rows, columns, kept):
    x = lq.constant(np.ones((rows, terms), np.float32))
    first, second = lq.Variable(np.ones((terms, columns), np.float32)), lq.Variable(np.ones((columns, 8), np.float32))
    with lq.GradientTape() as tape:
        tape.watch(x)
        y = product.matmul(product.matmul(x, first), second)
    assert (rows * columns * 4 in [size for _, size in tape.kept()]) is kept
    np.testing.assert_array_equal(tape.gradient(y, second), np.full((columns, 8), rows * terms))


def blas_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("groups, rows, depth, columns", [(1, 500, 70, 90), (3, 70, 500, 301), (1, 2, 4000, 1)])
def test_float_products_are_shared_by_threads(rng, monkeypatch, threads, groups, rows, depth, columns, dtype):
    monkeypatch.setattr(blas, "_SMALL", -1)
    monkeypatch.setattr(blas, "_LARGE", 0)
    a, b = (rng.standard_normal((groups, *shape)).astype(dtype) for shape in ((rows, depth), (depth, columns)))
    transposed = np.ascontiguousarray(a.swapaxes(1, 2)).swapaxes(1, 2)
    before = blas_threads()
    for left in (a, transposed):
        y = blas.matmul(left, b)
        assert y.dtype == dtype
        np.testing.assert_allclose(y, a @ b, 0, 4 * depth * np.finfo(dtype).eps)
    with pytest.raises(ValueError, match="mismatch"):
        blas.matmul(a, b[:, 1:])
    assert blas_threads() == before


@pytest.mark.parametrize("size", [100, 300])
def test_blas_has_one_thread_while_float_products_run(rng, monkeypatch, threads, size):
    a, matmul, seen = rng.standard_normal((1, size, size)), np.matmul, []

    def watched(*args, **kwargs):
        seen.extend(blas_threads())
        return matmul(*args, **kwargs)

    with threadpool_limits(2, "blas"):
        before = blas_threads()
        monkeypatch.setattr(np, "matmul", watched)
        blas.matmul(a, a)
        assert bool(seen) == bool(before)
        assert seen == [1] * len(seen)
        assert blas_threads() == before


class TestJoinedArraysThatGrow:
    """Their memory has room for more, which is seen by nobody else."""

    @staticmethod
    def parts(rng, count, channels=64):
        return [rng.standard_normal((2, 3, channels)).astype(np.float32) for _ in range(count)]

    def test_values(self, rng):
        first, *parts = self.parts(rng, 8)
        joined, memories = [first], set()
        for part in parts:
            joined.append(shape.concatenate(joined[-1], part))
            memories.add(joined[-1].ctypes.data)
        for i, x in enumerate(joined):
            np.testing.assert_array_equal(x, np.concatenate([first, *parts[:i]], -1))
        assert len(memories) < len(parts)

    def test_one_that_grows_twice(self, rng):
        parts = self.parts(rng, 6)
        x = shape.concatenate(shape.concatenate(*parts[:2]), parts[2])
        one, other = shape.concatenate(x, parts[3]), shape.concatenate(x, parts[4], parts[5])
        np.testing.assert_array_equal(one, np.concatenate(parts[:4], -1))
        np.testing.assert_array_equal(other, np.concatenate([*parts[:3], *parts[4:]], -1))
        np.testing.assert_array_equal(x, np.concatenate(parts[:3], -1))

    def test_what_is_shared_cannot_be_written(self, rng):
        parts = self.parts(rng, 4)
        x = shape.concatenate(*parts[:2])
        np.asarray(x)[...] = 1  # nobody else's
        y = shape.concatenate(x, parts[2])
        with pytest.raises(ValueError, match="read-only"):
            np.asarray(y)[...] = 2
        np.testing.assert_array_equal(y[..., :128], 1)

    @pytest.mark.parametrize("begin", [slice(1, None), slice(None, None, -1)])
    def test_parts_of_one(self, rng, begin):
        parts = self.parts(rng, 4)
        x = np.asarray(shape.concatenate(shape.concatenate(*parts[:2]), parts[2]))
        for part in (x[:, begin], x[..., begin], x[..., :64]):
            other = part[..., :64]
            np.testing.assert_array_equal(shape.concatenate(part, other), np.concatenate([part, other], -1))
        np.testing.assert_array_equal(x, np.concatenate(parts[:3], -1))

    @pytest.mark.parametrize("axis", [-1, 0, 1, 2])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_other_axes_and_types(self, rng, axis, dtype):
        x, y = (rng.standard_normal((2, 3, 64)).astype(t) for t in (np.float32, dtype))
        once = shape.concatenate(x, y, axis=axis)
        np.testing.assert_array_equal(shape.concatenate(once, once, axis=axis), np.concatenate([x, y, x, y], axis))
        assert once.dtype == dtype
        with pytest.raises(ValueError, match="dimension"):
            shape.concatenate(x, y[:, :2, :3], axis=axis)


@pytest.mark.parametrize("axis", (None, 0, -1))
@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("shortcut_first", (False, True))
def test_signs_add_their_gradient_to_that_of_a_shortcut(rng, axis, dtype, shortcut_first):
    x, a, b = rng.standard_normal((3, 5, 70)).astype(dtype)
    source = lq.constant(x)
    with lq.GradientTape() as tape:
        tape.watch(source)
        shortcut = source * b if shortcut_first else None
        signs = quantize.ste_sign(source, axis=axis)
        signs = quantize.decode(signs) if axis is not None else signs
        y = signs * a + (source * b if shortcut is None else shortcut)
    dy = rng.standard_normal(x.shape).astype(dtype)
    given = dy.copy()
    dx = tape.gradient(y, source, output_gradients=lq.constant(given))
    flow = (dy * a).astype(dtype if axis is None else np.float32)  # that of bits is of single precision
    np.testing.assert_array_equal(dx, dy * b + np.where(np.abs(x) <= 1, flow, 0))
    np.testing.assert_array_equal(given, dy)
