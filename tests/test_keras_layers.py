"""Layers of the Keras floor: values, gradients, shapes, arguments, and what `Layer` does for all."""

import numpy as np
import pytest

from bnnlayers import keras
from bnnlayers.keras import layers
from bnnlayers.keras.structure import TensorShape
from bnnlayers.tape import GradientTape, Tensor, Variable, constant

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


def normal(*shape):
    return RNG.standard_normal(shape)


# Every layer with the shape of its input, batch axis included.
CASES = [
    (lambda: layers.Dense(4, activation="tanh"), (3, 5)),
    (lambda: layers.Dense(4, use_bias=False), (2, 3, 5)),
    (lambda: layers.Conv1D(3, 2, padding="causal", dilation_rate=2), (2, 7, 4)),
    (lambda: layers.Conv2D(4, (2, 3), strides=(2, 1), padding="same", groups=2), (2, 5, 6, 4)),
    (lambda: layers.Conv2D(3, 3, data_format="channels_first"), (2, 4, 5, 6)),
    (lambda: layers.Conv3D(2, 2, padding="same"), (1, 3, 4, 2, 3)),
    (lambda: layers.MaxPooling1D(2, padding="same"), (2, 7, 3)),
    (lambda: layers.MaxPooling2D((3, 2), (2, 1)), (2, 6, 5, 3)),
    (lambda: layers.MaxPooling2D(3, 2, "same", "channels_first"), (2, 3, 6, 5)),
    (lambda: layers.MaxPooling3D(2), (1, 4, 5, 4, 2)),
    (lambda: layers.AveragePooling1D(3, 1, padding="same"), (2, 5, 3)),
    (lambda: layers.AveragePooling2D(3, 2, padding="same"), (2, 6, 5, 3)),
    (lambda: layers.AveragePooling3D((1, 2, 3), data_format="channels_first"), (1, 2, 3, 4, 6)),
    (lambda: layers.GlobalAveragePooling2D(keepdims=True), (2, 3, 4, 5)),
    (lambda: layers.GlobalMaxPooling3D(data_format="channels_first"), (2, 3, 2, 2, 3)),
    (lambda: layers.BatchNormalization(), (6, 4)),
    (lambda: layers.BatchNormalization(axis=1, scale=False), (3, 4, 2, 3)),
    (lambda: layers.BatchNormalization(axis=[1, 3]), (5, 3, 2, 4)),
    (lambda: layers.LayerNormalization(axis=[-2, -1]), (3, 4, 5)),
    (lambda: layers.LayerNormalization(axis=1, center=False), (3, 4, 5)),
    (lambda: layers.LayerNormalization(scale=False), (3, 4, 5)),
    (lambda: layers.PReLU("uniform", shared_axes=[1]), (3, 4, 5)),
    (lambda: layers.ReLU(1.0, 0.2, 0.3), (3, 9)),
    (lambda: layers.LeakyReLU(), (3, 9)),
    (lambda: layers.Softmax(axis=[1, 2]), (3, 4, 5)),
    (lambda: layers.Activation("sigmoid"), (3, 4)),
    (lambda: layers.Flatten(data_format="channels_first"), (2, 3, 4, 5)),
    (lambda: layers.Reshape((5, -1)), (2, 3, 10)),
    (lambda: layers.Permute((3, 1, 2)), (2, 3, 4, 5)),
    (lambda: layers.Lambda(lambda x: x[:, ::2] ** 2), (2, 5, 3)),
    (lambda: layers.ZeroPadding1D((2, 1)), (2, 3, 4)),
    (lambda: layers.ZeroPadding2D(((1, 0), (2, 3)), data_format="channels_first"), (2, 3, 4, 5)),
    (lambda: layers.ZeroPadding3D(1), (1, 2, 3, 2, 2)),
    (lambda: layers.UpSampling2D((2, 3)), (2, 3, 2, 4)),
    (lambda: layers.UpSampling2D(2, data_format="channels_first"), (2, 3, 2, 4)),
    (lambda: layers.Dropout(0.4, seed=3), (4, 5)),
]


