"""BinaryDenseNets: every binary convolution adds its maps of features to all those before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...constraints import WeightClip
from ...keras import layers
from ...layers import QuantConv2D
from ...quantizers import SteSign
from ..core import File, Published, architecture, global_pool, small

_FIRST = {"padding": "same", "kernel_initializer": "he_normal", "use_bias": False}


def _norm(x: Any) -> Any:
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def _grow(x: Any, dilation_rate: int) -> Any:
    new = QuantConv2D(
        64,
        3,
        padding="same",
        dilation_rate=dilation_rate,
        input_quantizer=SteSign(1.3),
        kernel_quantizer=SteSign(1.3),
        kernel_initializer="glorot_normal",
        kernel_constraint=WeightClip(1.3),
        use_bias=False,
    )(_norm(x))
    return layers.concatenate([x, new])


def _draw(
    image: Any,
    num_classes: int | None,
    blocks: Sequence[int],
    reductions: Sequence[float],
    dilations: Sequence[int] = (1, 1, 1, 1),
) -> Any:
    """`blocks` counts the convolutions of each section; between sections channels are divided by `reductions`.

    A section of dilated convolutions stands for one at half the resolution: there is no pooling before it.
    """
    if small(image):
        x = layers.Conv2D(64, 3, **_FIRST)(image)
    else:
        x = _norm(layers.Conv2D(64, 7, strides=2, **_FIRST)(image))
        x = layers.Activation("relu")(x)
        x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    for section, (count, dilation) in enumerate(zip(blocks, dilations, strict=True)):
        if section:
            x = _norm(x)
            if dilation == 1:
                x = layers.MaxPooling2D(2, strides=2)(x)
            x = layers.Activation("relu")(x)
            channels = round(x.shape[-1] // reductions[section - 1] / 32) * 32
            x = layers.Conv2D(channels, 1, kernel_initializer="he_normal", use_bias=False)(x)
        for _ in range(count):
            x = _grow(x, dilation)
    x = layers.Activation("relu")(_norm(x))
    if num_classes is not None:
        x = layers.Dense(num_classes, kernel_initializer="he_normal")(global_pool(x))
        x = layers.Activation("softmax", dtype="float32")(x)
    return x


def _published(depth: str, top: str, no_top: str, no_top_version: str = "v0.1.0") -> Published:
    return Published(
        File("binary_densenet-v0.1.0", f"binary_densenet_{depth}_weights.h5", top),
        File(f"binary_densenet-{no_top_version}", f"binary_densenet_{depth}_weights_notop.h5", no_top),
    )


@architecture(
    "binary_densenet28",
    _published(
        "28",
        "21fe3ca03eed244df9c41a2219876fcf03e73800932ec96a3e2a76af4747ac53",
        "a376df1e41772c4427edd1856072b934a89bf293bf911438bf6f751a9b2a28f5",
    ),
)
def BinaryDenseNet28(image: Any, num_classes: int | None) -> Any:
    """BinaryDenseNet of 28 layers.

    References
    ----------
    Bethge et al., "Back to Simplicity: How to Train Accurate BNNs from Scratch?", arXiv:1906.08637.
    """
    return _draw(image, num_classes, (6, 6, 6, 5), (2.7, 2.7, 2.2))


@architecture(
    "binary_densenet37",
    _published(
        "37",
        "8056a5d52c3ed86a934893987d09a06f59a5166aa9bddcaedb050f111d0a7d76",
        "4e12bca9fd27580a5b833241c4eb35d6cc332878c406048e6ca8dbbc78d59175",
    ),
)
def BinaryDenseNet37(image: Any, num_classes: int | None) -> Any:
    """BinaryDenseNet of 37 layers.

    References
    ----------
    Bethge et al., "Back to Simplicity: How to Train Accurate BNNs from Scratch?", arXiv:1906.08637.
    """
    return _draw(image, num_classes, (6, 8, 12, 6), (3.3, 3.3, 4))


@architecture(
    "binary_densenet37_dilated",
    _published(
        "37_dilated",
        "15c1bcd79b8dc22971382fbf79acf364a3f51049d0e584a11533e6fdbb7363d3",
        "8b31fbfdc8de08a46c6adcda1ced48ace0a2ff0ce45a05c72b2acc27901dd88b",
        "v0.1.1",
    ),
)
def BinaryDenseNet37Dilated(image: Any, num_classes: int | None) -> Any:
    """BinaryDenseNet of 37 layers that dilates its last two sections instead of pooling before them.

    References
    ----------
    Bethge et al., "Back to Simplicity: How to Train Accurate BNNs from Scratch?", arXiv:1906.08637.
    """
    return _draw(image, num_classes, (6, 8, 12, 6), (3.3, 3.3, 4), (1, 1, 2, 4))


@architecture(
    "binary_densenet45",
    _published(
        "45",
        "d00a0d26fbd2dba1bfba8c0306c770f3aeea5c370e99f963bb239bd916f72c37",
        "e72d5cc6b0afe4612f8be7b1f9bb48a53ba2c8468b57bf1266d2900c99fd2adf",
    ),
)
def BinaryDenseNet45(image: Any, num_classes: int | None) -> Any:
    """BinaryDenseNet of 45 layers.

    References
    ----------
    Bethge et al., "Back to Simplicity: How to Train Accurate BNNs from Scratch?", arXiv:1906.08637.
    """
    return _draw(image, num_classes, (6, 12, 14, 8), (2.7, 3.3, 4))
