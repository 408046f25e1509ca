"""Callbacks: what each does to a model, and files that survive whatever happens."""

import csv
import io
import re
from types import SimpleNamespace

import numpy as np
import pytest

from bnnlayers.keras import backend, callbacks, optimizers


class Model(SimpleNamespace):
    """What callbacks need of a model."""

    def __init__(self):
        super().__init__(optimizer=optimizers.SGD(0.5), stop_training=False, weights=[0.0])
        self.saved = []

    def get_weights(self):
        return list(self.weights)

    def set_weights(self, weights):
        self.weights = list(weights)

    def save(self, path, overwrite):
        self.saved.append(("model", path))

    def save_weights(self, path, overwrite):
        self.saved.append(("weights", path))


def fit(callback, epochs, model=None, verbose=0, steps=2, **params):
    """Run the hooks as `fit` does; `epochs` holds the logs of each epoch."""
    model = model or Model()
    hooks = callbacks.CallbackList(
        callback,
        add_history=True,
        add_progbar=verbose != 0,
        model=model,
        verbose=verbose,
        epochs=len(epochs),
        steps=steps,
        **params,
    )
    hooks.on_train_begin()
    for epoch, logs in enumerate(epochs):
        hooks.on_epoch_begin(epoch)
        for batch in range(2):
            hooks.on_train_batch_begin(batch)
            hooks.on_train_batch_end(batch, dict(logs))
        model.weights = [float(epoch)]
        hooks.on_epoch_end(epoch, dict(logs))
        if model.stop_training:
            break
    hooks.on_train_end()
    return model


def series(name, values):
    return [{name: value} for value in values]


def test_order_of_hooks():
    seen = []

    class Recorder(callbacks.Callback):
        def on_batch_end(self, batch, logs=None):
            seen.append(("batch", batch, logs))

    hooks = {
        name: lambda *args, name=name: seen.append((name, *args))
        for name in ("on_train_begin", "on_epoch_begin", "on_epoch_end", "on_train_end")
    }
    model = fit([[callbacks.LambdaCallback(**hooks)], Recorder()], [{"loss": 1.0}])
    assert seen == [
        ("on_train_begin", {}),
        ("on_epoch_begin", 0, {}),
        ("batch", 0, {"loss": 1.0}),
        ("batch", 1, {"loss": 1.0}),
        ("on_epoch_end", 0, {"loss": 1.0}),
        ("on_train_end", {}),
    ]
    assert model.history.history == {"loss": [1.0]} and model.history.epoch == [0]


def test_hooks_of_evaluation_and_prediction():
    seen = []
    hooks = callbacks.CallbackList(
        callbacks.LambdaCallback(
            on_test_begin=lambda logs: seen.append("begin"),
            on_test_batch_end=lambda batch, logs: seen.append(batch),
            on_predict_end=lambda logs: seen.append("end"),
        )
    )
    hooks.on_test_begin()
    hooks.on_test_batch_end(0)
    hooks.on_predict_end()
    assert seen == ["begin", 0, "end"]
    assert len(list(callbacks.CallbackList(hooks))) == 1


def test_callbacks_see_what_others_added_to_the_logs():
    model = fit(callbacks.LearningRateScheduler(lambda epoch: 1 / 2**epoch), [{}, {}])
    assert model.history.history == {"lr": [1.0, 0.5]}


@pytest.mark.parametrize(
    ("arguments", "values", "epochs", "weights"),
    [
        ({"monitor": "loss"}, [3, 2, 1, 1, 0], 4, 3),
        ({"monitor": "loss", "patience": 2}, [3, 2, 2, 2, 0], 4, 3),
        ({"monitor": "loss", "patience": 2, "restore_best_weights": True}, [3, 2, 4, 4, 0], 4, 1),
        ({"monitor": "accuracy"}, [1, 2, 1, 3], 3, 2),
        ({"monitor": "x", "mode": "max"}, [1, 2, 1, 3], 3, 2),
        ({"monitor": "loss", "min_delta": 0.5}, [3, 2.8, 1], 2, 1),
        ({"monitor": "loss", "baseline": 1, "patience": 2}, [3, 2.5, 2, 1.5, 1.4], 5, 4),
        ({"monitor": "loss", "start_from_epoch": 3}, [3, 3, 3, 3, 3], 5, 4),
    ],
)
def test_early_stopping(arguments, values, epochs, weights):
    model = fit(callbacks.EarlyStopping(**arguments), series(arguments["monitor"], values))
    assert len(model.history.epoch) == epochs and model.weights == [weights]


def test_early_stopping_says_what_is_missing():
    with pytest.warns(UserWarning, match="'val_loss' is not in the logs"):
        fit(callbacks.EarlyStopping(), series("loss", [1]))
    with pytest.warns(UserWarning, match="mode"):
        callbacks.EarlyStopping(mode="best")


