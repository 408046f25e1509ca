"""Quantised layers: what runs in bits, what is kept, and what is refused."""

import gc
import pickle

import numpy as np
import pytest

import bnnlayers as lq
from bnnlayers import _core, keras

BINARY = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "kernel_constraint": "weight_clip"}


def dense(**kwargs):
    return lq.layers.QuantDense(8, **{**BINARY, **kwargs})


def conv(**kwargs):
    return lq.layers.QuantConv2D(8, 3, **{**BINARY, **kwargs})


@pytest.fixture(params=[dense, conv], ids=["dense", "conv"])
def make(request):
    return request.param


def inputs(layer, rng):
    shape = (2, 40) if isinstance(layer, keras.layers.Dense) else (2, 6, 6, 40)
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("quantizers", "arithmetic"),
    [
        ({}, "xnor"),
        ({"input_quantizer": None}, "signed"),
        ({"kernel_quantizer": None}, "signed"),
        ({"input_quantizer": None, "kernel_quantizer": None}, "float"),
        ({"kernel_quantizer": lambda w: np.where(w < 0, np.float32(-1), np.float32(1))}, "signed"),
        ({"kernel_quantizer": lq.quantizers.ste_sign}, "xnor"),
        ({"kernel_quantizer": "magnitude_aware_sign"}, "xnor"),
        ({"kernel_quantizer": "ste_tern", "input_quantizer": "dorefa_quantizer"}, "xnor"),
    ],
)
def test_the_operands_decide(make, rng, quantizers, arithmetic):
    layer = make(**quantizers)
    assert layer.arithmetic == ()
    layer(inputs(layer, rng))
    assert layer.arithmetic == (arithmetic,)


def test_packed_is_what_floats_give(make, rng):
    layer = make(bias_initializer="random_normal")
    x = inputs(layer, rng)
    y = layer(x)
    twin = make(
        input_quantizer=lambda v: lq.quantizers.ste_sign(v),
        kernel_quantizer=lambda v: lq.quantizers.ste_sign(v),
    )
    twin(x)
    twin.set_weights(layer.get_weights())
    np.testing.assert_array_equal(twin(x), y)
    assert (layer.arithmetic, twin.arithmetic) == (("xnor",), ("float",))


def test_nan_goes_through_a_packed_layer(make, rng):
    layer = make()
    x = inputs(layer, rng)
    layer(x)
    x[0] = np.nan
    y = np.asarray(layer(x))
    assert np.isnan(y[0]).any() and not np.isnan(y[1]).any()
    assert layer.arithmetic == ("signed",)


def test_the_kernel_is_packed_once_per_version(make, rng, monkeypatch):
    layer = make()
    x = inputs(layer, rng)
    layer(x)
    packed = []
    pack = _core.pack
    monkeypatch.setattr(_core, "pack", lambda *args: packed.append(args) or pack(*args))
    layer(x), layer(x)
    assert len(packed) == 2  # the inputs
    before = np.asarray(layer(x))
    layer.kernel.assign(-layer.kernel.numpy() - 1e-3)
    packed.clear()
    assert np.any(before != np.asarray(layer(x)))
    assert len(packed) == 2  # the input and the new kernel


def changes():
    """What may happen to a layer between two calls, by name."""

    def pad(layer):
        layer.pad_values = 1.0

    def stride(layer):
        layer.strides = (2,) * len(layer.strides)

    def heaviside(layer):
        layer.input_quantizer = lq.quantizers.SteHeaviside()

    def none(layer):
        layer.input_quantizer = None

    def function(layer):
        layer.input_quantizer = lq.quantizers.ste_sign

    def scaled(layer):
        layer.kernel.quantizer = lq.quantizers.MagnitudeAwareSign()

    def bias(layer):
        layer.use_bias, layer.bias = True, lq.Variable(np.float32([0.5]))

    both = [heaviside, none, function, scaled, bias]
    return [(make, change) for make in (dense, conv) for change in both] + [(conv, pad), (conv, stride)]


