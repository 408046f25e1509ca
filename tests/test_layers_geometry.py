"""Every layer over random geometries and quantizers, to the bit: output, input gradient, weight gradients.

Inputs and weights are quarters, so that every sum is exact in float32 whatever its order.
"""

import inspect
import itertools
import os
import re
import warnings

import numpy as np
import pytest
import reference as ref
from hypothesis import given, settings
from hypothesis import strategies as st

import bnnlayers as lq
from bnnlayers import keras
from bnnlayers.keras.layers import locally_connected

FEW = settings(max_examples=60, deadline=None, derandomize="CI" in os.environ)

# name: value and pseudo-gradient
QUANTIZERS = {
    None: (lambda x: x, lambda x, dy: dy),
    "ste_sign": (ref.ste_sign, lambda x, dy: ref.ste_sign_grad(x, dy, 1.0)),
    "approx_sign": (ref.approx_sign, ref.approx_sign_grad),
    "ste_tern": (lambda x: ref.ste_tern(x, 0.05), lambda x, dy: ref.ste_tern_grad(x, dy, 1.0)),
    "ste_heaviside": (ref.ste_heaviside, lambda x, dy: ref.ste_heaviside_grad(x, dy, 1.0)),
}

generators = st.integers(0, 2**32 - 1).map(np.random.default_rng)


# ---- the layers, each with what it computes from quantized operands -------------------------------------------------
#
# `forward` gives y, `backward` the gradients of x and of every kernel; images are channels last.


def _pads(layer, spatial):
    axes = zip(spatial, layer.kernel_size, layer.strides, layer.dilation_rate, strict=True)
    return [ref.pads(n, k, layer.padding, s, d) for n, k, s, d in axes]


class Convolution:
    kernels = ("kernel",)

    def __init__(self, layer, x):
        self.layer, self.x, self.groups = layer, x, getattr(layer, "groups", 1)
        pads = _pads(layer, x.shape[1:-1])
        self.where = layer.strides, layer.dilation_rate, pads
        self.pad = getattr(layer, "pad_values", 0.0)

    def forward(self, kernel):
        return ref.convolution(self.x, kernel, *self.where, self.pad, self.groups)

    def backward(self, dy, kernel):
        spatial = self.x.shape[1:-1]
        dx = ref.convolution_input_gradient(dy, kernel, spatial, *self.where, self.groups)
        taps = self.layer.kernel_size
        return dx, ref.convolution_kernel_gradient(self.x, dy, taps, *self.where, self.pad, self.groups)


class Depthwise(Convolution):
    kernels = ("depthwise",)

    def __init__(self, layer, x):
        super().__init__(layer, x)
        self.groups = x.shape[-1]

    def forward(self, kernel):
        return ref.depthwise_convolution(self.x, kernel, *self.where, self.pad)

    def backward(self, dy, kernel):
        by_group = kernel.reshape(*kernel.shape[:-2], 1, -1)
        dx, dkernel = super().backward(dy, by_group)
        return dx, dkernel.reshape(kernel.shape)


class Separable(Depthwise):
    kernels = ("depthwise", "pointwise")

    def forward(self, depthwise, pointwise):
        return ref.separable_convolution(self.x, depthwise, pointwise, *self.where, self.pad)

    def backward(self, dy, depthwise, pointwise):
        between = super().forward(depthwise)
        dbetween, dpointwise = ref.dense_gradients(between, pointwise.reshape(pointwise.shape[-2:]), dy)
        return *super().backward(dbetween, depthwise), dpointwise.reshape(pointwise.shape)


class Transposed(Convolution):
    def __init__(self, layer, x):
        self.layer, self.x, rank = layer, x, len(layer.kernel_size)
        dilation = layer.dilation_rate if rank < 3 else (1, 1, 1)
        more = layer.output_padding or (None,) * rank
        axes = list(zip(layer.kernel_size, (layer.padding,) * rank, layer.strides, dilation, strict=True))
        self.outputs = [
            ref.transposed_length(n, *axis, extra) for n, axis, extra in zip(x.shape[1:-1], axes, more, strict=True)
        ]
        low = [ref.pads(n, *axis)[0] for n, axis in zip(self.outputs, axes, strict=True)]
        # The convolution that this one is the way back of has exactly x's pixels.
        pads = [
            (at, max(0, (n - 1) * s + ref.span(k, d) - at - length))
            for at, n, length, (k, _, s, d) in zip(low, x.shape[1:-1], self.outputs, axes, strict=True)
        ]
        self.where = layer.strides, dilation, pads

    def forward(self, kernel):
        return ref.transposed_convolution(self.x, kernel, self.outputs, *self.where)

    def backward(self, dy, kernel):
        dkernel = ref.convolution_kernel_gradient(dy, self.x, self.layer.kernel_size, *self.where)
        return ref.convolution(dy, kernel, *self.where), dkernel