def named(cases):
    return [pytest.param(make, shape, id=f"{make().name}-{shape}") for make, shape in cases]


def randomize(layer):
    layer.set_weights([np.abs(normal(*w.shape)) + 0.3 for w in layer.weights])


@pytest.mark.parametrize(("make", "shape"), named(CASES))
def test_gradients_are_the_slopes(make, shape):
    """Along a random direction in input and weights, float64 against central differences."""
    layer = make()
    layer._dtype = "float64"
    x = constant(normal(*shape))
    layer(x)
    randomize(layer)
    weights = layer.trainable_weights
    with GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True) if not isinstance(layer, layers.Dropout) else layer(x)
    dy = normal(*y.shape)
    sources = [x, *weights]
    gradients = tape.gradient(y, sources, output_gradients=dy)
    directions = [normal(*s.shape) for s in sources]
    slope = sum(np.sum(np.asarray(g) * d) for g, d in zip(gradients, directions, strict=True))
    before, step = [w.numpy().copy() for w in weights], 1e-6

    def value(sign):
        for w, start, d in zip(weights, before, directions[1:], strict=True):
            w.assign(start + sign * step * d)
        moved = np.asarray(x) + sign * step * directions[0]
        training = {} if isinstance(layer, layers.Dropout) else {"training": True}
        return np.sum(np.asarray(layer(moved, **training)) * dy)

    assert slope == pytest.approx((value(1) - value(-1)) / (2 * step), rel=2e-5, abs=2e-6)


@pytest.mark.parametrize(("make", "shape"), named(CASES))
def test_symbolic_shape_is_the_shape(make, shape):
    layer = make()
    out = layer(keras.Input(batch_shape=(None, *shape[1:])))
    y = layer(normal(*shape).astype(np.float32))
    assert isinstance(y, Tensor)
    assert y.dtype == np.float32
    assert out.shape == (None, *y.shape[1:])
    assert layer.compute_output_shape(shape) == y.shape
    assert layer.output_shape == (None, *y.shape[1:])
    assert layer.input_shape == (None, *shape[1:])


@pytest.mark.parametrize(("make", "shape"), named(CASES))
def test_configuration_makes_an_equal_layer(make, shape):
    layer = make()
    x = normal(*shape).astype(np.float32)
    y = layer(x)
    config = layers.serialize(layer)
    if not isinstance(layer, layers.Lambda):
        twin = layers.deserialize(config)
        assert twin.get_config() == layer.get_config()
        twin(x)
        twin.set_weights(layer.get_weights())
        np.testing.assert_array_equal(twin(x), y)


def test_max_pooling_gives_a_tie_to_the_first():
    x = constant(np.ones((1, 2, 4, 1), np.float32))
    with GradientTape() as tape:
        tape.watch(x)
        y = layers.MaxPooling2D(2)(x)
    dx = tape.gradient(y, x)
    np.testing.assert_array_equal(dx[0, :, :, 0], [[1, 0, 1, 0], [0, 0, 0, 0]])


def test_pooling_does_not_count_padding():
    x = np.arange(1, 6, dtype=np.float32).reshape(1, 5, 1)
    average = layers.AveragePooling1D(3, 2, padding="same")(x)
    np.testing.assert_array_equal(average.ravel(), [1.5, 3, 4.5])
    largest = layers.MaxPooling1D(3, 2, padding="same")(-x)
    np.testing.assert_array_equal(largest.ravel(), [-1, -2, -4])


@pytest.mark.parametrize(("shape", "unbiased"), [((8, 3), False), ((4, 2, 3), False), ((2, 2, 2, 3), True)])
def test_moving_variance(shape, unbiased):
    layer = layers.BatchNormalization(momentum=0.75)
    x = normal(*shape).astype(np.float32)
    layer(x, training=True)
    rows = x.reshape(-1, 3)
    np.testing.assert_allclose(layer.moving_mean.numpy(), 0.25 * rows.mean(0), rtol=0, atol=1e-6)
    expected = 0.75 + 0.25 * rows.var(0, ddof=int(unbiased))
    np.testing.assert_allclose(layer.moving_variance.numpy(), expected, rtol=1e-6)


