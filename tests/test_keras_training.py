"""Compiling, training, evaluating and predicting."""

import numpy as np
import pytest

from bnnlayers import keras
from bnnlayers.keras import layers, models
from bnnlayers.tape import GradientTape

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


X = RNG.standard_normal((20, 3)).astype(np.float32)
Y = (X @ np.float32([[1], [-2], [0.5]])).astype(np.float32)


def linear(**compiled):
    model = models.Sequential([layers.Dense(1, kernel_initializer="ones", input_shape=(3,))])
    model.compile(**{"optimizer": keras.optimizers.SGD(0.1), "loss": "mse", **compiled})
    return model


def two_outputs():
    x = keras.Input((3,))
    a, b = layers.Dense(1, name="a")(x), layers.Dense(2, activation="softmax", name="b")(x)
    return models.Model(x, [a, b])


LABELS = [Y, RNG.integers(0, 2, 20)]


def test_a_step_is_the_optimizer_on_the_gradient():
    model = linear()
    w = np.ones((3, 1), np.float32)
    error = X[:4] @ w - Y[:4]
    loss = model.train_on_batch(X[:4], Y[:4])
    assert loss == pytest.approx(np.mean(error**2), rel=1e-6)
    gradient = 2 * X[:4].T @ error / 4
    np.testing.assert_allclose(model.get_weights()[0], w - 0.1 * gradient, rtol=1e-5)


def test_fit_learns_and_remembers():
    model = linear(metrics=["mae"])
    history = model.fit(X, Y, batch_size=7, epochs=30, verbose=0, validation_data=(X, Y))
    assert list(history.history) == ["loss", "mae", "val_loss", "val_mae"]
    assert history.epoch == list(range(30)) and history.params["steps"] == 3
    assert history.history["loss"][-1] < 1e-3 < history.history["loss"][0]
    assert model.history is history
    loss, mae = model.evaluate(X, Y, verbose=0)
    assert model.evaluate(X, Y, verbose=0, return_dict=True) == {"loss": loss, "mae": mae}
    assert [loss, mae] == pytest.approx([history.history["val_loss"][-1], history.history["val_mae"][-1]], rel=1e-3)
    assert model.metrics_names == ["loss", "mae"]


def test_the_loss_of_an_epoch_weighs_batches_by_their_size():
    model = linear(optimizer=keras.optimizers.SGD(0.0))
    history = model.fit(X, Y, batch_size=16, verbose=0)
    expected = np.mean((X.sum(1, keepdims=True) - Y) ** 2)
    assert history.history["loss"][0] == pytest.approx(expected, rel=1e-5)


def test_same_seed_same_weights():
    found = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        model = models.Sequential([layers.Dense(4), layers.Dropout(0.5), layers.Dense(1)])
        model.compile("adam", "mse")
        model.fit(X, Y, batch_size=4, epochs=2, verbose=0)
        found.append(model.get_weights())
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


class Batches(keras.utils.Sequence):
    def __init__(self):
        self.ended = 0

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return X[index * 4 : index * 4 + 4], Y[index * 4 : index * 4 + 4]

    def on_epoch_end(self):
        self.ended += 1


def forever():
    while True:
        for i in range(0, 20, 4):
            yield X[i : i + 4], Y[i : i + 4]


class Iterable:
    def __iter__(self):
        return ((X[i : i + 4], Y[i : i + 4]) for i in range(0, 20, 4))


@pytest.mark.parametrize(
    ("data", "arguments"),
    [
        (lambda: (X, Y), {"batch_size": 4, "shuffle": False}),
        (lambda: (X.tolist(), Y.tolist()), {"batch_size": 4, "shuffle": False}),
        (lambda: (X.astype(float), Y.astype(float)), {"steps_per_epoch": 5, "shuffle": False}),
        (lambda: (Batches(), None), {"shuffle": False}),
        (lambda: (forever(), None), {"steps_per_epoch": 5}),
        (lambda: (Iterable(), None), {}),
        (lambda: ([(X[i : i + 4], Y[i : i + 4]) for i in range(0, 20, 4)].__iter__(), None), {"epochs": 1}),
    ],
    ids=["arrays", "lists", "float64", "Sequence", "generator", "iterable", "iterator"],
)
def test_every_kind_of_data_trains_the_same(data, arguments):
    x, y = data()
    expected, model = linear(), linear()
    epochs = arguments.pop("epochs", 2)
    for _ in range(epochs):
        for i in range(0, 20, 4):
            expected.train_on_batch(X[i : i + 4], Y[i : i + 4])
    history = model.fit(x, y, epochs=epochs, verbose=0, **arguments)
    assert len(history.epoch) == epochs
    np.testing.assert_array_equal(model.get_weights()[0], expected.get_weights()[0])