class Local:
    kernels = ("kernel",)

    def __init__(self, layer, x):
        self.layer, self.x, self.spatial = layer, x, x.shape[1:-1]
        axes = list(
            zip(self.spatial, layer.kernel_size, (layer.padding,) * len(self.spatial), layer.strides, strict=True)
        )
        self.pads = [ref.local_pads(*axis) for axis in axes]
        self.outputs = [ref.output_length(n, k, pad, s) for (n, k, _, s), pad in zip(axes, self.pads, strict=True)]
        self.places = self._places()

    def _places(self):
        """For (output pixel, tap, channel, filter) the weight's place in the kernel's order, -1 if it has none."""
        layer, channels, filters = self.layer, self.x.shape[-1], self.layer.filters
        first = layer.data_format == "channels_first"
        shape = [*self.outputs, *layer.kernel_size, channels, filters]
        rank, joined = len(self.outputs), {}
        for at in np.ndindex(*shape):
            out, tap, c, f = at[:rank], at[rank : 2 * rank], at[-2], at[-1]
            source = [o * s + t - p[0] for o, s, t, p in zip(out, layer.strides, tap, self.pads, strict=True)]
            if any(i < 0 or i >= n for i, n in zip(source, self.spatial, strict=True)):
                continue
            if layer.implementation == 1:
                p, t = np.ravel_multi_index(out, self.outputs), np.ravel_multi_index(tap, layer.kernel_size)
                joined[at] = (p, c, t, f) if first else (p, t, c, f)
            elif layer.implementation == 2:
                joined[at] = (c, *source, f, *out) if first else (*source, c, *out, f)
            else:
                joined[at] = (f, *out, c, *source) if first else (*out, f, *source, c)
        places = np.full(shape, -1)
        if layer.implementation == 2:
            sizes = [(channels, *self.spatial), (filters, *self.outputs)]
            if not first:
                sizes = [(*self.spatial, channels), (*self.outputs, filters)]
            for at, key in joined.items():
                places[at] = np.ravel_multi_index(key, sum(sizes, ()))
        else:
            for place, at in enumerate(sorted(joined, key=joined.get)):
                places[at] = place
        return places

    def _expanded(self, kernel):
        return np.where(self.places < 0, 0, kernel.reshape(-1)[self.places])

    def forward(self, kernel):
        return ref.locally_connected(self.x, self._expanded(kernel), self.layer.strides, self.pads)

    def backward(self, dy, kernel):
        expanded = self._expanded(kernel)
        dx, dexpanded = ref.locally_connected_gradients(self.x, expanded, dy, self.layer.strides, self.pads)
        dkernel = np.zeros(kernel.size)
        dkernel[self.places[self.places >= 0]] = dexpanded[self.places >= 0]
        return dx, dkernel.reshape(kernel.shape)


class Dense:
    kernels = ("kernel",)

    def __init__(self, layer, x):
        self.x = x

    def forward(self, kernel):
        return ref.dense(self.x, kernel)

    def backward(self, dy, kernel):
        return ref.dense_gradients(self.x, kernel, dy)


# ---- drawing --------------------------------------------------------------------------------------------------------


def per_axis(rank, values):
    return st.tuples(*[values] * rank)


CHANNELS = st.sampled_from([1, 2, 3, 31, 32, 33, 64])


def _strides_or_dilation(draw, rank):
    one = (1,) * rank
    strides, dilation = (draw(per_axis(rank, st.integers(1, 3))) for _ in range(2))
    return draw(st.sampled_from([(strides, one), (one, dilation), (one, one)]))


def _window(draw, rank, paddings, most):
    """Spatial size and the arguments of a window over it."""
    strides, dilation = _strides_or_dilation(draw, rank)
    kernel = draw(per_axis(rank, st.integers(1, 3)))
    least = [ref.span(k, d) for k, d in zip(kernel, dilation, strict=True)]
    spatial = tuple(n + draw(st.integers(0, most)) for n in least)
    return spatial, {
        "kernel_size": kernel,
        "strides": strides,
        "dilation_rate": dilation,
        "padding": draw(st.sampled_from(paddings)),
    }


