"""Losses: functions, classes with a reduction and sample weights, and their registry.

A function returns one value per sample (it reduces the last axis), a `Loss` object reduces further.
Cross-entropies of the output of a softmax or sigmoid are computed from its logits; those of other
probabilities from values clipped to ``[epsilon, 1 - epsilon]``.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from ..ops import loss as loss_ops
from ..ops.elementwise import softplus
from ..tape import Tensor, convert_to_tensor, plain
from . import backend
from .utils import Configurable, Family, get_registered_name, to_snake_case


class Reduction:
    """How a `Loss` reduces the values of the samples; ``AUTO`` is ``SUM_OVER_BATCH_SIZE``."""

    AUTO = "auto"
    NONE = "none"
    SUM = "sum"
    SUM_OVER_BATCH_SIZE = "sum_over_batch_size"

    @classmethod
    def all(cls) -> tuple[str, ...]:
        """Return the four values."""
        return (cls.AUTO, cls.NONE, cls.SUM, cls.SUM_OVER_BATCH_SIZE)

    @classmethod
    def validate(cls, key: str) -> None:
        """Raise ValueError unless `key` is one of the four."""
        if key not in cls.all():
            raise ValueError(f"Loss: reduction: expected one of {cls.all()}, received {key!r}")


def _floating(x, dtype=None) -> Tensor:
    x = convert_to_tensor(x)
    if dtype is None:
        dtype = x.dtype if x.dtype.kind == "f" else np.dtype(backend.floatx())
    return x if x.dtype == dtype else x.astype(dtype)


def _pair(y_true, y_pred):
    y_pred = _floating(y_pred)
    return _floating(y_true, y_pred.dtype), y_pred


def match_ranks(y_true, y_pred):
    """Drop a last axis of length one from whichever of the two has one axis more than the other."""
    difference = y_pred.ndim - y_true.ndim
    if difference == 1 and y_pred.shape[-1] == 1:
        y_pred = y_pred[..., 0]
    elif difference == -1 and y_true.shape[-1] == 1:
        y_true = y_true[..., 0]
    return y_true, y_pred


def match_weights(sample_weight, values):
    """Drop or append a last axis of weights whose rank differs by one from that of the values."""
    if sample_weight.ndim and sample_weight.ndim - values.ndim == 1:
        return sample_weight[..., 0]
    if sample_weight.ndim and values.ndim - sample_weight.ndim == 1:
        return sample_weight[..., np.newaxis]
    return sample_weight


def compute_weighted_loss(losses, sample_weight=None, reduction=Reduction.AUTO):
    """Multiply losses by weights and reduce them.

    Parameters
    ----------
    losses : array_like
        Of shape ``(batch, ...)``.
    sample_weight : array_like, optional
        Broadcast against the losses; a missing or extra last axis is mended.
    reduction : str
        One of `Reduction`. The mean divides by the number of losses, not by the sum of the weights.
    """
    Reduction.validate(reduction)
    losses = _floating(losses)
    if sample_weight is not None:
        losses = losses * match_weights(_floating(sample_weight, losses.dtype), losses)
    if reduction == Reduction.NONE:
        return losses
    count = 1 if reduction == Reduction.SUM else max(losses.size, 1)
    return loss_ops.total(losses, divisor=count)


class Loss(Configurable):
    """Base class; a subclass implements ``call(y_true, y_pred)``, which returns a value per sample.

    Parameters
    ----------
    reduction : str
        One of `Reduction`.
    name : str, optional
        What logs call it.
    """

    def __init__(self, reduction=Reduction.AUTO, name=None):
        Reduction.validate(reduction)
        self.reduction = reduction
        self.name = name

    def call(self, y_true, y_pred):
        """Return the loss of every sample."""
        raise NotImplementedError(f"{type(self).__name__} must implement call(y_true, y_pred)")

    def __call__(self, y_true, y_pred, sample_weight=None):
        """Return the reduced loss.

        Parameters
        ----------
        y_true, y_pred : array_like
            Of shape ``(batch, ...)``.
        sample_weight : array_like, optional
            Broadcast against the losses of the samples.
        """
        return compute_weighted_loss(self.call(y_true, y_pred), sample_weight, self.reduction)

    def get_config(self):
        return {"reduction": self.reduction, "name": self.name}


class LossFunctionWrapper(Loss):
    """A loss function, and the keyword arguments it is called with, as a `Loss`."""

    def __init__(self, fn, reduction=Reduction.AUTO, name=None, **kwargs):
        super().__init__(reduction=reduction, name=name)
        self.fn = fn
        self._fn_kwargs = kwargs

    def call(self, y_true, y_pred):
        y_true, y_pred = match_ranks(convert_to_tensor(y_true), convert_to_tensor(y_pred))
        return self.fn(y_true, y_pred, **self._fn_kwargs)

    def get_config(self):
        config = {**super().get_config(), **self._fn_kwargs}
        if type(self) is LossFunctionWrapper:
            config["fn"] = get_registered_name(self.fn)
        return config

    @classmethod
    def from_config(cls, config):
        # tf_keras writes the function into the configuration of its own classes too.
        config = dict(config)
        fn = config.pop("fn", None)
        return cls(get(fn), **config) if cls is LossFunctionWrapper else cls(**config)


def mean_squared_error(y_true, y_pred):
    """Mean over the last axis of ``(y_true - y_pred) ** 2``."""
    y_true, y_pred = _pair(y_true, y_pred)
    return np.mean(np.square(y_pred - y_true), axis=-1)


def mean_absolute_error(y_true, y_pred):
    """Mean over the last axis of ``abs(y_true - y_pred)``."""
    y_true, y_pred = _pair(y_true, y_pred)
    return np.mean(np.abs(y_pred - y_true), axis=-1)


def mean_absolute_percentage_error(y_true, y_pred):
    """Mean over the last axis of ``100 * abs((y_true - y_pred) / y_true)``."""
    y_true, y_pred = _pair(y_true, y_pred)
    scale = np.maximum(np.abs(y_true), backend.epsilon())
    return 100.0 * np.mean(np.abs((y_true - y_pred) / scale), axis=-1)


def mean_squared_logarithmic_error(y_true, y_pred):
    """Mean over the last axis of ``(log(y_true + 1) - log(y_pred + 1)) ** 2``."""
    y_true, y_pred = _pair(y_true, y_pred)
    difference = np.log(_at_least(y_pred, backend.epsilon()) + 1.0) - np.log(
        _at_least(y_true, backend.epsilon()) + 1.0
    )
    return np.mean(np.square(difference), axis=-1)


def squared_hinge(y_true, y_pred):
    """Mean over the last axis of ``max(1 - y_true * y_pred, 0) ** 2``; a label 0 means -1."""
    y_true, y_pred = _pair(y_true, y_pred)
    return np.mean(np.square(_at_least(1.0 - _signed_labels(y_true) * y_pred, 0.0)), axis=-1)


def hinge(y_true, y_pred):
    """Mean over the last axis of ``max(1 - y_true * y_pred, 0)``; a label 0 means -1."""
    y_true, y_pred = _pair(y_true, y_pred)
    return np.mean(_at_least(1.0 - _signed_labels(y_true) * y_pred, 0.0), axis=-1)


def categorical_hinge(y_true, y_pred):
    """``max(neg - pos + 1, 0)`` of the prediction for the true class and the largest other one."""
    y_true, y_pred = _pair(y_true, y_pred)
    pos = np.sum(y_true * y_pred, axis=-1)
    neg = np.max((1.0 - y_true) * y_pred, axis=-1)
    return _at_least(neg - pos + 1.0, 0.0)


def huber(y_true, y_pred, delta=1.0):
    """Mean over the last axis: squared up to `delta`, linear beyond (Huber, 1964)."""
    y_true, y_pred = _pair(y_true, y_pred)
    error = y_pred - y_true
    size = np.abs(error)
    small = plain(size) <= delta
    return np.mean(np.where(small, 0.5 * np.square(error), delta * size - 0.5 * delta**2), axis=-1)


def log_cosh(y_true, y_pred):
    """Mean over the last axis of ``log(cosh(y_pred - y_true))``."""
    y_true, y_pred = _pair(y_true, y_pred)
    error = y_pred - y_true
    return np.mean(error + softplus(-2.0 * error) - float(np.log(2.0)), axis=-1)


def kl_divergence(y_true, y_pred):
    """Sum over the last axis of ``y_true * log(y_true / y_pred)``, both at least epsilon."""
    y_true, y_pred = _pair(y_true, y_pred)
    y_true = np.clip(y_true, backend.epsilon(), 1.0)
    y_pred = np.clip(y_pred, backend.epsilon(), 1.0)
    return np.sum(y_true * np.log(y_true / y_pred), axis=-1)


def poisson(y_true, y_pred):
    """Mean over the last axis of ``y_pred - y_true * log(y_pred)``."""
    y_true, y_pred = _pair(y_true, y_pred)
    return np.mean(y_pred - y_true * np.log(y_pred + backend.epsilon()), axis=-1)


def cosine_similarity(y_true, y_pred, axis=-1):
    """Minus the cosine of the angle between the two along an axis."""
    y_true, y_pred = _pair(y_true, y_pred)
    return -np.sum(_normalized(y_true, axis) * _normalized(y_pred, axis), axis=axis)


def categorical_crossentropy(y_true, y_pred, from_logits=False, label_smoothing=0.0, axis=-1):
    """Cross-entropy between a distribution over classes and a prediction.

    Parameters
    ----------
    y_true, y_pred : array_like
        Of the same shape, classes along `axis`.
    from_logits : bool
        Whether `y_pred` holds logits; else it is scaled to sum to one.
    label_smoothing : float
        The part of `y_true` that is spread evenly over all classes.
    axis : int

    Returns
    -------
    Tensor
        The shape without that axis.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    y_true, y_pred = _pair(y_true, y_pred)
    if y_true.shape != y_pred.shape:
        raise ValueError(
            f"categorical_crossentropy: y_true: expected shape {y_pred.shape}, "
            f"received {y_true.shape}"
        )
    if label_smoothing:
        y_true = y_true * (1.0 - label_smoothing) + label_smoothing / y_pred.shape[axis]
    y_pred, from_logits = _logits(y_pred, from_logits, "categorical_crossentropy")
    if from_logits:
        return loss_ops.softmax_cross_entropy(_last(y_pred, axis), _last(y_true, axis))
    y_pred = y_pred / np.sum(y_pred, axis=axis, keepdims=True)
    y_pred = np.clip(y_pred, backend.epsilon(), 1.0 - backend.epsilon())
    return -np.sum(y_true * np.log(y_pred), axis=axis)


