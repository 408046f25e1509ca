"""Update rules of optimizers: each changes the value and its state in place, in their dtype.

All arrays have one shape and dtype; coefficients are scalars of that dtype, so that the arithmetic
is Keras's. The new values are clipped to magnitudes of at most `limit`. `_core.update` takes float32 in
the order of memory, in one pass; it returns False, and has done nothing, where an array is another.
"""

import math

import numpy as np

from .. import _core


def clip(value, limit):
    """Clip in place to magnitudes of at most `limit`."""
    if limit < math.inf:
        np.clip(value, -limit, limit, out=value)


def sgd(value, grad, *, lr, limit=math.inf):
    """Gradient descent: ``value -= lr * grad``."""
    if not _core.update("sgd", (lr,), (value, grad), limit):
        value -= grad * lr
        clip(value, limit)


def momentum(value, accumulator, grad, *, lr, momentum, nesterov, limit=math.inf):
    """Gradient descent with momentum (Sutskever et al., 2013).

    Parameters
    ----------
    value, accumulator, grad : ndarray
    lr, momentum : scalar
    nesterov : bool
        Whether the step looks ahead along the accumulated direction.
    """
    rule = "nesterov" if nesterov else "momentum"
    if _core.update(rule, (lr, momentum), (value, grad, accumulator), limit):
        return
    step = grad * -lr
    accumulator *= momentum
    accumulator += step
    value += step + accumulator * momentum if nesterov else accumulator
    clip(value, limit)


def adam(value, m, v, grad, *, alpha, rest_1, rest_2, epsilon, v_hat=None, limit=math.inf):
    """Adam (Kingma and Ba, 2015), and AMSGrad (Reddi et al., 2018) if `v_hat` is given.

    Parameters
    ----------
    value, m, v, grad : ndarray
    alpha : scalar
        The learning rate corrected for the bias of both moments.
    rest_1, rest_2 : scalar
        One minus each decay rate.
    epsilon : scalar
    v_hat : ndarray, optional
        The largest second moment so far.
    """
    rule, state = ("adam", (m, v)) if v_hat is None else ("amsgrad", (m, v, v_hat))
    if _core.update(rule, (alpha, rest_1, rest_2, epsilon), (value, grad, *state), limit):
        return
    m += (grad - m) * rest_1
    v += (grad * grad - v) * rest_2
    if v_hat is not None:
        np.maximum(v_hat, v, out=v_hat)
        v = v_hat
    value -= (m * alpha) / (np.sqrt(v) + epsilon)
    clip(value, limit)


def rmsprop(
    value,
    velocity,
    grad,
    *,
    lr,
    rho,
    rest,
    epsilon,
    epsilon_inside=True,
    mean=None,
    accumulator=None,
    momentum=0.0,
    limit=math.inf,
):
    """RMSprop (Hinton, 2012), optionally centered and with momentum.

    Parameters
    ----------
    value, velocity, grad : ndarray
    lr, rho, rest, epsilon : scalar
        `rest` is one minus `rho`.
    epsilon_inside : bool
        Whether epsilon is added before the root is taken, or after.
    mean : ndarray, optional
        The moving mean of the gradient; its square is subtracted from the velocity.
    accumulator : ndarray, optional
        Of the momentum.
    momentum : scalar
    """
    velocity *= rho
    velocity += rest * grad * grad
    spread = velocity
    if mean is not None:
        mean *= rho
        mean += rest * grad
        spread = velocity - mean * mean
    root = np.sqrt(spread + epsilon) if epsilon_inside else np.sqrt(spread) + epsilon
    step = lr * grad / root
    if accumulator is not None:
        accumulator *= momentum
        accumulator += step
        step = accumulator
    value -= step
    clip(value, limit)


def bop(value, m, grad, *, gamma, threshold, limit=math.inf):
    """Bop (Helwegen et al., 2019): flips a sign where the mean gradient pushes against it beyond a threshold.

    Parameters
    ----------
    value, m, grad : ndarray
        `m` is the moving average of the gradient.
    gamma : scalar
        Share of the new gradient in the average.
    threshold : scalar
        What ``m * value`` must exceed. Where it is met exactly, the value becomes +1.
    """
    if _core.update("bop", (gamma, threshold), (value, grad, m), limit):
        return
    m += gamma * (grad - m)
    _core.ste_sign(-np.sign(value * m - threshold) * value, out=value)
    clip(value, limit)