def _padded_with(draw, arguments):
    if arguments["padding"] == "same":
        arguments["pad_values"] = draw(st.sampled_from([0.0, 1.0, -1.0, 0.5]))
    return arguments


PADDINGS = {1: ("valid", "same", "causal"), 2: ("valid", "same"), 3: ("valid", "same")}


def dense(draw):
    return (*draw(st.sampled_from([(), (3,)])), draw(CHANNELS)), {"units": draw(st.integers(1, 5))}


def conv(rank):
    def drawn(draw):
        groups = draw(st.integers(1, 3))
        spatial, arguments = _window(draw, rank, PADDINGS[rank], 4 - rank)
        arguments |= {"filters": groups * draw(st.integers(1, 3)), "groups": groups}
        return (*spatial, groups * draw(CHANNELS)), _padded_with(draw, arguments)

    return drawn


def depthwise(draw):
    spatial, arguments = _window(draw, 2, PADDINGS[2], 2)
    arguments["depth_multiplier"] = draw(st.integers(1, 3))
    return (*spatial, draw(CHANNELS)), _padded_with(draw, arguments)


def separable(rank):
    def drawn(draw):
        spatial, arguments = _window(draw, rank, PADDINGS[rank], 2)
        arguments |= {"filters": draw(st.integers(1, 3)), "depth_multiplier": draw(st.integers(1, 3))}
        return (*spatial, draw(CHANNELS)), _padded_with(draw, arguments)

    return drawn


def transposed(rank):
    def drawn(draw):
        strides, dilation = _strides_or_dilation(draw, rank)
        arguments = {
            "filters": draw(st.integers(1, 3)),
            "kernel_size": draw(per_axis(rank, st.integers(1, 3))),
            "strides": strides,
            "dilation_rate": dilation,
            "padding": draw(st.sampled_from(PADDINGS[2])),
        }
        # With an even window "same" can leave nothing of one pixel.
        spatial = draw(per_axis(rank, st.integers(2, 5 - rank)))
        if draw(st.booleans()):
            arguments["output_padding"] = tuple(draw(st.integers(0, s - 1)) for s in strides)
        return (*spatial, draw(CHANNELS)), arguments

    return drawn


def local(rank):
    def drawn(draw):
        implementation = draw(st.integers(1, 3))
        spatial, arguments = _window(draw, rank, ("valid",) if implementation == 1 else PADDINGS[2], 3 - rank)
        arguments["strides"] = draw(per_axis(rank, st.integers(1, 3)))
        del arguments["dilation_rate"]
        arguments |= {"filters": draw(st.integers(1, 3)), "implementation": implementation}
        # The windows of a drawn dilation would only be room.
        spatial = tuple(min(n, 5) for n in spatial)
        return (*spatial, draw(st.sampled_from([1, 2, 31, 32]))), arguments

    return drawn


LAYERS = {
    "QuantDense": (Dense, dense),
    "QuantConv1D": (Convolution, conv(1)),
    "QuantConv2D": (Convolution, conv(2)),
    "QuantConv3D": (Convolution, conv(3)),
    "QuantDepthwiseConv2D": (Depthwise, depthwise),
    "QuantSeparableConv1D": (Separable, separable(1)),
    "QuantSeparableConv2D": (Separable, separable(2)),
    "QuantConv2DTranspose": (Transposed, transposed(2)),
    "QuantConv3DTranspose": (Transposed, transposed(3)),
    "QuantLocallyConnected1D": (Local, local(1)),
    "QuantLocallyConnected2D": (Local, local(2)),
}


def constraints(definition):
    return {f"{kernel}_constraint": "weight_clip" for kernel in definition.kernels}


def quarters(rng, shape, limit):
    return (rng.integers(-4 * limit, 4 * limit + 1, shape) / 4).astype(np.float32)


