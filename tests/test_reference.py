"""The reference against hand-computed cases, the definitions, and finite differences."""

import numpy as np
import pytest
import reference as ref


def numeric_gradient(function, x, dy, step=1e-5):
    """Central differences of ``sum(dy * function(x))``."""
    gradient = np.zeros(x.shape)
    for index in np.ndindex(*x.shape):
        moved = np.zeros(x.shape)
        moved[index] = step
        gradient[index] = np.sum(dy * (function(x + moved) - function(x - moved))) / (2 * step)
    return gradient


def assert_gradient(actual, function, x, dy):
    assert actual.shape == x.shape
    np.testing.assert_allclose(actual, numeric_gradient(function, x, dy), rtol=1e-6, atol=1e-7)


# ---- bits ----------------------------------------------------------------------------------------


def test_layout_by_hand():
    x = np.ones(34)
    x[[0, 3, 31, 33]] = -1
    np.testing.assert_array_equal(ref.pack(x), np.array([[0x80000009, 0x2]], np.uint32))


def test_zero_is_positive():
    assert ref.pack(np.array([0.0, -0.0, -1e-300, 5.0]))[0, 0] == 0b0100


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 64, 65])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_unpack_inverts_pack(count, axis):
    shape = [2, 3, 4]
    shape[axis] = count
    x = np.random.default_rng(0).choice([-1.0, 1.0], shape)
    words = ref.pack(x, axis)
    assert words.shape == (1, *np.delete(shape, axis), -(-count // 32))
    np.testing.assert_array_equal(ref.unpack(words[0], count, axis), x)


# ---- quantizers ----------------------------------------------------------------------------------

GRID = np.array([-np.inf, -2.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 2.0, np.inf, np.nan])
ONE = np.ones(GRID.shape)
NAN = np.nan

VALUES = {
    "ste_sign": (ref.ste_sign(GRID), [-1, -1, -1, -1, 1, 1, 1, 1, 1, 1, NAN]),
    "ste_sign_grad": (ref.ste_sign_grad(GRID, ONE, 1.0), [0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0]),
    "approx_sign_grad": (ref.approx_sign_grad(GRID, ONE), [0, 0, 0, 1, 2, 2, 1, 0, 0, 0, 0]),
    "ste_heaviside": (ref.ste_heaviside(GRID), [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, NAN]),
    "ste_tern": (ref.ste_tern(GRID, 0.5), [-1, -1, -1, -1, 0, 0, 1, 1, 1, 1, NAN]),
    "hard_tanh": (ref.hard_tanh(GRID), [-1, -1, -1, -0.5, 0, 0, 0.5, 1, 1, 1, NAN]),
    "hard_tanh_grad": (ref.hard_tanh_grad(GRID, ONE), [0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0]),
    "clip": (ref.clip(GRID, 0, 1), [0, 0, 0, 0, 0, 0, 0.5, 1, 1, 1, NAN]),
    "clip_grad": (ref.clip_grad(GRID, ONE, 0, 1), [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0]),
    "dorefa_activations": (
        ref.dorefa_activations(GRID, 1),
        [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, NAN],  # 0.5 is half way: to even
    ),
    "dorefa_activations_grad": (
        ref.dorefa_activations_grad(GRID, ONE),
        [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0],
    ),
    "leaky_tanh": (
        ref.leaky_tanh(GRID, 0.2),
        [-np.inf, -1.2, -1, -0.5, 0, 0, 0.5, 1, 1.2, np.inf, NAN],
    ),
    "leaky_tanh_grad": (
        ref.leaky_tanh_grad(GRID[1:-2], ONE[1:-2], 0.2),
        [0.2, 1.2, 1, 1, 1, 1, 1.2, 0.2],
    ),
}


@pytest.mark.parametrize("name", VALUES)
def test_quantizer_by_hand(name):
    actual, expected = VALUES[name]
    np.testing.assert_array_equal(actual, expected)


def test_swish_gradient():
    x = np.linspace(-3, 3, 61)
    bx = 5 * x
    expected = 5 * (2 - bx * np.tanh(bx / 2)) / (1 + np.cosh(bx))
    np.testing.assert_allclose(ref.swish_sign_grad(x, 1.0, 5.0), expected, rtol=1e-12)
    np.testing.assert_array_equal(ref.swish_sign_grad(np.array([1e4, -np.inf]), 1.0, 5.0), [0, NAN])


def test_dorefa_weights_by_hand():
    t = np.array([-0.8, -0.4, 0.0, 0.2, 0.8])
    np.testing.assert_allclose(ref.dorefa_weights(t, 0.8, 3), [-1, -1 / 3, 1 / 3, 1 / 3, 1], rtol=1e-12)
    np.testing.assert_allclose(ref.dorefa_weights(np.zeros(1), 0.0, 3), 1 / 3)
    assert ref.dorefa_weights(np.zeros(1), 0.0, 1) == -1


def test_dorefa_weights_gradient():
    """That of the expression without its rounding."""
    w, maximum = np.array([-1.2, -0.4, 0.1, 2.0]), np.tanh(2.0)
    actual = ref.dorefa_weights_grad(np.tanh(w), np.arange(4.0), maximum)
    assert_gradient(actual, lambda w: np.tanh(w) / maximum, w, np.arange(4.0))
    assert not ref.dorefa_weights_grad(np.zeros(3), np.ones(3), 0.0).any()


def test_magnitude_aware_sign_by_hand():
    x = np.array([[1.0, -4.0], [-3.0, 2.0]])
    np.testing.assert_array_equal(ref.magnitude_aware_sign(x), [[2, -3], [-2, 3]])
    np.testing.assert_array_equal(ref.magnitude_aware_sign_grad(x, np.ones((2, 2)), 2.0), [[2, 0], [0, 3]])
    np.testing.assert_array_equal(ref.magnitude_aware_sign(x[0]), x[0])


def test_ternary_weight_threshold():
    assert ref.ternary_weight_threshold(np.array([1.0, -3.0])) == pytest.approx(1.4)


# ---- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "pad", "outputs"),
    [
        ((5, 3, "valid"), (0, 0), 3),
        ((5, 3, "same"), (1, 1), 5),
        ((5, 2, "same"), (0, 1), 5),
        ((6, 3, "same", 2), (0, 1), 3),
        ((5, 3, "same", 2), (1, 1), 3),
        ((5, 3, "same", 1, 2), (2, 2), 5),
        ((5, 1, "same", 3), (0, 0), 2),
        ((5, 3, "causal", 1, 2), (4, 0), 5),
        ((5, 2, "causal", 2), (1, 0), 3),
        ((2, 3, "valid"), (0, 0), 0),
        ((7, 3, "valid", 2, 2), (0, 0), 2),
    ],
)
def test_sizes(arguments, pad, outputs):
    length, kernel, _, *rest = arguments
    assert ref.pads(*arguments) == pad
    assert ref.output_length(length, kernel, pad, *rest) == outputs


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(1, 2, 1), (3, 2, 1), (2, 3, 1), (3, 1, 2)])
def test_transposed_length_is_an_input_that_the_convolution_maps_back(padding, kernel, stride, dilation):
    length = ref.transposed_length(4, kernel, padding, stride, dilation)
    pad = ref.pads(length, kernel, padding, stride, dilation)
    assert ref.output_length(length, kernel, pad, stride, dilation) == 4


