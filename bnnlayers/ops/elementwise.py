"""Activation functions that real-valued networks share, each with its gradient below it.

Value and gradient are TensorFlow's, also where the function has a corner. What an operation keeps
for its gradient is a bit per element where a bit is enough.
"""

import math

import numpy as np

from .. import _core
from ..tape import operation, read
from .later import Later

_SELU_ALPHA = 1.6732632423543772
_SELU_SCALE = 1.0507009873554805
_GELU_SLOPE = math.sqrt(2 / math.pi)
_GELU_CUBIC = 0.044715
_erf = np.vectorize(math.erf, otypes=[np.float64])


def _floats(x) -> np.ndarray:
    x = np.asarray(x)
    return x if np.issubdtype(x.dtype, np.floating) else x.astype(np.float32)


class _Mask:
    """A boolean array, a bit per element."""

    def __init__(self, mask: np.ndarray):
        self._shape = mask.shape
        self._bits = np.packbits(mask)
        self.nbytes = self._bits.nbytes

    def read(self) -> np.ndarray:
        count = math.prod(self._shape)
        return np.unpackbits(self._bits, count=count).view(bool).reshape(self._shape)


def _bounds(max_value):
    """The largest value of a rectifier, and the last float32 that has a gradient."""
    if max_value is None:
        return np.inf, np.inf
    return max_value, np.nextafter(np.float32(6), np.float32(0)) if max_value == 6 else max_value


@operation(recompute=True)
def relu(x, *, negative_slope=0.0, max_value=None, threshold=0.0, traced):
    """Rectified linear unit: ``x`` above the threshold, cut off at `max_value`, and a slope below.

    Parameters
    ----------
    x : array_like
        Of any shape and dtype.
    negative_slope : float
        Below the threshold the value is ``negative_slope * (x - threshold)``.
    max_value : float, optional
        The largest value; none if not given.
    threshold : float
        Values up to it are not active.

    Returns
    -------
    Tensor
        Of the shape and dtype of `x`.
    """
    x = np.asarray(x)
    if x.dtype == np.float32 and threshold == 0 and not negative_slope:
        y, mask = _core.rectify(x, *_bounds(max_value), any(traced))
        return y, (mask, None, 0)
    y = np.maximum(x, 0) if threshold == 0 else x * (x > threshold)
    if max_value is not None:
        y = np.clip(y, 0, max_value)
    if negative_slope:
        y = y - negative_slope * np.maximum(threshold - x, 0)
    if not any(traced):
        return y, None
    active = x > threshold
    if max_value is not None:
        # TensorFlow's relu6 is closed at 0 and 6, its clip is open.
        active &= x < max_value if max_value == 6 and threshold == 0 else x <= max_value
    below = None
    if negative_slope:
        leaky = max_value is None and threshold == 0
        below = _Mask(x <= 0 if leaky else x < threshold)
    return y, (_Mask(active), below, negative_slope)


@relu.backward
def relu(residual, dy, needed, spare):
    active, below, negative_slope = residual
    if isinstance(active, np.ndarray):
        dx = spare(dy)
        _core.select(dy.reshape(-1), active, 0, dx.reshape(-1))
        return (dx,)
    dx = dy * active.read()
    if below is not None:
        dx += negative_slope * dy * below.read()
    return (dx,)


class Rectified(Later):
    """``relu(x)`` that is yet to be computed, for a reader that may rectify `source` as it reads it."""

    def __init__(self, source):
        self.source = source
        self.shape = source.shape

    def _compute(self):
        return relu(self.source)


@operation
def hard_sigmoid(x, *, traced):
    """Return ``clip(0.2 * x + 0.5, 0, 1)``, of the shape of `x`."""
    line = 0.2 * _floats(x) + 0.5
    return np.clip(line, 0, 1), _Mask((line >= 0) & (line <= 1)) if any(traced) else None


@hard_sigmoid.backward
def hard_sigmoid(inside, dy, needed):
    return (0.2 * dy * inside.read(),)


@operation
def tanh(x):
    """Return the hyperbolic tangent, of the shape of `x`."""
    y = np.tanh(_floats(x))
    return y, y


