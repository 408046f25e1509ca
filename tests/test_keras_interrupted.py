"""Training that is interrupted and resumed, and what TensorBoard is given."""

import builtins

import numpy as np
import pytest

import bnnlayers as lq
from bnnlayers import keras

EPOCHS, BATCH = 3, 16
RNG = np.random.default_rng(0)
X = RNG.random((70, 8)).astype(np.float32)
Y = RNG.integers(0, 3, 70)


def network():
    """Shuffling, dropout from both kinds of generators, a rate that changes: all that resuming has to restore."""
    layers = keras.layers
    model = keras.models.Sequential(
        [
            layers.Dense(16, activation="relu", input_shape=(8,)),
            layers.Dropout(0.3),
            layers.Dropout(0.2, seed=4),
            lq.layers.QuantDense(3, kernel_quantizer="ste_sign", kernel_constraint="weight_clip"),
            layers.BatchNormalization(),
            layers.Softmax(),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    return model


class Interrupt(keras.callbacks.Callback):
    def __init__(self, after):
        super().__init__()
        self.left = after

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def train(seed, *callbacks):
    keras.utils.set_random_seed(seed)
    model = network()
    rate = keras.callbacks.LearningRateScheduler(lambda epoch, lr: 0.9 * lr)
    model.fit(X, Y, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=[rate, *callbacks])
    return model.get_weights()


@pytest.fixture(scope="module")
def uninterrupted():
    return train(1)


# An epoch has five batches: backups amid it, at its last batch and after it.
@pytest.mark.parametrize(
    ("save_freq", "after"), [("epoch", 6), ("epoch", 14), (2, 3), (2, 11), (3, 8), (5, 6), (5, 13)]
)
def test_resumed_training_gives_the_same_weights(tmp_path, uninterrupted, save_freq, after):
    folder = tmp_path / "backup"
    with pytest.raises(KeyboardInterrupt):
        train(1, keras.callbacks.BackupAndRestore(folder, save_freq), Interrupt(after))
    assert [path.name for path in folder.iterdir()] == ["backup.npz"]
    # Another seed: everything random must come from the backup.
    resumed = train(2, keras.callbacks.BackupAndRestore(folder, save_freq))
    for actual, expected in zip(resumed, uninterrupted, strict=True):
        np.testing.assert_array_equal(actual, expected)
    assert not list(folder.iterdir())


def test_a_finished_training_is_not_repeated(tmp_path, uninterrupted):
    train(1, keras.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False))
    again = train(2, keras.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False), Interrupt(1))
    for actual, expected in zip(again, uninterrupted, strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_case_optimizer_is_resumed(tmp_path):
    def run(seed, *callbacks):
        keras.utils.set_random_seed(seed)
        binary = {"kernel_quantizer": lq.quantizers.NoOp(precision=1), "use_bias": False}
        model = keras.models.Sequential([lq.layers.QuantDense(4, **binary), keras.layers.Dense(3)])
        bop = lq.optimizers.Bop(threshold=1e-6)
        case = lq.optimizers.CaseOptimizer(
            (lq.optimizers.Bop.is_binary_variable, bop), default_optimizer=keras.optimizers.Adam(0.01)
        )
        model.compile(case, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(X, Y, epochs=3, verbose=0, callbacks=list(callbacks))
        return model.get_weights()

    expected = run(1)
    with pytest.raises(KeyboardInterrupt):
        run(1, keras.callbacks.BackupAndRestore(tmp_path), Interrupt(5))
    # The model is not built when it is restored.
    for a, b in zip(run(2, keras.callbacks.BackupAndRestore(tmp_path)), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_backup_of_another_network(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(1, keras.callbacks.BackupAndRestore(tmp_path, 1), Interrupt(2))
    model = keras.models.Sequential([keras.layers.Dense(3, input_shape=(8,))])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="another network"):
        model.fit(X, X[:, :3], verbose=0, callbacks=[keras.callbacks.BackupAndRestore(tmp_path)])
    with pytest.raises(ValueError, match="save_freq"):
        keras.callbacks.BackupAndRestore(tmp_path, save_freq=0)


def test_tensorboard(tmp_path):
    loader = pytest.importorskip("tensorboardX.record_writer")
    from tensorboardX.proto import event_pb2

    def scalars(folder):
        (path,) = (tmp_path / folder).iterdir()
        found, data = {}, path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            for value in event_pb2.Event.FromString(data[12 : 12 + length]).summary.value:
                found.setdefault(value.tag, []).append(value.simple_value)
            data = data[16 + length :]
        return found

    assert loader
    model = network()
    history = model.fit(
        X,
        Y,
        epochs=2,
        verbose=0,
        validation_data=(X, Y),
        callbacks=[keras.callbacks.TensorBoard(tmp_path, histogram_freq=1, update_freq=2)],
    ).history
    training, validation = scalars("train"), scalars("validation")
    np.testing.assert_allclose(training["epoch_loss"], history["loss"], 1e-6)
    np.testing.assert_allclose(validation["epoch_loss"], history["val_loss"], 1e-6)
    assert len(training["batch_loss"]) == 3
    assert sum("kernel" in tag for tag in training) == 2
    with pytest.raises(ValueError, match="update_freq"):
        keras.callbacks.TensorBoard(tmp_path, update_freq=0)


def test_tensorboard_without_its_package(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("tensorboardX"):
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=r"bnnlayers\[tensorboard\]"):
        network().fit(X, Y, verbose=0, callbacks=[keras.callbacks.TensorBoard(tmp_path)])
