"""BinaryResNetE: a ResNet of binary convolutions, each with a shortcut of its own."""

from __future__ import annotations

from typing import Any

from ...constraints import WeightClip
from ...keras import layers
from ...layers import QuantConv2D
from ...quantizers import SteSign
from ..core import File, Published, architecture, global_pool, small


def _norm(x: Any) -> Any:
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def _block(x: Any, filters: int, strides: int) -> Any:
    shortcut = x
    if x.shape[-1] != filters:
        shortcut = layers.AveragePooling2D(2, strides=2)(shortcut)
        shortcut = _norm(layers.Conv2D(filters, 1, kernel_initializer="glorot_normal", use_bias=False)(shortcut))
    x = QuantConv2D(
        filters,
        3,
        strides=strides,
        padding="same",
        input_quantizer=SteSign(1.25),
        kernel_quantizer=SteSign(1.25),
        kernel_initializer="glorot_normal",
        kernel_constraint=WeightClip(1.25),
        use_bias=False,
    )(x)
    return layers.add([_norm(x), shortcut])


@architecture(
    "binary_resnet_e_18",
    Published(
        File(
            "resnet_e-v0.1.0",
            "resnet_e_18_weights.h5",
            "bde4a64d42c164a7b10a28debbe1ad5b287c499bc0247ecb00449e6e89f3bf5b",
        ),
        File(
            "resnet_e-v0.1.0",
            "resnet_e_18_weights_notop.h5",
            "14cb037e47d223827a8d09db88ec73d60e4153a4464dca847e5ae1a155e7f525",
        ),
    ),
)
def BinaryResNetE18(image: Any, num_classes: int | None) -> Any:
    """BinaryResNetE of 18 layers.

    Images of fewer than 50 rows are not reduced before the first block.

    References
    ----------
    Bethge et al., "Back to Simplicity: How to Train Accurate BNNs from Scratch?", arXiv:1906.08637.
    """
    first = {"padding": "same", "kernel_initializer": "he_normal", "use_bias": False}
    if small(image):
        x = layers.Conv2D(64, 3, **first)(image)
    else:
        x = _norm(layers.Conv2D(64, 7, strides=2, **first)(image))
        x = layers.Activation("relu")(x)
        x = _norm(layers.MaxPooling2D(3, strides=2, padding="same")(x))
    for section, filters in enumerate((64, 128, 256, 512)):
        for block in range(4):
            x = _block(x, filters, strides=2 if section and not block else 1)
    x = layers.Activation("relu")(x)
    if num_classes is not None:
        x = layers.Dense(num_classes, kernel_initializer="glorot_normal")(global_pool(x))
        x = layers.Activation("softmax", dtype="float32")(x)
    return x