def sparse_categorical_crossentropy(y_true, y_pred, from_logits=False, axis=-1, ignore_class=None):
    """Cross-entropy between class numbers and a prediction.

    Parameters
    ----------
    y_true : array_like of int
        Of the shape of `y_pred` without `axis`; an extra axis of length one does no harm.
    y_pred : array_like
        Classes along `axis`.
    from_logits : bool
        Whether `y_pred` holds logits.
    axis : int
    ignore_class : int, optional
        Where `y_true` has this value, the loss is zero.

    Returns
    -------
    Tensor
        The shape of `y_pred` without that axis.

    Raises
    ------
    ValueError
        If the shapes do not fit or a class is out of range.
    """
    y_true, y_pred = plain(convert_to_tensor(y_true)).astype(np.int64), _floating(y_pred)
    y_pred, from_logits = _logits(y_pred, from_logits, "sparse_categorical_crossentropy")
    if not from_logits:
        y_pred = np.log(np.clip(y_pred, backend.epsilon(), 1.0 - backend.epsilon()))
    y_pred = _last(y_pred, axis)
    shape = y_pred.shape[:-1]
    if y_true.size != math.prod(shape):
        raise ValueError(
            f"sparse_categorical_crossentropy: y_true: expected shape {shape}, "
            f"received {y_true.shape}"
        )
    y_true = y_true.reshape(shape)
    if ignore_class is None:
        return loss_ops.sparse_softmax_cross_entropy(y_pred, labels=y_true)
    valid = y_true != ignore_class
    return valid * loss_ops.sparse_softmax_cross_entropy(y_pred, labels=np.where(valid, y_true, 0))


