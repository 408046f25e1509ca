"""Quantizers: names, values, gradients, precision, metrics, subclasses. Golden data has larq's numbers."""

import functools

import numpy as np
import pytest
from larq_checks import values_around_zero

import bnnlayers as lq
from bnnlayers import keras, quantizers

CLASSES = {
    "ste_sign": quantizers.SteSign,
    "approx_sign": quantizers.ApproxSign,
    "ste_heaviside": quantizers.SteHeaviside,
    "magnitude_aware_sign": quantizers.MagnitudeAwareSign,
    "swish_sign": quantizers.SwishSign,
    "ste_tern": quantizers.SteTern,
    "dorefa_quantizer": quantizers.DoReFa,
}


def gradient(quantizer, x):
    x = lq.Variable(x)
    with lq.GradientTape() as tape:
        y = quantizer(x)
    return tape.gradient(y, x)


class TestNames:
    @pytest.mark.parametrize("module", [quantizers, keras.activations])
    @pytest.mark.parametrize("name", CLASSES)
    def test_serialization(self, module, name):
        quantizer = CLASSES[name]()
        assert module.get(quantizer) is quantizer
        assert type(module.get(name)) is CLASSES[name]
        again = module.deserialize(module.serialize(quantizer))
        assert type(again) is CLASSES[name]
        assert again.get_config() == quantizer.get_config()
        assert type(again.precision) is int

    @pytest.mark.parametrize(
        ("quantizer", "config"),
        [
            (quantizers.SteSign(None), {"clip_value": None}),
            (quantizers.SteHeaviside(0.5), {"clip_value": 0.5}),
            (quantizers.MagnitudeAwareSign(2.0), {"clip_value": 2.0}),
            (quantizers.SwishSign(7.0), {"beta": 7.0}),
            (
                quantizers.SteTern(0.1, True, 2.0),
                {"threshold_value": 0.1, "ternary_weight_networks": True, "clip_value": 2.0},
            ),
            (quantizers.DoReFa(3, "weights"), {"k_bit": 3, "mode": "weights"}),
            (quantizers.NoOp(5), {"precision": 5}),
        ],
        ids=lambda value: getattr(value, "name", None),
    )
    def test_configuration(self, quantizer, config):
        common = {"name": quantizer.name, "trainable": True, "dtype": "float32"}
        assert quantizer.get_config() == {**common, **config}
        again = quantizers.deserialize(quantizers.serialize(quantizer))
        assert again.get_config() == quantizer.get_config()
        assert again.precision == quantizer.precision

    def test_precision(self):
        widths = {name: made().precision for name, made in CLASSES.items()}
        assert widths == {name: 2 if name in ("ste_tern", "dorefa_quantizer") else 1 for name in CLASSES}
        assert quantizers.Quantizer.precision is None

    def test_noop_precision_marks_a_kernel(self):
        layer = lq.layers.QuantDense(16, kernel_quantizer=quantizers.NoOp(precision=1))
        layer.build((None, 32))
        assert layer.kernel.precision == 1

    @pytest.mark.parametrize("identifier", [42, "unknown", {"class_name": "unknown", "config": {}}])
    def test_unknown(self, identifier):
        with pytest.raises(ValueError, match=r"42|unknown"):
            quantizers.get(identifier)

    def test_unknown_mode(self):
        with pytest.raises(ValueError, match="unknown"):
            quantizers.DoReFa(k_bit=2, mode="unknown")
        quantizer = quantizers.DoReFa(k_bit=2, mode="activations")
        quantizer.mode = "unknown"
        with pytest.raises(ValueError, match="unknown"):
            quantizer.call(np.float32([0.0]))

    def test_nothing_and_callables_stay(self):
        assert quantizers.get(None) is None
        assert quantizers.get(abs) is abs
        assert quantizers.get_kernel_quantizer(abs) is abs
        assert not hasattr(quantizers.get_kernel_quantizer(lambda x: x), "_custom_metrics")

    def test_aliases(self):
        assert quantizers.DoReFaQuantizer is quantizers.DoReFa
        assert quantizers.NoOpQuantizer is quantizers.NoOp


