"""Quantized layers against larq: output, losses and every gradient."""

import numpy as np
import pytest
from golden.archive import read, resolve
from golden.checks import assert_close, assert_equal, tolerance

import bnnlayers as lq
from bnnlayers import keras

FILES = (
    "QuantDense",
    "QuantDense_quantizers",
    "QuantConv1D",
    "QuantConv2D",
    "QuantConv2D_quantizers",
    "QuantConv3D",
    "QuantDepthwiseConv2D",
    "QuantSeparableConv1D",
    "QuantSeparableConv2D",
    "QuantConv2DTranspose",
    "QuantConv3DTranspose",
    "QuantLocallyConnected1D",
    "QuantLocallyConnected2D",
)

CASES = [case for file in FILES for case in read(file)]


def build(case):
    spaces = {"quantizer": lq.quantizers, "regularizer": keras.regularizers}
    kwargs = {name: resolve(value, spaces.get(name.rsplit("_", 1)[-1])) for name, value in case["kwargs"].items()}
    layer = getattr(lq.layers, case["layer"])(**kwargs)
    layer.build(case.arrays["x"].shape)
    layer.set_weights([case.arrays[f"w{i}"] for i in range(len(case["weights"]))])
    return layer


def bounds(case):
    """Tolerance of each array, from the lengths of its sums and the size of what is summed."""
    arrays, depth = case.arrays, case["depth"]
    largest = {name: np.abs(array).max(initial=0) for name, array in arrays.items()}
    x = max(1, largest["x"])
    weights = {f"w{i}": name for i, name in enumerate(case["weights"])}
    kernel = np.prod([max(1, largest[w]) for w, name in weights.items() if name != "bias"])
    # Pseudo-gradients exceed one: approx_sign reaches 2, swish_sign its beta, DoReFa 1 / max tanh.
    slope = 10 if "wish" in str(case["kwargs"]) else 2
    dy = largest["dy"] + (largest["y"] if case["kwargs"]["activity_regularizer"] else 0)
    found = {"y": tolerance(depth["y"], x * kernel), "dx": tolerance(depth["dx"], dy * kernel * slope)}
    for w, name in weights.items():
        term = dy if name == "bias" else dy * x * kernel * slope
        found[f"d{w}"] = tolerance(depth[f"d{w}"], term) + tolerance(1, largest[w])
    everything = sum(array.size for array in arrays.values())
    found["losses"] = tolerance(np.sqrt(everything), largest["losses"])
    return found


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_layer(case):
    layer = build(case)
    x = lq.constant(case.arrays["x"])
    with lq.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        losses = list(layer.losses)
        target = lq.reduce_sum(y * case.arrays["dy"])
        for loss in losses:
            target = target + loss
    dx, *dweights = tape.gradient(target, [x, *layer.trainable_weights])

    got = {"y": y.numpy(), "dx": dx}
    got |= {f"dw{i}": dw for i, dw in enumerate(dweights)}
    bound = bounds(case)
    for name, value in got.items():
        expected = case.arrays[name]
        value = np.zeros_like(expected) if value is None else value
        if name in case["exact"]:
            assert_equal(value, expected, name)
        else:
            assert_close(value, expected, bound[name], name=name)
    total = np.float32(sum(float(loss) for loss in losses))
    assert_close(total, np.float32(case.arrays["losses"].sum()), bound["losses"], name="losses")


@pytest.mark.parametrize("case", CASES[::5], ids=repr)
def test_inference_and_shape(case):
    """Without a tape the same output; the promised shape is the real one."""
    layer = build(case)
    x = case.arrays["x"]
    traced = lq.constant(x)
    with lq.GradientTape() as tape:
        tape.watch(traced)
        y = layer(traced)
    np.testing.assert_array_equal(np.asarray(layer(x)), np.asarray(y), strict=True)
    assert tuple(layer.compute_output_shape(x.shape)) == y.shape


@pytest.mark.parametrize("case", CASES[::5], ids=repr)
def test_config(case):
    """A layer made from the configuration of another computes the same."""
    layer = build(case)
    twin = type(layer).from_config(layer.get_config())
    twin.build(case.arrays["x"].shape)
    twin.set_weights(layer.get_weights())
    x = case.arrays["x"]
    np.testing.assert_array_equal(np.asarray(twin(x)), np.asarray(layer(x)), strict=True)