@pytest.mark.parametrize("name", LAYERS)
@FEW
@given(data=st.data(), rng=generators)
def test_values_and_gradients(name, data, rng):
    definition, draw_geometry = LAYERS[name]
    shape, arguments = draw_geometry(data.draw)
    quantizer = {key: data.draw(st.sampled_from(list(QUANTIZERS))) for key in ("input", *definition.kernels)}
    first = name != "QuantDense" and data.draw(st.booleans())
    if name != "QuantDense":
        arguments["data_format"] = "channels_first" if first else "channels_last"
    layer = getattr(lq.layers, name)(
        use_bias=False,
        **arguments,
        **{f"{key}_quantizer": value for key, value in quantizer.items()},
        **constraints(definition),
    )
    x = quarters(rng, (data.draw(st.integers(0, 3)), *shape), 2)
    given_x = lq.constant(np.moveaxis(x, -1, 1) if first else x)
    layer.build(given_x.shape)
    weights = [quarters(rng, w.shape, 1) for w in layer.weights]
    layer.set_weights(weights)

    twin = definition(layer, QUANTIZERS[quantizer["input"]][0](x))
    kernels = [QUANTIZERS[quantizer[key]][0](w) for key, w in zip(definition.kernels, weights, strict=True)]
    expected = twin.forward(*kernels)
    dy = rng.integers(-3, 4, expected.shape).astype(np.float32)
    dx, *dkernels = twin.backward(dy, *kernels)
    dx = QUANTIZERS[quantizer["input"]][1](x, dx)
    pairs = zip(definition.kernels, weights, dkernels, strict=True)
    dweights = [QUANTIZERS[quantizer[key]][1](w, dw) for key, w, dw in pairs]

    with lq.GradientTape() as tape:
        tape.watch(given_x)
        y = layer(given_x)
        target = lq.reduce_sum(y * (np.moveaxis(dy, -1, 1) if first else dy))
    got = tape.gradient(target, [given_x, *layer.trainable_weights])

    def last(a):
        return np.moveaxis(np.asarray(a), 1, -1) if first else np.asarray(a)

    assert tuple(layer.compute_output_shape(given_x.shape)) == y.shape
    np.testing.assert_array_equal(last(y), expected)
    np.testing.assert_array_equal(last(got[0]), dx)
    for actual, dw in zip(got[1:], dweights, strict=True):
        np.testing.assert_array_equal(actual, dw)


# ---- what runs in bits ----------------------------------------------------------------------------------------------

GEOMETRY = {
    "QuantDense": ((40,), {"units": 3}),
    "QuantConv1D": ((5, 40), {"filters": 3, "kernel_size": 2}),
    "QuantConv2D": ((5, 5, 40), {"filters": 3, "kernel_size": 2}),
    "QuantConv3D": ((3, 3, 3, 40), {"filters": 3, "kernel_size": 2}),
    "QuantDepthwiseConv2D": ((5, 5, 40), {"kernel_size": 2}),
    "QuantSeparableConv1D": ((5, 40), {"filters": 3, "kernel_size": 2}),
    "QuantSeparableConv2D": ((5, 5, 40), {"filters": 3, "kernel_size": 2}),
    "QuantConv2DTranspose": ((5, 5, 40), {"filters": 3, "kernel_size": 2}),
    "QuantConv3DTranspose": ((3, 3, 3, 40), {"filters": 3, "kernel_size": 2}),
    "QuantLocallyConnected1D": ((5, 40), {"filters": 3, "kernel_size": 2}),
    "QuantLocallyConnected2D": ((5, 5, 40), {"filters": 3, "kernel_size": 2}),
}
PACKED = ["ste_sign", "approx_sign", "swish_sign", "ste_tern", "ste_heaviside", "magnitude_aware_sign"]
PACKED += [lq.quantizers.DoReFa(k, mode) for k in (1, 2) for mode in ("activations", "weights")]


def ran(name, inputs, kernel, **more):
    """The arithmetic of a layer, of its first product if it has two."""
    shape, arguments = GEOMETRY[name]
    kinds = {"input_quantizer": inputs} | {f"{k}_quantizer": kernel for k in LAYERS[name][0].kernels}
    layer = getattr(lq.layers, name)(**{**arguments, **kinds, **constraints(LAYERS[name][0]), **more})
    if more.get("data_format") == "channels_first":
        shape = (shape[-1], *shape[:-1])
    layer(np.random.default_rng(3).standard_normal((2, *shape)).astype(np.float32))
    return layer.arithmetic[0]


def label(quantizer):
    if isinstance(quantizer, lq.quantizers.DoReFa):
        return f"dorefa {quantizer.mode} {quantizer.precision}"
    return quantizer


def exceptions(name, **more):
    """The pairs of quantizers that do not run bits times bits."""
    return {(label(x), label(w)) for x, w in itertools.product(PACKED, PACKED) if ran(name, x, w, **more) != "xnor"}


SCALED = "magnitude_aware_sign"
SCALED_INPUT = {(SCALED, label(w)) for w in PACKED}
SCALED_KERNEL = {(label(x), SCALED) for x in PACKED}