def binary_crossentropy(y_true, y_pred, from_logits=False, label_smoothing=0.0, axis=-1):
    """Mean over an axis of the cross-entropy between labels and predicted probabilities.

    Parameters
    ----------
    y_true, y_pred : array_like
        Of the same shape.
    from_logits : bool
        Whether `y_pred` holds logits.
    label_smoothing : float
        How far labels are moved towards one half.
    axis : int
        Reduced.
    """
    y_true, y_pred = _pair(y_true, y_pred)
    if label_smoothing:
        y_true = y_true * (1.0 - label_smoothing) + 0.5 * label_smoothing
    y_pred, from_logits = _logits(y_pred, from_logits, "binary_crossentropy")
    if from_logits:
        return np.mean(loss_ops.sigmoid_cross_entropy(y_pred, y_true), axis=axis)
    epsilon = backend.epsilon()
    p = np.clip(y_pred, epsilon, 1.0 - epsilon)
    entropy = y_true * np.log(p + epsilon) + (1 - y_true) * np.log(1 - p + epsilon)
    return -np.mean(entropy, axis=axis)


def _logits(y_pred, from_logits, name):
    logits = getattr(y_pred, "_logits", None)
    if logits is None:
        return y_pred, from_logits
    if from_logits:
        warnings.warn(
            f"{name}: from_logits=True, but y_pred is the output of a softmax or sigmoid; "
            "the logits it was made from are used",
            stacklevel=3,
        )
    return _floating(logits), True


