"""QuickNets: residual blocks that stay binary and fast, with a cheap stem and anti-aliased transitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...constraints import WeightClip
from ...keras import layers
from ...layers import QuantConv2D, QuantDense, QuantDepthwiseConv2D
from ...quantizers import SteSign
from ...utils import register_keras_custom_object
from ..core import File, Published, architecture, global_pool

_BINOMIAL = {2: (1, 1), 3: (1, 2, 1), 5: (1, 4, 6, 4, 1)}


@register_keras_custom_object
def blurpool_initializer(shape: Sequence[int], dtype: Any = None) -> Any:
    """A blur of binomial coefficients for every channel of a depthwise kernel (size, size, channels, 1).

    Raises
    ------
    ValueError
        If the size is not 2, 3 or 5.

    References
    ----------
    Zhang, "Making Convolutional Networks Shift-Invariant Again", arXiv:1904.11486.
    """
    if shape[0] not in _BINOMIAL:
        raise ValueError(f"blurpool_initializer(): argument 'shape' must begin with 2, 3 or 5, got {tuple(shape)}")
    line = np.array(_BINOMIAL[shape[0]], dtype or np.float32)
    line /= line.sum()
    return np.broadcast_to(np.outer(line, line)[:, :, None, None], shape).copy()


def _norm(x: Any) -> Any:
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def _stem(image: Any, filters: int) -> Any:
    halving: dict[str, Any] = {"padding": "same", "strides": 2, "use_bias": False}
    x = QuantConv2D(filters // 4, 3, kernel_initializer="he_normal", **halving)(image)
    x = layers.Activation("relu")(layers.BatchNormalization()(x))
    x = QuantDepthwiseConv2D(3, **halving)(x)
    x = layers.BatchNormalization(scale=False, center=False)(x)
    x = QuantConv2D(filters, 1, kernel_initializer="he_normal", use_bias=False)(x)
    return layers.BatchNormalization()(x)


def _residual(x: Any) -> Any:
    new = QuantConv2D(
        x.shape[-1],
        3,
        padding="same",
        pad_values=1.0,
        activation="relu",
        input_quantizer=SteSign(1.25),
        kernel_quantizer=SteSign(1.25),
        kernel_initializer="glorot_normal",
        kernel_constraint=WeightClip(1.25),
        use_bias=False,
    )(x)
    return _norm(new) + x


def _transition(x: Any, filters: int) -> Any:
    """Half the resolution and other channels, blurred in between."""
    x = layers.Activation("relu")(x)
    x = layers.MaxPooling2D(2, strides=1)(x)
    x = layers.DepthwiseConv2D(
        3,
        strides=2,
        padding="same",
        depthwise_initializer=blurpool_initializer,
        use_bias=False,
        trainable=False,
    )(x)
    return _norm(QuantConv2D(filters, 1, kernel_initializer="glorot_normal", use_bias=False)(x))


def _draw(
    image: Any,
    num_classes: int | None,
    blocks: Sequence[int] = (4, 4, 4, 4),
    filters: Sequence[int] = (64, 128, 256, 512),
) -> Any:
    x = _stem(image, filters[0])
    for count, width in zip(blocks, filters, strict=True):
        if width != x.shape[-1]:
            x = _transition(x, width)
        for _ in range(count):
            x = _residual(x)
    if num_classes is not None:
        x = global_pool(layers.Activation("relu")(x))
        x = QuantDense(num_classes, kernel_initializer="glorot_normal")(x)
        x = layers.Activation("softmax", dtype="float32")(x)
    return x


def _published(name: str, top: str, no_top: str) -> Published:
    return Published(
        File("quicknet-v1.0", f"{name}_weights.h5", top), File("quicknet-v1.0", f"{name}_weights_notop.h5", no_top)
    )


@architecture(
    "quicknet",
    _published(
        "quicknet",
        "8aba9e4e5f8d342faef04a0b2ae8e562da57dbb7d15162e8b3e091c951ba756c",
        "204414e438373f14f6056a1c098249f505a87dd238e18d3a47a9bd8b66227881",
    ),
)
def QuickNet(image: Any, num_classes: int | None) -> Any:
    """QuickNet with four residual blocks in each section.

    References
    ----------
    Bannink et al., "Larq Compute Engine: Design, Benchmark, and Deploy State-of-the-Art Binarized Neural Networks",
    MLSys 2021, arXiv:2011.09398.
    """
    return _draw(image, num_classes)


@architecture(
    "quicknet_small",
    _published(
        "quicknet_small",
        "1ac3b07df7f5a911dd0b49febb2486428ddf1ca130297c403815dfae5a1c71a2",
        "be8ba657155846be355c5580d1ea56eaf8282616de065ffc39257202f9f164ea",
    ),
)
def QuickNetSmall(image: Any, num_classes: int | None) -> Any:
    """QuickNet with half the filters in its first two sections.

    References
    ----------
    Bannink et al., "Larq Compute Engine: Design, Benchmark, and Deploy State-of-the-Art Binarized Neural Networks",
    MLSys 2021, arXiv:2011.09398.
    """
    return _draw(image, num_classes, filters=(32, 64, 256, 512))


@architecture(
    "quicknet_large",
    _published(
        "quicknet_large",
        "c5158e8a59147b31370becd937825f4db8a5cdf308314874f678f596629be45c",
        "adcf154a2a8007e81bd6af77c035ffbf54cd6413b89a0ba294e23e76a82a1b78",
    ),
)
def QuickNetLarge(image: Any, num_classes: int | None) -> Any:
    """QuickNet with 6, 8, 12 and 6 residual blocks in its sections.

    References
    ----------
    Bannink et al., "Larq Compute Engine: Design, Benchmark, and Deploy State-of-the-Art Binarized Neural Networks",
    MLSys 2021, arXiv:2011.09398.
    """
    return _draw(image, num_classes, blocks=(6, 8, 12, 6))