@pytest.mark.parametrize("name", LAYERS)
def test_what_does_not_run_packed(name):
    """A scale of what is summed over; in a depthwise convolution channels are not summed over."""
    expected = set() if Depthwise in LAYERS[name][0].__mro__ else SCALED_INPUT
    assert exceptions(name) == (expected | SCALED_KERNEL if "Transpose" in name else expected)


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "QuantDense"])
def test_what_does_not_run_packed_channels_first(name):
    """The scale of an input's last axis, which then is a spatial one."""
    found = exceptions(name, data_format="channels_first")
    assert found == (SCALED_INPUT | SCALED_KERNEL if "Transpose" in name else SCALED_INPUT)


@pytest.mark.parametrize("name", ["QuantLocallyConnected1D", "QuantLocallyConnected2D"])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_what_does_not_run_packed_in_other_implementations(name, padding):
    """A scale of every weight; signs of several bits, which have no zero for what lies outside of the image."""
    no_zero = {("dorefa weights 2", label(w)) for w in PACKED} if padding == "same" else set()
    assert exceptions(name, implementation=2, padding=padding) == SCALED_INPUT | no_zero
    assert exceptions(name, implementation=3, padding=padding) == SCALED_INPUT | SCALED_KERNEL | no_zero


@pytest.mark.parametrize("name", [name for name, (shape, _) in GEOMETRY.items() if "Conv" in name and "T" not in name])
def test_padding_with_other_than_a_sign_runs_on_floats(name):
    for pad in (0.0, 1.0, -1.0):
        assert ran(name, "ste_sign", "ste_sign", padding="same", pad_values=pad) == "xnor"
    assert ran(name, "ste_sign", "ste_sign", padding="same", pad_values=0.5) == "signed"


# ---- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GEOMETRY)
def test_signature_is_that_of_the_layer_beneath(name):
    """Order and defaults, but for what quantization adds."""
    quantized, beneath = (
        inspect.signature(c).parameters for c in (getattr(lq.layers, name), getattr(keras.layers, name[5:]))
    )
    added = [p for p in quantized if p == "pad_values" or p.endswith("_quantizer")]
    assert len(added) == 1 + len(LAYERS[name][0].kernels) + ("pad_values" in added)
    assert [p for p in quantized if p not in added] == list(beneath)
    assert {p: quantized[p].default for p in beneath} == {p: beneath[p].default for p in beneath}


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("Conv2DTranspose", {"output_padding": 1}, "Strides must be greater than output padding"),
        ("Conv2DTranspose", {"output_padding": (1, 2, 3), "strides": 4}, "output_padding"),
        ("Conv3DTranspose", {"padding": "causal"}, "padding"),
        ("Conv1DTranspose", {"padding": "causal"}, "padding"),
        ("Conv2DTranspose", {"strides": 2, "dilation_rate": 2}, "not supported in conjunction"),
        ("SeparableConv2D", {"strides": 2, "dilation_rate": 2}, "not supported in conjunction"),
        ("SeparableConv2D", {"padding": "causal"}, "padding"),
        ("LocallyConnected2D", {"padding": "same"}, 'only "valid" is supported if implementation is 1'),
        ("LocallyConnected1D", {"padding": "causal", "implementation": 3}, "padding"),
        ("LocallyConnected1D", {"data_format": "nhwc"}, "data_format"),
    ],
)
def test_arguments_are_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(keras.layers, name)(**{"filters": 2, "kernel_size": 2, **arguments})


@pytest.mark.parametrize(
    ("name", "arguments", "shape", "message"),
    [
        ("Conv2DTranspose", {}, (1, 4, 3), "rank 4"),
        ("Conv2DTranspose", {}, (1, 4, 4, None), "channel dimension"),
        ("DepthwiseConv2D", {}, (1, 4, 3), "rank 4"),
        ("DepthwiseConv2D", {}, (1, 4, 4, None), "channel dimension"),
        ("DepthwiseConv2D", {"kernel_size": 5}, (1, 4, 4, 3), "zero or negative"),
        ("SeparableConv1D", {"kernel_size": 5}, (1, 4, 3), "zero or negative"),
        ("LocallyConnected2D", {}, (1, None, 4, 3), "fully defined"),
        ("LocallyConnected2D", {"kernel_size": 5}, (1, 4, 4, 3), "zero or negative"),
        ("LocallyConnected2D", {"implementation": 4}, (1, 4, 4, 3), "Unrecognized implementation mode: 4"),
    ],
)
def test_inputs_are_refused_by_build(name, arguments, shape, message):
    filters = {} if "Depthwise" in name else {"filters": 2}
    layer = getattr(keras.layers, name)(**{**filters, "kernel_size": 2, **arguments})
    with pytest.raises(ValueError, match=message):
        layer.build(shape)
    assert not layer.built and not layer.weights