class TestValues:
    @pytest.mark.parametrize("name", ["ste_sign", "approx_sign", "swish_sign"])
    @pytest.mark.parametrize("get", [quantizers.get, vars(quantizers).get], ids=["object", "function"])
    def test_signs(self, rng, name, get):
        quantizer = get(name)
        signs = rng.choice([-1.0, 1.0], (2, 5)).astype(np.float32)
        np.testing.assert_array_equal(quantizer(signs), signs)
        x = values_around_zero(rng)
        np.testing.assert_array_equal(quantizer(x), np.where(x < 0, -1, 1))
        np.testing.assert_array_equal(quantizer(np.float32([0, -0.0])), [1, 1])

    @pytest.mark.parametrize("get", [quantizers.get, vars(quantizers).get], ids=["object", "function"])
    def test_heaviside(self, rng, get):
        quantizer = get("ste_heaviside")
        bits = rng.integers(0, 2, (2, 5)).astype(np.float32)
        np.testing.assert_array_equal(quantizer(bits), bits)
        x = values_around_zero(rng)
        np.testing.assert_array_equal(quantizer(x), x > 0)

    def test_magnitude_aware_sign(self, rng):
        x = rng.uniform(-2, 2, (3, 2, 2, 3)).astype(np.float32)
        y = quantizers.MagnitudeAwareSign()(x)
        np.testing.assert_array_equal(np.sign(y), np.sign(x))
        means = np.abs(x.astype(np.float64)).mean((0, 1, 2))
        np.testing.assert_allclose(np.abs(y), np.broadcast_to(means, x.shape), rtol=1e-6)

    @pytest.mark.parametrize(
        ("quantizer", "threshold"),
        [
            (quantizers.SteTern(), 0.05),
            (quantizers.ste_tern, 0.05),
            (quantizers.SteTern(threshold_value=0.37), 0.37),
            (quantizers.SteTern(ternary_weight_networks=True), None),
            (functools.partial(quantizers.ste_tern, ternary_weight_networks=True), None),
        ],
    )
    def test_ternary(self, rng, quantizer, threshold):
        values = rng.integers(-1, 2, (4, 10)).astype(np.float32)
        np.testing.assert_array_equal(quantizer(values), values)
        x = values_around_zero(rng)
        if threshold is None:
            threshold = 0.7 * np.abs(x).mean(dtype=np.float64)
        expected = np.sign(x) * (np.abs(x) > threshold)
        np.testing.assert_array_equal(quantizer(x), expected)
        assert set(np.unique(expected)) == {-1, 0, 1}

    @pytest.mark.parametrize("k_bit", [1, 2, 4, 6, 8])
    @pytest.mark.parametrize("mode", ["activations", "weights"])
    def test_dorefa(self, rng, k_bit, mode):
        x = values_around_zero(rng, (30, 20)).astype(np.float64)
        y = np.asarray(quantizers.DoReFa(k_bit, mode)(x), np.float64)
        if mode == "weights":
            # On the range [0, 1] weights are rounded as activations are.
            x = np.tanh(x) / np.abs(np.tanh(x)).max() / 2 + 0.5
            y = y / 2 + 0.5
        n = 2**k_bit - 1
        assert 0 <= y.min() <= y.max() <= 1
        clipped = np.clip(x, 0, 1) * n
        clear = np.abs(clipped % 1 - 0.5) > 1e-4
        np.testing.assert_allclose(y[clear], np.rint(clipped[clear]) / n, atol=1e-6)
        np.testing.assert_allclose(y * n, np.rint(y * n), atol=1e-4)

    def test_dtype(self):
        x = np.array([0.3, -0.3])
        for name, made in CLASSES.items():
            assert made()(x).dtype == np.float32
            if hasattr(quantizers, name) and name != "magnitude_aware_sign":
                assert getattr(quantizers, name)(x).dtype == np.float64


class TestGradients:
    @pytest.mark.parametrize("cls", [quantizers.SteSign, quantizers.SteTern, quantizers.SteHeaviside])
    @pytest.mark.parametrize("clip", [None, 1.0, 0.5])
    def test_straight_through(self, rng, cls, clip):
        x = values_around_zero(rng, (8, 3, 3, 16))
        x[0, 0, 0, :4] = [1, -1, 0.5, -0.5]
        expected = np.ones_like(x) if clip is None else np.abs(x) <= clip
        np.testing.assert_array_equal(gradient(cls(clip_value=clip), x), expected)

    def test_default_clips_at_one(self):
        for cls in (quantizers.SteSign, quantizers.SteTern, quantizers.SteHeaviside, quantizers.MagnitudeAwareSign):
            assert cls().clip_value == 1

    def test_approx_sign(self, rng):
        x = values_around_zero(rng, (8, 3, 3, 16))
        expected = np.where(np.abs(x) <= 1, 2 - 2 * np.abs(x), 0)
        np.testing.assert_allclose(gradient(quantizers.ApproxSign(), x), expected, rtol=1e-6)

    @pytest.mark.parametrize("beta", [5.0, 10.0])
    def test_swish_sign(self, rng, beta):
        x = values_around_zero(rng, (8, 3, 3, 16))
        b = beta * x.astype(np.float64)
        expected = beta * (2 - b * np.tanh(b / 2)) / (1 + np.cosh(b))
        np.testing.assert_allclose(gradient(quantizers.SwishSign(beta), x), expected, rtol=1e-4, atol=1e-6)

    def test_magnitude_aware_sign(self, rng):
        x = rng.uniform(-2, 2, (3, 2, 2, 3)).astype(np.float32)
        means = np.abs(x.astype(np.float64)).mean((0, 1, 2))
        expected = np.where(np.abs(x) <= 1, means, 0)
        np.testing.assert_allclose(gradient(quantizers.MagnitudeAwareSign(), x), expected, rtol=1e-6)

    def test_dorefa_activations(self, rng):
        x = values_around_zero(rng, (8, 3, 3, 16))
        np.testing.assert_array_equal(gradient(quantizers.DoReFa(2), x), (x >= 0) & (x <= 1))

    def test_dorefa_weights(self, rng):
        x = values_around_zero(rng, (8, 3, 3, 16))
        tanh = np.tanh(x.astype(np.float64))
        expected = (1 - tanh**2) / np.abs(tanh).max()
        np.testing.assert_allclose(gradient(quantizers.DoReFa(2, "weights"), x), expected, rtol=1e-5)

    @pytest.mark.parametrize("name", CLASSES)
    def test_both_faces_have_one_gradient(self, rng, name):
        quantizer, dy = CLASSES[name](), rng.normal(size=(40, 3)).astype(np.float32)
        found = []
        for face in (quantizer, functools.partial(quantizer.encode, axis=0)):
            x = lq.Variable(values_around_zero(np.random.default_rng(3), (40, 3)))
            with lq.GradientTape() as tape:
                y = face(x)
            found.append(tape.gradient(y, x, output_gradients=dy))
        np.testing.assert_array_equal(*found)