def test_transposed_length_with_output_padding():
    assert ref.transposed_length(4, 3, "same", 2, output_padding=1) == 8
    assert ref.transposed_length(4, 3, "valid", 2, output_padding=0) == 9


# ---- convolution ---------------------------------------------------------------------------------


def test_convolution_by_hand():
    x = np.array([1.0, 2, 3, 4]).reshape(1, 4, 1)
    kernel = np.array([10.0, 1]).reshape(2, 1, 1)
    one = (1,)
    np.testing.assert_array_equal(ref.convolution(x, kernel, one, one, [(1, 0)]).ravel(), [1, 12, 23, 34])
    np.testing.assert_array_equal(
        ref.convolution(x, kernel, one, one, [(1, 0)], pad_value=-1).ravel(), [-9, 12, 23, 34]
    )
    np.testing.assert_array_equal(ref.convolution(x, kernel, (2,), one, [(0, 0)]).ravel(), [12, 34])
    np.testing.assert_array_equal(ref.convolution(x, kernel, one, (2,), [(0, 1)]).ravel(), [13, 24, 30])


def test_groups_by_hand():
    x = np.array([1.0, 2, 3, 4]).reshape(1, 1, 4)
    kernel = np.array([[1.0, 0, 1, 1], [0, 1, 1, -1]]).reshape(1, 2, 4)
    y = ref.convolution(x, kernel, (1,), (1,), [(0, 0)], groups=2)
    np.testing.assert_array_equal(y.ravel(), [1, 2, 7, -1])


CASES = {
    "1d": ((2, 6, 3), (3, 3, 2), (1,), (1,), [(1, 1)], 1),
    "causal": ((1, 5, 2), (3, 2, 2), (1,), (2,), [(4, 0)], 1),
    "2d": ((2, 5, 4, 2), (3, 2, 2, 3), (2, 1), (1, 2), [(1, 0), (1, 2)], 1),
    "2d groups": ((1, 4, 4, 4), (2, 2, 2, 6), (1, 2), (1, 1), [(0, 1), (0, 0)], 2),
    "3d": ((1, 3, 4, 3, 2), (2, 2, 2, 2, 2), (1, 2, 1), (2, 1, 1), [(1, 1), (0, 0), (0, 1)], 1),
    "kernel beyond image": ((1, 2, 2, 1), (4, 3, 1, 2), (1, 1), (1, 1), [(1, 1), (1, 2)], 1),
    "empty batch": ((0, 4, 2), (3, 2, 2), (1,), (1,), [(1, 1)], 1),
    "no output": ((1, 2, 2), (3, 2, 2), (1,), (1,), [(0, 0)], 1),
}


