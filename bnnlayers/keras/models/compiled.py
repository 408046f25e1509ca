"""What `compile` makes of losses and metrics: one list entry for each output of the model."""

from __future__ import annotations

import numpy as np

from ...tape import plain, read
from .. import losses as losses_module
from .. import metrics as metrics_module
from ..structure import flatten, is_nested
from ..utils import to_snake_case


def output_names(y_pred):
    """Names of the outputs of a model that has none: ``output_1``, or the keys of a dictionary."""
    if isinstance(y_pred, dict):
        return sorted(y_pred)
    return [f"output_{i}" for i in range(1, len(flatten(y_pred)) + 1)]


def per_output(value, y_pred, names):
    """`value` as a list with one entry per output: by name, by position, or the same for all.

    Raises
    ------
    ValueError
        For an unknown name, or a list of another length.
    """
    count = len(names)
    if isinstance(value, dict):
        keys = sorted(y_pred) if isinstance(y_pred, dict) else names
        unknown = set(value) - set(keys)
        if unknown:
            raise ValueError(
                "Found unexpected losses or metrics that do not correspond to any Model output: "
                f"{sorted(unknown)}. Valid mode output names: {keys}."
            )
        return [value.get(key) for key in keys]
    if not is_nested(value):
        return [value] * count
    if len(value) != count:
        raise ValueError(
            f"Expected one entry for each of the {count} outputs of the model. Received {len(value)}: {value}"
        )
    return list(value)


def match(y_true, y_pred, sample_weight):
    """Labels and weights with the rank and kind of dtype of the predictions."""
    y_true = read(y_true)
    if not isinstance(y_true, np.ndarray):
        y_true = np.asarray(y_true)
    if y_true.ndim == 1 and y_pred.ndim == 2:
        y_true = y_true[:, np.newaxis]
    if y_true.dtype != y_pred.dtype and y_true.dtype.kind == "f" == y_pred.dtype.kind:
        y_true = y_true.astype(y_pred.dtype)
    if sample_weight is not None:
        sample_weight = np.asarray(plain(sample_weight), y_pred.dtype)
        if sample_weight.ndim == 1 and y_pred.ndim == 2:
            sample_weight = sample_weight[:, np.newaxis]
    return y_true, y_pred, sample_weight


def _name_of(function):
    return (
        getattr(function, "name", None) or getattr(function, "__name__", None) or to_snake_case(type(function).__name__)
    )


def _loss_of(loss):
    if loss is None:
        return None
    loss = losses_module.get(loss)
    if isinstance(loss, losses_module.Loss):
        return loss
    if not callable(loss):
        raise ValueError(f"Loss should be a callable, received: {loss}")
    return losses_module.LossFunctionWrapper(loss, name=_name_of(loss))


class CompiledLoss:
    """The total loss of a model: weighted losses of its outputs, and what the layers add.

    Parameters
    ----------
    losses : str, callable, or list or dict of them, optional
    loss_weights : float, or list or dict of them, optional
    names : list of str, optional
        Of the outputs; by default numbered when the first prediction comes.
    """

    def __init__(self, losses, loss_weights=None, names=None):
        for loss in flatten(losses):
            _loss_of(loss)
        for weight in flatten(loss_weights):
            if weight is not None and not np.isscalar(weight):
                raise TypeError(f"compile: `loss_weights` must be numbers. Received: {weight!r}")
        self._given = losses, loss_weights
        self._names = names
        self._losses = self._weights = self._means = None
        self._total = metrics_module.Mean(name="loss")

    @property
    def metrics(self):
        if self._losses is None:
            return []
        return [self._total, *(mean for mean in self._means if mean is not None)]

    def _build(self, y_pred):
        names = self._names or output_names(y_pred)
        given, weights = self._given
        if len(names) == 1 and isinstance(given, (list, tuple)) and len(given) == 1:
            given = given[0]
        losses = [_loss_of(loss) for loss in per_output(given, y_pred, names)]
        self._weights = per_output(weights, y_pred, names)
        many = len(names) > 1
        self._means = [
            metrics_module.Mean(name=f"{name}_loss") if many and loss is not None else None
            for name, loss in zip(names, losses, strict=True)
        ]
        self._names, self._losses = names, losses

    def __call__(self, y_true, y_pred, sample_weight=None, regularization_losses=None):
        """The total, and its running means updated; None if there is no loss at all."""
        if self._losses is None:
            self._build(y_pred)
        names, total, count = self._names, None, None
        for y_t, y_p, weights, loss, loss_weight, mean in zip(
            per_output(y_true, y_pred, names),
            flatten(y_pred),
            per_output(sample_weight, y_pred, names),
            self._losses,
            self._weights,
            self._means,
            strict=True,
        ):
            if y_t is None or loss is None:
                continue
            y_t, y_p, weights = match(y_t, y_p, weights)
            value = loss(y_t, y_p, sample_weight=weights)
            if count is None:
                count = np.float32(len(y_t) if y_t.ndim else 1)
            if mean is not None:
                mean.update_state(value, sample_weight=count)
            if loss_weight is not None:
                value = value * np.float32(loss_weight)
            total = value if total is None else total + value
        for value in regularization_losses or ():
            total = value if total is None else total + value
        if total is not None:
            self._total.update_state(total, sample_weight=count)
        return total


