"""What tests of the larq mirror share: data, a small binary network, what every layer must be able to do."""

import numpy as np

import bnnlayers as lq
from bnnlayers import keras


def values_around_zero(rng, shape=(4, 11)):
    """Numbers in [-2, 2] with a column of exact zeros."""
    values = rng.uniform(-2, 2, shape)
    values[:, 1] = 0
    return values.astype(np.float32)


def two_classes(rng, samples=1000, size=10):
    """Points around two centres, and their one-hot classes."""
    y = rng.integers(0, 2, samples)
    x = rng.normal(size=(2, size))[y] + rng.normal(scale=0.4, size=(samples, size))
    return x.astype(np.float32), keras.utils.to_categorical(y, 2)


def small_network(inputs=10, hidden=20, outputs=2, trainable_bn=True):
    """Two binary dense layers around a batch norm."""
    binary = {"kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip", "use_bias": False}
    return keras.models.Sequential(
        [
            lq.layers.QuantDense(hidden, activation="relu", input_shape=(inputs,), **binary),
            keras.layers.BatchNormalization(trainable=trainable_bn),
            lq.layers.QuantDense(outputs, activation="softmax", input_quantizer="ste_sign", **binary),
        ]
    )


def check_layer(make, x):
    """A layer made by `make()` infers its shape, is made again from its configuration, and learns.

    Returns
    -------
    ndarray
        What it predicts for `x`.
    """
    inputs = keras.layers.Input(x.shape[1:])
    layer = make()
    model = keras.models.Model(inputs, layer(inputs))
    y = model.predict(x, verbose=0)
    inferred = layer.compute_output_shape(x.shape)
    assert len(inferred) == y.ndim
    assert all(n in (None, m) for n, m in zip(inferred, y.shape, strict=True))
    assert model.output.dtype == y.dtype == np.float32

    again = keras.models.Model.from_config(model.get_config())
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(again.predict(x, verbose=0), y)

    first = type(layer).from_config({**layer.get_config(), "batch_input_shape": x.shape})
    alone = keras.models.Sequential([first])
    alone.set_weights(model.get_weights())
    np.testing.assert_array_equal(alone.predict(x, batch_size=len(x), verbose=0), y)

    alone.compile("rmsprop", "mse", metrics=["mae"])
    before = alone.get_weights()
    losses = alone.train_on_batch(x, y + 1, return_dict=True)
    assert losses["loss"] > 0
    assert any(np.any(a != b) for a, b in zip(before, alone.get_weights(), strict=True))
    return y