@pytest.fixture(params=CASES)
def case(request, rng):
    x, kernel, *rest = CASES[request.param]
    return rng.normal(size=x), rng.normal(size=kernel), *rest


def by_definition(x, kernel, strides, dilation, pads, pad_value, groups):
    """One output at a time, one product at a time."""
    *taps, depth, filters = kernel.shape
    spatial = x.shape[1:-1]
    axes = zip(spatial, taps, pads, strides, dilation, strict=True)
    y = np.zeros((len(x), *(ref.output_length(*axis) for axis in axes), filters))
    for b, *pixel, f in np.ndindex(*y.shape):
        for *tap, c in np.ndindex(*taps, depth):
            place = [
                p * s + t * d - low for p, s, t, d, (low, _) in zip(pixel, strides, tap, dilation, pads, strict=True)
            ]
            inside = all(0 <= i < n for i, n in zip(place, spatial, strict=True))
            channel = f // (filters // groups) * depth + c
            value = x[(b, *place, channel)] if inside else pad_value
            y[(b, *pixel, f)] += value * kernel[(*tap, c, f)]
    return y


@pytest.mark.parametrize("pad_value", [0, 1, -1])
def test_convolution_is_its_definition(case, pad_value):
    x, kernel, strides, dilation, pads, groups = case
    arguments = (x, kernel, strides, dilation, pads, pad_value, groups)
    np.testing.assert_allclose(ref.convolution(*arguments), by_definition(*arguments), atol=1e-12)


def test_convolution_gradients(case, rng):
    x, kernel, strides, dilation, pads, groups = case
    where = (strides, dilation, pads)
    y = ref.convolution(x, kernel, *where, 1.0, groups)
    dy = rng.normal(size=y.shape)
    assert_gradient(
        ref.convolution_input_gradient(dy, kernel, x.shape[1:-1], *where, groups),
        lambda x: ref.convolution(x, kernel, *where, 1.0, groups),
        x,
        dy,
    )
    assert_gradient(
        ref.convolution_kernel_gradient(x, dy, kernel.shape[:-2], *where, 1.0, groups),
        lambda kernel: ref.convolution(x, kernel, *where, 1.0, groups),
        kernel,
        dy,
    )


