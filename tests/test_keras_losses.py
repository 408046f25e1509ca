"""Losses: values and gradients of tf_keras 2.19, reductions, names, configurations and errors."""

import json

import numpy as np
import pytest

from bnnlayers.keras import activations, losses, utils
from bnnlayers.ops import loss as loss_ops
from bnnlayers.tape import GradientTape, Variable, constant

Y_TRUE = np.array([[0, 1], [1, 0], [1, 1]], np.float32)
Y_PRED = np.array([[0.2, 0.7], [0.9, 0.4], [1, 0]], np.float32)
# Loss of each sample, and its gradient, from tf_keras 2.19.
FUNCTIONS = {
    "mse": ([0.065, 0.085, 0.5], [[0.2, -0.3], [-0.1, 0.4], [0, -1]]),
    "mae": ([0.25, 0.25, 0.5], [[0.5, -0.5], [-0.5, 0.5], [0, -0.5]]),
    "mape": ([1.0e8, 2.0e8, 50], [[5e8, -50], [-50, 5e8], [0, -50]]),
    "msle": (
        [0.02982676, 0.05792224, 0.24022643],
        [[0.15193456, -0.09559936], [-0.02699648, 0.24033722], [0, 0]],
    ),
    "hinge": ([0.75, 0.75, 0.5], [[0.5, -0.5], [-0.5, 0.5], [-0.5, -0.5]]),
    "squared_hinge": ([0.765, 0.985, 0.5], [[1.2, -0.3], [-0.1, 1.4], [0, -1]]),
    "categorical_hinge": ([0.5, 0.5, 0], [[1, -1], [-1, 1], [-1, -1]]),
    "huber": ([0.0325, 0.0425, 0.25], [[0.1, -0.15], [-0.05, 0.2], [0, -0.5]]),
    "logcosh": (
        [0.03210443, 0.04147255, 0.21689045],
        [[0.09868768, -0.14565635], [-0.04983401, 0.18997445], [0, -0.3807971]],
    ),
    "kld": (
        [0.3566735, 0.10535904, 16.118095],
        [[-5e-7, -1.4285713], [-1.1111112, -2.5e-7], [-1, 0]],
    ),
    "poisson": (
        [0.62833738, 0.70268017, 8.5590477],
        [[0.5, -0.21428561], [-0.05555552, 0.5], [5.96e-8, -4999999.5]],
    ),
    "cosine_similarity": (
        [-0.96152401, -0.9138115, -0.70710677],
        [[0.36283931, -0.10366821], [-0.16747981, 0.3768295], [0, -0.70710677]],
    ),
    "categorical_crossentropy": (
        [0.2513144, 0.36772475, 16.118095],
        [[1.1111112, -0.3174603], [-0.34188032, 0.76923084], [0, 0]],
    ),
    "binary_crossentropy": (
        [0.28990909, 0.30809289, 7.7124743],
        [[0.62499988, -0.71428561], [-0.5555555, 0.83333313], [0, 0]],
    ),
}
LABELS = np.array([1, 0, 1])
ONE_HOT = np.array([[0, 1], [1, 0], [1, 0]], np.float32)
OBJECTS = [
    (
        losses.SparseCategoricalCrossentropy(reduction="none"),
        LABELS,
        [0.2513144, 0.36772478, 16.118095],
        [[1.111111, -0.3174603], [-0.34188035, 0.76923084], [0, 0]],
    ),
    (
        losses.SparseCategoricalCrossentropy(ignore_class=1),
        LABELS,
        0.36772478,
        [[0, 0], [-0.34188035, 0.76923084], [0, 0]],
    ),
    (
        losses.CategoricalCrossentropy(label_smoothing=0.1, reduction="none"),
        Y_TRUE,
        [0.31395257, 0.40827125, 15.31219],
        [[0.86111116, -0.24603164], [-0.28632474, 0.64423084], [0, 0]],
    ),
    (
        losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1, reduction="none"),
        Y_TRUE,
        [0.61316246, 0.63958454, 0.52820444],
        [[0.249917, -0.1409061], [-0.11952524, 0.27434385], [-0.10947071, -0.225]],
    ),
    (
        losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2, reduction="none"),
        ONE_HOT,
        [0.524077, 0.524077, 0.41326168],
        [[0.27754068, -0.27754068], [-0.27754068, 0.27754068], [-0.16894144, 0.16894144]],
    ),
    (
        losses.MeanSquaredError(reduction="sum"),
        Y_TRUE,
        0.65,
        [[0.2, -0.3], [-0.1, 0.4], [0, -1]],
    ),
]