class CompiledMetrics:
    """The metrics of each output.

    Parameters
    ----------
    metrics, weighted_metrics : optional
        A metric, a list of metrics for every output, or a list of lists or a dict by output. The
        second kind is given the sample weights.
    names : list of str, optional
        Of the outputs.
    named : bool
        Whether the metrics have their final names already.
    """

    def __init__(self, metrics, weighted_metrics=None, names=None, named=False):
        seen = set()
        for metric in flatten(metrics) + flatten(weighted_metrics):
            if isinstance(metric, metrics_module.Metric):
                if id(metric) in seen:
                    raise ValueError(
                        "Found duplicated metrics object in the user provided metrics and weighted "
                        "metrics. This will cause the same metric object to be updated multiple "
                        f"times, and report wrong results. Duplicated items: {metric}"
                    )
                seen.add(id(metric))
            elif metric is not None and str(metric).lower() not in _BY_SHAPE:
                metrics_module.get(metric)
        self._given = metrics, weighted_metrics
        self._names = names
        self._named = named
        self._outputs = None

    @property
    def by_output(self):
        """Metrics and weighted metrics, each as one list per output; None before the first batch."""
        return None if self._outputs is None else tuple(map(list, zip(*self._outputs, strict=True)))

    @property
    def metrics(self):
        if self._outputs is None:
            return []
        return [m for pair in self._outputs for group in pair for m in group]

    def _build(self, y_true, y_pred):
        names = self._names or output_names(y_pred)
        truths = per_output(y_true, y_pred, names)
        groups = []
        for given in self._given:
            lists = [_as_list(g) for g in _metrics_per_output(given, y_pred, names)]
            if len(names) > 1 and not isinstance(given, dict) and not _by_output(given):
                lists = [[_copy(m) for m in group] for group in lists]
            groups.append(
                [
                    [_metric_of(m, y_t, y_p) for m in group if m is not None]
                    for group, y_t, y_p in zip(lists, truths, flatten(y_pred), strict=True)
                ]
            )
        outputs = list(zip(*groups, strict=True))
        if not self._named:
            _name_metrics(outputs, names)
        self._names, self._outputs = names, outputs

    def update_state(self, y_true, y_pred, sample_weight=None):
        if self._outputs is None:
            self._build(y_true, y_pred)
        for y_t, y_p, weights, (metrics, weighted) in zip(
            per_output(y_true, y_pred, self._names),
            flatten(y_pred),
            per_output(sample_weight, y_pred, self._names),
            self._outputs,
            strict=True,
        ):
            if y_t is None or not (metrics or weighted):
                continue
            y_t, y_p, weights = match(y_t, y_p, weights)
            for metric in metrics:
                metric.update_state(y_t, y_p)
            for metric in weighted:
                metric.update_state(y_t, y_p, sample_weight=weights)


def _as_list(value):
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _by_output(given):
    return isinstance(given, (list, tuple)) and any(isinstance(m, (list, tuple)) for m in given)


def _metrics_per_output(given, y_pred, names):
    if isinstance(given, dict) or _by_output(given):
        return per_output(given, y_pred, names)
    return [given] * len(names)


def _copy(metric):
    if isinstance(metric, metrics_module.Metric):
        return type(metric).from_config(metric.get_config())
    return metric


_ACCURACY, _CROSSENTROPY = ("accuracy", "acc"), ("crossentropy", "ce")
_BY_SHAPE = (*_ACCURACY, *_CROSSENTROPY)


def _metric_of(metric, y_true, y_pred):
    """A `Metric` from an object, a function or a name; "accuracy" depends on the shapes."""
    found = metric
    if str(metric).lower() in _BY_SHAPE:
        truth = np.shape(y_true)
        kind = "categorical_"
        if y_pred.shape[-1] == 1:
            kind = "binary_"
        elif len(truth) < y_pred.ndim or (truth[-1] == 1 and y_pred.shape[-1] > 1):
            kind = "sparse_categorical_"
        what = "accuracy" if metric.lower() in _ACCURACY else "crossentropy"
        found = metrics_module.get(kind + what)
    elif not isinstance(metric, metrics_module.Metric):
        found = metrics_module.get(metric)
    if isinstance(found, metrics_module.Metric):
        if isinstance(metric, str) and metric.lower() in _BY_SHAPE:
            found.name = metric
        return found
    name = metric if isinstance(metric, str) else _name_of(metric)
    return metrics_module.MeanMetricWrapper(found, name=name)


def _name_metrics(outputs, names):
    """Prefix the output where there are several, and demand that names differ."""
    taken, many = set(), len(names) > 1
    for name, (metrics, weighted) in zip(names, outputs, strict=True):
        for metric in metrics:
            if many:
                metric.name = f"{name}_{metric.name}"
            if metric.name in taken:
                raise ValueError(
                    f"Found two metrics with the same name: {metric.name}. All the metrics added "
                    "to the model need to have unique names."
                )
            taken.add(metric.name)
        for metric in weighted:
            prefix = f"{name}_" if many else ""
            clash = prefix + metric.name in taken
            metric.name = f"{prefix}{'weighted_' if clash else ''}{metric.name}"
            if metric.name in taken:
                raise ValueError(
                    f"Found two weighted metrics with the same name: {metric.name}. All the "
                    "metrics added to the model need to have unique names."
                )
            taken.add(metric.name)
