"""What training keeps: counted bytes, the same gradients with fewer of them, and no growth from step to step."""

import copy
import gc
import math
import os
import pickle
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from golden.tutorials import NETWORKS

import bnnlayers as lq
from bnnlayers import _core, keras, tape
from bnnlayers.bits import pack_bits
from bnnlayers.ops import memory, norm, pool
from bnnlayers.tape.spare import alone


def compiled(name, classes=10):
    keras.utils.set_random_seed(1)
    model, shape = NETWORKS[name](lq, keras, classes)
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    return model, shape


def data(shape, count, classes=10):
    rng = np.random.default_rng(3)
    return rng.standard_normal((count, *shape)).astype(np.float32), rng.integers(0, classes, count)


def recorded(model, x, y):
    with tape.GradientTape() as recording:
        loss = model.compute_loss(x, y, model(x, training=True))
    return recording, loss


def bits_per_sample(model):
    """What backward cannot do without.

    Two bits of what a binary product reads, its sign and whether the gradient passes; a bit of a rectifier's result,
    whether it was active; a byte of a pooling's, which of the window won; and the floats that a product of floats read.
    A norm keeps floats only where they come out of a product with sums too long to be run again, or are far from any:
    as those that a pooling makes of a product of floats. Of a binary convolution whose sums are long, with what is
    pooled, 16 bits of a result are kept.
    """
    total, product, short, dear, terms = 0, False, False, False, 0
    for layer in model.layers:
        inputs, outputs = (
            sum(math.prod(s[1:]) for s in (shape if isinstance(shape, list) else [shape]))
            for shape in (layer.input_shape, layer.output_shape)
        )
        quantized = getattr(layer, "input_quantizer", None) is not None
        floats = not quantized and isinstance(layer, (keras.layers.Conv, keras.layers.Dense))
        pooling = isinstance(layer, keras.layers.MaxPooling2D)
        total += 16 * (outputs if pooling else inputs) * (terms * (4 if pooling else 1) >= 1024)
        activation = getattr(layer, "activation", None)
        total += 2 * inputs * quantized + 32 * inputs * floats
        if isinstance(layer, keras.layers.BatchNormalization) and dear:
            total += 32 * inputs
        if pooling:
            total += 8 * outputs
        if activation is keras.activations.relu:
            total += outputs
        if activation is keras.activations.softmax:
            total += 3 * 32 * outputs  # probabilities, and the loss's
        dear = (pooling and (not product or short)) or (
            floats and math.prod(layer.weights[0].shape) // layer.output_shape[-1] > 256
        )
        product, short, terms = quantized or floats, floats, 0
        if quantized and isinstance(layer, keras.layers.Conv):
            terms = math.prod(layer.weights[0].shape[:-1])
    return total


@pytest.mark.parametrize("name", NETWORKS)
def test_a_tape_keeps_bits(name):
    model, shape = compiled(name)
    x, y = data(shape, 4)
    kept = []
    for batch in (2, 4):
        recording, loss = recorded(model, x[:batch], y[:batch])
        kept.append(sum(n for _, n in recording.kept()))
    assert loss.shape == ()
    assert (kept[1] - kept[0]) / 2 <= 1.05 * bits_per_sample(model) / 8