def test_frozen_batch_normalization_runs_as_at_inference():
    layer = layers.BatchNormalization()
    x = normal(8, 3).astype(np.float32)
    layer.trainable = False
    y = layer(x, training=True)
    np.testing.assert_allclose(y, x / np.sqrt(np.float32(1.001)), rtol=1e-6)
    np.testing.assert_array_equal(layer.moving_mean.numpy(), np.zeros(3))
    assert len(layer.non_trainable_weights) == 4


def test_dropout():
    x = np.ones((200, 50), np.float32)
    layer = layers.Dropout(0.25)
    assert np.array_equal(layer(x), x)
    y = np.asarray(layer(x, training=True))
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert y.mean() == pytest.approx(1, abs=0.02)
    shared = np.asarray(layers.Dropout(0.5, noise_shape=(None, 1))(x, training=True))
    assert (shared == shared[:, :1]).all()


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (layers.Add(), [5, 7]),
        (layers.Multiply(), [6, 10]),
        (layers.Average(), [2.5, 3.5]),
        (layers.Maximum(), [3, 5]),
        (layers.Minimum(), [2, 2]),
        (layers.Subtract(), [-1, -3]),
        (layers.Concatenate(), [2, 2, 3, 5]),
    ],
    ids=lambda v: getattr(v, "name", ""),
)
def test_merging(layer, expected):
    a, b = np.float32([[2, 2]]), np.float32([[3, 5]])
    np.testing.assert_array_equal(layer([a, b]), [expected])
    function = getattr(layers, type(layer).__name__.lower())
    np.testing.assert_array_equal(function([a, b]), [expected])


def test_merging_broadcasts_lower_ranks_after_the_batch():
    y = layers.add([np.ones((2, 3)), np.arange(24.0).reshape(2, 4, 3)])
    np.testing.assert_array_equal(y, 1 + np.arange(24.0).reshape(2, 4, 3))
    x = layers.Multiply()([keras.Input((3,)), keras.Input((4, 1))])
    assert x.shape == (None, 4, 3)


def test_the_gradient_of_a_tie_between_inputs_goes_to_the_first():
    a, b = constant(np.float32([[1, 2]])), constant(np.float32([[1, 3]]))
    with GradientTape() as tape:
        tape.watch([a, b])
        y = layers.maximum([a, b])
    da, db = tape.gradient(y, [a, b])
    np.testing.assert_array_equal(da, [[1, 0]])
    np.testing.assert_array_equal(db, [[0, 1]])


# ---- bad arguments -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: layers.Dense(0), ValueError, "units"),
        (lambda: layers.Dense(3, foo=1), TypeError, "foo"),
        (lambda: layers.Dense(3, activation="nonsense"), ValueError, "nonsense"),
        (lambda: layers.Conv2D(0, 3), ValueError, "filters"),
        (lambda: layers.Conv2D(4, 0), ValueError, "kernel_size"),
        (lambda: layers.Conv2D(4, (3, 3, 3)), ValueError, "kernel_size"),
        (lambda: layers.Conv2D(4, 3, strides=0), ValueError, "strides"),
        (lambda: layers.Conv2D(4, 3, strides=-1), ValueError, "strides"),
        (lambda: layers.Conv2D(4, 3, strides=2, dilation_rate=2), ValueError, "dilation_rate"),
        (lambda: layers.Conv2D(4, 3, padding="causal"), ValueError, "padding"),
        (lambda: layers.Conv2D(4, 3, data_format="nhwc"), ValueError, "data_format"),
        (lambda: layers.Conv2D(4, 3, groups=3), ValueError, "groups"),
        (lambda: layers.MaxPooling2D(2, padding="causal"), ValueError, "padding"),
        (lambda: layers.ReLU(max_value=-1), ValueError, "max_value"),
        (lambda: layers.Dropout(1.5), ValueError, "rate"),
        (lambda: layers.Permute((1, 3)), ValueError, "dims"),
        (lambda: layers.ZeroPadding2D((1, 2, 3)), ValueError, "padding"),
        (lambda: layers.UpSampling2D(interpolation="bicubic"), ValueError, "interpolation"),
        (lambda: layers.Lambda(3), TypeError, "function"),
        (lambda: layers.Activation(3), TypeError, "activation"),
        (lambda: layers.Dense(3, name=3), TypeError, "name"),
        (lambda: keras.Input(), ValueError, "shape"),
    ],
)
def test_bad_arguments(make, error, says):
    with pytest.raises(error, match=says):
        make()


