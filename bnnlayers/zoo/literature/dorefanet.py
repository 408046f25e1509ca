"""DoReFa-Net: AlexNet with binary weights and activations of two bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import ops, utils
from ...keras import layers
from ...layers import QuantConv2D, QuantDense
from ...ops.quantize import Memo
from ...quantizers import DoReFa
from ...tape import operation
from ..core import File, Published, architecture


@operation
def _scaled_sign(x, *, axis=None, memo=None):
    """Value and packed face of `magnitude_aware_sign_unclipped`, whose gradient the scale does not touch."""
    memo = {} if memo is None else memo
    if "magnitude" not in memo:
        memo["magnitude"] = np.abs(x).mean(dtype=x.dtype)
    signs = ops.quantize.ste_sign(x, clip_value=None, axis=axis, memo=memo if axis is not None else None)
    if isinstance(signs, ops.BitArray):
        return signs.scaled(np.full(x.shape[-1], memo["magnitude"], np.float32)), None
    return np.asarray(signs) * memo["magnitude"], None


@_scaled_sign.backward
def _scaled_sign(residual, dy, needed):
    return (dy,)


@utils.register_keras_custom_object
@utils.set_precision(1)
def magnitude_aware_sign_unclipped(x: Any) -> Any:
    """Sign times the mean magnitude of the whole tensor, with the gradient ``dy`` everywhere.

    A product reads one bit per value.

    References
    ----------
    Zhou et al., "DoReFa-Net", arXiv:1606.06160, section 2.3.
    """
    return _scaled_sign(x)


def _encode(x: Any, *, axis: int, memo: Memo | None = None) -> Any:
    return _scaled_sign(x, axis=axis, memo=memo)


magnitude_aware_sign_unclipped.encode = _encode  # type: ignore[attr-defined]


@utils.register_keras_custom_object
def clip_by_value_activation(x: Any) -> Any:
    """`x` clipped to [0, 1]."""
    return np.clip(x, 0, 1)


def _quantizers() -> dict[str, Any]:
    return {"input_quantizer": DoReFa(2), "kernel_quantizer": magnitude_aware_sign_unclipped, "use_bias": False}


def _norm(x: Any) -> Any:
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-4, scale=False)(x)


def _convolution(x: Any, filters: int, kernel_size: int) -> Any:
    return _norm(QuantConv2D(filters, kernel_size, padding="same", **_quantizers())(x))


@architecture(
    "dorefanet",
    Published(
        File(
            "dorefanet-v0.1.0",
            "dorefanet_weights.h5",
            "645d7839d574faa3eeeca28f3115773d75da3ab67ff6876b4de12d10245ecf6a",
        ),
        File(
            "dorefanet-v0.1.1",
            "dorefanet_weights_notop.h5",
            "8650e8a86d8d3968722cf5f20bcebe74d6d7bb45bbf03c4bb8c6486343f37e31",
        ),
    ),
)
def DoReFaNet(image: Any, num_classes: int | None) -> Any:
    """AlexNet with binary weights and activations of two bits; the first and the last layer are real.

    References
    ----------
    Zhou et al., "DoReFa-Net: Training Low Bitwidth Convolutional Neural Networks with Low Bitwidth Gradients",
    arXiv:1606.06160.
    """
    x = layers.Conv2D(96, 12, strides=4)(image)
    x = layers.MaxPooling2D(3, strides=2, padding="same")(_convolution(x, 256, 5))
    x = layers.MaxPooling2D(3, strides=2, padding="same")(_convolution(x, 384, 3))
    x = _convolution(x, 384, 3)
    x = layers.MaxPooling2D(3, strides=2)(_convolution(x, 256, 3))
    if num_classes is not None:
        x = layers.Flatten()(x)
        for _ in range(2):
            x = _norm(QuantDense(4096, **_quantizers())(x))
        x = layers.Activation("clip_by_value_activation")(x)
        x = layers.Dense(num_classes)(x)
        x = layers.Activation("softmax", dtype="float32")(x)
    return x
