"""Cross-entropies computed from logits, and their sum, each with its gradient below it."""

import numpy as np

from ..tape import operation


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - np.maximum.reduce(logits, axis=-1, keepdims=True)
    return shifted - np.log(np.add.reduce(np.exp(shifted), axis=-1, keepdims=True))


@operation
def softmax_cross_entropy(logits, labels, *, traced):
    """Cross-entropy between softmax(logits) and a distribution over the last axis.

    Parameters
    ----------
    logits : array_like
        Of shape ``(..., classes)``, floating point.
    labels : array_like
        Of the same shape. The gradient supposes, as TensorFlow's does, that they sum to one.

    Returns
    -------
    Tensor
        Of shape ``(...)``.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    if logits.shape != labels.shape:
        raise ValueError(
            f"softmax_cross_entropy: labels: expected shape {logits.shape}, received {labels.shape}"
        )
    log_p = _log_softmax(logits)
    loss = -np.sum(labels * log_p, axis=-1)
    return loss, (np.exp(log_p) - labels, log_p if traced[1] else None)


@softmax_cross_entropy.backward
def softmax_cross_entropy(residual, dy, needed):
    excess, log_p = residual
    dy = dy[..., np.newaxis]
    return (dy * excess if needed[0] else None, -dy * log_p if needed[1] else None)


@operation
def sparse_softmax_cross_entropy(logits, *, labels):
    """Negative log-probability that softmax(logits) gives to a class.

    Parameters
    ----------
    logits : array_like
        Of shape ``(..., classes)``, floating point.
    labels : array_like of int
        Of shape ``(...)``.

    Returns
    -------
    Tensor
        Of shape ``(...)``.

    Raises
    ------
    ValueError
        If the shapes do not fit or a label is not in ``[0, classes)``.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    if logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"sparse_softmax_cross_entropy: labels: expected shape {logits.shape[:-1]}, "
            f"received {labels.shape}"
        )
    classes = logits.shape[-1]
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        raise ValueError(
            f"sparse_softmax_cross_entropy: labels: expected values in [0, {classes}), "
            f"received [{labels.min()}, {labels.max()}]"
        )
    log_p = _log_softmax(logits)
    at = np.arange(0, logits.size, classes) + labels.reshape(-1)
    return -log_p.reshape(-1)[at].reshape(labels.shape), (log_p, at)


@sparse_softmax_cross_entropy.backward
def sparse_softmax_cross_entropy(residual, dy, needed):
    log_p, at = residual
    excess = np.exp(log_p)
    excess.reshape(-1)[at] -= 1
    excess *= dy[..., np.newaxis]
    return (excess,)


@operation
def sigmoid_cross_entropy(logits, labels):
    """Cross-entropy between sigmoid(logits) and probabilities, element by element.

    Parameters
    ----------
    logits, labels : array_like
        Of the same shape, floating point.

    Returns
    -------
    Tensor
        Of that shape.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    loss = np.maximum(logits, 0) - logits * labels + np.log1p(np.exp(-np.abs(logits)))
    return loss, (logits, labels)


@sigmoid_cross_entropy.backward
def sigmoid_cross_entropy(residual, dy, needed):
    logits, labels = residual
    e = np.exp(-np.abs(logits))
    p = np.where(logits < 0, e, 1) / (1 + e)
    return (dy * (p - labels) if needed[0] else None, -dy * logits if needed[1] else None)


@operation
def total(losses, *, divisor=1):
    """The sum of all losses over a number.

    Parameters
    ----------
    losses : array_like
        Of any shape, floating point.
    divisor : int
        Their number, for the mean.

    Returns
    -------
    Tensor
        A scalar.
    """
    losses = np.asarray(losses)
    return np.sum(losses) / divisor, (losses.shape, divisor)


@total.backward
def total(residual, dy, needed):
    shape, divisor = residual
    return (np.full(shape, dy / divisor),)
