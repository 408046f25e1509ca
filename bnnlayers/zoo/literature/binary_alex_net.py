"""AlexNet with every weight and every activation but the image binary."""

from __future__ import annotations

from typing import Any

from ...keras import layers
from ...layers import QuantConv2D
from ..core import File, Published, architecture


def _convolution(x: Any, filters: int, kernel_size: int, pool: bool = False, **kwargs: Any) -> Any:
    options: dict[str, Any] = {"input_quantizer": "ste_sign", **kwargs}
    x = QuantConv2D(
        filters, kernel_size, kernel_quantizer="ste_sign", kernel_constraint="weight_clip", use_bias=False, **options
    )(x)
    if pool:
        x = layers.MaxPooling2D(3, strides=2)(x)
    return layers.BatchNormalization(momentum=0.9, scale=False)(x)


@architecture(
    "binary_alexnet",
    Published(
        File(
            "binary_alexnet-v0.3.0",
            "binary_alexnet_weights.h5",
            "7fc065c47c5c1d92389e0bb988ce6df6a4fa09d803b866e2ba648069d6652d63",
        ),
        File(
            "binary_alexnet-v0.2.1",
            "binary_alexnet_weights_notop.h5",
            "1d41b33ff39cd28d13679392641bf7711174a96d182417f91df45d0548f5bb47",
        ),
    ),
)
def BinaryAlexNet(image: Any, num_classes: int | None) -> Any:
    """AlexNet with binary weights and activations: five convolutions and three dense layers.

    References
    ----------
    Hubara et al., "Binarized Neural Networks", NIPS 2016.
    """
    x = _convolution(image, 64, 11, strides=4, padding="same", pool=True, input_quantizer=None)
    x = _convolution(x, 192, 5, padding="same", pool=True)
    x = _convolution(x, 384, 3, padding="same")
    x = _convolution(x, 384, 3, padding="same")
    x = _convolution(x, 256, 3, padding="same", pool=True)
    if num_classes is not None:
        rows, columns, channels = x.shape[1:]
        x = layers.Reshape((1, 1, rows * columns * channels))(x)
        for units in (4096, 4096, num_classes):
            x = _convolution(x, units, 1)
        x = layers.Flatten()(x)
        x = layers.Activation("softmax", dtype="float32")(x)
    return x
