"""A slow float64 twin of the library, written to be read.

Arrays are channels last: a batch of images is ``(batch, *spatial, channels)`` with any number of
spatial axes. Kernels have Keras's shapes. Padding is explicit, one ``(low, high)`` pair for each
spatial axis. Every operation is a loop over the taps of its kernel: for one tap, the input pixels
that all output pixels read are a strided slice of the padded input, its *window*. Gradients write
to the window what the forward operation reads from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Pads = Sequence[tuple[int, int]]
WORD = 32


# ---- the canonical bit layout --------------------------------------------------------------------


def pack_bits(bits, axis=-1):
    """Words ``uint32[..., ceil(n / 32)]`` of the axis, which moves last.

    Bit i of word w is element ``32 w + i``; the tail of the last word is zero.
    """
    bits = np.moveaxis(np.asarray(bits, bool), axis, -1)
    count = bits.shape[-1]
    words = np.zeros((*bits.shape[:-1], -(-count // WORD)), np.uint32)
    for i in range(count):
        words[..., i // WORD] |= bits[..., i].astype(np.uint32) << np.uint32(i % WORD)
    return words


def unpack_bits(words, count, axis=-1):
    """The inverse of `pack_bits`."""
    bits = np.empty((*words.shape[:-1], count), bool)
    for i in range(count):
        bits[..., i] = words[..., i // WORD] >> np.uint32(i % WORD) & np.uint32(1)
    return np.moveaxis(bits, -1, axis)


def pack(x, axis=-1):
    """Signs as one plane of words, ``uint32[1, ..., ceil(n / 32)]``.

    A set bit means negative; zeros are positive.
    """
    return pack_bits(np.asarray(x) < 0, axis)[np.newaxis]


def unpack(words, count, axis=-1):
    """+-1 from the words of one plane of signs."""
    return np.where(unpack_bits(words, count, axis), -1.0, 1.0)


# ---- quantizers, each with its pseudo-gradient directly below ------------------------------------


def _keep_nan(x, value):
    return np.where(np.isnan(x), x, value)


def ste_sign(x):
    return _keep_nan(x, np.where(x < 0, -1.0, 1.0))


def ste_sign_grad(x, dy, clip_value):
    return np.where(np.abs(x) <= clip_value, dy, 0.0)


approx_sign = ste_sign


def approx_sign_grad(x, dy):
    magnitude = np.abs(x)
    return np.where(magnitude <= 1, (1 - magnitude) * 2 * dy, 0.0)


swish_sign = ste_sign


def swish_sign_grad(x, dy, beta):
    """``beta (2 - bx tanh(bx / 2)) / (1 + cosh(bx))``, in ``exp(-|bx|)`` which cannot overflow.

    At infinity the formula has no value, and neither has this.
    """
    bx = np.abs(beta * x)
    e = np.exp(-bx)
    with np.errstate(invalid="ignore"):
        return dy * beta * (2 - bx * (1 - e) / (1 + e)) * 2 * e / (1 + e) ** 2


def ste_heaviside(x):
    return _keep_nan(x, np.where(x > 0, 1.0, 0.0))


ste_heaviside_grad = ste_sign_grad


def ste_tern(x, threshold):
    """-1, 0 or +1; a value at exactly +-threshold is not zero."""
    return np.sign(np.sign(x + threshold) + np.sign(x - threshold))


ste_tern_grad = ste_sign_grad


def ternary_weight_threshold(x):
    """The threshold of ternary weight networks, over the whole tensor."""
    return 0.7 * np.mean(np.abs(x))


def magnitude_scale(x):
    """Mean magnitude over all axes but the last: with one axis, the magnitude itself."""
    return np.mean(np.abs(x), axis=tuple(range(x.ndim - 1)))


def magnitude_aware_sign(x):
    return magnitude_scale(x) * ste_sign(x)


def magnitude_aware_sign_grad(x, dy, clip_value):
    """The scale counts as a constant."""
    return ste_sign_grad(x, magnitude_scale(x) * dy, clip_value)


def dorefa_activations(x, levels):
    """`levels` is ``2**k - 1`` for k bits; halves round to even."""
    return np.round(np.clip(x, 0, 1) * levels) / levels


def dorefa_activations_grad(x, dy):
    return np.where((x >= 0) & (x <= 1), dy, 0.0)


def dorefa_weights(t, maximum, levels):
    """Of ``t = tanh(w)`` and the largest magnitude of t in the whole tensor."""
    normed = (t / (2 * maximum) if maximum else np.zeros(np.shape(t))) + 0.5
    return 2 * np.round(normed * levels) / levels - 1


def dorefa_weights_grad(t, dy, maximum):
    """With respect to w. The maximum counts as a constant; zeros have gradient zero."""
    return dy * (1 - t**2) / maximum if maximum else np.zeros(np.shape(t))


def clip(x, low, high):
    return np.minimum(np.maximum(x, low), high)


def clip_grad(x, dy, low, high):
    return np.where((x >= low) & (x <= high), dy, 0.0)


def hard_tanh(x):
    return clip(x, -1, 1)


def hard_tanh_grad(x, dy):
    return clip_grad(x, dy, -1, 1)


def leaky_tanh(x, alpha):
    return clip(x, -1, 1) + alpha * (np.maximum(x, 1) - 1) + alpha * (np.minimum(x, -1) + 1)


def leaky_tanh_grad(x, dy, alpha):
    """At +-1 both branches count."""
    return dy * ((np.abs(x) <= 1) + alpha * (np.abs(x) >= 1))


# ---- sizes ---------------------------------------------------------------------------------------


def span(kernel, dilation=1):
    """Pixels from the first to the last tap."""
    return (kernel - 1) * dilation + 1


def pads(length, kernel, padding, stride=1, dilation=1):
    """(low, high) padding of one axis: "same" puts the smaller half below, "causal" everything."""
    if padding == "valid":
        return 0, 0
    if padding == "causal":
        return span(kernel, dilation) - 1, 0
    outputs = -(-length // stride)
    total = max((outputs - 1) * stride + span(kernel, dilation) - length, 0)
    return total // 2, total - total // 2


def local_pads(length, kernel, padding, stride=1):
    """(low, high) padding of one axis of a locally connected layer: "same" centres every window."""
    if padding == "valid":
        return 0, 0
    low, outputs = kernel // 2, -(-length // stride)
    return low, max((outputs - 1) * stride + kernel - low - length, 0)


def output_length(length, kernel, pad, stride=1, dilation=1):
    """How often the kernel fits between the two ends of the padded axis."""
    low, high = pad
    room = low + length + high - span(kernel, dilation)
    return max(room // stride + 1, 0)


def transposed_length(length, kernel, padding, stride=1, dilation=1, output_padding=None):
    """Output pixels along one axis of a transposed convolution, as Keras chooses them."""
    extent = span(kernel, dilation)
    if output_padding is not None:
        cut = 2 * (extent // 2) if padding == "same" else 0
        return (length - 1) * stride + extent - cut + output_padding
    return length * stride + (0 if padding == "same" else max(extent - stride, 0))


# ---- convolution ---------------------------------------------------------------------------------


def _pad(x, pads, value):
    return np.pad(x, [(0, 0), *pads, (0, 0)], constant_values=value)


def _unpad(x, pads):
    inner = [slice(low, n - high) for n, (low, high) in zip(x.shape[1:-1], pads, strict=True)]
    return x[(slice(None), *inner)]


def _window(tap, outputs, strides, dilation):
    axes = zip(tap, outputs, strides, dilation, strict=True)
    return (slice(None), *(slice(t * d, t * d + s * n, s) for t, n, s, d in axes))


def _outputs(x, kernel, strides, dilation, pads):
    axes = zip(x.shape[1:-1], kernel, pads, strides, dilation, strict=True)
    return [output_length(*axis) for axis in axes]


def _groups(kernel, groups):
    """For each group its channels and its filters."""
    depth, columns = kernel.shape[-2], kernel.shape[-1] // groups
    for g in range(groups):
        yield slice(g * depth, (g + 1) * depth), slice(g * columns, (g + 1) * columns)


def convolution(x, kernel, strides, dilation, pads: Pads, pad_value=0.0, groups=1):
    """x (batch, *spatial, C), kernel (*taps, C / groups, F) -> (batch, *outputs, F)."""
    taps = kernel.shape[:-2]
    outputs = _outputs(x, taps, strides, dilation, pads)
    padded = _pad(np.asarray(x, np.float64), pads, pad_value)
    y = np.zeros((len(x), *outputs, kernel.shape[-1]))
    for channels, filters in _groups(kernel, groups):
        for tap in np.ndindex(*taps):
            window = padded[_window(tap, outputs, strides, dilation)]
            y[..., filters] += window[..., channels] @ kernel[tap][:, filters]
    return y


def convolution_input_gradient(dy, kernel, spatial, strides, dilation, pads: Pads, groups=1):
    """dy (batch, *outputs, F) -> (batch, *spatial, C): what reaches the padding is dropped."""
    taps, outputs = kernel.shape[:-2], dy.shape[1:-1]
    padded = np.zeros((len(dy), *spatial, kernel.shape[-2] * groups))
    padded = _pad(padded, pads, 0.0)
    for channels, filters in _groups(kernel, groups):
        for tap in np.ndindex(*taps):
            window = padded[_window(tap, outputs, strides, dilation)]
            window[..., channels] += dy[..., filters] @ kernel[tap][:, filters].T
    return _unpad(padded, pads)


def convolution_kernel_gradient(x, dy, taps, strides, dilation, pads: Pads, pad_value=0.0, groups=1):
    """x (batch, *spatial, C), dy (batch, *outputs, F) -> (*taps, C / groups, F)."""
    outputs = dy.shape[1:-1]
    pixels = list(range(dy.ndim - 1))
    padded = _pad(np.asarray(x, np.float64), pads, pad_value)
    gradient = np.zeros((*taps, x.shape[-1] // groups, dy.shape[-1]))
    for channels, filters in _groups(gradient, groups):
        for tap in np.ndindex(*taps):
            window = padded[_window(tap, outputs, strides, dilation)]
            gradient[tap][:, filters] = np.tensordot(window[..., channels], dy[..., filters], (pixels, pixels))
    return gradient


def im2col(x, taps, strides, dilation, pads: Pads, pad_value=0.0, groups=1):
    """The left factor of a matrix product: (groups, batch * outputs, taps * C / groups).

    The channels of one tap lie side by side.
    """
    outputs = _outputs(x, taps, strides, dilation, pads)
    padded = _pad(x, pads, pad_value)
    windows = [padded[_window(tap, outputs, strides, dilation)] for tap in np.ndindex(*taps)]
    depth = x.shape[-1] // groups
    rows = len(x) * int(np.prod(outputs))
    grouped = np.stack([window.reshape(rows, groups, depth) for window in windows])
    return grouped.transpose(2, 1, 0, 3).reshape(groups, rows, len(windows) * depth)


def col2im(columns, shape, taps, strides, dilation, pads: Pads):
    """The transpose of `im2col`: each pixel of images of this shape sums the taps that read it."""
    groups = len(columns)
    padded = _pad(np.zeros(shape), pads, 0.0)
    outputs = _outputs(np.zeros(shape), taps, strides, dilation, pads)
    per_tap = columns.reshape(groups, columns.shape[1], int(np.prod(taps)), shape[-1] // groups)
    for i, tap in enumerate(np.ndindex(*taps)):
        window = padded[_window(tap, outputs, strides, dilation)]
        window += per_tap[:, :, i].swapaxes(0, 1).reshape(window.shape)
    return _unpad(padded, pads)


def transposed_convolution(x, kernel, outputs, strides, dilation, pads: Pads):
    """x (batch, *spatial, C), kernel (*taps, F, C) -> (batch, *outputs, F).

    By definition the input gradient of the convolution that maps `outputs` to x's pixels.
    """
    return convolution_input_gradient(x, kernel, outputs, strides, dilation, pads)


def depthwise_convolution(x, kernel, strides, dilation, pads: Pads, pad_value=0.0):
    """x (batch, *spatial, C), kernel (*taps, C, M) -> (batch, *outputs, C * M)."""
    *taps, channels, multiplier = kernel.shape
    outputs = _outputs(x, taps, strides, dilation, pads)
    padded = _pad(np.asarray(x, np.float64), pads, pad_value)
    y = np.zeros((len(x), *outputs, channels, multiplier))
    for tap in np.ndindex(*taps):
        y += padded[_window(tap, outputs, strides, dilation)][..., np.newaxis] * kernel[tap]
    return y.reshape(*y.shape[:-2], channels * multiplier)


def depthwise_input_gradient(dy, kernel, spatial, strides, dilation, pads: Pads):
    """dy (batch, *outputs, C * M) -> (batch, *spatial, C): what reaches the padding is dropped."""
    *taps, channels, multiplier = kernel.shape
    outputs = dy.shape[1:-1]
    terms = dy.reshape(*dy.shape[:-1], channels, multiplier)
    padded = _pad(np.zeros((len(dy), *spatial, channels)), pads, 0.0)
    for tap in np.ndindex(*taps):
        padded[_window(tap, outputs, strides, dilation)] += np.sum(terms * kernel[tap], axis=-1, dtype=np.float64)
    return _unpad(padded, pads)


def depthwise_kernel_gradient(x, dy, taps, strides, dilation, pads: Pads, pad_value=0.0):
    """x (batch, *spatial, C), dy (batch, *outputs, C * M) -> (*taps, C, M)."""
    outputs, channels = dy.shape[1:-1], x.shape[-1]
    dy = dy.reshape(*dy.shape[:-1], channels, dy.shape[-1] // channels)
    padded = _pad(np.asarray(x, np.float64), pads, pad_value)
    gradient = np.zeros((*taps, *dy.shape[-2:]))
    for tap in np.ndindex(*taps):
        window = padded[_window(tap, outputs, strides, dilation)]
        gradient[tap] = np.sum(window[..., np.newaxis] * dy, axis=tuple(range(window.ndim - 1)))
    return gradient


def separable_convolution(x, depthwise, pointwise, strides, dilation, pads: Pads, pad_value=0.0):
    """A depthwise convolution, then pointwise (1, ..., C * M, F)."""
    y = depthwise_convolution(x, depthwise, strides, dilation, pads, pad_value)
    return y @ pointwise.reshape(pointwise.shape[-2:])


def locally_connected(x, kernel, strides, pads: Pads):
    """A convolution with its own weights at every output pixel: kernel (*outputs, *taps, C, F)."""
    rank = x.ndim - 2
    outputs, taps = kernel.shape[:rank], kernel.shape[rank : 2 * rank]
    padded = _pad(np.asarray(x, np.float64), pads, 0.0)
    y = np.zeros((len(x), *outputs, kernel.shape[-1]))
    for tap in np.ndindex(*taps):
        window = padded[_window(tap, outputs, strides, (1,) * rank)]
        y += np.einsum("b...c,...cf->b...f", window, kernel[(slice(None),) * rank + tap])
    return y


def locally_connected_gradients(x, kernel, dy, strides, pads: Pads):
    """Gradients of x and of the kernel."""
    rank = x.ndim - 2
    outputs, taps = kernel.shape[:rank], kernel.shape[rank : 2 * rank]
    padded = _pad(np.asarray(x, np.float64), pads, 0.0)
    dx, dkernel = np.zeros(padded.shape), np.zeros(kernel.shape)
    for tap in np.ndindex(*taps):
        window = _window(tap, outputs, strides, (1,) * rank)
        weights = (slice(None),) * rank + tap
        dx[window] += np.einsum("b...f,...cf->b...c", dy, kernel[weights])
        dkernel[weights] = np.einsum("b...c,b...f->...cf", padded[window], dy)
    return _unpad(dx, pads), dkernel


def dense(x, kernel):
    """x (..., C), kernel (C, F) -> (..., F)."""
    return np.asarray(x, np.float64) @ kernel


def dense_gradients(x, kernel, dy):
    """Gradients of x and of the kernel."""
    rows = list(range(x.ndim - 1))
    return dy @ kernel.T, np.tensordot(np.asarray(x, np.float64), dy, (rows, rows))


# ---- pooling -------------------------------------------------------------------------------------


def max_pool(x, size, strides, pads: Pads):
    """x (batch, *spatial, C) -> (batch, *outputs, C); padding never wins."""
    outputs = _outputs(x, size, strides, (1,) * len(size), pads)
    padded = _pad(np.asarray(x, np.float64), pads, -np.inf)
    y = np.full((len(x), *outputs, x.shape[-1]), -np.inf)
    for tap in np.ndindex(*size):
        y = np.maximum(y, padded[_window(tap, outputs, strides, (1,) * len(size))])
    return y


def max_pool_gradient(x, dy, size, strides, pads: Pads):
    """Each output's gradient goes to the first maximum of its window in row-major order."""
    largest = max_pool(x, size, strides, pads)
    padded = _pad(np.asarray(x, np.float64), pads, -np.inf)
    dx = np.zeros(padded.shape)
    unclaimed = np.ones(dy.shape, bool)
    for tap in np.ndindex(*size):
        window = _window(tap, dy.shape[1:-1], strides, (1,) * len(size))
        first = unclaimed & (padded[window] == largest)
        dx[window] += np.where(first, dy, 0.0)
        unclaimed &= ~first
    return _unpad(dx, pads)