@pytest.mark.parametrize("name", [name for name in GEOMETRY if name != "QuantDense"])
def test_an_input_of_another_size_is_refused(name):
    shape, arguments = GEOMETRY[name]
    layer = getattr(lq.layers, name)(**arguments)
    layer(np.zeros((2, *shape), np.float32))
    with pytest.raises(ValueError, match=r"to have value 40|expected axis"):
        layer(np.zeros((2, *shape[:-1], 3), np.float32))
    with pytest.raises(ValueError, match="ndim"):
        layer(np.zeros((2, 40), np.float32))


@pytest.mark.parametrize("name", GEOMETRY)
def test_symbolic_call_has_the_shape_of_the_real_one(name):
    shape, arguments = GEOMETRY[name]
    inputs = keras.Input(shape)
    model = keras.Model(inputs, getattr(lq.layers, name)(**arguments)(inputs))
    assert model.output_shape[1:] == model.predict(np.zeros((2, *shape), np.float32), verbose=0).shape[1:]


def test_a_large_dense_kernel_is_not_made_silently(monkeypatch):
    monkeypatch.setattr(locally_connected, "_LARGE", 2**10)
    with pytest.warns(UserWarning, match="implementation 3"):
        keras.layers.LocallyConnected1D(2, 2, implementation=2).build((1, 30, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keras.layers.LocallyConnected1D(2, 2, implementation=3).build((1, 30, 2))


@pytest.mark.parametrize("implementation", [1, 2, 3])
def test_implementations_hold_what_they_say(implementation):
    layer = keras.layers.LocallyConnected2D(3, (2, 3), implementation=implementation, use_bias=False)
    layer.build((None, 5, 6, 2))
    pixels, window = 4 * 4, 2 * 3 * 2
    shapes = {1: (pixels, window, 3), 2: (5, 6, 2, 4, 4, 3), 3: (pixels * window * 3,)}
    assert layer.kernel.shape == shapes[implementation]


@pytest.mark.parametrize(
    ("operation", "x", "kernel", "more", "message"),
    [
        ("conv_transpose", (1, 4, 4, 3), (2, 2, 5, 4), {}, "channels of 'x' on its last axis"),
        ("conv_transpose", (1, 4, 4, 3), (2, 2, 5, 3), {"padding": "causal"}, "'padding'"),
        ("conv_transpose", (1, 4, 4, 3), (2, 2, 5, 3), {"output_padding": -1}, "'output_padding'"),
        ("conv_transpose", (1, 4, 3), (2, 2, 5, 3), {}, "spatial axes"),
        ("conv_transpose", (1, 4, 4, 3), (2, 2, 5, 3), {"data_format": "NHWC"}, "'data_format'"),
        ("depthwise_conv", (1, 4, 4, 3), (2, 2, 4, 1), {}, "channels of 'x' on axis -2"),
        ("depthwise_conv", (1, 4, 4, 3), (2, 2, 3, 1), {"strides": (1, 2, 3)}, "'strides'"),
        ("depthwise_conv", (1, 4, 4, 3), (6, 2, 3, 1), {}, "larger than the image"),
        ("locally_connected", (1, 4, 3), (3, 6, 3), {"filters": 2, "kernel_size": (2,)}, "(3, 6, 2)"),
        ("locally_connected", (1, 4, 3), (3, 6, 2), {"filters": 2, "kernel_size": (2, 2)}, "'x' must have"),
        (
            "locally_connected",
            (1, 4, 3),
            (3, 6, 2),
            {"filters": 2, "kernel_size": (2,), "implementation": 4},
            "'implementation' must be 1, 2 or 3",
        ),
        (
            "locally_connected",
            (1, 4, 3),
            (3, 6, 2),
            {"filters": 2, "kernel_size": (2,), "padding": "same"},
            "'padding' must be 'valid' for implementation 1",
        ),
    ],
)
def test_operations_refuse_by_name(operation, x, kernel, more, message):
    with pytest.raises(ValueError, match=rf"{operation}\(\): .*{re.escape(message)}"):
        getattr(lq.ops, operation)(np.zeros(x, np.float32), np.zeros(kernel, np.float32), **more)
