"""Models and their weights in files."""

import warnings

import h5py
import numpy as np
import pytest

from bnnlayers import keras
from bnnlayers.keras import layers, models

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


X = RNG.standard_normal((24, 6, 6, 2)).astype(np.float32)
Y = RNG.integers(0, 3, 24)


def network(**names):
    x = keras.Input((6, 6, 2))
    y = layers.Conv2D(4, 3, padding="same", name=names.get("conv", "conv"), kernel_regularizer="l2")(x)
    y = layers.BatchNormalization(name="norm")(y)
    y = layers.add([layers.ReLU(max_value=2.0)(y), y * 0.5])
    inner = models.Sequential([layers.Flatten(input_shape=(6, 6, 4)), layers.Dense(4, name="hidden")], name="inner")
    return models.Model(x, layers.Dense(3, activation="softmax", name="top")(inner(y)), name="net")


def compiled(optimizer="adam", **kwargs):
    model = network()
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], **kwargs)
    return model


def assert_same_weights(a, b):
    for x, y in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("suffix", ["h5", "ckpt", "safetensors"])
def test_weights_come_back(tmp_path, suffix):
    if suffix == "safetensors":
        pytest.importorskip("safetensors")
    path = tmp_path / f"weights.{suffix}"
    model, other = network(), network()
    model.save_weights(path)
    other.load_weights(path)
    assert_same_weights(model, other)
    with pytest.raises(FileExistsError):
        model.save_weights(path, overwrite=False)


def test_the_layout_is_that_of_keras(tmp_path):
    path = tmp_path / "weights.h5"
    network().save_weights(str(path))
    with h5py.File(path) as file:
        names = [n.decode() for n in file.attrs["layer_names"]]
        assert {"conv", "norm", "inner", "top"} <= set(names)
        assert file["conv/conv/kernel:0"].shape == (3, 3, 2, 4)
        assert [n.decode() for n in file["inner"].attrs["weight_names"]] == ["hidden/kernel:0", "hidden/bias:0"]
        assert file.attrs["backend"] in ("tensorflow", b"tensorflow") and "top_level_model_weights" in file