def _last(x, axis):
    return x if axis in (-1, x.ndim - 1) else np.moveaxis(x, axis, -1)


def _at_least(x, low):
    # np.clip and not np.maximum: where the two are equal, TensorFlow passes the whole gradient.
    return np.clip(x, low, None)


def _signed_labels(y_true):
    value = plain(y_true)
    return 2.0 * y_true - 1.0 if np.all((value == 0) | (value == 1)) else y_true


def _normalized(x, axis):
    return x / np.sqrt(_at_least(np.sum(np.square(x), axis=axis, keepdims=True), 1e-12))


class _FunctionLoss(LossFunctionWrapper):
    _function: ClassVar[Callable[..., Any]]

    def __init__(self, reduction=Reduction.AUTO, name=None, **kwargs):
        super().__init__(
            type(self)._function, reduction, name or to_snake_case(type(self).__name__), **kwargs
        )


class MeanSquaredError(_FunctionLoss):
    """`mean_squared_error` as a `Loss`."""

    _function = staticmethod(mean_squared_error)


class MeanAbsoluteError(_FunctionLoss):
    """`mean_absolute_error` as a `Loss`."""

    _function = staticmethod(mean_absolute_error)


class MeanAbsolutePercentageError(_FunctionLoss):
    """`mean_absolute_percentage_error` as a `Loss`."""

    _function = staticmethod(mean_absolute_percentage_error)


class MeanSquaredLogarithmicError(_FunctionLoss):
    """`mean_squared_logarithmic_error` as a `Loss`."""

    _function = staticmethod(mean_squared_logarithmic_error)


class Hinge(_FunctionLoss):
    """`hinge` as a `Loss`."""

    _function = staticmethod(hinge)


class SquaredHinge(_FunctionLoss):
    """`squared_hinge` as a `Loss`."""

    _function = staticmethod(squared_hinge)


class CategoricalHinge(_FunctionLoss):
    """`categorical_hinge` as a `Loss`."""

    _function = staticmethod(categorical_hinge)


class LogCosh(_FunctionLoss):
    """`log_cosh` as a `Loss`."""

    _function = staticmethod(log_cosh)


class KLDivergence(_FunctionLoss):
    """`kl_divergence` as a `Loss`."""

    _function = staticmethod(kl_divergence)


class Poisson(_FunctionLoss):
    """`poisson` as a `Loss`."""

    _function = staticmethod(poisson)