def test_terminate_on_nan():
    model = fit(callbacks.TerminateOnNaN(), series("loss", [1, np.nan, 1]))
    assert model.history.epoch == [0, 1]


def test_learning_rate_scheduler(capsys):
    model = fit(callbacks.LearningRateScheduler(lambda epoch, lr: lr * 0.5, verbose=1), [{}, {}])
    assert backend.get_value(model.optimizer.lr) == 0.125
    assert (
        "Epoch 2: LearningRateScheduler setting learning rate to 0.125." in capsys.readouterr().out
    )
    with pytest.raises(ValueError, match="float"):
        fit(callbacks.LearningRateScheduler(lambda epoch: 1), [{}])


def test_reduce_on_plateau():
    callback = callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=2, min_lr=0.2, cooldown=1)
    model = fit(callback, series("loss", [1, 1, 1, 1, 1, 1, 1]))
    assert model.history.history["lr"] == [0.5, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2]
    assert backend.get_value(model.optimizer.lr) == 0.2
    with pytest.raises(ValueError, match="factor"):
        callbacks.ReduceLROnPlateau(factor=1.0)


def test_checkpoint(tmp_path):
    model = fit(
        callbacks.ModelCheckpoint(tmp_path / "new" / "{epoch:02d}-{loss:.1f}.h5"),
        series("loss", [2, 1]),
    )
    assert model.saved == [
        ("model", str(tmp_path / "new" / "01-2.0.h5")),
        ("model", str(tmp_path / "new" / "02-1.0.h5")),
    ]
    best = callbacks.ModelCheckpoint(
        tmp_path / "w{epoch}.h5", "val_acc", save_best_only=True, save_weights_only=True
    )
    model = fit(best, series("val_acc", [0.5, 0.4, 0.6]))
    assert [kind for kind, _ in model.saved] == ["weights", "weights"]
    assert model.saved[1][1].endswith("w3.h5")
    each = callbacks.ModelCheckpoint(tmp_path / "{epoch}-{batch}", save_freq=3)
    model = fit(each, [{}, {}, {}])
    assert [path.rsplit("/")[-1] for _, path in model.saved] == ["2-1", "3-2"]


def test_checkpoint_errors(tmp_path):
    with pytest.raises(ValueError, match="save_freq"):
        callbacks.ModelCheckpoint("x", save_freq="batch")
    with pytest.raises(KeyError, match="val_loss"):
        fit(callbacks.ModelCheckpoint("{val_loss}"), [{"loss": 1}])
    with pytest.raises(OSError, match="directory"):
        fit(callbacks.ModelCheckpoint(tmp_path), [{}])


def test_csv_logger(tmp_path):
    path = tmp_path / "log.csv"
    logger = callbacks.CSVLogger(path)
    epochs = [{"loss": 2.0, "acc": np.float32(0.1)}, {"loss": 1.0, "acc": np.float32(0.2)}]
    fit(logger, epochs)
    fit(callbacks.CSVLogger(path, append=True), [{"loss": 0.5, "acc": 1.0}])
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert [row["loss"] for row in rows] == ["2.0", "1.0", "0.5"]
    assert [row["acc"] for row in rows] == ["0.1", "0.2", "1.0"]
    assert [row["val_loss"] for row in rows] == ["NA"] * 3
    fit(callbacks.CSVLogger(path, separator=";"), epochs[:1])
    assert path.read_text().splitlines()[0] == "epoch;acc;loss;val_acc;val_loss"


def test_progress(capsys):
    logs = {"loss": 1.25, "accuracy": 1e-4}
    fit(None, [logs, logs], verbose=2)
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"Epoch 1/2 - \d+s - loss: 1.2500 - accuracy: 1.0000e-04", lines[0])
    assert lines[1].startswith("Epoch 2/2 - ") and len(lines) == 2
    fit(None, [logs, logs], verbose=1, steps=None)
    out = capsys.readouterr().out
    assert "Epoch 2/2" in out and "2/2" in out and "loss: 1.2500 - accuracy: 1.0000e-04" in out
    fit(None, [logs], verbose=0)
    assert capsys.readouterr().out == ""


def test_progress_of_validation_is_silent_while_training(capsys):
    model = Model()
    hooks = callbacks.CallbackList(None, add_progbar=True, model=model, verbose=2, epochs=1)
    hooks.on_train_begin()
    hooks.on_test_begin()
    hooks.on_test_batch_end(0, {"loss": 1.0})
    hooks.on_test_end({"loss": 1.0})
    assert capsys.readouterr().out == ""
    hooks.on_train_end()
    hooks.on_test_begin()
    hooks.on_test_end({"loss": 1.0})
    assert capsys.readouterr().out.endswith("s - loss: 1.0000\n")