def test_sequences_end_their_epochs():
    batches = Batches()
    model = linear()
    model.fit(batches, epochs=3, verbose=0)
    assert batches.ended == 3
    assert model.predict(batches, verbose=0).shape == (20, 1)
    assert model.evaluate(batches, verbose=0) == pytest.approx(model.evaluate(X, Y, verbose=0), rel=1e-5)


def test_data_that_ends_too_early():
    generator = ((X[i : i + 4], Y[i : i + 4]) for i in range(0, 12, 4))
    with pytest.warns(UserWarning, match="ran out of data"):
        history = linear().fit(generator, steps_per_epoch=5, epochs=3, verbose=0)
    assert len(history.epoch) == 1


def test_validation():
    model = linear(optimizer=keras.optimizers.SGD(0.0))
    history = model.fit(X, Y, validation_split=0.25, verbose=0, epochs=4, validation_freq=2).history
    assert len(history["loss"]) == 4 and len(history["val_loss"]) == 2
    errors = (X.sum(1, keepdims=True) - Y) ** 2
    assert history["loss"][0] == pytest.approx(errors[:15].mean(), rel=1e-5)
    assert history["val_loss"][0] == pytest.approx(errors[15:].mean(), rel=1e-5)
    history = model.fit(
        X, Y, validation_data=Batches(), validation_steps=2, epochs=3, validation_freq=[1, 3], verbose=0
    ).history
    assert history["val_loss"] == pytest.approx([errors[:8].mean()] * 2, rel=1e-5)


def test_initial_epoch():
    assert linear().fit(X, Y, epochs=5, initial_epoch=3, verbose=0).epoch == [3, 4]


def test_sample_and_class_weights():
    weights = np.linspace(0, 2, 20)
    model = linear(optimizer=keras.optimizers.SGD(0.0), metrics=["mse"], weighted_metrics=["mse"])
    found = model.evaluate(X, Y, sample_weight=weights, batch_size=20, verbose=0, return_dict=True)
    errors = ((X.sum(1, keepdims=True) - Y) ** 2)[:, 0]
    assert found["loss"] == pytest.approx(np.mean(weights * errors), rel=1e-5)
    assert found["mse"] == pytest.approx(errors.mean(), rel=1e-5)
    assert found["weighted_mse"] == pytest.approx(np.average(errors, weights=weights), rel=1e-5)

    classes = RNG.integers(0, 2, 20)
    model = models.Sequential([layers.Dense(2, activation="softmax", input_shape=(3,))])
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    by_class = model.train_on_batch(X, classes, class_weight={0: 0.5, 1: 3.0})
    by_sample = model.train_on_batch(X, classes, sample_weight=np.where(classes, 3.0, 0.5))
    one_hot = models.Sequential(model.layers)
    one_hot.compile(keras.optimizers.SGD(0.0), "categorical_crossentropy")
    hot = one_hot.train_on_batch(X, np.eye(2)[classes], class_weight={0: 0.5, 1: 3.0})
    assert by_class == pytest.approx(by_sample, rel=1e-6) == pytest.approx(hot, rel=1e-6)


@pytest.mark.parametrize(
    ("compiled", "names"),
    [
        ({"loss": ["mse", "sparse_categorical_crossentropy"]}, ["loss", "a_loss", "b_loss"]),
        (
            {
                "loss": {"a": "mse", "b": "sparse_categorical_crossentropy"},
                "metrics": {"b": "accuracy", "a": ["mae", "mse"]},
                "loss_weights": {"a": 0.5, "b": 2.0},
            },
            ["loss", "a_loss", "b_loss", "a_mae", "a_mse", "b_accuracy"],
        ),
        ({"loss": {"a": "mse"}, "metrics": [["mae"], []]}, ["loss", "a_loss", "a_mae"]),
        ({"loss": ["mse", None], "metrics": ["mae"]}, ["loss", "a_loss", "a_mae", "b_mae"]),
    ],
)
def test_several_outputs(compiled, names):
    model = two_outputs()
    model.compile(keras.optimizers.SGD(0.0), **compiled)
    logs = model.test_on_batch(X, LABELS, return_dict=True)
    assert list(logs) == names == model.metrics_names
    weights = compiled.get("loss_weights", {})
    total = sum(logs[f"{o}_loss"] * weights.get(o, 1) for o in "ab" if f"{o}_loss" in logs)
    assert logs["loss"] == pytest.approx(total, rel=1e-6)
    by_name = model.test_on_batch(X, dict(zip("ab", LABELS, strict=True)), return_dict=True)
    assert by_name == logs


