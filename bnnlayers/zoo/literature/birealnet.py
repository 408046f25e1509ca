"""Bi-Real Net: a shortcut around every binary convolution keeps the real activations."""

from __future__ import annotations

from typing import Any

from ...keras import layers
from ...layers import QuantConv2D
from ..core import File, Published, architecture, global_pool

_INITIALIZER = "glorot_normal"


def _norm(x: Any) -> Any:
    return layers.BatchNormalization(momentum=0.8)(x)


def _block(x: Any, filters: int) -> Any:
    """A binary convolution and its shortcut, which pools and widens where the filters become more."""
    shortcut, strides = x, 1
    if x.shape[-1] != filters:
        strides = 2
        shortcut = layers.AveragePooling2D(2, strides=2, padding="same")(shortcut)
        shortcut = _norm(layers.Conv2D(filters, 1, kernel_initializer=_INITIALIZER, use_bias=False)(shortcut))
    x = QuantConv2D(
        filters,
        3,
        strides=strides,
        padding="same",
        input_quantizer="approx_sign",
        kernel_quantizer="magnitude_aware_sign",
        kernel_initializer=_INITIALIZER,
        kernel_constraint="weight_clip",
        use_bias=False,
    )(x)
    return layers.add([_norm(x), shortcut])


@architecture(
    "birealnet18",
    Published(
        File(
            "birealnet-v0.3.0",
            "birealnet_weights.h5",
            "6e6efac1584fcd60dd024198c87f42eb53b5ec719a5ca1f527e1fe7e8b997117",
        ),
        File(
            "birealnet-v0.3.0",
            "birealnet_weights_notop.h5",
            "5148b61c0c2a1094bdef811f68bf4957d5ba5f83ad26437b7a4a6855441ab46b",
        ),
    ),
)
def BiRealNet(image: Any, num_classes: int | None) -> Any:
    """Bi-Real Net of 18 layers.

    References
    ----------
    Liu et al., "Bi-Real Net: Enhancing the Performance of 1-bit CNNs With Improved Representational Capability and
    Advanced Training Algorithm", ECCV 2018, arXiv:1808.00278.
    """
    x = layers.Conv2D(64, 7, strides=2, padding="same", kernel_initializer=_INITIALIZER, use_bias=False)(image)
    x = layers.MaxPooling2D(3, strides=2, padding="same")(_norm(x))
    for filters in (64, 128, 256, 512):
        for _ in range(4):
            x = _block(x, filters)
    if num_classes is not None:
        x = layers.Dense(num_classes)(global_pool(x))
        x = layers.Activation("softmax", dtype="float32")(x)
    return x