def test_weights_by_name(tmp_path):
    path = tmp_path / "weights.h5"
    model, other = network(), network(conv="renamed")
    model.save_weights(path)
    before = other.get_weights()
    other.load_weights(path, by_name=True)
    np.testing.assert_array_equal(other.get_weights()[0], before[0])
    np.testing.assert_array_equal(other.get_weights()[-1], model.get_weights()[-1])

    narrow = models.Sequential([layers.Dense(3, name="top", input_shape=(9,)), layers.BatchNormalization(name="norm")])
    before = narrow.get_weights()
    with pytest.raises(ValueError, match="expected shape"):
        narrow.load_weights(path, by_name=True)
    for a, b in zip(before, narrow.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.warns(UserWarning, match="skipped"):
        narrow.load_weights(path, by_name=True, skip_mismatch=True)
    np.testing.assert_array_equal(narrow.get_weights()[0], before[0])


def test_files_of_another_network(tmp_path):
    path = tmp_path / "weights.h5"
    network().save_weights(path)
    other = models.Sequential([layers.Dense(2, input_shape=(3,))])
    before = other.get_weights()
    with pytest.raises(ValueError, match="expected 1 layers"):
        other.load_weights(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="damaged"):
        network().load_weights(path)
    with pytest.raises(FileNotFoundError):
        other.load_weights(tmp_path / "none.h5")
    np.testing.assert_array_equal(before[0], other.get_weights()[0])
    with pytest.raises(ValueError, match="not created its variables"):
        models.Sequential([layers.Dense(2)]).load_weights(path)
    with pytest.raises(ValueError, match="tf"):
        other.save_weights(path, save_format="tf")


OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(0.01, amsgrad=True),
    "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01, momentum=0.5),
    "legacy": lambda: keras.optimizers.legacy.Adam(0.01, decay=0.1),
    "schedule": lambda: keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_goes_on_as_if_it_had_not_stopped(tmp_path, optimizer):
    model = compiled(OPTIMIZERS[optimizer]())
    arguments = {"epochs": 2, "batch_size": 7, "shuffle": False, "verbose": 0}
    model.fit(X, Y, **arguments)
    model.save(tmp_path / "model.h5")
    twin = models.load_model(tmp_path / "model.h5")
    assert_same_weights(model, twin)
    assert [w.name for w in twin.weights] == [w.name for w in model.weights]
    assert model.fit(X, Y, **arguments).history == twin.fit(X, Y, **arguments).history
    assert_same_weights(model, twin)


def test_a_model_of_several_outputs_keeps_its_losses_and_metrics(tmp_path):
    x = keras.Input((3,))
    model = models.Model(x, [layers.Dense(1, name="a")(x), layers.Dense(1, name="b")(x)])
    model.compile(
        "sgd",
        {"a": keras.losses.MeanAbsoluteError(), "b": "mse"},
        metrics={"a": ["mae", keras.metrics.MeanSquaredError(name="square")], "b": "mae"},
        loss_weights={"a": 0.5, "b": 2.0},
    )
    data = RNG.standard_normal((5, 3)), [np.zeros((5, 1)), np.ones((5, 1))]
    model.save(tmp_path / "early.h5")
    expected = model.evaluate(*data, verbose=0, return_dict=True)
    model.save(tmp_path / "late.h5")
    for name in ("early.h5", "late.h5"):
        twin = models.load_model(tmp_path / name)
        assert twin.evaluate(*data, verbose=0, return_dict=True) == expected


def test_models_that_are_not_compiled(tmp_path):
    path = tmp_path / "model.h5"
    model = network()
    model.save(path)
    with pytest.warns(UserWarning, match="not"):
        twin = models.load_model(path)
    np.testing.assert_array_equal(twin(X), model(X))
    compiled().save(path, include_optimizer=False)
    assert models.load_model(path, compile=False).optimizer is None


def test_a_chain_and_its_custom_layer(tmp_path):
    class Twice(layers.Layer):
        def call(self, inputs):
            return inputs * 2

    path = tmp_path / "model.h5"
    model = models.Sequential([layers.Dense(2), Twice()])
    model(np.ones((1, 3)))
    model.save(path)
    with pytest.raises(ValueError, match="Twice"):
        models.load_model(path, compile=False)
    twin = models.load_model(path, {"Twice": Twice}, compile=False)
    np.testing.assert_array_equal(twin(np.ones((1, 3))), model(np.ones((1, 3))))


def test_models_that_cannot_be_saved(tmp_path):
    class Own(models.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(NotImplementedError, match="Own"):
        Own().save(tmp_path / "model.h5")
    with pytest.raises(ValueError, match="HDF5"):
        network().save(tmp_path / "model.keras")
    opaque = models.Sequential([layers.Lambda(lambda x: x, input_shape=(2,))])
    with pytest.raises(TypeError, match="JSON"):
        opaque.save(tmp_path / "model.h5")
    assert not list(tmp_path.iterdir())


def test_files_that_hold_no_model(tmp_path):
    path = tmp_path / "weights.h5"
    network().save_weights(path)
    with pytest.raises(ValueError, match="no model config"):
        models.load_model(path)
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = b"{"
    with pytest.raises(ValueError, match="JSON"):
        models.load_model(path)


def test_a_named_function_in_a_lambda_layer(tmp_path):
    def halve(x):
        return x / 2

    model = models.Sequential([layers.Lambda(halve, input_shape=(2,))])
    with keras.utils.custom_object_scope({"halve": halve}):
        model.save(tmp_path / "model.h5")
        twin = models.load_model(tmp_path / "model.h5", compile=False)
    np.testing.assert_array_equal(twin(np.ones((1, 2))), [[0.5, 0.5]])
    with pytest.raises(ValueError, match="halve"):
        models.load_model(tmp_path / "model.h5", compile=False)


def test_optimizer_that_has_made_no_step(tmp_path):
    model = models.Sequential([layers.Dense(2, input_shape=(3,))])
    model.compile("adam", "mse")
    model.save(tmp_path / "model.h5")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        twin = models.load_model(tmp_path / "model.h5")
    assert twin.optimizer.iterations == 0
    x, y = np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)
    assert twin.train_on_batch(x, y) == model.train_on_batch(x, y)
