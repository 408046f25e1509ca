"""`WeightClip`, by name and as the constraint of a trained kernel."""

import numpy as np
import pytest
from larq_checks import values_around_zero

import bnnlayers as lq
from bnnlayers import keras


@pytest.mark.parametrize("identifier", ["weight_clip", "WeightClip"])
def test_known_to_keras(identifier):
    clip = keras.constraints.get(identifier)
    assert type(clip) is lq.constraints.WeightClip is lq.constraints.weight_clip
    assert clip.clip_value == 1
    again = keras.constraints.deserialize(keras.constraints.serialize(lq.constraints.WeightClip(0.5)))
    assert again.clip_value == 0.5


def test_clip(rng):
    x = values_around_zero(rng)
    clipped = lq.constraints.weight_clip(clip_value=0.75)(lq.Variable(x))
    np.testing.assert_array_equal(clipped, np.clip(x, np.float32(-0.75), np.float32(0.75)))


def test_clips_the_latent_weights(rng):
    layer = lq.layers.QuantDense(4, kernel_quantizer="ste_sign", kernel_constraint=lq.constraints.WeightClip(0.5))
    model = keras.models.Sequential([keras.layers.Input((6,)), layer])
    model.compile(keras.optimizers.SGD(10.0), "mse")
    model.train_on_batch(rng.normal(size=(8, 6)), rng.normal(size=(8, 4)))
    assert np.abs(layer.kernel.numpy()).max() == 0.5


def test_clip_of_a_subclass_is_its_own():
    class Halved(lq.constraints.WeightClip):
        def __call__(self, x):
            return super().__call__(x) / 2

    for constraint, expected in ((lq.constraints.WeightClip(0.5), [0.5, -0.5]), (Halved(0.5), [0.25, -0.25])):
        variable = lq.Variable([3.0, -3.0], constraint=constraint)
        before = variable.value()
        keras.optimizers.SGD(0.1).apply_gradients([(np.float32([1, 1]), variable)])
        np.testing.assert_array_equal(variable, expected)
        np.testing.assert_array_equal(before, [3, -3])
