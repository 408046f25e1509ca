"""Quantised layers: the float layer on quantised values, shapes, padding, warnings. Golden data has larq's numbers."""

import inspect
import logging

import numpy as np
import pytest
from larq_checks import check_layer

import bnnlayers as lq
from bnnlayers import keras

ONE_KERNEL = {
    "Dense": ((3, 2), {"units": 3}),
    "Conv1D": ((2, 3, 7), {"filters": 2, "kernel_size": 3}),
    "Conv2D": ((2, 3, 7, 6), {"filters": 2, "kernel_size": 3}),
    "Conv3D": ((2, 3, 7, 6, 5), {"filters": 2, "kernel_size": 3}),
    "Conv2DTranspose": ((2, 3, 7, 6), {"filters": 2, "kernel_size": 3}),
    "Conv3DTranspose": ((2, 3, 7, 6, 5), {"filters": 2, "kernel_size": 3}),
    "LocallyConnected1D": ((2, 8, 5), {"filters": 4, "kernel_size": 3}),
    "LocallyConnected2D": ((8, 6, 10, 4), {"filters": 3, "kernel_size": 3}),
}
SEPARABLE = {
    "SeparableConv1D": ((2, 3, 7), {"filters": 3, "kernel_size": 3}),
    "SeparableConv2D": ((2, 3, 7, 6), {"filters": 3, "kernel_size": 3}),
}
DEPTHWISE = {"DepthwiseConv2D": ((2, 3, 7, 6), {"kernel_size": 3})}
ALL = {**ONE_KERNEL, **SEPARABLE, **DEPTHWISE}

PREFIXES = dict.fromkeys(SEPARABLE, ("depthwise", "pointwise")) | dict.fromkeys(DEPTHWISE, ("depthwise",))


def prefixes(name):
    """What the arguments of a layer's kernels begin with."""
    return PREFIXES.get(name, ("kernel",))


def quant(name):
    return getattr(lq.layers, f"Quant{name}")


def plain(name):
    return getattr(keras.layers, name)


@pytest.mark.parametrize("name", ALL)
def test_binarization(name, rng):
    shape, kwargs = ALL[name]
    x = (10 * rng.random(shape) - 0.5).astype(np.float32)
    size = {prefix: rng.uniform(-0.5, 0.5) for prefix in prefixes(name)}

    def binary():
        more = {f"{prefix}_quantizer": "ste_sign" for prefix in prefixes(name)}
        more |= {f"{prefix}_initializer": keras.initializers.Constant(size[prefix]) for prefix in prefixes(name)}
        more |= {f"{prefix}_constraint": "weight_clip" for prefix in prefixes(name)}
        with lq.context.metrics_scope(["flip_ratio"]):
            return quant(name)(**kwargs, **more, input_quantizer="ste_sign")

    y = check_layer(binary, x)
    initial = {f"{p}_initializer": keras.initializers.Constant(np.sign(size[p])) for p in prefixes(name)}
    float_layer = plain(name)(**kwargs, **initial)
    np.testing.assert_array_equal(y, float_layer(np.sign(x)))


@pytest.mark.parametrize("name", ALL)
def test_without_quantizers_it_is_the_float_layer(name, rng):
    shape, kwargs = ALL[name]
    x = rng.normal(size=shape).astype(np.float32)
    layer, twin = quant(name)(**kwargs), plain(name)(**kwargs)
    layer.build(shape)
    twin.build(shape)
    twin.set_weights(layer.get_weights())
    np.testing.assert_array_equal(layer(x), twin(x))
    assert set(layer.arithmetic) == {"float"}


PADDED = {
    "Conv1D": 1,
    "Conv2D": 2,
    "Conv3D": 3,
    "SeparableConv1D": 1,
    "SeparableConv2D": 2,
    "DepthwiseConv2D": 2,
}