def gradients(name, monkeypatch, changes=()):
    model, shape = compiled(name)
    rng = np.random.default_rng(4)
    model.set_weights([rng.uniform(0.5, 1, w.shape) * np.sign(w + 0.1) for w in model.get_weights()])
    x, y = data(shape, 4)
    with monkeypatch.context() as patch:
        for target, value in changes:
            patch.setattr(f"bnnlayers.tape.{target}", value)
        recording, loss = recorded(model, x, y)
        return recording.gradient(loss, model.trainable_variables)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_those_of_kept_values(name, monkeypatch):
    changes = [("again._DETOUR", 0), ("spare.alone", lambda *args: False), ("gradient.alone", lambda *args: False)]
    plain = gradients(name, monkeypatch, changes)
    assert any(np.any(g) for g in plain)
    for a, b in zip(gradients(name, monkeypatch), plain, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_of_parts(name, monkeypatch):
    """A norm whose input is computed again a few rows at a time has the gradients of the whole input, to the bit."""
    found = []
    for part in (1 << 30, 1):
        with monkeypatch.context() as patch:
            patch.setattr(norm, "_PART", part)
            found.append(gradients(name, monkeypatch, [("again._SMALL", 0)]))
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


POOLED = {
    "xnor": ({"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}, 2),
    "levels": ({"input_quantizer": "dorefa_quantizer", "kernel_quantizer": "ste_tern"}, 2),
    "signed": ({"kernel_quantizer": "ste_sign"}, 2),
    "float": ({}, 2),
    "padded": ({"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "padding": "same", "pad_values": 1}, 2),
    "line": ({"kernel_quantizer": "ste_sign", "strides": 2}, 1),
    "volume": ({"input_quantizer": "ste_sign", "groups": 3}, 3),
}


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("kind", POOLED)
def test_a_pooled_product_is_that_of_the_whole_batch(kind, padding, monkeypatch):
    options, rank = POOLED[kind]
    keras.utils.set_random_seed(2)
    conv, pooling = (
        getattr(layers, f"{name}{rank}D") for layers, name in ((lq.layers, "QuantConv"), (keras.layers, "MaxPooling"))
    )
    shape = (9,) * rank + (6,)
    x, found = lq.constant(data(shape, 5)[0]), []
    layer = conv(33, 3, use_bias=False, **options)
    for waits in (True, False):
        with monkeypatch.context() as patch:
            patch.setattr(pool, "_PIXELS", 2 * 9**rank)
            patch.setattr(pool, "_FLOATS", 0)
            if not waits:
                patch.setattr(keras.layers.Conv, "_waits", lambda self, readers: False)
            model = keras.models.Sequential([keras.layers.InputLayer(shape), layer, pooling(2, padding=padding)])
            with lq.GradientTape() as recording:
                recording.watch(x)
                y = model(x, training=True)
                kept = {name for name, _ in recording.kept()}
            assert ("max_pool" in kept) is not waits
            dx, dw = recording.gradient(
                y, [x, layer.kernel], output_gradients=np.cos(np.arange(y.size)).reshape(y.shape)
            )
            found.append((y, dx, dw, layer.arithmetic, model(x)))
    (y, dx, dw, kinds, again), (expected, *gradients, expected_kinds, _) = found
    assert kinds == expected_kinds
    kernel = np.asarray(layer.kernel)
    taps, magnitude = 3**rank, float(np.abs(kernel).max())

    def same(a, b, blas, terms, peak):
        """To the bit, but where BLAS sums: some of its kernels round by the place in a tile."""
        np.testing.assert_allclose(a, b, rtol=0, atol=blas * terms**1.5 * 2.0**-23 * peak * magnitude)

    for result in (y, again):
        same(result, expected, kinds[0] == "float", taps * kernel.shape[-2], float(np.abs(x).max()))
    same(dx, gradients[0], "kernel_quantizer" not in options, taps * kernel.shape[-1], 1.0)
    np.testing.assert_allclose(dw, gradients[1], rtol=1e-5, atol=1e-4)


def test_what_others_read_is_not_pooled_alone():
    image = keras.layers.Input((8, 8, 3))
    conv = keras.layers.Conv2D(4, 3, use_bias=False)(image)
    pooled = keras.layers.MaxPooling2D(2)(conv)
    both = keras.models.Model(image, [pooled, conv])
    biased = keras.models.Sequential([keras.layers.Conv2D(4, 3, input_shape=(8, 8, 3)), keras.layers.MaxPooling2D(2)])
    rectified = keras.models.Sequential(
        [
            keras.layers.Conv2D(4, 3, use_bias=False, activation="relu", input_shape=(8, 8, 3)),
            keras.layers.MaxPooling2D(2),
        ]
    )

    class Twice(keras.layers.Conv2D):
        def call(self, inputs):
            return 2 * super().call(inputs)

    overridden = keras.models.Sequential(
        [Twice(4, 3, use_bias=False, input_shape=(8, 8, 3)), keras.layers.MaxPooling2D(2)]
    )
    x = data((8, 8, 3), 2)[0]
    for model in (both, biased, rectified, overridden):
        with tape.GradientTape() as recording:
            y = model(lq.constant(x), training=True)
        assert "max_pool" in dict(recording.kept())
        conv, *_ = y[1:] if model is both else [model.layers[0](x)]
        expected = np.max([conv[:, i:6:2, j:6:2] for i in (0, 1) for j in (0, 1)], axis=0)
        np.testing.assert_array_equal(y[0] if model is both else y, expected)


def run(steps, after_step):
    """Weights after so many steps of a small residual network."""
    keras.utils.set_random_seed(1)
    binary = dict(padding="same", input_quantizer="ste_sign", kernel_quantizer="ste_sign", use_bias=False)
    image = keras.layers.Input((8, 8, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(32, 3, padding="same")(image))
    new = keras.layers.BatchNormalization()(lq.layers.QuantConv2D(32, 3, activation="relu", **binary)(x))
    x = keras.layers.MaxPooling2D(2)(keras.layers.concatenate([x + new, new]))
    x = lq.layers.QuantConv2D(32, 1, **binary)(x)
    outputs = keras.layers.Dense(4, activation="softmax")(keras.layers.Flatten()(x))
    model = keras.models.Model(image, outputs)
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    x, y = data((8, 8, 3), 64, 4)
    for step in range(steps):
        part = slice(step % 8 * 8, step % 8 * 8 + 8)
        model.train_on_batch(x[part], y[part])
        after_step()
    return model.get_weights()


@pytest.fixture(scope="module")
def runs():
    """Weights, and bytes after each step, of the same training at one and at two threads."""
    before, found = lq.get_num_threads(), []
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for threads in (1, 2):
            lq.set_num_threads(threads)
            sizes = []
            found.append((run(200, lambda sizes=sizes: sizes.append(tracemalloc.get_traced_memory()[0])), sizes))
    finally:
        tracemalloc.stop()
        gc.enable()
        lq.set_num_threads(before)
    return found


def test_two_hundred_steps_do_not_grow(runs):
    for _, sizes in runs:
        # A step leaves a few objects in cycles, but no array.
        assert max(sizes[-20:]) - max(sizes[20:40]) < 160 * 1000


def test_threads_give_the_same_weights(runs):
    (one, _), (two, _) = runs
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


# In a process of its own: how far its memory grows for a model and its training, beyond the data.
MEASURED = """
import sys
from pathlib import Path

import numpy as np
from golden.tutorials import NETWORKS

import bnnlayers as lq
from bnnlayers import keras

name, batch = sys.argv[1], int(sys.argv[2])


def train(build, batch, epochs):
    before = resident("VmRSS:")
    model, shape = build(lq, keras, 10)
    model.compile("adam", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((batch, *shape), dtype=np.float32), rng.integers(0, 10, batch)
    model.fit(x, y, batch_size=batch, epochs=epochs, verbose=0)
    return resident("VmHWM:") - before - x.nbytes - y.nbytes


def resident(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(what))


lq.set_num_threads(1)
train(NETWORKS["MNIST"], 1, 1)  # code that is not in memory before it runs
print(train(NETWORKS[name], batch, 3))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="a peak is read where Linux tells it")
@pytest.mark.parametrize("name, batch", [("MNIST", 128), ("MNIST", 512), ("CIFAR-10", 20), ("CIFAR-10", 50)])
def test_memory_of_training_is_as_predicted(name, batch):
    paths = [str(Path(__file__).parent), str(Path(lq.__file__).parents[1])]
    found = subprocess.run(
        [sys.executable, "-c", MEASURED, name, str(batch)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    model, _ = compiled(name)
    predicted = lq.models.ModelProfile(model, training=True, batch_size=batch).training_memory.total
    assert abs(predicted / int(found.stdout) - 1) < 0.2


@pytest.mark.parametrize("name, few, more, kilobytes", [("MNIST", 256, 512, 37), ("CIFAR-10", 50, 100, 640)])
def test_peak_per_sample(name, few, more, kilobytes):
    """In MNIST the float result of the first pooling and its gradient; in CIFAR-10 the gradient of the first
    convolution's result while that of the second is pooled, a few images at a time."""
    model, _ = compiled(name)
    one, two = (lq.models.ModelProfile(model, training=True, batch_size=n).training_memory for n in (few, more))
    assert two.activations - one.activations <= (more - few) * kilobytes * 1024


class TestSpare:
    """A backward may write into an array that nobody else can see, and into no other."""

    def test_alone(self):
        x = np.empty((2, 3))
        assert alone(x)
        assert alone(x, 1)
        other = x
        assert not alone(x)
        del other
        view = x.reshape(3, 2)
        assert not alone(x)
        assert not alone(view)
        del x
        assert alone(view)
        assert not alone(view[:, 1])
        kept = (view,)
        del view
        assert [alone(v, 1) for v in kept] == [True]
        assert not alone(np.broadcast_to(1.0, (2, 3)))
        assert not alone(np.frombuffer(bytearray(8)))
        assert not alone(np.empty(3).view(tape.Tensor))

    @pytest.mark.parametrize("persistent", [False, True])
    def test_what_others_hold_is_not_written(self, persistent):
        @tape.operation
        def half(x):
            return x / 2, ()

        @half.backward
        def half(residual, dy, needed, spare):
            return (np.multiply(dy, 0.5, out=spare(dy)),)

        x, start = lq.constant([2.0, 4.0]), np.array([1, 3], np.float32)
        with lq.GradientTape(persistent) as recording:
            recording.watch(x)
            a = half(x)
            b = half(a) + half(a) + a
        found = recording.gradient(b, {"a": a, "x": x}, output_gradients=start)
        np.testing.assert_array_equal(start, [1, 3])
        np.testing.assert_array_equal(found["a"], [2, 6])
        np.testing.assert_array_equal(found["x"], [1, 3])

    def test_of_another_shape_or_dtype_is_new(self):
        given = [np.zeros((2, 2), np.float32)]
        spare = tape.Spare(given)
        assert spare(np.zeros((2, 2))).dtype == np.float64
        assert spare(np.zeros(2, np.float32)).shape == (2,)
        assert given
        spare(np.ones((2, 2), np.float32))
        assert not given

    def test_the_same(self):
        given = [np.zeros(2), np.zeros(2)]
        spare, last = tape.Spare(list(given)), given[1]
        assert spare.same(last) is last
        assert spare.same(last) is not last
        assert spare.same(np.ones(2)) is not given[0]

    @pytest.mark.parametrize("persistent", [False, True])
    def test_a_gradient_is_added_where_another_has_begun(self, persistent):
        added = []

        @tape.operation
        def double(x, y=0.0):
            return 2 * x + y, ()

        @double.backward
        def double(residual, dy, needed, spare):
            dx, begun = 2 * dy, spare.begun(0)
            added.append(begun is not None)
            return (dx if begun is None else np.add(begun, dx, out=begun), *[dy if n else None for n in needed[1:]])

        x, start = lq.constant([1.0, 2.0]), np.array([1, 3], np.float32)

        def found(function):
            added.clear()
            with lq.GradientTape(persistent) as recording:
                recording.watch(x)
                y = function(x)
            gradient = recording.gradient(y, x, output_gradients=start)
            np.testing.assert_array_equal(start, [1, 3])
            return gradient

        np.testing.assert_array_equal(found(lambda x: (double(x) + double(x)) + double(x)), 6 * start)
        assert added == [False, True, True]
        # What another has, the caller or the other half of a sum, is not written.
        np.testing.assert_array_equal(found(lambda x: x + double(x)), 3 * start)
        np.testing.assert_array_equal(found(lambda x: double(double(x), x)), 5 * start)
        assert not any(added)
        np.testing.assert_array_equal(found(lambda x: double(x, x)), 3 * start)
        # Of another shape, it is summed first.
        np.testing.assert_array_equal(found(lambda x: double(x[0]) + double(x)), [10, 6])
        # Of a walk that is itself recorded nothing is written.
        with lq.GradientTape() as outer:
            outer.watch(x)
            found(lambda x: double(x) + double(x))
        assert added == [False, False]

    @pytest.mark.parametrize("persistent", [False, True])
    def test_one_that_is_asked_for_too(self, persistent):
        x = lq.constant(np.ones((2, 3, 64), np.float32))
        row = np.ones(64, np.float32)
        with lq.GradientTape(persistent) as recording:
            recording.watch(x)
            y = x * 2
            parameters = dict(mean=0 * row, inverse=row, axes=(0, 1))
            z = [norm.normalize(y, None, None, **parameters) * np.float32(i) for i in (1, 2, 3)]
            target = z[0] * y + z[1] * y + z[2]
        first = recording.gradient(target, {"x": x, "y": y}) if not persistent else None
        if persistent:
            first, again = (recording.gradient(target, {"x": x, "y": y}) for _ in range(2))
            np.testing.assert_equal(first, again)
        np.testing.assert_array_equal(first["x"], 2 * first["y"])


class TestHeldMemory:
    """What training frees waits for the next step until training ends."""

    @pytest.fixture
    def holders(self):
        """How many there are besides those that other tests have left."""
        gc.collect()
        count, before = memory.holders, memory.holders()
        return lambda: count() - before

    def test_holds_nest(self, holders):
        with memory.held():
            with memory.held():
                assert holders() == 2
            hold = memory.Hold()
        others = [copy.deepcopy(hold), pickle.loads(pickle.dumps(hold))]
        assert holders() == 3
        del hold
        assert holders() == 2
        others.clear()
        assert holders() == 0

    def test_threads(self, holders):
        def work():
            for _ in range(200):
                with memory.held():
                    np.ones(100_000)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert holders() == 0

    def test_fit_holds_until_it_ends(self, holders):
        model, (x, y), seen = self.model(), data((4,), 8, 3), []
        see = keras.callbacks.LambdaCallback(on_train_batch_end=lambda *args, **logs: seen.append(holders()))
        model.fit(x, y, batch_size=4, verbose=0, callbacks=[see])
        assert seen == [1, 1]
        assert holders() == 0
        with pytest.raises(ValueError, match="shape"):
            model.fit(x[:, :3], y, verbose=0)
        assert holders() == 0

    @pytest.mark.parametrize("what", ["test", "predict"])
    def test_batches_hold_from_the_second_on(self, what, holders):
        """Not one alone, which would find anew what the one of the call before gave back."""
        model, (x, y), seen = self.model(), data((4,), 8, 3), []
        see = keras.callbacks.LambdaCallback(**{f"on_{what}_batch_end": lambda *args, **logs: seen.append(holders())})
        run = model.predict if what == "predict" else lambda x, **options: model.evaluate(x, y[: len(x)], **options)
        run(x, batch_size=3, verbose=0, callbacks=[see])
        run(x, batch_size=8, verbose=0, callbacks=[see])
        assert seen == [0, 1, 1, 0]
        assert holders() == 0
        stop = keras.callbacks.LambdaCallback(**{f"on_{what}_batch_end": lambda step, logs: [][step]})
        with pytest.raises(IndexError):
            run(x, batch_size=3, verbose=0, callbacks=[see, stop])
        assert holders() == 0

    def test_single_steps_hold_until_the_model_is_gone(self, holders, monkeypatch):
        monkeypatch.setattr(memory, "holders", holders)
        model, (x, y) = self.model(), data((4,), 8, 3)
        for _ in range(3):
            model.train_on_batch(x, y)
        assert holders() == 1
        del model
        gc.collect()
        assert holders() == 0

    def test_own_steps_hold_until_the_optimizer_is_gone(self, holders, monkeypatch):
        monkeypatch.setattr(memory, "holders", holders)
        weight, optimizer = lq.Variable([1.0]), keras.optimizers.SGD()
        for _ in range(3):
            optimizer.apply_gradients([(np.ones(1, np.float32), weight)])
        assert holders() == 1
        del optimizer
        gc.collect()
        assert holders() == 0

    @pytest.mark.parametrize("size", [0, 1, 1000, 300_000, 5_000_000])
    def test_arrays_are_arrays(self, size):
        rng = np.random.default_rng(size)
        with memory.held():
            for new in (size, size // 2, 2 * size, size + 1):
                x = rng.integers(0, 256, size, np.uint8)
                other = x.copy()
                x.resize(new, refcheck=False)
                np.testing.assert_array_equal(x[:size], other[:new])
                assert not x[size:].any()
                assert not np.zeros(size, np.uint8).any()
                with pytest.raises(MemoryError):
                    np.empty(2**62, np.uint8)
        # Those that outlive the hold.
        x += 1
        x.resize(10, refcheck=False)

    def test_large_results_begin_on_a_line_of_the_cache(self):
        x = np.ones((1, 40, 40, 64), np.float32)
        kernel = np.ones((3, 3, 64, 64), np.float32)
        bits = [pack_bits(x, -1), pack_bits(kernel, -2)]
        for left, right in ((x, bits[1]), bits):
            y = lq.ops.conv(left, right, padding="same")
            assert y.ctypes.data % 64 == 0
            assert y.max() == 9 * 64
        # It is an array as any other: it may grow and shrink.
        words = bits[0].words.repeat(99, axis=2)
        mine = _core.unpack(words[0], 64, -1)
        assert mine.ctypes.data % 64 == 0
        for size in (2 * mine.size, 100, mine.size):
            mine.resize(size, refcheck=False)
            assert (mine[:100] == 1).all()

    def test_many_pieces(self):
        """Of all sizes, freed in any order; none lies in another."""
        rng = np.random.default_rng(0)
        with memory.held():
            pieces = []
            for step in range(1500):
                if len(pieces) > 60:
                    for _ in range(rng.integers(1, 20)):
                        value, piece = pieces.pop(rng.integers(len(pieces)))
                        assert (piece[0], piece[-1]) == (value, value)
                pieces.append((step, np.full(int(10 ** rng.uniform(3, 6)), step, np.int16)))
            for value, piece in pieces:
                assert (piece == value).all()

    @pytest.mark.skipif(os.name != "posix", reason="there are no mappings")
    @pytest.mark.parametrize("modest", [False, True])
    def test_page_faults_and_peak(self, modest):
        script = """
import resource
import sys
import numpy as np
from bnnlayers.ops import memory
def usage():
    return resource.getrusage(resource.RUSAGE_SELF)
def faults():
    before = usage().ru_minflt
    for size in (5, 3, 4):
        np.ones(size * 10**6, np.float32)
    return usage().ru_minflt - before
with memory.held(modest=sys.argv[1] == "True"):
    first, second, peak = faults(), faults(), usage().ru_maxrss
    x = [np.ones(10**6, np.float32) for _ in range(5)]
    del x[::2]
    x.append(np.ones(3 * 10**6, np.float32))
    print(first, second, usage().ru_maxrss / peak)
"""
        answer = subprocess.run([sys.executable, "-c", script, str(modest)], check=True, capture_output=True)
        first, second, growth = map(float, answer.stdout.split())
        assert second < first / 10
        assert growth < 1.2

    @pytest.mark.skipif(sys.platform != "linux", reason="pages do not move")
    def test_pieces_are_joined_without_page_faults(self):
        script = """
import resource
import numpy as np
from bnnlayers.ops import memory
def faults(*sizes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.ones(size * 10**5, np.float32) for size in sizes]
    return arrays, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
with memory.held():
    for _ in range(4):
        x, apart = faults(9, 9, 9, 9, 9)
        del x[::2]
        y, joined = faults(27)
        del x, y
        print(apart, joined)
"""
        answer = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
        first, *_, last = answer.stdout.splitlines()
        assert sum(map(int, last.split())) < int(first.split()[0]) / 100

    @staticmethod
    def model():
        model = keras.models.Sequential([keras.layers.Dense(3, activation="softmax", input_shape=(4,))])
        model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy")
        return model
