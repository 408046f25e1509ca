"""XNOR-Net: AlexNet with binary activations, and binary weights times a factor per filter that is trained through."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import ops, utils
from ...keras import layers, regularizers
from ...layers import QuantConv2D
from ...ops.quantize import Memo
from ...quantizers import ste_sign
from ...tape import operation
from ..core import File, Published, architecture


@operation
def _magnitudes(x, *, memo=None):
    """The mean of ``min(|x|, 1)`` over each filter; a gradient flows to what is inside of [-1, 1]."""
    memo = {} if memo is None else memo
    if "magnitudes" not in memo:
        memo["magnitudes"] = np.minimum(np.abs(x), 1).mean(tuple(range(x.ndim - 1)))
    return memo["magnitudes"], (x,)


@_magnitudes.backward
def _magnitudes(residual, dy, needed):
    (x,) = residual
    slope = np.where(np.abs(x) <= 1, np.sign(x), x.dtype.type(0))
    return (slope * (dy / x.dtype.type(x.size // x.shape[-1])),)


@utils.register_keras_custom_object
@utils.set_precision(1)
def xnor_weight_scale(x: Any) -> Any:
    """Sign times the mean magnitude of each filter of `x` clipped to [-1, 1], differentiable through both.

    A product reads one bit per value and a factor per filter.

    References
    ----------
    Rastegari et al., "XNOR-Net", arXiv:1603.05279, section 3.1.
    """
    return _magnitudes(x) * ste_sign(x)


def _encode(x: Any, *, axis: int, memo: Memo | None = None) -> Any:
    bits, magnitudes = ops.quantize.ste_sign(x, axis=axis, memo=memo), _magnitudes(x, memo=memo)
    return ops.quantize.scaled(bits, magnitudes) if isinstance(bits, ops.BitArray) else magnitudes * bits


xnor_weight_scale.encode = _encode  # type: ignore[attr-defined]


def _regularizer() -> Any:
    return regularizers.l2(5e-7)


def _norm(x: Any, epsilon: float = 1e-4) -> Any:
    return layers.BatchNormalization(momentum=0.9, epsilon=epsilon, scale=False)(x)


def _convolution(x: Any, filters: int, kernel_size: int, padding: str = "same") -> Any:
    return QuantConv2D(
        filters,
        kernel_size,
        padding=padding,
        input_quantizer="ste_sign",
        kernel_quantizer=xnor_weight_scale,
        kernel_constraint="weight_clip",
        kernel_regularizer=_regularizer(),
        use_bias=False,
    )(x)


def _pool(x: Any) -> Any:
    return layers.MaxPooling2D(3, strides=2)(x)


@architecture(
    "xnornet",
    Published(
        File(
            "xnornet-v0.2.0",
            "xnornet_weights.h5",
            "e6ba24f785655260ae76a2ef1fab520e3528243d9c8fac430299cd81dbeabe10",
        ),
        File(
            "xnornet-v0.2.1",
            "xnornet_weights_notop.h5",
            "20a17423090b2c80c6b7a6b62346faa4b2b7dc8d4da99efa792c9351cf86c3d5",
        ),
    ),
)
def XNORNet(image: Any, num_classes: int | None) -> Any:
    """AlexNet with binary weights and activations and a factor per filter; the first and the last layer are real.

    References
    ----------
    Rastegari et al., "XNOR-Net: ImageNet Classification Using Binary Convolutional Neural Networks", ECCV 2016,
    arXiv:1603.05279.
    """
    x = layers.Conv2D(96, 11, strides=4, padding="same", use_bias=False, kernel_regularizer=_regularizer())(image)
    x = layers.Activation("relu")(_norm(x, 1e-5))
    x = _norm(_pool(x))
    x = _norm(_pool(_convolution(x, 256, 5)))
    x = _norm(_convolution(x, 384, 3))
    x = _norm(_convolution(x, 384, 3))
    x = _norm(_pool(_convolution(x, 256, 3)))
    x = _norm(_convolution(x, 4096, 6, "valid"))
    if num_classes is not None:
        x = _norm(_convolution(x, 4096, 1, "valid"), 1e-3)
        x = layers.Flatten()(layers.Activation("relu")(x))
        x = layers.Dense(num_classes, use_bias=False, kernel_regularizer=_regularizer())(x)
        x = layers.Activation("softmax", dtype="float32")(x)
    return x