@pytest.mark.parametrize(("make", "change"), changes(), ids=lambda function: function.__name__)
def test_what_is_known_of_a_call_holds_as_long_as_the_layer_is_as_it_was(make, change, rng):
    more = {"use_bias": False, **({"padding": "same"} if make is conv else {})}
    layer, twin = make(**more), make(**more)
    x = inputs(layer, rng)
    layer(x), twin(x)
    twin.set_weights(layer.get_weights())
    y = np.asarray(layer(x))
    np.testing.assert_array_equal(layer(x), y)
    change(layer), change(twin)
    changed = np.asarray(layer(x))
    np.testing.assert_array_equal(changed, twin(x))
    assert layer.arithmetic == twin.arithmetic
    assert changed.shape != y.shape or np.any(changed != y) or change.__name__ == "function"


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("input_quantizer", ["ste_sign", "ste_heaviside"])
@pytest.mark.parametrize(
    ("kind", "rank", "more"),
    [
        ("QuantConv1D", 1, {"strides": 2}),
        ("QuantConv2D", 2, {"groups": 2, "dilation_rate": 2}),
        ("QuantConv2D", 2, {"pad_values": -1.0}),
        ("QuantConv3D", 3, {}),
        ("QuantConv2DTranspose", 2, {"strides": 2}),
        ("QuantConv3DTranspose", 3, {}),
    ],
)
def test_a_second_call_gives_what_the_first_gave(rng, kind, rank, more, input_quantizer, data_format):
    options = {"padding": "same", "data_format": data_format, **BINARY, "input_quantizer": input_quantizer, **more}
    layer = getattr(lq.layers, kind)(6, 3, bias_initializer="random_normal", activation="relu", **options)
    shape = (2, *([5] * rank), 34) if data_format == "channels_last" else (2, 34, *([5] * rank))
    x, other = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    expected = [np.asarray(layer(v)) for v in (x, other)]
    with lq.profiler.Profile():
        expected_of_other = np.asarray(layer(other))
    np.testing.assert_array_equal(layer(x), expected[0])
    np.testing.assert_array_equal(layer(other), expected_of_other)
    np.testing.assert_array_equal(expected[1], expected_of_other)
    assert layer.arithmetic == ("xnor",)


def test_another_input_is_another_call(make, rng):
    layer = make(use_bias=False)
    x = lq.constant(inputs(layer, rng))
    whole = np.asarray(layer(x))
    np.testing.assert_array_equal(layer(x[:1]), whole[:1])
    np.testing.assert_array_equal(layer(x), whole)
    np.testing.assert_array_equal(layer(x.astype(np.float64)), whole)
    np.testing.assert_array_equal(layer(np.asarray(x)), whole)
    with lq.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    assert all(np.any(gradient) for gradient in tape.gradient(y, [x, *layer.trainable_variables]))
    np.testing.assert_array_equal(y, whole)


def test_a_quantizer_counts_flips_of_every_call(make, rng):
    layer = make(input_quantizer=lq.quantizers.SteSign(metrics=["flip_ratio"]))
    x = inputs(layer, rng)
    for _ in range(3):
        layer(x), layer(-x)
    assert layer.input_quantizer.flip_ratio.result() == 1


def test_an_exception_leaves_the_scope(make, rng):
    layer = make()
    layer(inputs(layer, rng))

    def fail(x):
        raise RuntimeError("on purpose")

    layer.input_quantizer = fail
    with pytest.raises(RuntimeError, match="on purpose"):
        layer(inputs(layer, rng))
    assert not lq.context.should_quantize()


def test_weights_are_latent_outside_of_the_scope_and_quantised_inside(make, rng):
    layer = make()
    layer(inputs(layer, rng))
    latent = layer.get_weights()[0]
    with lq.context.quantized_scope(True):
        np.testing.assert_array_equal(layer.get_weights()[0], np.where(latent < 0, -1, 1))
    np.testing.assert_array_equal(layer.get_weights()[0], latent)


