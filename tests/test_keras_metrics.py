"""Metrics: what they accumulate, names, configurations, subclasses."""

import json

import numpy as np
import pytest

from bnnlayers.keras import activations, initializers, losses, metrics, utils
from bnnlayers.tape import GradientTape, Variable

ONE_HOT = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]])
LABELS = np.array([2, 1, 0])
PREDICTIONS = np.array([[0.5, 0.3, 0.3], [0.2, 0.2, 0.6], [0.7, 0.2, 0.1]], np.float32)


def test_mean():
    mean = metrics.Mean()
    assert mean.result() == 0 and mean.name == "mean" and mean.stateful
    mean.update_state([1.0, 2.0])
    mean.update_state(6.0)
    assert mean.result() == 3 and mean.result().dtype == np.float32
    assert mean([1.0, 5.0], sample_weight=[1.0, 0.0]).numpy() == 2.5
    mean.reset_state()
    mean.update_state([[1.0, 2.0], [3.0, 4.0]], sample_weight=[1.0, 3.0])
    assert mean.result() == 3
    mean.reset_states()
    # Values with more axes than the weights are averaged over them.
    mean.update_state(np.arange(8.0).reshape(2, 2, 2), sample_weight=[[1.0, 0.0], [0.0, 1.0]])
    assert mean.result() == 3.5
    assert [w.name for w in mean.weights] == ["total:0", "count:0"]
    total = metrics.Sum()
    total.update_state([1.0, 2.0], sample_weight=2.0)
    assert total.result() == 6


def test_state_can_be_moved():
    first, second = metrics.Mean(), metrics.Mean()
    first.update_state([1.0, 4.0])
    second.set_weights(first.get_weights())
    assert second.result() == 2.5


@pytest.mark.parametrize(
    ("metric", "y_true", "y_pred", "expected"),
    [
        (metrics.Accuracy(), [[1], [2], [3]], [[1], [2], [0]], 2 / 3),
        (metrics.Accuracy(), [1, 2, 3], [[1], [2], [0]], 2 / 3),
        (metrics.BinaryAccuracy(), [[1], [0], [0]], [[0.6], [0.5], [0.7]], 2 / 3),
        (metrics.BinaryAccuracy(threshold=0.8), [[1], [0], [0]], [[0.6], [0.5], [0.7]], 2 / 3),
        (metrics.BinaryAccuracy(), [1, 0, 0], [[0.6], [0.5], [0.7]], 2 / 3),
        (metrics.CategoricalAccuracy(), ONE_HOT, PREDICTIONS, 1 / 3),
        (metrics.SparseCategoricalAccuracy(), LABELS, PREDICTIONS, 1 / 3),
        (metrics.SparseCategoricalAccuracy(), LABELS[:, np.newaxis], PREDICTIONS, 1 / 3),
        # A tie with the second largest counts.
        (metrics.TopKCategoricalAccuracy(k=2), ONE_HOT, PREDICTIONS, 1),
        (metrics.SparseTopKCategoricalAccuracy(k=1), LABELS, PREDICTIONS, 1 / 3),
        (metrics.SparseTopKCategoricalAccuracy(k=2), LABELS[:, np.newaxis], PREDICTIONS, 1),
        (metrics.MeanSquaredError(), [[1.0, 2.0]], [[1.0, 4.0]], 2),
        (metrics.RootMeanSquaredError(), [[1.0, 2.0]], [[4.0, 6.0]], 12.5**0.5),
        (metrics.MeanAbsoluteError(), [[1.0, 2.0]], [[1.0, 4.0]], 1),
        (metrics.CosineSimilarity(), [[0.0, 1.0]], [[1.0, 1.0]], 0.5**0.5),
        (metrics.Hinge(), [[1.0, -1.0]], [[0.5, 0.5]], 1),
        (
            metrics.SparseCategoricalCrossentropy(),
            LABELS,
            PREDICTIONS,
            -np.log([0.3 / 1.1, 0.2, 0.7]).mean(),
        ),
        (metrics.CategoricalCrossentropy(from_logits=True), ONE_HOT[:1], [[0.0, 0, 0]], np.log(3)),
        (metrics.BinaryCrossentropy(), [[1.0]], [[0.5]], np.log(2)),
        (metrics.KLDivergence(), [[1.0, 1.0]], [[0.5, 1.0]], np.log(2)),
    ],
)
def test_value_and_configuration(metric, y_true, y_pred, expected):
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred, np.float32)
    metric.reset_state()
    twin = metrics.deserialize(json.loads(json.dumps(metrics.serialize(metric))))
    assert type(twin) is type(metric) and twin.name == metric.name
    for each in (metric, twin):
        each.update_state(y_true, y_pred)
        np.testing.assert_allclose(each.result(), expected, rtol=1e-6)
    metric.reset_state()
    assert metric.result() == 0


def test_sample_weights():
    metric = metrics.SparseCategoricalAccuracy()
    metric.update_state(LABELS, PREDICTIONS, sample_weight=[1.0, 0.0, 3.0])
    assert metric.result() == 0.75


def test_infinite_or_nan_predictions_are_not_among_the_best():
    prediction = np.float32([[np.nan, 1], [np.inf, 1]])
    assert np.all(metrics.sparse_top_k_categorical_accuracy([0, 0], prediction, k=2) == 0)


def test_names_and_functions():
    assert metrics.get("mse") is losses.mean_squared_error is metrics.MSE
    assert metrics.get("binary_accuracy") is metrics.binary_accuracy
    assert type(metrics.get("BinaryAccuracy")) is metrics.BinaryAccuracy
    assert type(metrics.get("Mean")) is metrics.Mean
    with pytest.raises(ValueError, match="nonsense"):
        metrics.get("nonsense")
    with pytest.raises(AttributeError, match="nonsense"):
        _ = metrics.nonsense


def test_cross_entropy_metric_sees_the_logits_and_records_nothing():
    logits = Variable(np.float32([[50, 0]]))
    metric = metrics.SparseCategoricalCrossentropy()
    with GradientTape() as tape:
        y_pred = activations.softmax(logits)
        before = len(tape.kept())
        metric.update_state(np.array([1]), y_pred)
        assert len(tape.kept()) == before
    assert metric.result() == 50


def test_subclasses():
    class Flips(metrics.Metric):
        def __init__(self, name="flips", **kwargs):
            super().__init__(name=name, **kwargs)
            self.flips = self.add_weight("flips", shape=(2,), initializer=initializers.zeros)

        def update_state(self, values):
            self.flips.assign_add(np.asarray(values, np.float32))

        def result(self):
            return np.sum(self.flips)

    flips = Flips()
    assert flips([1, 2]) == 3 and flips([1, 2]) == 6
    flips.reset_state()
    assert flips.result() == 0 and flips.flips.shape == (2,)

    class Old(Flips):
        def reset_states(self):
            self.flips.assign([1, 1])

    old = Old()
    old.reset_state()
    assert old.result() == 2

    def spread(y_true, y_pred):
        return np.ptp(y_pred, axis=-1)

    wrapped = metrics.MeanMetricWrapper(spread)
    assert wrapped.name == "spread"
    with utils.custom_object_scope({"spread": spread}):
        wrapped = metrics.MeanMetricWrapper.from_config(wrapped.get_config())
    np.testing.assert_allclose(wrapped(LABELS, PREDICTIONS), (0.2 + 0.4 + 0.6) / 3, rtol=1e-6)
    for call in (metrics.Metric().update_state, metrics.Metric().result):
        with pytest.raises(NotImplementedError):
            call()
