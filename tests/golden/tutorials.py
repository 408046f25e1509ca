"""The networks by which training is measured, the two of larq_zoo for small images."""


def mnist(lq, keras, classes):
    binary = dict(
        input_quantizer="ste_sign", kernel_quantizer="ste_sign", kernel_constraint="weight_clip", use_bias=False
    )
    norm = keras.layers.BatchNormalization
    shape = (28, 28, 1)
    layers = [
        lq.layers.QuantConv2D(32, 3, **{**binary, "input_quantizer": None}, input_shape=shape),
        keras.layers.MaxPooling2D(2),
        norm(scale=False),
        lq.layers.QuantConv2D(64, 3, **binary),
        keras.layers.MaxPooling2D(2),
        norm(scale=False),
        lq.layers.QuantConv2D(64, 3, **binary),
        norm(scale=False),
        keras.layers.Flatten(),
        lq.layers.QuantDense(64, **binary),
        norm(scale=False),
        lq.layers.QuantDense(classes, **binary),
        norm(scale=False),
        keras.layers.Activation("softmax"),
    ]
    return keras.models.Sequential(layers), shape


def binarynet(lq, keras, classes):
    binary = dict(
        input_quantizer="ste_sign", kernel_quantizer="ste_sign", kernel_constraint="weight_clip", use_bias=False
    )
    shape = (32, 32, 3)

    def norm():
        return keras.layers.BatchNormalization(momentum=0.999, scale=False)

    layers = [lq.layers.QuantConv2D(128, 3, **{**binary, "input_quantizer": None}, input_shape=shape), norm()]
    for filters, pooled in ((128, True), (256, False), (256, True), (512, False), (512, True)):
        layers.append(lq.layers.QuantConv2D(filters, 3, padding="same", **binary))
        layers += [keras.layers.MaxPooling2D(2), norm()] if pooled else [norm()]
    layers.append(keras.layers.Flatten())
    for units in (1024, 1024, classes):
        layers += [lq.layers.QuantDense(units, **binary), norm()]
    layers.append(keras.layers.Activation("softmax"))
    return keras.models.Sequential(layers), shape


def quicknet(lq, keras, classes):
    from bnnlayers import zoo

    shape = (64, 64, 3)
    return zoo.sota.QuickNet(input_shape=shape, num_classes=classes, weights=None), shape


def densenet(lq, keras, classes):
    from bnnlayers import zoo

    shape = (64, 64, 3)
    return zoo.literature.BinaryDenseNet28(input_shape=shape, num_classes=classes, weights=None), shape


NETWORKS = {"MNIST": mnist, "CIFAR-10": binarynet, "QuickNet": quicknet, "BinaryDenseNet28": densenet}
