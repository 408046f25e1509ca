"""Batch norm, pooling, losses, metrics and weight files against tf_keras."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from golden.archive import DATA, read
from golden.checks import EPS, assert_close, assert_equal, tolerance

import bnnlayers as lq
from bnnlayers import keras


def differentiate(layer, case, **call):
    """Output, input gradient and weight gradients of `layer` under the recorded weights."""
    arrays = case.arrays
    layer.build(arrays["x"].shape)
    layer.set_weights([arrays[f"w{i}"] for i in range(len(layer.get_weights()))])
    x = lq.constant(arrays["x"])
    with lq.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, **call)
    return y, *tape.gradient(y, [x, *layer.trainable_weights], output_gradients=lq.constant(arrays["dy"]))


@pytest.mark.parametrize("case", read("batch_normalization"), ids=repr)
def test_batch_normalization(case):
    layer = keras.layers.BatchNormalization(**case["kwargs"])
    y, dx, *dweights = differentiate(layer, case, training=case["training"])
    arrays = case.arrays
    count = arrays["x"].size // layer.get_weights()[0].size
    # The mean cancels against x, and the root of a small variance magnifies what is left.
    factor = np.abs(arrays["x"]).max() / np.sqrt(layer.epsilon)
    spread = arrays["x"].std(axis=tuple(np.delete(range(arrays["x"].ndim), layer.axis))).min()
    factor = min(factor, np.abs(arrays["x"]).max() / max(spread, 1e-6))
    gain = max(np.abs(w).max() for n, w in arrays.items() if n[0] == "w") * factor
    near = tolerance(count, gain)
    assert_close(y.numpy(), arrays["y"], near, name="y")
    slope = np.abs(arrays["dx"]).max() + np.abs(arrays["dy"]).max() * gain
    assert_close(np.asarray(dx), arrays["dx"], tolerance(count, slope * factor), name="dx")
    for i, dw in enumerate(dweights):
        bound = tolerance(count, np.abs(arrays["dy"]).max() * factor)
        assert_close(np.asarray(dw), arrays[f"dw{i}"], bound, name=f"dw{i}")
    for i, w in enumerate(layer.get_weights()):
        bound = tolerance(count, np.square(arrays["x"]).max())
        assert_close(w, arrays[f"after{i}"], bound, name=f"after{i}")


@pytest.mark.parametrize("case", read("max_pooling"), ids=repr)
def test_max_pooling(case):
    y, dx = differentiate(keras.layers.MaxPooling2D(**case["kwargs"]), case)
    assert_equal(y.numpy(), case.arrays["y"])
    assert_equal(dx, case.arrays["dx"])


@pytest.mark.parametrize("case", read("losses"), ids=repr)
def test_loss(case):
    loss = getattr(keras.losses, case["loss"])(**case["kwargs"])
    arrays = case.arrays
    y_pred = lq.constant(arrays["y_pred"])
    with lq.GradientTape() as tape:
        tape.watch(y_pred)
        value = loss(arrays["y_true"], y_pred, sample_weight=arrays.get("sample_weight"))
    gradient = tape.gradient(value, y_pred)
    depth = arrays["y_pred"].size
    assert_close(value.numpy(), arrays["value"], tolerance(depth, np.abs(arrays["value"]).max()))
    expected = arrays["gradient"]
    # One over a clipped probability is as inexact as the clip; hence relative.
    bound = tolerance(arrays["y_pred"].shape[-1], 1)
    assert_close(np.asarray(gradient), expected, bound, rtol=64 * EPS)


@pytest.mark.parametrize("case", read("softmax_losses"), ids=repr)
def test_cross_entropy_after_softmax(case):
    """A layer that ends in softmax is trained from its logits, however extreme they are."""
    last = case["softmax"] == "activation"
    tail = [keras.layers.Dense(4, activation="softmax" if last else None)]
    if not last:
        tail.append(keras.layers.Activation("softmax"))
    model = keras.models.Sequential([keras.layers.Input((3,)), *tail])
    arrays = case.arrays
    model.set_weights([arrays["w0"], arrays["w1"]])
    model.compile(keras.optimizers.SGD(0.1), case["loss"], metrics=["accuracy"])
    history = [model.train_on_batch(arrays["x"], arrays["y"]) for _ in arrays["history"]]
    assert_close(np.float32(history), arrays["history"], tolerance(8, 100), name="history")
    for i, w in enumerate(model.get_weights()):
        assert_close(w, arrays[f"after{i}"], tolerance(8, 10), name=f"after{i}")


@pytest.mark.parametrize("case", read("metrics"), ids=repr)
def test_metric(case):
    metric = getattr(keras.metrics, case["metric"])(**case["kwargs"])
    arrays = case.arrays
    for i, expected in enumerate(arrays["results"]):
        weight = arrays.get(f"sample_weight{i}")
        metric.update_state(arrays[f"y_true{i}"], arrays[f"y_pred{i}"], sample_weight=weight)
        np.testing.assert_allclose(float(metric.result()), expected, 16 * EPS)
    metric.reset_state()
    assert float(metric.result()) == 0


# -- files --------------------------------------------------------------------------------------

FILE = read("weights_file")[0]


def small_network():
    binary = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
    return keras.models.Sequential(
        [
            lq.layers.QuantConv2D(4, 3, kernel_quantizer="ste_sign", input_shape=(8, 8, 1), name="first"),
            keras.layers.MaxPooling2D(2, name="pool"),
            keras.layers.BatchNormalization(scale=False, name="norm"),
            lq.layers.QuantConv2D(5, 2, padding="same", pad_values=1.0, **binary, name="second"),
            keras.layers.BatchNormalization(name="norm_2"),
            keras.layers.Flatten(name="flat"),
            lq.layers.QuantDense(3, use_bias=False, **binary, name="last"),
            keras.layers.Activation("softmax", name="softmax"),
        ],
        name="small",
    )


def recorded_weights():
    return [FILE.arrays[f"w{i}"] for i in range(len(FILE["names"]))]


def test_weight_names():
    assert [variable.name for variable in small_network().weights] == FILE["names"]


def test_load_weights_of_keras():
    model = small_network()
    model.load_weights(DATA / "weights.h5")
    for actual, expected in zip(model.get_weights(), recorded_weights(), strict=True):
        assert_equal(actual, expected)
    prediction = model.predict(FILE.arrays["x"], verbose=0)
    assert_close(prediction, FILE.arrays["prediction"], tolerance(8, 1))


def contents(path: Path):
    """Every group, attribute and dataset of an h5 file."""
    found = {}

    def attribute(value):
        # Keras has written strings of fixed and of variable length, and reads both.
        items = np.ravel(value).tolist()
        return [item.decode() if isinstance(item, bytes) else item for item in items]

    def visit(name, item):
        found[name] = {key: attribute(value) for key, value in item.attrs.items()}
        if isinstance(item, h5py.Dataset):
            found[name]["data"] = item[...].tobytes(), item.dtype.str, item.shape

    with h5py.File(path) as file:
        visit("/", file)
        file.visititems(visit)
    return found


def test_save_weights_as_keras(tmp_path):
    """The same tree, attributes and datasets as in the file that tf_keras wrote."""
    model = small_network()
    model.set_weights(recorded_weights())
    model.save_weights(tmp_path / "weights.h5")
    ours, theirs = contents(tmp_path / "weights.h5"), contents(DATA / "weights.h5")
    for found in (ours, theirs):
        found["/"].pop("keras_version")
    assert ours == theirs