@pytest.mark.parametrize("pad_values", [1.0, -1.0, 0.5])
@pytest.mark.parametrize("dilated", [False, True], ids=["strides", "dilation"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("name", PADDED)
def test_padding_with_a_value(name, data_format, dilated, pad_values, rng):
    rank = PADDED[name]
    spatial = rng.integers(5, 12, rank)
    kernel = tuple(int(k) for k in rng.integers(2, 6, rank))
    steps = int(rng.integers(1, 4)) if dilated or "epthwise" in name or "eparable" in name else None
    steps = steps or tuple(int(s) for s in rng.integers(1, 4, rank))
    first = data_format == "channels_first"
    shape = (2, 4, *spatial) if first else (2, *spatial, 4)
    x = rng.choice([-1.0, 1.0], shape).astype(np.float32)
    args = (kernel,) if name == "DepthwiseConv2D" else (2, kernel)
    kwargs = {"data_format": data_format, "dilation_rate" if dilated else "strides": steps}
    quantizers = {f"{p}_quantizer": "ste_sign" for p in prefixes(name)[:1]} | {"input_quantizer": "ste_sign"}
    layer = quant(name)(*args, padding="same", pad_values=pad_values, **kwargs, **quantizers)
    y = layer(x)
    assert y.shape == quant(name)(*args, padding="same", **kwargs)(x).shape == layer.compute_output_shape(shape)

    # Padding by hand, and no padding in the layer, is the same.
    strides = dict.fromkeys(range(rank), 1) if dilated else dict(enumerate(np.broadcast_to(steps, rank)))
    dilation = np.broadcast_to(steps if dilated else 1, rank)
    widths = []
    for i, size in enumerate(spatial):
        span = (kernel[i] - 1) * dilation[i] + 1
        total = max((-(-size // strides[i]) - 1) * strides[i] + span - size, 0)
        widths.append((total // 2, total - total // 2))
    widths = [(0, 0), (0, 0), *widths] if first else [(0, 0), *widths, (0, 0)]
    twin = quant(name)(*args, **kwargs, **{k: v for k, v in quantizers.items() if k != "input_quantizer"})
    padded = np.pad(x, widths, constant_values=pad_values)
    twin.build(padded.shape)
    twin.set_weights(layer.get_weights())
    expected = twin(padded)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("name", PADDED)
def test_padding_with_a_value_keeps_shapes_known(name, data_format, static):
    args = (3,) if name == "DepthwiseConv2D" else (16, 3)
    layer = quant(name)(*args, padding="same", pad_values=1.0, data_format=data_format)
    shape = [32 if static else None] * PADDED[name] + [3]
    inputs = keras.layers.Input(shape[::-1] if data_format == "channels_first" else shape)
    layer(inputs)
    filters = 3 if name == "DepthwiseConv2D" else 16
    expected = [*shape[:-1], filters]
    assert layer.output_shape == (None, *(expected[::-1] if data_format == "channels_first" else expected))


def test_causal_padding_is_with_zeros():
    with pytest.raises(ValueError, match="pad_values"):
        lq.layers.QuantConv1D(24, 3, padding="causal", pad_values=1.0)


class TestWarnings:
    @pytest.mark.parametrize("name", ALL)
    def test_binary_kernel_without_constraint(self, name, caplog):
        kwargs = ALL[name][1]
        quant(name)(**kwargs, **{f"{prefix}_quantizer": "ste_sign" for prefix in prefixes(name)})
        assert len(caplog.records) == len(prefixes(name))
        assert all(record.levelno == logging.WARNING for record in caplog.records)
        for prefix in prefixes(name):
            assert f"`{prefix}_constraint`" in caplog.text

    @pytest.mark.parametrize("name", ALL)
    @pytest.mark.parametrize("quantizer", ["ste_sign", "ste_tern", lq.quantizers.NoOp(precision=1), None, abs])
    def test_nothing_to_warn_of(self, name, quantizer, caplog):
        kwargs = dict(ALL[name][1])
        kwargs |= {f"{prefix}_quantizer": quantizer for prefix in prefixes(name)}
        if quantizer == "ste_sign":
            kwargs |= {f"{prefix}_constraint": "weight_clip" for prefix in prefixes(name)}
        quant(name)(**kwargs)
        assert caplog.records == []

    def test_an_unquantised_input_needs_none(self, caplog):
        lq.layers.QuantDense(5, input_quantizer="ste_sign")
        assert caplog.records == []


class TestArguments:
    @pytest.mark.parametrize("name", ["Conv1D", "Conv2D", "Conv3D"])
    def test_groups(self, name):
        assert quant(name)(24, 3, groups=2).groups == 2

    @pytest.mark.parametrize("name", ALL)
    def test_those_of_the_float_layer(self, name):
        ours = dict(inspect.signature(quant(name)).parameters)
        added = {"input_quantizer", "kernel_quantizer", "depthwise_quantizer", "pointwise_quantizer", "pad_values"}
        ours = {key: value for key, value in ours.items() if key not in added}
        theirs = inspect.signature(plain(name)).parameters
        assert list(ours) == list(theirs)
        assert {k: p.default for k, p in ours.items()} == {k: p.default for k, p in theirs.items()}

    @pytest.mark.parametrize("name", ALL)
    def test_configuration(self, name):
        kwargs = {
            **ALL[name][1],
            **{f"{prefix}_quantizer": lq.quantizers.SteTern(0.1) for prefix in prefixes(name)},
            "input_quantizer": lq.quantizers.SteSign(0.5),
            "name": "layer",
        }
        if name in PADDED:
            kwargs |= {"pad_values": -1.0, "padding": "same"}
        layer = quant(name)(**kwargs)
        again = quant(name).from_config(layer.get_config())
        assert again.get_config() == layer.get_config()
        assert again.input_quantizer.clip_value == 0.5
        for prefix in prefixes(name):
            assert getattr(again, f"{prefix}_quantizer").threshold_value == 0.1
        if name in PADDED:
            assert again.pad_values == -1

    @pytest.mark.parametrize("name", ALL)
    def test_kernels_are_quantized_variables(self, name):
        shape, kwargs = ALL[name]
        layer = quant(name)(**kwargs, **{f"{prefix}_quantizer": "ste_tern" for prefix in prefixes(name)})
        layer.build(shape)
        marked = [w for w in layer.weights if getattr(w, "precision", None) == 2]
        assert len(marked) == len(prefixes(name))
        assert all("kernel" in w.name for w in marked)
        assert len(layer.weights) == len(marked) + 1