def test_accuracy_depends_on_the_labels():
    for labels, units, metric in [
        (RNG.integers(0, 3, 20), 3, "sparse_categorical_accuracy"),
        (np.eye(3)[RNG.integers(0, 3, 20)], 3, "categorical_accuracy"),
        (RNG.integers(0, 2, (20, 1)), 1, "binary_accuracy"),
    ]:
        model = models.Sequential([layers.Dense(units, activation="sigmoid", input_shape=(3,))])
        model.compile("sgd", "mse", metrics=["accuracy", metric])
        logs = model.test_on_batch(X, labels if units == 3 and labels.ndim == 2 else labels, return_dict=True)
        assert logs["accuracy"] == logs[metric]


def test_layers_add_to_the_loss():
    class Pushed(layers.Layer):
        def call(self, inputs):
            self.add_loss(np.sum(inputs) * 0 + 3.0)
            self.add_metric(np.mean(inputs), name="level")
            return inputs

    model = models.Sequential(
        [Pushed(input_shape=(3,)), layers.Dense(1, kernel_initializer="ones", kernel_regularizer="l2")]
    )
    model.compile(keras.optimizers.SGD(0.0), "mse")
    logs = model.train_on_batch(X, Y, return_dict=True)
    errors = (X.sum(1, keepdims=True) - Y) ** 2
    assert logs["loss"] == pytest.approx(errors.mean() + 3 + 0.03, rel=1e-5)
    assert logs["level"] == pytest.approx(X.mean(), abs=1e-6)
    model.compile("sgd")
    assert model.test_on_batch(X)[0] == pytest.approx(3.03, rel=1e-5)


