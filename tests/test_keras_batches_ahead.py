"""`fit` has the next batch prepared by a thread: the same batches in the same order, and no hang."""

import threading

import numpy as np
import pytest

from bnnlayers import keras

PATIENCE = 30  # seconds, for what happens at once unless it never does


class Batches(keras.utils.Sequence):
    def __init__(self, before=lambda i: None):
        rng = np.random.default_rng(1)
        self.x, self.y = rng.standard_normal((5, 4, 3)).astype(np.float32), np.ones((5, 4, 1), np.float32)
        self.before = before

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        self.before(i)
        return self.x[i], self.y[i]


class Iterable:
    def __iter__(self):
        return (Batches()[i] for i in range(5))


def model():
    keras.utils.set_random_seed(0)
    model = keras.models.Sequential([keras.layers.Dense(1, input_shape=(3,))])
    model.compile("adam", "mse")
    return model


def workers():
    return [thread for thread in threading.enumerate() if thread.name == "batches"]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    for thread in workers():
        thread.join(PATIENCE)
    assert not workers()


def test_the_next_batch_is_prepared_during_a_step():
    prepared = [threading.Event() for _ in range(5)]

    class Waiting(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            assert prepared[min(batch + 1, 4)].wait(PATIENCE)

    model().fit(Batches(lambda i: prepared[i].set()), shuffle=False, verbose=0, callbacks=[Waiting()])


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("kind", ["sequence", "generator", "iterable"])
def test_nothing_else_changes(kind, shuffle):
    def batches():
        sequence = Batches()
        if kind == "sequence":
            return sequence
        if kind == "iterable":
            return Iterable()
        return (sequence[i % 5] for i in range(15))

    steps = {"steps_per_epoch": 5} if kind == "generator" else {}
    results = []
    for count in (0, 1):
        network = model()
        history = network.fit(batches(), epochs=3, shuffle=shuffle, verbose=0, workers=count, **steps)
        results.append([np.array(history.history["loss"]), *network.get_weights()])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_batch_is_taken_that_is_not_used():
    source = iter([Batches()[0]] * 10)
    model().fit(source, steps_per_epoch=2, epochs=3, verbose=0)
    assert len(list(source)) == 4


def test_an_exception_arrives():
    def before(i):
        if i == 3:
            raise KeyError("no such file")

    steps = []
    counter = keras.callbacks.LambdaCallback(on_batch_end=lambda batch, logs: steps.append(batch))
    with pytest.raises(KeyError, match="no such file"):
        model().fit(Batches(before), shuffle=False, verbose=0, callbacks=[counter])
    assert steps == [0, 1, 2]


def test_an_interrupt_does_not_wait():
    released = threading.Event()

    def before(i):
        if i == 2:
            released.wait(PATIENCE)

    def interrupt(batch, logs):
        if batch == 1:
            raise KeyboardInterrupt

    callback = keras.callbacks.LambdaCallback(on_batch_end=interrupt)
    with pytest.raises(KeyboardInterrupt):
        model().fit(Batches(before), shuffle=False, verbose=0, callbacks=[callback])
    assert not released.is_set()
    released.set()


def test_stopping_in_the_middle():
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 2

    history = model().fit(Batches(), epochs=4, verbose=0, callbacks=[Stop()])
    assert history.epoch == [0]


def test_arrays_need_no_thread():
    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            assert not workers()

    sequence = Batches()
    model().fit(sequence.x[0], sequence.y[0], batch_size=2, verbose=0, callbacks=[Look()])
