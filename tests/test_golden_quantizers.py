"""Quantizers, sign functions and activations against larq: values and pseudo-gradients."""

import numpy as np
import pytest
from golden.archive import read, resolve
from golden.checks import EPS, assert_equal

import bnnlayers as lq

# Values that are rounded numbers, not integers, and gradients that go through a library function.
ROUNDED = {"magnitude_aware_sign": 4, "MagnitudeAwareSign": 4, "swish_sign": 16, "SwishSign": 16}
ROUNDED |= {"dorefa_quantizer": 4, "DoReFa": 16, "approx_sign": 2, "ApproxSign": 2, "leaky_tanh": 4}


def name_of(spec):
    return spec if isinstance(spec, str) else spec.get("function") or spec["class_name"]


def cancelled(name, case):
    """Magnitude of the terms of a gradient that is a difference, whose error does not shrink with it."""
    x, dy = (case.arrays[key].astype(np.float64) for key in ("x", "dy"))
    if name in ("swish_sign", "SwishSign"):
        beta = case["quantizer"].get("config", {}).get("beta", 5.0) if isinstance(case["quantizer"], dict) else 5.0
        with np.errstate(all="ignore"):
            return np.abs(dy) * beta * (2 + np.abs(beta * x)) / (1 + np.cosh(beta * x))
    if name == "DoReFa":  # 1 - tanh(x)^2, of which the greatest tanh is divided off
        return np.abs(dy) / max(np.nanmax(np.abs(np.tanh(x))), 1e-30)
    return 0.0


def compare(function, case, name):
    x = lq.constant(case.arrays["x"])
    with lq.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    dx = tape.gradient(y, x, output_gradients=case.arrays["dy"])
    for key, value in (("y", y), ("dx", dx)):
        expected = case.arrays.get(key)
        if value is None or expected is None:
            assert value is expected, key
        elif name in ROUNDED:
            atol = 1e-36 + (ROUNDED[name] * EPS * cancelled(name, case) if key == "dx" else 0.0)
            value, atol = np.asarray(value), np.broadcast_to(atol, expected.shape)
            finite = np.isfinite(expected)
            assert_equal(value[~finite], expected[~finite])
            error = np.abs(value[finite] - expected[finite])
            assert np.all(error <= ROUNDED[name] * EPS * np.abs(expected[finite]) + atol[finite]), error.max()
            assert value.dtype == expected.dtype
        else:
            assert_equal(value, expected)


@pytest.mark.parametrize("case", read("quantizers"), ids=repr)
def test_quantizer(case):
    quantizer = lq.quantizers.get(resolve(case["quantizer"], lq.quantizers))
    assert getattr(quantizer, "precision", None) == case["precision"]
    compare(quantizer, case, name_of(case["quantizer"]))


@pytest.mark.parametrize("case", read("elementwise"), ids=repr)
def test_elementwise(case):
    function = getattr(getattr(lq, case["module"]), case["function"])
    compare(lambda x: function(x, **case["kwargs"]), case, case["function"])
