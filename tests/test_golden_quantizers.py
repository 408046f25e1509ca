"""Quantizers, sign functions and activations against larq: values and pseudo-gradients."""

import numpy as np
import pytest
from golden.archive import read, resolve
from golden.checks import EPS, assert_equal

import bnnlayers as lq

QUANTIZERS = ("ste_sign", "approx_sign", "SteSign", "ApproxSign", "NoOp")
FUNCTIONS = ("math.sign", "activations.hard_tanh")

# Values that are rounded numbers, not integers, and gradients that go through a library function.
ROUNDED = {"magnitude_aware_sign": 4, "MagnitudeAwareSign": 4, "swish_sign": 16, "SwishSign": 16}
ROUNDED |= {"dorefa_quantizer": 4, "DoReFa": 16, "approx_sign": 2, "ApproxSign": 2, "leaky_tanh": 4}


def name_of(spec):
    return spec if isinstance(spec, str) else spec.get("function") or spec["class_name"]


def select(cases, names, key):
    return [case for case in cases if key(case) in names]


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
            np.testing.assert_allclose(np.asarray(value), expected, ROUNDED[name] * EPS, 1e-36)
            assert value.dtype == expected.dtype
        else:
            assert_equal(value, expected)


@pytest.mark.parametrize(
    "case",
    select(read("quantizers"), QUANTIZERS, lambda case: name_of(case["quantizer"])),
    ids=repr,
)
def test_quantizer(case):
    quantizer = lq.quantizers.get(resolve(case["quantizer"], lq.quantizers))
    assert getattr(quantizer, "precision", None) == case["precision"]
    compare(quantizer, case, name_of(case["quantizer"]))


@pytest.mark.parametrize(
    "case",
    select(read("elementwise"), FUNCTIONS, lambda case: f"{case['module']}.{case['function']}"),
    ids=repr,
)
def test_elementwise(case):
    function = getattr(getattr(lq, case["module"]), case["function"])
    compare(lambda x: function(x, **case["kwargs"]), case, case["function"])