def test_im2col_is_the_left_factor_of_a_convolution(case):
    x, kernel, strides, dilation, pads, groups = case
    *taps, _, filters = kernel.shape
    columns = ref.im2col(x, taps, strides, dilation, pads, -1.0, groups)
    right = kernel.reshape(columns.shape[-1], groups, filters // groups).swapaxes(0, 1)
    expected = ref.convolution(x, kernel, strides, dilation, pads, -1.0, groups)
    product = (columns @ right).swapaxes(0, 1).reshape(expected.shape)
    np.testing.assert_allclose(product, expected, atol=1e-12)


def test_col2im_is_the_transpose_of_im2col(case, rng):
    x, kernel, strides, dilation, pads, groups = case
    where = (kernel.shape[:-2], strides, dilation, pads)
    columns = ref.im2col(x, *where, 0.0, groups)
    other = rng.normal(size=columns.shape)
    back = ref.col2im(other, x.shape, *where)
    assert back.shape == x.shape
    np.testing.assert_allclose(np.sum(columns * other), np.sum(x * back), atol=1e-10)


def test_transposed_convolution_by_hand():
    x = np.array([1.0, 2]).reshape(1, 2, 1)
    kernel = np.array([10.0, 1, 3]).reshape(3, 1, 1)
    y = ref.transposed_convolution(x, kernel, (5,), (2,), (1,), [(0, 0)])
    np.testing.assert_array_equal(y.ravel(), [10, 1, 23, 2, 6])
    y = ref.transposed_convolution(x, kernel, (4,), (2,), (1,), [(0, 1)])
    np.testing.assert_array_equal(y.ravel(), [10, 1, 23, 2])


@pytest.mark.parametrize("pad_value", [0.0, 1.0])
def test_depthwise_is_a_convolution_of_one_channel_groups(rng, pad_value):
    x, kernel = rng.normal(size=(2, 5, 4, 3)), rng.normal(size=(3, 2, 3, 2))
    where = ((2, 1), (1, 2), [(1, 1), (0, 1)], pad_value)
    np.testing.assert_allclose(
        ref.depthwise_convolution(x, kernel, *where),
        ref.convolution(x, kernel.reshape(3, 2, 1, 6), *where, 3),
        atol=1e-12,
    )


def test_separable_by_hand():
    x = np.array([[1.0, 10], [2, 20]]).reshape(1, 2, 2)
    depthwise = np.array([[1.0, 1], [1, -1]]).reshape(2, 2, 1)
    pointwise = np.array([[1.0], [2]]).reshape(1, 2, 1)
    y = ref.separable_convolution(x, depthwise, pointwise, (1,), (1,), [(0, 0)])
    np.testing.assert_array_equal(y, [[[3 + 2 * -10]]])


def test_locally_connected_with_equal_weights_is_a_convolution(rng):
    x, kernel = rng.normal(size=(2, 5, 4, 3)), rng.normal(size=(3, 2, 3, 2))
    strides, pads = (2, 1), [(0, 1), (1, 0)]
    expected = ref.convolution(x, kernel, strides, (1, 1), pads)
    per_pixel = np.broadcast_to(kernel, (*expected.shape[1:-1], *kernel.shape))
    np.testing.assert_allclose(ref.locally_connected(x, per_pixel, strides, pads), expected, atol=1e-12)


def test_locally_connected_gradients(rng):
    x, kernel = rng.normal(size=(2, 5, 4, 2)), rng.normal(size=(2, 3, 3, 2, 2, 2))
    strides, pads = (2, 1), [(0, 0), (0, 0)]
    dy = rng.normal(size=(2, 2, 3, 2))
    dx, dkernel = ref.locally_connected_gradients(x, kernel, dy, strides, pads)
    assert_gradient(dx, lambda x: ref.locally_connected(x, kernel, strides, pads), x, dy)
    assert_gradient(dkernel, lambda k: ref.locally_connected(x, k, strides, pads), kernel, dy)


def test_dense_gradients(rng):
    x, kernel, dy = rng.normal(size=(2, 3, 4)), rng.normal(size=(4, 2)), rng.normal(size=(2, 3, 2))
    dx, dkernel = ref.dense_gradients(x, kernel, dy)
    assert_gradient(dx, lambda x: ref.dense(x, kernel), x, dy)
    assert_gradient(dkernel, lambda kernel: ref.dense(x, kernel), kernel, dy)


# ---- pooling and batch norm ----------------------------------------------------------------------


def test_pooling_by_hand():
    x = np.array([1.0, 3, -2, 5, 4]).reshape(1, 5, 1)
    pads = [(0, 1)]
    np.testing.assert_array_equal(ref.max_pool(x, (2,), (2,), pads).ravel(), [3, 5, 4])
    np.testing.assert_array_equal(ref.average_pool(x, (2,), (2,), pads).ravel(), [2, 1.5, 4])


def test_max_pool_gradient_goes_to_the_first_maximum():
    x = np.ones((1, 2, 3, 1))
    dy = np.array([1.0, 10]).reshape(1, 1, 2, 1)
    dx = ref.max_pool_gradient(x, dy, (2, 2), (1, 1), [(0, 0), (0, 0)])
    np.testing.assert_array_equal(dx[0, :, :, 0], [[1, 10, 0], [0, 0, 0]])


@pytest.mark.parametrize("name", ["max_pool", "average_pool"])
@pytest.mark.parametrize("pads", [[(0, 0), (0, 0)], [(1, 0), (1, 1)]])
def test_pooling_gradients(rng, name, pads):
    x = rng.permutation(60.0 * np.arange(60)).reshape(1, 5, 4, 3)
    pool, gradient = getattr(ref, name), getattr(ref, f"{name}_gradient")
    where = ((3, 2), (2, 1), pads)
    dy = rng.normal(size=pool(x, *where).shape)
    assert_gradient(gradient(x, dy, *where), lambda x: pool(x, *where), x, dy)


def test_batch_norm_gradients(rng):
    x, gamma, beta = rng.normal(size=(4, 3, 2)), rng.normal(size=2), rng.normal(size=2)
    dy = rng.normal(size=x.shape)
    dx, dgamma, dbeta = ref.batch_norm_gradients(x, gamma, dy, 1e-3)
    assert_gradient(dx, lambda x: ref.batch_norm(x, gamma, beta, 1e-3), x, dy)
    assert_gradient(dgamma, lambda gamma: ref.batch_norm(x, gamma, beta, 1e-3), gamma, dy)
    assert_gradient(dbeta, lambda beta: ref.batch_norm(x, gamma, beta, 1e-3), beta, dy)


def test_moving_variance_is_unbiased_for_images_only():
    x = np.array([1.0, 3, 5, 7])
    assert ref.moving_variance(x.reshape(4, 1)) == 5
    assert ref.moving_variance(x.reshape(1, 2, 2, 1)) == pytest.approx(20 / 3)