class Scale(keras.layers.Layer):
    """A layer, with a weight of its own, as a quantizer."""

    def build(self, input_shape):
        self.scale = self.add_weight("scale", shape=(), initializer="ones", trainable=True)
        super().build(input_shape)

    def call(self, inputs):
        return self.scale * inputs


class TestLayersAsQuantizers:
    @pytest.mark.parametrize("argument", ["input_quantizer", "kernel_quantizer"])
    @pytest.mark.parametrize("shape", [{}, {"input_shape": (10,)}], ids=["deferred", "built"])
    def test_with_a_weight(self, rng, argument, shape):
        model = keras.models.Sequential([lq.layers.QuantDense(1, **{argument: Scale()}, **shape)])
        model.compile(optimizer="sgd", loss="mse")
        if shape:
            assert any("scale" in variable.name for variable in model.trainable_variables)
        model.fit(rng.normal(size=(1, 10)), np.ones((1, 1)), epochs=1, verbose=0)
        (scale,) = [variable for variable in model.trainable_variables if "scale" in variable.name]
        assert scale.numpy() != 1

    def test_an_activation(self, rng):
        x = rng.normal(size=(3, 5)).astype(np.float32)
        layer = lq.layers.QuantDense(2, input_quantizer=keras.layers.Activation("tanh"))
        y = layer(x)
        np.testing.assert_allclose(y, np.tanh(x) @ layer.kernel.numpy(), rtol=1e-5, atol=1e-6)


class TestSubclasses:
    def test_values_of_its_own_win(self, rng):
        class Halved(quantizers.SteSign):
            def call(self, inputs):
                return super().call(inputs) * 0.5

        x = rng.normal(size=(2, 40)).astype(np.float32)
        layer = lq.layers.QuantDense(3, input_quantizer=Halved(), kernel_quantizer=Halved(metrics=["flip_ratio"]))
        y = layer(x)
        signs = np.where(layer.kernel.numpy() < 0, -1, 1)
        np.testing.assert_array_equal(y, np.where(x < 0, -1, 1) @ signs / 4)
        assert layer.kernel_quantizer.flip_ratio.count.numpy() == 1

    def test_of_the_base(self, rng):
        class Rounded(quantizers.Quantizer):
            precision = 8

            def call(self, inputs):
                return np.rint(inputs)

        x = 3 * rng.normal(size=(2, 5)).astype(np.float32)
        layer = lq.layers.QuantDense(3, input_quantizer=Rounded(), kernel_quantizer="ste_sign")
        y = layer(x)
        np.testing.assert_array_equal(y, np.rint(x) @ np.where(layer.kernel.numpy() < 0, -1, 1))
        assert layer.input_quantizer.compute_output_shape((None, 5)) == (None, 5)


@pytest.mark.parametrize(
    "make",
    [*CLASSES.values(), functools.partial(quantizers.DoReFa, mode="weights"), functools.partial(quantizers.NoOp, 1)],
)
def test_metrics(make):
    def model(quantizer):
        return keras.models.Sequential([lq.layers.QuantDense(3, kernel_quantizer=quantizer, input_shape=(32,))])

    assert model(make()).layers[0].kernel_quantizer._metrics == []
    with lq.context.metrics_scope(["flip_ratio"]):
        scoped = model(make())
    for network in (scoped, model(make(metrics=["flip_ratio"]))):
        quantizer = network.layers[0].kernel_quantizer
        assert network.layers[0]._metrics == []
        assert [metric.name for metric in quantizer._metrics] == [f"flip_ratio/{quantizer.name}"]


def test_get_kernel_quantizer_takes_the_metrics_of_the_scope():
    with lq.context.metrics_scope(["flip_ratio"]):
        kernel, other = quantizers.get_kernel_quantizer("ste_sign"), quantizers.get("ste_sign")
        own = quantizers.get_kernel_quantizer(quantizers.SteSign(metrics=["flip_ratio"]))
    assert kernel._custom_metrics == own._custom_metrics == ["flip_ratio"]
    assert not other._custom_metrics