def check(loss, y_true, value, slope):
    y_pred = Variable(Y_PRED)
    with GradientTape() as tape:
        result = loss(y_true, y_pred)
    gradient = tape.gradient(result, y_pred)
    assert result.dtype == gradient.dtype == np.float32
    np.testing.assert_allclose(result, value, rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(gradient, slope, rtol=2e-6, atol=2e-7)
    np.testing.assert_array_equal(loss(y_true, Y_PRED), result)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name):
    check(losses.get(name), Y_TRUE, *FUNCTIONS[name])
    check(losses.get(name), Y_TRUE.astype(int), *FUNCTIONS[name])


@pytest.mark.parametrize(("loss", "y_true", "value", "slope"), OBJECTS)
def test_object(loss, y_true, value, slope):
    check(loss, y_true, value, slope)
    config = json.loads(json.dumps(losses.serialize(loss)))
    check(losses.deserialize(config), y_true, value, slope)


@pytest.mark.parametrize("name", [f.__name__ for f in losses.functions])
def test_class_of_every_function(name):
    found = [
        c
        for c in vars(losses).values()
        if isinstance(c, type) and getattr(c, "_function", None) is getattr(losses, name)
    ]
    assert len(found) == 1
    loss = losses.get(found[0].__name__)
    assert isinstance(loss, losses.Loss) and losses.get(name) is getattr(losses, name)
    y_true = LABELS if "sparse" in name else Y_TRUE
    mean = np.mean(losses.get(name)(y_true, Y_PRED))
    np.testing.assert_allclose(loss(y_true, Y_PRED), mean, rtol=1e-6)


def test_softmax_is_trained_from_its_logits():
    logits = Variable(np.array([[50.0, 0.0, 0.0], [0.0, 0.0, -200.0]], np.float32))
    for loss, y_true in [
        ("sparse_categorical_crossentropy", np.array([1, 2])),
        ("categorical_crossentropy", np.float32([[0, 1, 0], [0, 0, 1]])),
    ]:
        with GradientTape() as tape:
            value = losses.get(loss)(y_true, activations.softmax(logits))
        np.testing.assert_allclose(value, [50, 200 + np.log(2)], rtol=1e-6)
        np.testing.assert_allclose(
            tape.gradient(value, logits), [[1, -1, 0], [0.5, 0.5, -1]], atol=1e-7
        )
        # Nothing traced: the same value.
        np.testing.assert_array_equal(losses.get(loss)(y_true, activations.softmax(logits)), value)
        clipped = losses.get(loss)(y_true, activations.softmax(logits).numpy())
        np.testing.assert_allclose(clipped, [16.118096, 16.118096], rtol=1e-5)
    value = losses.BinaryCrossentropy()([[1.0]], activations.sigmoid(np.float32([[-60]])))
    assert value == 60
    with pytest.warns(UserWarning, match="from_logits"):
        losses.sparse_categorical_crossentropy(
            [1, 2], activations.softmax(logits), from_logits=True
        )
    # Along another axis the probabilities are what counts.
    other = activations.softmax(logits.value().T, axis=0).T
    assert float(losses.sparse_categorical_crossentropy([1, 2], other)[0]) < 17


def test_reductions_and_weights():
    weights = np.array([1.0, 2.0, 0.0])
    loss = losses.MeanSquaredError()
    np.testing.assert_allclose(loss(Y_TRUE, Y_PRED), 0.65 / 3, rtol=1e-6)
    for given in (weights, weights[:, np.newaxis], weights.tolist()):
        np.testing.assert_allclose(loss(Y_TRUE, Y_PRED, given), (0.065 + 0.17) / 3, rtol=1e-6)
    np.testing.assert_allclose(loss(Y_TRUE, Y_PRED, 2.0), 1.3 / 3, rtol=1e-6)
    assert loss(Y_TRUE, Y_PRED).shape == ()
    assert losses.MeanSquaredError("none")(Y_TRUE, Y_PRED).shape == (3,)
    empty = loss(np.ones((0, 2)), np.ones((0, 2), np.float32))
    assert empty == 0
    with pytest.raises(ValueError, match="reduction: expected one of"):
        losses.MeanSquaredError(reduction="mean")


