"""Activation functions by name, and their registry."""

from ..ops import elementwise
from .utils import Family


def linear(x):
    """Return `x` as it is."""
    return x


def relu(x, alpha=0.0, max_value=None, threshold=0.0):
    """Rectified linear unit.

    Parameters
    ----------
    x : array_like
        Of any shape.
    alpha : float
        Slope below the threshold.
    max_value : float, optional
        The largest value.
    threshold : float
        Values up to it are not active.

    Returns
    -------
    Tensor
        Of the shape of `x`.
    """
    return elementwise.relu(x, negative_slope=alpha, max_value=max_value, threshold=threshold)


def relu6(x):
    """Rectified linear unit cut off at six."""
    return relu(x, max_value=6)


def leaky_relu(x, alpha=0.2):
    """Rectified linear unit with a slope below zero."""
    return relu(x, alpha=alpha)


def elu(x, alpha=1.0):
    """Exponential linear unit (Clevert et al., 2015)."""
    return elementwise.elu(x, alpha=alpha)


def gelu(x, approximate=False):
    """Gaussian error linear unit (Hendrycks and Gimpel, 2016)."""
    return elementwise.gelu(x, approximate=approximate)


def softmax(x, axis=-1):
    """Normalised exponential along an axis."""
    return elementwise.softmax(x, axis=axis)


exponential = elementwise.exponential
hard_sigmoid = elementwise.hard_sigmoid
selu = elementwise.selu
sigmoid = elementwise.sigmoid
softplus = elementwise.softplus
softsign = elementwise.softsign
swish = silu = elementwise.swish
tanh = elementwise.tanh

_family = Family(
    "activation function",
    (
        linear,
        relu,
        relu6,
        leaky_relu,
        elu,
        gelu,
        softmax,
        exponential,
        hard_sigmoid,
        selu,
        sigmoid,
        softplus,
        softsign,
        swish,
        tanh,
    ),
    {"silu": swish},
    error=TypeError,
)
serialize = _family.serialize
deserialize = _family.deserialize


def get(identifier):
    """Return the function that a name or configuration stands for; None is `linear`."""
    return linear if identifier is None else _family.get(identifier)