def test_a_subclass_with_its_own_values_keeps_them(make, rng):
    class Half(lq.quantizers.SteSign):
        def call(self, inputs):
            return super().call(inputs) * 0.5

    layer, twin = make(kernel_quantizer=Half(), use_bias=False), make(use_bias=False)
    x = inputs(layer, rng)
    layer(x), twin(x)
    twin.set_weights(layer.get_weights())
    np.testing.assert_array_equal(layer(x), np.asarray(twin(x)) * 0.5)


def test_training_keeps_two_bits_per_activation(rng):
    layer = lq.layers.QuantConv2D(32, 3, padding="same", use_bias=False, **BINARY)
    x = lq.constant(rng.standard_normal((4, 16, 16, 64)).astype(np.float32))
    layer(x)
    with lq.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    weights = np.prod(layer.kernel.shape)
    kept = sum(size for _, size in tape.kept())
    # Of a weight its sign, its mask, and the sign once more in the layout of the kernels, on an aligned address.
    assert kept <= (2 * x.size + 3 * weights) / 8 + 64
    del y


def test_kept_losses_keep_no_graph(make, rng):
    layer = make()
    x = inputs(layer, rng)
    losses = []

    def step():
        with lq.GradientTape() as tape:
            loss = lq.reduce_mean(layer(x) ** 2)
        tape.gradient(loss, layer.trainable_variables)
        losses.append(loss)

    step()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(200):
        step()
    gc.collect()
    assert len(gc.get_objects()) - before < 5 * 200  # the Tensor, and the bare identity of its node


def test_configuration_makes_the_layer_again(make, rng):
    layer = make(kernel_quantizer=lq.quantizers.SteSign(clip_value=0.5), kernel_regularizer="l2", activation="relu")
    x = inputs(layer, rng)
    layer(x)
    copy = type(layer).from_config(layer.get_config())
    copy(x)
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(copy(x), layer(x))
    assert copy.kernel_quantizer.clip_value == 0.5
    assert copy.get_config() == layer.get_config()


def test_a_binary_kernel_without_constraint_is_warned_of(make, caplog):
    make()
    assert not caplog.records
    make(kernel_constraint=None)
    assert "kernel_constraint" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"kernel_quantizer": "no_such_quantizer"}, ValueError, "no_such_quantizer"),
        ({"input_quantizer": 3}, ValueError, "Could not interpret quantization function identifier: 3"),
        ({"no_such_argument": 1}, TypeError, "no_such_argument"),
        ({"activation": "no_such_activation"}, ValueError, "no_such_activation"),
        ({"kernel_initializer": "no_such_initializer"}, ValueError, "no_such_initializer"),
    ],
)
def test_arguments_are_refused_by_name(make, arguments, error, message):
    with pytest.raises(error, match=message):
        make(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strides": 0}, "strides"),
        ({"strides": -1}, "strides"),
        ({"dilation_rate": 0}, "dilation_rate"),
        ({"padding": "full"}, "padding"),
        ({"data_format": "sideways"}, "data_format"),
        ({"groups": 3}, "groups"),
        ({"strides": 2, "dilation_rate": 2}, "strides > 1.*dilation|dilation.*strides"),
    ],
)
def test_convolution_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        lq.layers.QuantConv2D(8, 3, **arguments).build((None, 6, 6, 4))


@pytest.mark.parametrize("shape", [(2, 6, 6), (2, 6, 6, 5), (2, 1, 1, 4)])
def test_inputs_of_another_shape_are_refused(shape):
    layer = lq.layers.QuantConv2D(8, 3, **BINARY)
    layer.build((None, 6, 6, 4))
    weights = layer.get_weights()
    with pytest.raises(ValueError):
        layer(np.zeros(shape, np.float32))
    for before, after in zip(weights, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_causal_padding_takes_no_pad_values():
    with pytest.raises(ValueError, match="Causal padding"):
        lq.layers.QuantConv1D(2, 3, padding="causal", pad_values=1.0)


def test_variables_survive_pickling(rng):
    layer = dense()
    layer(rng.standard_normal((1, 40)).astype(np.float32))
    copy = pickle.loads(pickle.dumps(layer.kernel))
    np.testing.assert_array_equal(copy.numpy(), layer.kernel.numpy())
    assert copy.precision == 1
