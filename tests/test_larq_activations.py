"""Activations by name, their values and gradients."""

import numpy as np
import pytest
from larq_checks import values_around_zero

import bnnlayers as lq
from bnnlayers import keras


@pytest.mark.parametrize("name", ["hard_tanh", "leaky_tanh"])
def test_known_to_keras(name):
    function = getattr(lq.activations, name)
    assert keras.activations.get(name) is function
    assert keras.activations.deserialize(keras.activations.serialize(function)) is function
    assert keras.layers.Dense(2, activation=name).activation is function


def test_hard_tanh(rng):
    x = values_around_zero(rng)
    np.testing.assert_array_equal(lq.activations.hard_tanh(x), np.clip(x, -1, 1))


@pytest.mark.parametrize("alpha", [0.2, 0.5])
def test_leaky_tanh(rng, alpha):
    x = values_around_zero(rng)
    expected = np.clip(x, -1, 1) + alpha * (x - np.clip(x, -1, 1))
    np.testing.assert_allclose(lq.activations.leaky_tanh(x, alpha), expected, rtol=1e-6)


@pytest.mark.parametrize(("function", "slope", "at_one"), [("hard_tanh", 0, 1), ("leaky_tanh", 0.2, 1.2)])
def test_gradients(rng, function, slope, at_one):
    x = lq.Variable(np.append(values_around_zero(rng), np.float32([1, -1])))
    with lq.GradientTape() as tape:
        y = getattr(lq.activations, function)(x)
    expected = np.where(np.abs(x) <= 1, 1, slope)
    expected[-2:] = at_one
    np.testing.assert_array_equal(tape.gradient(y, x), np.float32(expected))