@pytest.mark.parametrize(
    ("make", "shape", "says"),
    [
        (lambda: layers.Conv2D(4, 3), (2, 5, 5), "min_ndim=4"),
        (lambda: layers.Conv2D(4, 3), (2, 2, 5, 3), "negative value"),
        (lambda: layers.Conv2D(4, 3, groups=2), (2, 5, 5, 3), "groups"),
        (lambda: layers.Dense(4), (3,), "min_ndim=2"),
        (lambda: layers.MaxPooling2D(2), (2, 4, 4), "expected ndim=4, found ndim=3"),
        (lambda: layers.Reshape((4,)), (2, 3), "total size"),
        (lambda: layers.BatchNormalization(axis=4), (2, 3), "axis"),
        (lambda: layers.Add(), (2, 3), "list of at least 1"),
    ],
)
def test_inputs_that_do_not_fit(make, shape, says):
    layer = make()
    for x in (np.zeros(shape, np.float32), keras.Input(batch_shape=shape)):
        with pytest.raises(ValueError, match=says):
            layer(x)
    assert not layer.weights


def test_a_built_layer_refuses_other_channels():
    layer = layers.Conv2D(2, 1)
    layer(np.zeros((1, 3, 3, 4), np.float32))
    with pytest.raises(ValueError, match=r'Input 0 of layer ".*expected axis -1 .* value 4.*1, 3, 3, 5'):
        layer(np.zeros((1, 3, 3, 5), np.float32))


@pytest.mark.parametrize("thing", ["text", object(), layers.Dense(3), np.array([object()])])
def test_inputs_that_are_no_tensors(thing):
    with pytest.raises((TypeError, ValueError)):
        layers.Dense(2)(thing)


def test_merging_refuses_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="incompatible shapes"):
        layers.Add()([np.zeros((2, 3)), np.zeros((2, 4))])
    with pytest.raises(ValueError, match="matching shapes"):
        layers.Concatenate()([np.zeros((2, 3, 1)), np.zeros((2, 4, 1))])
    with pytest.raises(ValueError, match="exactly 2"):
        layers.Subtract()([np.zeros((2, 3))] * 3)


# ---- Layer ---------------------------------------------------------------------------------------


