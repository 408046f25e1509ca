"""Networks whose training is recorded, built alike from larq with TensorFlow and from this library.

Each function takes the three modules and returns a model and the arguments of `compile`. Weights and data follow from
names alone, so no file holds them.

    python tests/golden/trainable.py        # writes data/ours.h5, with this library
"""

import zlib

import numpy as np

STEPS, BATCH = 5, 16
FRESH = {"gamma": 1.0, "beta": 0.0, "bias": 0.0, "scale": 1.0, "moving_mean": 0.0, "moving_variance": 1.0}
BINARY = {
    "input_quantizer": "ste_sign",
    "kernel_quantizer": "ste_sign",
    "kernel_constraint": "weight_clip",
    "use_bias": False,
}


def numbers(name, shape):
    """Multiples of 2^-16 in [-1, 1), the same with every version of NumPy."""
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw(int(np.prod(shape)))
    return ((raw >> np.uint64(47)).astype(np.float32) / 2**16 - 1).reshape(shape).astype(np.float32)


def classes(name, count, kinds):
    return ((numbers(name, (count,)) + 1) / 2 * kinds).astype(np.int32)


def start(model):
    """Kernels within Glorot's limits, everything else as new."""
    weights = []
    for i, variable in enumerate(model.weights):
        kind = variable.name.split("/")[-1].split(":")[0]
        shape = tuple(variable.shape)
        if kind in FRESH:
            weights.append(np.full(shape, FRESH[kind], np.float32))
        else:
            limit = np.float32(np.sqrt(6 / (np.prod(shape[:-2]) * (shape[-2] + shape[-1]))))
            weights.append(numbers(f"{model.name}/{i}", shape) * limit)
    model.set_weights(weights)


def batches(name):
    """The (x, y) of each step."""

    def x(step, *shape):
        return numbers(f"{name}/x/{step}/{len(shape)}", (BATCH, *shape))

    def y(step, kinds):
        return classes(f"{name}/y/{step}", BATCH, kinds)

    makers = {
        "binarynet": lambda step: (x(step, 32, 32, 3), np.eye(10, dtype=np.float32)[y(step, 10)]),
        "residual": lambda step: (x(step, 8, 8, 3), y(step, 5)),
        "two_inputs": lambda step: ([x(step, 8, 8, 1), x(step, 6)], [y(step, 3), x(step, 1)]),
        "subclassed": lambda step: (x(step, 12), y(step, 4)),
    }
    return [makers[name](step) for step in range(STEPS)]


def trained(model, compilation, data):
    """Losses and metrics of each step, samples of the weights after the last."""
    model.compile(**compilation)
    arrays = {"history": np.array([model.train_on_batch(*batch) for batch in data], np.float32)}
    return arrays | {f"after{i}": sample(weight) for i, weight in enumerate(model.get_weights())}


def sample(array):
    return array.ravel()[:: 41 if array.size > 1024 else 1]


def binarynet(lq, tf, keras):
    """The network of larq's CIFAR-10 tutorial, an eighth as wide."""
    layers = keras.layers

    def norm():
        return layers.BatchNormalization(momentum=0.999, scale=False)

    first = {**BINARY, "input_quantizer": None, "input_shape": (32, 32, 3)}
    model = keras.models.Sequential([lq.layers.QuantConv2D(16, 3, **first), norm()], name="binarynet")
    for filters, pool in ((16, True), (32, False), (32, True), (64, False), (64, True)):
        model.add(lq.layers.QuantConv2D(filters, 3, padding="same", **BINARY))
        if pool:
            model.add(layers.MaxPooling2D(2, 2))
        model.add(norm())
    model.add(layers.Flatten())
    for units in (128, 128, 10):
        model.add(lq.layers.QuantDense(units, **BINARY))
        model.add(norm())
    model.add(layers.Activation("softmax"))
    optimizer = keras.optimizers.legacy.Adam(lr=0.01, decay=0.0001)
    return model, {"optimizer": optimizer, "loss": "categorical_crossentropy", "metrics": ["accuracy"]}


def residual(lq, tf, keras):
    layers = keras.layers
    binary = {"input_quantizer": "approx_sign", "kernel_quantizer": "magnitude_aware_sign", "use_bias": False}
    inputs = layers.Input((8, 8, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    for i in range(2):
        y = lq.layers.QuantConv2D(
            16, 3, padding="same", pad_values=1.0, kernel_constraint="weight_clip", name=f"conv{i}", **binary
        )(x)
        y = layers.BatchNormalization(momentum=0.9, name=f"norm{i}")(y)
        x = layers.Add(name=f"add{i}")([x, y])
    x = layers.Activation("relu", name="relu")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(5, activation="softmax", kernel_regularizer="l2", name="head")(x)
    model = keras.models.Model(inputs, x, name="residual")
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True)
    return model, {"optimizer": optimizer, "loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}


def two_inputs(lq, tf, keras):
    layers = keras.layers
    image, table = layers.Input((8, 8, 1), name="image"), layers.Input((6,), name="table")
    # No bias before a batch normalization: its gradient is rounding noise.
    x = lq.layers.QuantConv2D(8, 3, kernel_quantizer="ste_tern", use_bias=False, name="conv")(image)
    x = layers.Flatten(name="flat")(layers.MaxPooling2D(2, name="pool")(x))
    y = lq.layers.QuantDense(8, kernel_quantizer="dorefa_quantizer", use_bias=False, name="dense")(table)
    x = layers.BatchNormalization(name="norm")(layers.Concatenate(name="both")([x, y]))
    x = lq.layers.QuantDense(12, input_quantizer="swish_sign", kernel_quantizer="ste_sign", name="shared")(x)
    outputs = [layers.Dense(3, activation="softmax", name="kind")(x), layers.Dense(1, name="size")(x)]
    model = keras.models.Model([image, table], outputs, name="two_inputs")
    model.add_loss(0.01 * tf.reduce_mean(tf.abs(x)))
    return model, {
        "optimizer": keras.optimizers.RMSprop(0.01),
        "loss": {"kind": "sparse_categorical_crossentropy", "size": "mse"},
        "loss_weights": {"kind": 1.0, "size": 0.25},
        "metrics": {"kind": ["accuracy"], "size": ["mae"]},
    }


def subclassed(lq, tf, keras):
    class Scale(keras.layers.Layer):
        def build(self, input_shape):
            self.scale = self.add_weight("scale", shape=input_shape[-1:], initializer="ones")

        def call(self, inputs):
            outputs = inputs * self.scale
            self.add_loss(0.01 * tf.reduce_mean(tf.abs(outputs)))
            return outputs

    class Network(keras.models.Model):
        def __init__(self):
            super().__init__(name="subclassed")
            self.first = lq.layers.QuantDense(16, **{**BINARY, "input_quantizer": None})
            self.norm = keras.layers.BatchNormalization()
            self.scale = Scale()
            self.last = lq.layers.QuantDense(4, **BINARY)

        def call(self, inputs, training=False):
            return self.last(self.scale(self.norm(self.first(inputs), training=training)))

    model = Network()
    model.build((None, 12))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return model, {"optimizer": keras.optimizers.Adam(0.01), "loss": loss, "metrics": ["accuracy"]}


NETWORKS = (binarynet, residual, two_inputs, subclassed)


if __name__ == "__main__":
    from archive import DATA

    import bnnlayers
    from bnnlayers import keras

    model, compilation = residual(bnnlayers, bnnlayers, keras)
    start(model)
    trained(model, compilation, batches("residual"))
    model.save(DATA / "ours.h5")
