"""`sign` and `heaviside`."""

import numpy as np
import pytest
from larq_checks import values_around_zero

import bnnlayers as lq


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sign(rng, dtype):
    x = values_around_zero(rng).astype(dtype)
    y = lq.math.sign(x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, np.where(x < 0, -1, 1))
    np.testing.assert_array_equal(lq.math.sign(y), y)
    np.testing.assert_array_equal(lq.math.sign(dtype([0, -0.0])), [1, 1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_heaviside(rng, dtype):
    x = values_around_zero(rng).astype(dtype)
    y = lq.math.heaviside(x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, x > 0)
    np.testing.assert_array_equal(lq.math.heaviside(y), y)


@pytest.mark.parametrize("function", [lq.math.sign, lq.math.heaviside])
def test_steps_have_no_gradient(function, rng):
    x = lq.Variable(values_around_zero(rng))
    with lq.GradientTape() as tape:
        y = function(x)
    np.testing.assert_array_equal(tape.gradient(y, x), np.zeros(x.shape))


@pytest.mark.parametrize("function", [lq.math.sign, lq.math.heaviside])
def test_steps_of_integers_are_refused(function):
    with pytest.raises(TypeError):
        function(np.arange(3))