class Scale(layers.Layer):
    def __init__(self, factor=2.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor
        self.phases = ()

    def build(self, input_shape):
        self.scale = self.add_weight("scale", (input_shape[-1],), initializer="ones")
        self.calls = self.add_weight("calls", (), initializer="zeros", trainable=False)

    def call(self, inputs, training=None):
        self.phases += (training,)
        return inputs * self.scale * np.float32(self.factor)


def test_anything_array_like_is_an_input():
    layer = Scale()
    for x in ([[1, 2]], [[1.0, 2.0]], np.array([[1, 2]]), constant([[1.0, 2.0]]), Variable([[1.0, 2.0]])):
        np.testing.assert_array_equal(layer(x), [[2, 4]])


def test_floats_are_cast_to_the_dtype_of_the_layer():
    assert Scale()(np.ones((1, 2))).dtype == np.float32
    layer = layers.Dense(2, dtype="float64")
    assert layer(np.ones((1, 2), np.float32)).dtype == np.float64
    assert layer.kernel.dtype == np.float64


def test_training_comes_from_the_argument_then_from_the_enclosing_call():
    class Outer(layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = Scale()

        def call(self, inputs):
            return self.inner(inputs)

    outer = Outer()
    x = np.ones((1, 2))
    outer(x)
    outer(x, training=True)
    outer.inner(x, training=None)
    assert outer.inner.phases == (False, True, False)

    class Default(layers.Layer):
        def call(self, inputs, training=True):
            return inputs * float(training)

    assert Default()(1.0) == 1
    assert Default()(1.0, training=False) == 0


def test_what_is_assigned_belongs_to_the_layer():
    class Owner(layers.Layer):
        def __init__(self):
            super().__init__()
            self.first = layers.Dense(2)
            self.many = []
            self.many.append(layers.Dense(3))
            self.named = {"a": [layers.Dense(4)]}
            self.free = Variable(1.0, name="free")
            self.kept = Variable(2.0, trainable=False, name="kept")
            self.metric = keras.metrics.Mean(name="mean")
            self.first_again = self.first

    owner = Owner()
    for layer in (owner.first, owner.many[0], owner.named["a"][0]):
        layer.build((None, 1))
    assert owner.submodules == (owner.first, owner.many[0], owner.named["a"][0])
    assert len(owner.weights) == 8
    assert owner.trainable_weights[0] is owner.free
    assert owner.non_trainable_weights[0] is owner.kept
    assert owner.metrics == [owner.metric]
    owner.many.append(layers.Dense(5))
    assert len(owner.submodules) == 4
    owner.trainable = False
    assert not owner.trainable_weights and len(owner.weights) == 8
    assert not owner.many[0].trainable
    del owner.first_again
    owner.first = None
    assert len(owner.submodules) == 3
    del owner.free
    assert len(owner.weights) == 5


def test_layers_may_be_assigned_before_the_base_is_initialized():
    class Early(layers.Layer):
        def __init__(self):
            self.inner = layers.Dense(2)
            super().__init__()

    assert len(Early().submodules) == 1


def test_set_weights_assigns_all_or_nothing():
    layer = layers.Dense(2, input_shape=(3,))
    layer.build((None, 3))
    before = layer.get_weights()
    for wrong in ([before[0]], [np.ones((3, 2)), np.ones(3)], [np.ones((3, 2)), np.array(["a", "b"])]):
        with pytest.raises((ValueError, TypeError)):
            layer.set_weights(wrong)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    layer.get_weights()[0][:] = 7
    np.testing.assert_array_equal(layer.get_weights()[0], before[0])
    assert layer.count_params() == 8
    with pytest.raises(ValueError, match="isn't built"):
        layers.Dense(2).count_params()


def test_initial_weights():
    layer = layers.Dense(2, weights=[np.full((3, 2), 5.0), np.zeros(2)])
    np.testing.assert_array_equal(layer(np.ones((1, 3))), [[15, 15]])


def test_losses_are_those_of_the_last_call():
    class Lossy(layers.Layer):
        def __init__(self):
            super().__init__(activity_regularizer=lambda y: np.sum(y))
            self.dense = layers.Dense(1, kernel_initializer="ones", kernel_regularizer="l2", use_bias=False)

        def call(self, inputs):
            y = self.dense(inputs)
            self.add_loss(np.mean(y))
            self.add_metric(np.mean(y), name="level")
            return y

    layer = Lossy()
    x = np.full((4, 3), 2.0)
    for _ in range(2):
        layer(x)
    assert [float(loss) for loss in layer.losses] == pytest.approx([6, 6, 0.03])
    assert float(layer.metrics[0].result()) == 6
    layer(keras.Input((3,)))
    assert len(layer.losses) == 1


def test_names():
    keras.backend.clear_session()
    assert [layers.Conv2D(1, 1).name, layers.Conv2D(1, 1).name] == ["conv2d", "conv2d_1"]
    assert layers.ReLU().name == "re_lu"
    assert keras.Input((1,)).name == "input_1"
    dense = layers.Dense(2)
    dense(np.ones((1, 1)))
    assert [w.name for w in dense.weights] == ["dense/kernel:0", "dense/bias:0"]


def test_a_failed_build_leaves_nothing():
    class Broken(layers.Layer):
        def build(self, input_shape):
            self.add_weight("w", (2,), regularizer="l2")
            self.sub = layers.Dense(2)
            if self.broken:
                raise RuntimeError("no")

    layer = Broken()
    layer.broken = True
    with pytest.raises(RuntimeError, match="no"):
        layer(1.0)
    assert not layer.built and not layer.weights and not layer.losses and not layer.submodules
    layer.broken = False
    layer(1.0)
    assert len(layer.weights) == 1


def test_without_super_init():
    class Forgetful(layers.Layer):
        def __init__(self):
            pass

    with pytest.raises(RuntimeError, match="super"):
        Forgetful()(1.0)


def test_configuration_of_a_subclass():
    layer = Scale(factor=3.0, name="mine", trainable=False)
    config = layer.get_config()
    assert config == {"name": "mine", "trainable": False, "dtype": "float32", "factor": 3.0}
    assert Scale.from_config(config).factor == 3

    class Opaque(layers.Layer):
        def __init__(self, function):
            super().__init__()

    with pytest.raises(NotImplementedError, match="get_config"):
        Opaque(len).get_config()


def test_input_shape_arguments():
    assert layers.Dense(1, input_shape=(3,)).get_config()["batch_input_shape"] == (None, 3)
    assert layers.Dense(1, input_dim=3, batch_size=2).get_config()["batch_input_shape"] == (2, 3)
    assert layers.Dense(1, batch_input_shape=(4, 3)).get_config()["batch_input_shape"] == (4, 3)


def test_layer_attributes_before_it_is_connected():
    layer = layers.Dense(1)
    with pytest.raises(AttributeError, match="not connected"):
        _ = layer.output
    with pytest.raises(AttributeError, match="never been called"):
        _ = layer.output_shape
    x = keras.Input((2,))
    layer(x)
    layer(keras.Input((2,)))
    with pytest.raises(AttributeError, match="multiple inbound nodes"):
        _ = layer.input
    assert layer.get_input_at(0) is x
    assert layer.output_shape == (None, 1)


def test_input_spec():
    spec = layers.InputSpec(shape=(None, 3), dtype="float32")
    assert spec.ndim == 2
    assert layers.InputSpec.from_config(spec.get_config()).shape == (None, 3)
    with pytest.raises(ValueError, match="axes"):
        layers.InputSpec(ndim=2, axes={2: 3})
    with pytest.raises(TypeError, match="InputSpec"):
        layers.Dense(2).input_spec = 3


def test_tensor_shape():
    shape = TensorShape((None, 3, 4))
    assert shape.as_list() == [None, 3, 4]
    assert shape.rank == shape.ndims == 3
    assert not shape.is_fully_defined() and shape[1:].is_fully_defined()
    assert shape[1:].num_elements() == 12 and shape.num_elements() is None
    assert shape == (None, 3, 4)


def test_bilinear_upsampling():
    """As tf.image.resize: between the centres of pixels, constant beyond the outer ones."""
    x = np.array([0.0, 4.0, 8.0], np.float32).reshape(1, 1, 3, 1)
    y = np.asarray(layers.UpSampling2D((1, 2), interpolation="bilinear")(x))
    np.testing.assert_array_equal(y.ravel(), [0, 1, 3, 5, 7, 8])
    first = layers.UpSampling2D((2, 3), "channels_first", "bilinear")(np.ones((2, 3, 4, 5), np.float32))
    assert first.shape == (2, 3, 8, 15)
    np.testing.assert_allclose(first, 1, 1e-6)

    v = Variable(x)
    with GradientTape() as tape:
        y = layers.UpSampling2D((1, 2), interpolation="bilinear")(v)
        loss = (y * np.arange(6, dtype=np.float32).reshape(1, 1, 6, 1)).sum()
    np.testing.assert_allclose(tape.gradient(loss, v).ravel(), [1.25, 5, 8.75])