@tanh.backward
def tanh(y, dy, needed):
    return (dy * (1 - y * y),)


@operation
def exponential(x):
    """Return ``exp(x)``, of the shape of `x`."""
    y = np.exp(_floats(x))
    return y, y


@exponential.backward
def exponential(y, dy, needed):
    return (dy * y,)


@operation
def elu(x, *, alpha=1.0, scale=1.0):
    """Return ``scale`` times x, or ``alpha * (exp(x) - 1)`` below zero (Clevert et al., 2015)."""
    x = _floats(x)
    y = scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))
    return y, (y, alpha, scale)


@elu.backward
def elu(residual, dy, needed):
    y, alpha, scale = residual
    # At zero TensorFlow's selu has the slope of the positive side, Keras's elu that of the other.
    positive = y > 0 if scale == 1 else y >= 0
    return (dy * np.where(positive, scale, y + scale * alpha),)


def selu(x):
    """Return `elu` with the two constants that keep mean and variance (Klambauer et al., 2017)."""
    return elu(x, alpha=_SELU_ALPHA, scale=_SELU_SCALE)


@operation
def softplus(x):
    """Return ``log(1 + exp(x))``, of the shape of `x`."""
    x = _floats(x)
    return np.logaddexp(x, np.zeros((), x.dtype)), x


@softplus.backward
def softplus(x, dy, needed):
    return (dy * _logistic(x),)


@operation
def softsign(x):
    """Return ``x / (1 + abs(x))``, of the shape of `x`."""
    x = _floats(x)
    return x / (1 + np.abs(x)), x


@softsign.backward
def softsign(x, dy, needed):
    return (dy / np.square(1 + np.abs(x)),)


@operation
def swish(x):
    """Return ``x * sigmoid(x)``, of the shape of `x` (Ramachandran et al., 2017)."""
    x = _floats(x)
    return x * _logistic(x), x


@swish.backward
def swish(x, dy, needed):
    s = _logistic(x)
    return (dy * s * (1 + x * (1 - s)),)


@operation
def gelu(x, *, approximate=False):
    """Return x times the normal distribution function (Hendrycks and Gimpel, 2016)."""
    x = _floats(x)
    return x * _normal_cdf(x, approximate), (x, approximate)


@gelu.backward
def gelu(residual, dy, needed):
    x, approximate = residual
    cdf = _normal_cdf(x, approximate)
    if approximate:
        pdf = 2 * cdf * (1 - cdf) * _GELU_SLOPE * (1 + 3 * _GELU_CUBIC * x * x)
    else:
        pdf = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return (dy * (cdf + x * pdf),)


def _normal_cdf(x: np.ndarray, approximate: bool) -> np.ndarray:
    if approximate:
        return 0.5 * (1 + np.tanh(_GELU_SLOPE * (x + _GELU_CUBIC * x**3)))
    return 0.5 * (1 + _erf(x / math.sqrt(2)).astype(x.dtype))


@operation
def _softmax(x, *, axis):
    x = _floats(x)
    y = np.exp(x - np.maximum.reduce(x, axis, keepdims=True))
    y /= np.add.reduce(y, axis, keepdims=True)
    return y, (y, axis)


@_softmax.backward
def _softmax(residual, dy, needed):
    y, axis = residual
    return ((dy - np.sum(dy * y, axis=axis, keepdims=True)) * y,)


@operation
def _sigmoid(x):
    y = _logistic(_floats(x))
    return y, y


@_sigmoid.backward
def _sigmoid(y, dy, needed):
    return (dy * y * (1 - y),)


def softmax(x, axis=-1):
    """Return ``exp(x)`` divided by its sum along an axis, of the shape of `x`.

    The result remembers the logits, so that a cross-entropy of it is computed from them.
    """
    y = _softmax(x, axis=axis)
    if axis in (-1, y.ndim - 1):
        y._logits = read(x)
    return y


def sigmoid(x):
    """Return ``1 / (1 + exp(-x))``; it remembers the logits as `softmax` does."""
    y = _sigmoid(x)
    y._logits = read(x)
    return y


def _logistic(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)
