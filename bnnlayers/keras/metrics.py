"""Metrics: functions of a batch, classes that accumulate over batches, and their registry."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from ..tape import Tensor, Variable, convert_to_tensor, plain, read, stop_gradient
from . import backend, initializers, losses
from .utils import Configurable, Family, get_registered_name, to_snake_case


class Metric(Configurable):
    """Base class of a value accumulated over batches.

    A subclass makes its state with `add_weight`, and implements ``update_state`` and ``result``. A
    call does both.

    Parameters
    ----------
    name : str, optional
        What logs call it; made from the class name if not given.
    dtype : str, optional
        Of the state.
    """

    stateful = True

    def __init__(self, name=None, dtype=None):
        self.name = name or backend.unique_object_name(
            to_snake_case(type(self).__name__), zero_based=True
        )
        self.dtype = np.dtype(dtype or backend.floatx()).name
        self._weights: list[Variable] = []

    def add_weight(self, name, shape=(), initializer="zeros", dtype=None) -> Variable:
        """Make a variable of the state."""
        initializer = initializers.get(initializer)
        variable = Variable(
            initializer(shape, dtype=dtype or self.dtype), trainable=False, name=name
        )
        self._weights.append(variable)
        return variable

    @property
    def weights(self) -> list[Variable]:
        """The variables of the state."""
        return list(self._weights)

    variables = weights

    def get_weights(self) -> list[np.ndarray]:
        """Return the state as arrays."""
        return [weight.numpy() for weight in self._weights]

    def set_weights(self, weights) -> None:
        """Set the state from arrays."""
        for variable, value in zip(self._weights, weights, strict=True):
            variable.assign(value)

    def reset_state(self) -> None:
        """Set the state to zero."""
        if type(self).reset_states is not Metric.reset_states:
            # Classes written before TensorFlow 2.5 override the old name.
            return self.reset_states()
        for variable in self._weights:
            variable._writable_().fill(0)

    def reset_states(self) -> None:
        """The old name of `reset_state`."""
        self.reset_state()

    def update_state(self, *args, **kwargs):
        """Take a batch into the state."""
        raise NotImplementedError(f"{type(self).__name__} must implement update_state()")

    def result(self):
        """Return the value of what has been accumulated."""
        raise NotImplementedError(f"{type(self).__name__} must implement result()")

    def __call__(self, *args, **kwargs):
        """Take a batch into the state and return the value so far."""
        self.update_state(*args, **kwargs)
        return self.result()

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype}


class Sum(Metric):
    """The (weighted) sum of all values."""

    def __init__(self, name="sum", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.total = self.add_weight("total")

    def update_state(self, values, sample_weight=None):
        """Add values, times weights that broadcast against them."""
        values, _ = _weighted(values, sample_weight, self.dtype, np.sum)
        self.total.assign_add(values.sum())

    def result(self):
        return convert_to_tensor(self.total.numpy())


class Mean(Metric):
    """The (weighted) mean of all values; zero before the first."""

    def __init__(self, name="mean", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.total = self.add_weight("total")
        self.count = self.add_weight("count")

    def update_state(self, values, sample_weight=None):
        """Take values into the mean.

        Parameters
        ----------
        values : array_like
            Of any shape.
        sample_weight : array_like, optional
            Broadcast against the values; values with more axes than the weights are averaged over
            them first.
        """
        values, weights = _weighted(values, sample_weight, self.dtype, np.mean)
        total, count = self.total._writable_(), self.count._writable_()
        total += np.add.reduce(values, axis=None)
        count += values.size if weights is None else np.add.reduce(weights, axis=None)

    def result(self):
        count = self.count.numpy()
        return np.asarray(self.total.numpy() / count if count else np.zeros_like(count)).view(Tensor)


def _weighted(values, sample_weight, dtype, reduce):
    values = np.asarray(plain(values), dtype)
    if sample_weight is None:
        return values, None
    weights = np.asarray(plain(sample_weight), dtype)
    weights = losses.match_weights(weights, values)
    if 0 < weights.ndim < values.ndim:
        values = reduce(values, axis=tuple(range(weights.ndim, values.ndim)))
    if weights.shape != values.shape:
        weights = np.broadcast_to(weights, values.shape)
    return values * weights, weights


class MeanMetricWrapper(Mean):
    """The mean of what a function of ``(y_true, y_pred)`` returns for each sample."""

    def __init__(self, fn, name=None, dtype=None, **kwargs):
        super().__init__(name=name or getattr(fn, "__name__", None), dtype=dtype)
        self._fn = fn
        self._fn_kwargs = kwargs

    def update_state(self, y_true, y_pred, sample_weight=None):  # type: ignore[override]
        """Take a batch of labels and predictions into the mean, weighted by `sample_weight`."""
        y_true, y_pred = losses.match_ranks(plain(y_true), _detached(y_pred))
        values = self._fn(y_true, y_pred, **self._fn_kwargs)
        super().update_state(values, sample_weight)

    def get_config(self):
        config = {**super().get_config(), **self._fn_kwargs}
        if type(self) is MeanMetricWrapper:
            config["fn"] = get_registered_name(self._fn)
        return config

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        fn = config.pop("fn", None)
        return cls(get(fn), **config) if cls is MeanMetricWrapper else cls(**config)


def _detached(y_pred):
    # Nothing a metric computes is differentiated; a cross-entropy still needs the logits.
    value: Any = stop_gradient(y_pred)
    if (logits := getattr(read(y_pred), "_logits", None)) is not None:
        value._logits = stop_gradient(logits)
    return value


def accuracy(y_true, y_pred):
    """How often a prediction equals its label."""
    y_true, y_pred = losses.match_ranks(plain(y_true), plain(y_pred))
    return _as_floatx(y_true == y_pred)


def binary_accuracy(y_true, y_pred, threshold=0.5):
    """How often a prediction, compared with a threshold, equals its label of 0 or 1."""
    y_true, y_pred = plain(y_true), plain(y_pred)
    return np.mean(_as_floatx(y_true == (y_pred > threshold)), axis=-1)


def categorical_accuracy(y_true, y_pred):
    """Whether the largest prediction stands where the one-hot label has its one."""
    return sparse_categorical_accuracy(np.argmax(plain(y_true), axis=-1), y_pred)


def sparse_categorical_accuracy(y_true, y_pred):
    """Whether the largest prediction stands at the label, a class number."""
    y_true, y_pred = plain(y_true), plain(y_pred)
    if y_true.ndim == y_pred.ndim:
        y_true = y_true[..., 0]
    return _as_floatx(y_true == np.argmax(y_pred, axis=-1))


def top_k_categorical_accuracy(y_true, y_pred, k=5):
    """Whether the one of a one-hot label stands among the `k` largest predictions."""
    return sparse_top_k_categorical_accuracy(np.argmax(plain(y_true), axis=-1), y_pred, k=k)


def sparse_top_k_categorical_accuracy(y_true, y_pred, k=5):
    """Whether the label, a class number, is among the `k` largest predictions or ties."""
    y_true, y_pred = plain(y_true), plain(y_pred)
    index = y_true.reshape(y_pred.shape[:-1]).astype(np.int64)[..., np.newaxis]
    at_label = np.take_along_axis(y_pred, index, axis=-1)
    among = np.sum(y_pred > at_label, axis=-1, keepdims=True) < k
    return _as_floatx((among & np.isfinite(at_label)).reshape(y_true.shape))


def _as_floatx(x):
    return np.asarray(x, backend.floatx())


class _FunctionMetric(MeanMetricWrapper):
    _function: ClassVar[Callable[..., Any]]

    def __init__(self, name=None, dtype=None, **kwargs):
        default = to_snake_case(type(self).__name__)
        super().__init__(type(self)._function, name or default, dtype, **kwargs)


class Accuracy(_FunctionMetric):
    """How often predictions equal labels."""

    _function = staticmethod(accuracy)


class BinaryAccuracy(_FunctionMetric):
    """How often predictions, compared with a threshold, equal labels of 0 and 1."""

    _function = staticmethod(binary_accuracy)

    def __init__(self, name="binary_accuracy", dtype=None, threshold=0.5):
        super().__init__(name, dtype, threshold=threshold)


class CategoricalAccuracy(_FunctionMetric):
    """How often the largest prediction stands where the one-hot label has its one."""

    _function = staticmethod(categorical_accuracy)


class SparseCategoricalAccuracy(_FunctionMetric):
    """How often the largest prediction stands at the label, a class number."""

    _function = staticmethod(sparse_categorical_accuracy)


class TopKCategoricalAccuracy(_FunctionMetric):
    """How often the one of a one-hot label stands among the `k` largest predictions."""

    _function = staticmethod(top_k_categorical_accuracy)

    def __init__(self, k=5, name="top_k_categorical_accuracy", dtype=None):
        super().__init__(name, dtype, k=k)


class SparseTopKCategoricalAccuracy(_FunctionMetric):
    """How often the label, a class number, is among the `k` largest predictions."""

    _function = staticmethod(sparse_top_k_categorical_accuracy)

    def __init__(self, k=5, name="sparse_top_k_categorical_accuracy", dtype=None):
        super().__init__(name, dtype, k=k)


class MeanSquaredError(_FunctionMetric):
    """Mean of squared errors."""

    _function = staticmethod(losses.mean_squared_error)


class RootMeanSquaredError(Mean):
    """Root of the mean of squared errors."""

    def __init__(self, name="root_mean_squared_error", dtype=None):
        super().__init__(name, dtype)

    def update_state(self, y_true, y_pred, sample_weight=None):  # type: ignore[override]
        """Take a batch of labels and predictions into the mean, weighted by `sample_weight`."""
        y_true, y_pred = losses.match_ranks(plain(y_true), plain(y_pred))
        super().update_state(np.square(y_pred - y_true), sample_weight)

    def result(self):
        return np.sqrt(super().result())


class MeanAbsoluteError(_FunctionMetric):
    """Mean of absolute errors."""

    _function = staticmethod(losses.mean_absolute_error)


class MeanAbsolutePercentageError(_FunctionMetric):
    """Mean of absolute errors in percent of the labels."""

    _function = staticmethod(losses.mean_absolute_percentage_error)


class MeanSquaredLogarithmicError(_FunctionMetric):
    """Mean of squared differences of logarithms."""

    _function = staticmethod(losses.mean_squared_logarithmic_error)


class Hinge(_FunctionMetric):
    """Mean hinge loss."""

    _function = staticmethod(losses.hinge)


class SquaredHinge(_FunctionMetric):
    """Mean squared hinge loss."""

    _function = staticmethod(losses.squared_hinge)


class CategoricalHinge(_FunctionMetric):
    """Mean categorical hinge loss."""

    _function = staticmethod(losses.categorical_hinge)


class LogCoshError(_FunctionMetric):
    """Mean of ``log(cosh(error))``."""

    _function = staticmethod(losses.log_cosh)

    def __init__(self, name="logcosh", dtype=None):
        super().__init__(name, dtype)


class Poisson(_FunctionMetric):
    """Mean Poisson loss."""

    _function = staticmethod(losses.poisson)


class KLDivergence(_FunctionMetric):
    """Mean Kullback-Leibler divergence."""

    _function = staticmethod(losses.kl_divergence)


def _cosine(y_true, y_pred, axis=-1):
    return -losses.cosine_similarity(y_true, y_pred, axis=axis)


class CosineSimilarity(_FunctionMetric):
    """Mean cosine of the angle between labels and predictions; minus the loss."""

    _function = staticmethod(_cosine)

    def __init__(self, name="cosine_similarity", dtype=None, axis=-1):
        super().__init__(name, dtype, axis=axis)


class BinaryCrossentropy(_FunctionMetric):
    """Mean cross-entropy of labels of 0 and 1."""

    _function = staticmethod(losses.binary_crossentropy)

    def __init__(
        self, name="binary_crossentropy", dtype=None, from_logits=False, label_smoothing=0
    ):
        super().__init__(name, dtype, from_logits=from_logits, label_smoothing=label_smoothing)


class CategoricalCrossentropy(_FunctionMetric):
    """Mean cross-entropy of one-hot labels."""

    _function = staticmethod(losses.categorical_crossentropy)

    def __init__(
        self,
        name="categorical_crossentropy",
        dtype=None,
        from_logits=False,
        label_smoothing=0,
        axis=-1,
    ):
        super().__init__(
            name, dtype, from_logits=from_logits, label_smoothing=label_smoothing, axis=axis
        )


class SparseCategoricalCrossentropy(_FunctionMetric):
    """Mean cross-entropy of class numbers."""

    _function = staticmethod(losses.sparse_categorical_crossentropy)

    def __init__(
        self,
        name="sparse_categorical_crossentropy",
        dtype=None,
        from_logits=False,
        ignore_class=None,
        axis=-1,
    ):
        super().__init__(name, dtype, from_logits=from_logits, ignore_class=ignore_class, axis=axis)


_functions = (
    accuracy,
    binary_accuracy,
    categorical_accuracy,
    sparse_categorical_accuracy,
    top_k_categorical_accuracy,
    sparse_top_k_categorical_accuracy,
)
_classes = (
    Sum,
    Mean,
    MeanMetricWrapper,
    Accuracy,
    BinaryAccuracy,
    CategoricalAccuracy,
    SparseCategoricalAccuracy,
    TopKCategoricalAccuracy,
    SparseTopKCategoricalAccuracy,
    MeanSquaredError,
    RootMeanSquaredError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredLogarithmicError,
    Hinge,
    SquaredHinge,
    CategoricalHinge,
    LogCoshError,
    Poisson,
    KLDivergence,
    CosineSimilarity,
    BinaryCrossentropy,
    CategoricalCrossentropy,
    SparseCategoricalCrossentropy,
)

_family = Family("metric", _classes + _functions + losses.functions, losses.aliases, base=Metric)
get = _family.get
serialize = _family.serialize
deserialize = _family.deserialize


def __getattr__(name):
    # keras.metrics also has every loss function, under all its names.
    function = losses.aliases.get(name) or vars(losses).get(name)
    if function in losses.functions:
        return function
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
