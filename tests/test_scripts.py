"""Scripts for larq as they are found, with two imports changed."""

import numpy as np

import bnnlayers as lq
import bnnlayers as tf


def data():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((128, 12)).astype("float32")
    return x, (x[:, 0] > x[:, 1]).astype("int32")


def test_training_by_hand():
    tf.keras.utils.set_random_seed(0)
    x, y = data()
    kwargs = dict(kernel_quantizer="ste_sign", kernel_constraint="weight_clip", use_bias=False)
    model = tf.keras.models.Sequential(
        [
            lq.layers.QuantDense(64, input_shape=(12,), **kwargs),
            tf.keras.layers.BatchNormalization(momentum=0.9, scale=False),
            lq.layers.QuantDense(2, input_quantizer="ste_sign", **kwargs),
            tf.keras.layers.BatchNormalization(momentum=0.9, scale=False),
        ]
    )
    loss_fn = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = tf.keras.optimizers.Adam(learning_rate=0.01)
    losses = []
    for _ in range(20):
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            loss = loss_fn(y, logits) + tf.reduce_sum(model.losses or [0.0])
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        losses.append(float(loss))
    assert losses[-1] < 0.7 * losses[0]
    assert optimizer.iterations == 20


def test_subclassed_model_with_a_train_step():
    @lq.utils.register_keras_custom_object
    @tf.custom_gradient
    def clipped_sign(x):
        def grad(dy):
            return tf.where(tf.abs(x) < 1.0, dy, tf.zeros_like(dy))

        return tf.sign(x), grad

    class Model(tf.keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = lq.layers.QuantDense(32, kernel_quantizer=clipped_sign)
            self.norm = tf.keras.layers.BatchNormalization()
            self.out = lq.layers.QuantDense(1, input_quantizer="clipped_sign")

        def call(self, inputs, training=False):
            return self.out(self.norm(self.hidden(inputs), training=training))

        def train_step(self, data):
            x, y = data[:2]
            with tf.GradientTape() as tape:
                difference = tf.reshape(self(x, training=True), (-1,)) - tf.cast(y, tf.float32)
                loss = tf.reduce_mean(tf.square(difference))
            gradients = tape.gradient(loss, self.trainable_weights)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
            return {"loss": loss}

    tf.keras.utils.set_random_seed(0)
    model = Model()
    model.compile(optimizer=tf.keras.optimizers.Adam(0.01), loss="mse")
    losses = model.fit(*data(), epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_functions_of_tensorflow():
    x = tf.constant([[-1.5, 0.0, 2.0]])
    for name in ("abs", "exp", "sign", "square", "tanh"):
        np.testing.assert_array_equal(getattr(tf, name)(x), getattr(np, name)(np.asarray(x)))
    np.testing.assert_array_equal(tf.maximum(x, 1.0), [[1, 1, 2]])
    np.testing.assert_array_equal(tf.minimum(x, 1.0), [[-1.5, 0, 1]])
    np.testing.assert_array_equal(tf.matmul(x, tf.reshape(x, (-1, 1))), [[6.25]])
    assert tf.cast(x, tf.int32).dtype == np.int32 and tf.ones_like(x, tf.float64).dtype == np.float64
    v = tf.Variable([2.0, 9.0])
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(tf.sqrt(v) + tf.maximum(v, 4.0))
    np.testing.assert_allclose(tape.gradient(y, v), [0.5 / np.sqrt(2), 1 + 1 / 6], 1e-6)
    inputs = tf.keras.Input((3,))
    model = tf.keras.Model(inputs, tf.sign(tf.square(inputs) - 1.0))
    np.testing.assert_array_equal(model(x), [[1, -1, 1]])