def test_ranks():
    column = np.float32([[1], [2], [3]])
    np.testing.assert_array_equal(losses.MeanAbsoluteError()(column[:, 0], column), 0)
    np.testing.assert_array_equal(losses.MeanAbsoluteError()(column, column[:, 0]), 0)
    images = np.random.default_rng(0).random((2, 3, 3, 4), np.float32)
    labels = np.zeros((2, 3, 3), int)
    for y_true in (labels, labels[..., np.newaxis]):
        assert losses.sparse_categorical_crossentropy(y_true, images).shape == (2, 3, 3)
    along_axis_1 = losses.sparse_categorical_crossentropy(
        labels, images.transpose(0, 3, 1, 2), axis=1
    )
    np.testing.assert_array_equal(
        along_axis_1, losses.sparse_categorical_crossentropy(labels, images)
    )


@pytest.mark.parametrize(
    ("loss", "y_true"),
    [
        ("categorical_crossentropy", np.ones((3, 1))),
        ("sparse_categorical_crossentropy", np.array([0, 1, 2])),
        ("sparse_categorical_crossentropy", np.array([0, 1, -1])),
        ("sparse_categorical_crossentropy", Y_TRUE),
    ],
)
def test_bad_labels(loss, y_true):
    with pytest.raises(ValueError, match="expected .*, received"):
        losses.get(loss)(y_true, Y_PRED)


def test_own_losses():
    class Own(losses.Loss):
        def call(self, y_true, y_pred):
            return np.mean(np.abs(y_true - y_pred), axis=-1)

    np.testing.assert_allclose(Own()(Y_TRUE, Y_PRED), 1 / 3, rtol=1e-6)
    with pytest.raises(NotImplementedError, match="call"):
        losses.Loss()(Y_TRUE, Y_PRED)

    def own(y_true, y_pred, factor=1.0):
        return factor * losses.mean_absolute_error(y_true, y_pred)

    wrapped = losses.LossFunctionWrapper(own, name="own", factor=2.0)
    np.testing.assert_allclose(wrapped(Y_TRUE, Y_PRED), 2 / 3, rtol=1e-6)
    with utils.custom_object_scope({"own": own}):
        twin = losses.LossFunctionWrapper.from_config(wrapped.get_config())
    np.testing.assert_allclose(twin(Y_TRUE, Y_PRED), 2 / 3, rtol=1e-6)


def test_configuration_of_keras():
    config = {
        "class_name": "SparseCategoricalCrossentropy",
        "config": {
            "reduction": "auto",
            "name": "x",
            "from_logits": True,
            "ignore_class": None,
            "fn": "sparse_categorical_crossentropy",
        },
    }
    loss = losses.get(config)
    assert loss.name == "x" and loss(np.array([0]), np.float32([[0, 0]])) == np.float32(np.log(2))


def numeric(function, x, step=1e-6):
    slope = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += step
        down[index] -= step
        slope[index] = (np.sum(function(up)) - np.sum(function(down))) / (2 * step)
    return slope


def test_gradients_of_the_fused_operations(rng):
    logits = rng.standard_normal((4, 5))
    labels = rng.dirichlet(np.ones(5), 4)
    for function, x in [
        (lambda x: loss_ops.softmax_cross_entropy(x, labels), logits),
        (lambda x: loss_ops.softmax_cross_entropy(logits, x), labels),
        (lambda x: loss_ops.sparse_softmax_cross_entropy(x, labels=np.arange(4)), logits),
        (lambda x: loss_ops.sigmoid_cross_entropy(x, labels), logits),
        (lambda x: loss_ops.sigmoid_cross_entropy(logits, x), labels),
    ]:
        leaf = constant(x)
        with GradientTape() as tape:
            tape.watch(leaf)
            value = function(leaf)
        np.testing.assert_allclose(tape.gradient(value, leaf), numeric(function, x), atol=1e-7)
