"""MeliusNets: a dense block adds 64 maps of features, and an improvement block corrects those 64."""

from __future__ import annotations

from typing import Any

from ...constraints import WeightClip
from ...functions import split
from ...keras import layers
from ...layers import QuantConv2D
from ...ops import shape
from ...quantizers import SteSign
from ...utils import register_keras_custom_object
from ..core import File, Published, architecture, global_pool

_GROWTH = 64


@register_keras_custom_object
def split_channels(x: Any, groups: int) -> Any:
    """A list of `groups` tensors, each with its part of the channels."""
    return split(x, groups, axis=-1)


@register_keras_custom_object
def add_to_last_channels(tensors: Any) -> Any:
    """The first tensor, with the second added to its last channels."""
    x, more = tensors
    missing = x.shape[-1] - more.shape[-1]
    return x + shape.pad(more, widths=((0, 0), (0, 0), (0, 0), (missing, 0)))


def _norm(x: Any, name: str) -> Any:
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


def _relu(x: Any, name: str) -> Any:
    return layers.Activation("relu", name=name)(x)


def _pool(x: Any, name: str) -> Any:
    return layers.MaxPooling2D(2, strides=2, padding="same", name=name)(x)


def _convolution(x: Any, filters: int, kernel_size: int, name: str, **options: Any) -> Any:
    return layers.Conv2D(
        filters, kernel_size, kernel_initializer="glorot_normal", use_bias=False, name=name, **options
    )(x)


def _grouped_convolution(x: Any, filters: int, groups: int, name: str) -> Any:
    """A grouped convolution, drawn as larq_zoo's files hold it: a layer for each group."""
    parts = layers.Lambda(split_channels, arguments={"groups": groups}, name=f"{name}_split")(x)
    parts = [
        _convolution(part, filters // groups, 3, f"{name}_conv{i}", padding="same") for i, part in enumerate(parts)
    ]
    return layers.Concatenate(name=f"{name}_concat")(parts)


def _stem(x: Any) -> Any:
    x = _convolution(x, 32, 3, "stem_s0_conv", strides=2, padding="same")
    x = _relu(_norm(x, "stem_s0_bn"), "stem_s0_relu")
    x = _grouped_convolution(x, 32, 4, "stem_s1_groupconv")
    x = _relu(_norm(x, "stem_s1_bn"), "stem_s1_relu")
    x = _grouped_convolution(x, 64, 8, "stem_s2_groupconv")
    x = _relu(_norm(x, "stem_s2_bn"), "stem_s2_relu")
    return _pool(x, "stem_pool")


def _new_features(x: Any, name: str) -> Any:
    return QuantConv2D(
        _GROWTH,
        3,
        padding="same",
        input_quantizer=SteSign(1.3),
        kernel_quantizer=SteSign(1.3),
        kernel_constraint=WeightClip(1.3),
        kernel_initializer="glorot_normal",
        use_bias=False,
        name=f"{name}_binconv",
    )(_norm(x, f"{name}_bn"))


def _block(x: Any, name: str) -> Any:
    dense, improve = f"{name}_dense", f"{name}_improve"
    x = layers.Concatenate(name=f"{dense}_concat")([x, _new_features(x, dense)])
    return layers.Lambda(add_to_last_channels, name=f"{improve}_merge")([x, _new_features(x, improve)])


@architecture(
    "meliusnet22",
    Published(
        File(
            "meliusnet22-v0.1.0",
            "meliusnet22_weights.h5",
            "c1ba85e8389ae326009665ec13331e49fc3df4d0f925fa8553e224f7362c18ed",
        ),
        File(
            "meliusnet22-v0.1.1",
            "meliusnet22_weights_notop.h5",
            "abfc5c50049d72a14e44df0c1cb73896ece2a1ab4bf9bb48fede6cc2f5e0b58f",
        ),
    ),
)
def MeliusNet22(image: Any, num_classes: int | None) -> Any:
    """MeliusNet of 22 layers.

    References
    ----------
    Bethge et al., "MeliusNet: Can Binary Neural Networks Achieve MobileNet-level Accuracy?", arXiv:2001.05936.
    """
    x = _stem(image)
    for section, (blocks, channels) in enumerate(zip((4, 5, 4, 4), (160, 224, 256, None), strict=True)):
        for block in range(blocks):
            x = _block(x, f"section_{section}_block_{block}")
        if channels:
            name = f"section_{section}_transition"
            x = _pool(_norm(x, f"{name}_bn"), f"{name}_maxpool")
            x = _convolution(_relu(x, f"{name}_relu"), channels, 1, f"{name}_pw")
    x = _relu(_norm(x, "head_bn"), "head_relu")
    if num_classes is not None:
        x = global_pool(x, "head_globalpool")
        x = layers.Dense(num_classes, kernel_initializer="glorot_normal", name="head_dense")(x)
        x = layers.Activation("softmax", dtype="float32", name="head_softmax")(x)
    return x