def _pool_counts(spatial, outputs, size, strides, pads):
    """How many pixels that are no padding each window holds: (1, *outputs, 1)."""
    inside = _pad(np.ones((1, *spatial, 1)), pads, 0.0)
    ones = (1,) * len(size)
    return sum(inside[_window(tap, outputs, strides, ones)] for tap in np.ndindex(*size))


def average_pool(x, size, strides, pads: Pads):
    """x (batch, *spatial, C) -> (batch, *outputs, C); padding does not count."""
    ones = (1,) * len(size)
    outputs = _outputs(x, size, strides, ones, pads)
    padded = _pad(np.asarray(x, np.float64), pads, 0.0)
    total = sum(padded[_window(tap, outputs, strides, ones)] for tap in np.ndindex(*size))
    return total / _pool_counts(x.shape[1:-1], outputs, size, strides, pads)


def average_pool_gradient(x, dy, size, strides, pads: Pads):
    outputs = dy.shape[1:-1]
    dx = np.zeros(_pad(x, pads, 0.0).shape)
    share = dy / _pool_counts(x.shape[1:-1], outputs, size, strides, pads)
    for tap in np.ndindex(*size):
        dx[_window(tap, outputs, strides, (1,) * len(size))] += share
    return _unpad(dx, pads)


# ---- batch normalization -------------------------------------------------------------------------


def batch_norm(x, gamma, beta, epsilon):
    """Normalize each channel over all other axes, with the biased variance."""
    rows = tuple(range(x.ndim - 1))
    mean, variance = x.mean(rows), x.var(rows)
    return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta


def batch_norm_gradients(x, gamma, dy, epsilon):
    """Gradients of x, gamma and beta; mean and variance depend on x."""
    rows = tuple(range(x.ndim - 1))
    deviation = np.sqrt(x.var(rows) + epsilon)
    normed = (x - x.mean(rows)) / deviation
    dgamma, dbeta = (dy * normed).sum(rows), dy.sum(rows)
    count = x.size / x.shape[-1]
    return gamma / deviation * (dy - dbeta / count - normed * dgamma / count), dgamma, dbeta


def moving_variance(x):
    """The variance that enters the moving average: unbiased for 4 and 5 axes, else biased."""
    count = x.size // x.shape[-1]
    return x.var(tuple(range(x.ndim - 1)), ddof=1 if x.ndim in (4, 5) and count > 1 else 0)