def test_frozen_layers_stay():
    model = models.Sequential([layers.Dense(2, input_shape=(3,)), layers.BatchNormalization(), layers.Dense(1)])
    model.layers[0].trainable = model.layers[1].trainable = False
    model.compile("sgd", "mse")
    before = model.get_weights()
    model.fit(X, Y, verbose=0)
    same = [np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert same == [True] * 6 + [False] * 2


def test_a_train_step_of_ones_own():
    class Own(models.Sequential):
        def train_step(self, data):
            x, y = data[:2]
            with GradientTape() as tape:
                y_pred = self(x, training=True)
                loss = self.compiled_loss(y, y_pred, regularization_losses=self.losses)
            variables = self.trainable_variables
            gradients = tape.gradient(loss, variables)
            self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
            self.compiled_metrics.update_state(y, y_pred)
            return {"mine": 7.0, **{m.name: m.result() for m in self.metrics}}

    model = Own([layers.Dense(1, kernel_initializer="ones", input_shape=(3,))])
    model.compile(keras.optimizers.SGD(0.1), "mse", metrics=["mae"])
    history = model.fit(X, Y, verbose=0, epochs=2, shuffle=False).history
    expected = linear(metrics=["mae"]).fit(X, Y, verbose=0, epochs=2, shuffle=False).history
    assert history.pop("mine") == [7, 7]
    assert history == expected


def test_callbacks_see_every_hook_and_may_stop():
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen.append("begin")

        def on_train_batch_end(self, batch, logs=None):
            seen.append((batch, list(logs)))

        def on_epoch_end(self, epoch, logs=None):
            seen.append(list(logs))
            self.model.stop_training = epoch == 1

        def on_train_end(self, logs=None):
            seen.append("end")

    history = linear().fit(X, Y, batch_size=16, epochs=9, verbose=0, validation_split=0.2, callbacks=[Watch()])
    epoch = [(0, ["loss"]), ["loss", "val_loss"]]
    assert seen == ["begin", *epoch, *epoch, "end"]
    assert len(history.epoch) == 2


def test_predict():
    model = two_outputs()
    a, b = model.predict(X, batch_size=6, verbose=0)
    assert type(a) is np.ndarray and a.shape == (20, 1) and b.shape == (20, 2)
    np.testing.assert_array_equal(model.predict_on_batch(X)[0], model.predict(X, batch_size=20, verbose=0)[0])
    assert model.predict(iter([X[:4], (X[4:6],)]), verbose=0)[0].shape == (6, 1)
    assert model.predict(X, batch_size=4, steps=2, verbose=0)[0].shape == (8, 1)
    assert model.predict(X[:0].reshape(0, 3)[:0].tolist() or X[:1], verbose=0)[0].shape == (1, 1)


def test_nothing_is_recorded_outside_of_training():
    model = linear()
    with GradientTape() as tape:
        model.predict(X, verbose=0)
        model.evaluate(X, Y, verbose=0)
    assert tape.kept() == []


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda m: m.compile("nonsense"), ValueError, "nonsense"),
        (lambda m: m.compile("sgd", "nonsense"), ValueError, "nonsense"),
        (lambda m: m.compile("sgd", "mse", metrics=["nonsense"]), ValueError, "nonsense"),
        (lambda m: m.compile("sgd", "mse", foo=3), TypeError, "foo"),
        (lambda m: m.fit(X, Y[:5]), ValueError, "cardinality"),
        (lambda m: m.fit(X, Y, batch_size=0), ValueError, "batch_size"),
        (lambda m: m.fit(X, Y, steps_per_epoch=-1), ValueError, "steps"),
        (lambda m: m.fit(X, Y, verbose=5), ValueError, "verbose"),
        (lambda m: m.fit(X, Y, validation_split=1.5), ValueError, "validation_split"),
        (lambda m: m.fit(X[:1], Y[:1], validation_split=0.5), ValueError, "not sufficient"),
        (lambda m: m.fit(Batches(), validation_split=0.5), ValueError, "validation_split"),
        (lambda m: m.fit(Batches(), Y), ValueError, "`y` argument is not supported"),
        (lambda m: m.fit(Batches(), batch_size=3), ValueError, "batch_size"),
        (lambda m: m.fit(X, Y, class_weight={1: 1.0}), ValueError, "class_weight"),
        (lambda m: m.fit(X, Y, validation_freq=0), ValueError, "validation_freq"),
        (lambda m: m.fit(None), ValueError, "input data"),
        (lambda m: m.fit(3, Y), ValueError, "batches"),
        (lambda m: m.fit(np.array(["a"]), Y[:1]), ValueError, "`x`"),
        (lambda m: m.fit(X), ValueError, "Target data is missing"),
        (lambda m: m.fit(X, [Y, Y]), ValueError, "one entry for each of the 1 outputs"),
        (lambda m: m.fit(iter([]), epochs=1), ValueError, "no batch"),
        (lambda m: m.fit(X[:, :2], Y), ValueError, "incompatible"),
    ],
)
def test_bad_arguments_change_nothing(call, error, says):
    model = linear()
    compiled, before = model.compiled_loss, model.get_weights()
    with pytest.raises(error, match=says):
        call(model)
    assert model.compiled_loss is compiled
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_uncompiled():
    model = models.Sequential([layers.Dense(1, input_shape=(3,))])
    for use in (model.fit, model.evaluate, model.train_on_batch):
        with pytest.raises(RuntimeError, match="compile"):
            use(X, Y)
    assert model.predict(X, verbose=0).shape == (20, 1)


def test_no_loss_at_all():
    model = linear(loss=None)
    with pytest.raises(TypeError, match="loss"):
        model.train_on_batch(X, Y)


def test_wrong_outputs_are_named():
    model = two_outputs()
    model.compile("sgd", {"c": "mse"})
    with pytest.raises(ValueError, match="'c'"):
        model.train_on_batch(X, LABELS)
    shared = keras.metrics.Mean()
    with pytest.raises(ValueError, match="duplicated"):
        model.compile("sgd", "mse", metrics=[shared], weighted_metrics=[shared])
    model.compile("sgd", "mse", metrics=[keras.metrics.MeanSquaredError(), "mean_squared_error"])
    with pytest.raises(ValueError, match="same name"):
        model.train_on_batch(X, LABELS)