class Huber(_FunctionLoss):
    """`huber` as a `Loss`."""

    _function = staticmethod(huber)

    def __init__(self, delta=1.0, reduction=Reduction.AUTO, name="huber_loss"):
        super().__init__(reduction, name, delta=delta)


class CosineSimilarity(_FunctionLoss):
    """`cosine_similarity` as a `Loss`."""

    _function = staticmethod(cosine_similarity)

    def __init__(self, axis=-1, reduction=Reduction.AUTO, name="cosine_similarity"):
        super().__init__(reduction, name, axis=axis)


class CategoricalCrossentropy(_FunctionLoss):
    """`categorical_crossentropy` as a `Loss`."""

    _function = staticmethod(categorical_crossentropy)

    def __init__(
        self,
        from_logits=False,
        label_smoothing=0.0,
        axis=-1,
        reduction=Reduction.AUTO,
        name="categorical_crossentropy",
    ):
        super().__init__(
            reduction, name, from_logits=from_logits, label_smoothing=label_smoothing, axis=axis
        )


class BinaryCrossentropy(_FunctionLoss):
    """`binary_crossentropy` as a `Loss`."""

    _function = staticmethod(binary_crossentropy)

    def __init__(
        self,
        from_logits=False,
        label_smoothing=0.0,
        axis=-1,
        reduction=Reduction.AUTO,
        name="binary_crossentropy",
    ):
        super().__init__(
            reduction, name, from_logits=from_logits, label_smoothing=label_smoothing, axis=axis
        )


class SparseCategoricalCrossentropy(_FunctionLoss):
    """`sparse_categorical_crossentropy` as a `Loss`; its mean leaves ignored samples out."""

    _function = staticmethod(sparse_categorical_crossentropy)

    def __init__(
        self,
        from_logits=False,
        ignore_class=None,
        reduction=Reduction.AUTO,
        name="sparse_categorical_crossentropy",
    ):
        super().__init__(reduction, name, from_logits=from_logits, ignore_class=ignore_class)

    def __call__(self, y_true, y_pred, sample_weight=None):
        loss = super().__call__(y_true, y_pred, sample_weight)
        ignored = self._fn_kwargs["ignore_class"]
        if ignored is None or self.reduction in (Reduction.NONE, Reduction.SUM):
            return loss
        valid = float(np.mean(plain(y_true) != ignored))
        return loss / valid if valid else loss


bce = BCE = binary_crossentropy
mse = MSE = mean_squared_error
mae = MAE = mean_absolute_error
mape = MAPE = mean_absolute_percentage_error
msle = MSLE = mean_squared_logarithmic_error
kld = KLD = kullback_leibler_divergence = kl_divergence
logcosh = log_cosh
huber_loss = huber

aliases = {
    "bce": bce,
    "BCE": bce,
    "mse": mse,
    "MSE": mse,
    "mae": mae,
    "MAE": mae,
    "mape": mape,
    "MAPE": mape,
    "msle": msle,
    "MSLE": msle,
    "kld": kld,
    "KLD": kld,
    "kullback_leibler_divergence": kld,
    "logcosh": log_cosh,
    "huber_loss": huber,
}
functions = (
    mean_squared_error,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_logarithmic_error,
    squared_hinge,
    hinge,
    categorical_hinge,
    huber,
    log_cosh,
    kl_divergence,
    poisson,
    cosine_similarity,
    categorical_crossentropy,
    sparse_categorical_crossentropy,
    binary_crossentropy,
)
_classes = (
    MeanSquaredError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredLogarithmicError,
    SquaredHinge,
    Hinge,
    CategoricalHinge,
    Huber,
    LogCosh,
    KLDivergence,
    Poisson,
    CosineSimilarity,
    CategoricalCrossentropy,
    SparseCategoricalCrossentropy,
    BinaryCrossentropy,
)

# Classes first: a snake-case name that is also a function stands for the function.
_family = Family("loss function", _classes + functions, aliases)
get = _family.get
serialize = _family.serialize
deserialize = _family.deserialize
