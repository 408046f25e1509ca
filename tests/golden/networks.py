"""Networks for the tables of `models.summary`, built alike from larq with tf.keras and from this library.

Each function takes both modules and returns a built model; a name that begins with "uncounted" marks layers whose
multiply-adds larq does not count.
"""


def convolutions(lq, keras):
    layers = keras.layers
    return keras.models.Sequential(
        [
            lq.layers.QuantConv2D(24, 3, kernel_quantizer="ste_sign", padding="same", input_shape=(20, 28, 3)),
            layers.MaxPooling2D(2),
            lq.layers.QuantDepthwiseConv2D(
                3,
                strides=2,
                input_quantizer=lq.quantizers.SteTern(),
                depthwise_quantizer=lq.quantizers.SteTern(),
                padding="same",
                pad_values=1.0,
                use_bias=False,
            ),
            layers.BatchNormalization(scale=False),
            lq.layers.QuantSeparableConv2D(
                32,
                3,
                input_quantizer="ste_sign",
                depthwise_quantizer="ste_sign",
                pointwise_quantizer="ste_sign",
                padding="same",
            ),
            layers.Flatten(),
            layers.Dense(10, trainable=False),
        ],
        name="convolutions",
    )


def sequences(lq, keras):
    layers = keras.layers
    return keras.models.Sequential(
        [
            lq.layers.QuantConv1D(32, 3, kernel_quantizer="ste_sign", padding="causal", input_shape=(64, 6)),
            layers.MaxPooling1D(2),
            lq.layers.QuantSeparableConv1D(
                16,
                5,
                input_quantizer="ste_sign",
                depthwise_quantizer="ste_sign",
                pointwise_quantizer=lq.quantizers.DoReFa(4, "weights"),
                padding="same",
                strides=2,
            ),
            layers.AveragePooling1D(3),
            layers.BatchNormalization(center=False),
            layers.Flatten(),
            layers.Dense(10, use_bias=False),
        ],
        name="sequences",
    )


def residual(lq, keras):
    layers = keras.layers
    binary = {"input_quantizer": "approx_sign", "kernel_quantizer": "magnitude_aware_sign", "use_bias": False}
    x = inputs = layers.Input((32, 32, 3))
    x = layers.Conv2D(32, 7, strides=2, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    for _ in range(2):
        y = lq.layers.QuantConv2D(32, 3, padding="same", groups=2, **binary)(x)
        y = layers.BatchNormalization(momentum=0.9)(y)
        x = layers.Add()([x, y])
    x = layers.Concatenate()([x, layers.Activation("relu")(x)])
    x = layers.AveragePooling2D(2)(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = lq.layers.QuantDense(100, input_quantizer="ste_sign", kernel_quantizer=lq.quantizers.NoOp(precision=1))(x)
    x = layers.Dense(1000)(x)
    return keras.models.Model(inputs, layers.Softmax()(x), name="residual")


def two_inputs(lq, keras):
    layers = keras.layers
    a, b = layers.Input((6,), name="a"), layers.Input((8, 3), name="b")
    shared = lq.layers.QuantDense(5, input_quantizer="ste_sign", kernel_quantizer="ste_sign", name="shared")
    outputs = [shared(a), layers.Dense(2, name="rows")(b)]
    return keras.models.Model([a, b], outputs, name="two_inputs")


def nested(lq, keras):
    layers = convolutions(lq, keras).layers
    block = keras.models.Sequential(layers[2:5], name="block")
    return keras.models.Sequential([*layers[:2], block, *layers[5:]], name="nested")


def subclassed(lq, keras):
    class Network(keras.models.Model):
        def __init__(self):
            super().__init__(name="subclassed")
            self.conv = lq.layers.QuantConv2D(32, 3, kernel_quantizer="ste_sign", padding="same")
            self.pool = keras.layers.GlobalAveragePooling2D()
            self.dense = keras.layers.Dense(10, activation="softmax")

        def call(self, inputs):
            return self.dense(self.pool(self.conv(inputs)))

    model = Network()
    model.build((None, 16, 16, 1))
    return model


def weightless(lq, keras):
    flatten = keras.layers.Flatten(input_shape=(32, 32))
    return keras.models.Sequential([flatten, keras.layers.Activation("tanh")], name="weightless")


def large(lq, keras):
    dense = lq.layers.QuantDense(3000, kernel_quantizer="ste_tern", input_quantizer="ste_tern", input_shape=(1024,))
    return keras.models.Sequential([dense, lq.layers.QuantDense(2)], name="large")


def uncounted_volumes(lq, keras):
    layers = keras.layers
    return keras.models.Sequential(
        [
            lq.layers.QuantConv3D(4, 3, kernel_quantizer="ste_sign", input_shape=(8, 9, 10, 2)),
            layers.MaxPooling3D(2),
            lq.layers.QuantConv3DTranspose(
                3, 2, strides=2, input_quantizer="ste_sign", kernel_quantizer="ste_sign", padding="same"
            ),
        ],
        name="uncounted_volumes",
    )


def uncounted_images(lq, keras):
    layers = keras.layers
    return keras.models.Sequential(
        [
            lq.layers.QuantConv2DTranspose(4, 3, strides=2, kernel_quantizer="ste_sign", input_shape=(5, 6, 2)),
            lq.layers.QuantLocallyConnected2D(
                3, 2, input_quantizer="ste_sign", kernel_quantizer="ste_sign", strides=2
            ),
            layers.Reshape((-1, 3)),
            lq.layers.QuantLocallyConnected1D(2, 5, kernel_quantizer="ste_tern", implementation=1),
        ],
        name="uncounted_images",
    )


NETWORKS = (
    convolutions,
    sequences,
    residual,
    two_inputs,
    nested,
    subclassed,
    weightless,
    large,
    uncounted_volumes,
    uncounted_images,
)
