"""Real-to-binary networks: a binary network, its strong baseline, and the teachers it learns from in stages.

`RealToBinaryNet` learns from `RealToBinNetBAN` (binary activations), that from `RealToBinNetFP` (neither), and that
from `ResNet18FP`. Layers of one place bear one name after the name of the network, such as ``block_2_out``, for
attention matching.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ...keras import layers, regularizers
from ...layers import QuantConv2D
from ...utils import register_keras_custom_object
from ..core import File, Published, architecture, global_pool

__all__ = [
    "RealToBinNetBAN",
    "RealToBinNetFP",
    "RealToBinaryNet",
    "ResNet18FP",
    "StrongBaselineNetBAN",
    "StrongBaselineNetBNN",
]

_INITIALIZER = "glorot_normal"


@register_keras_custom_object
class LearnedRescaleLayer(layers.Layer):
    """Multiplies (batch, rows, columns, C) by a learned factor per row, one per column and one per channel.

    Parameters
    ----------
    regularizer : str or Regularizer, optional
        Of all three.

    References
    ----------
    Bulat and Tzimiropoulos, "XNOR-Net++", arXiv:1909.13863.
    """

    def __init__(self, regularizer: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.regularizer = regularizers.get(regularizer)

    def build(self, input_shape: Any) -> None:
        _, rows, columns, channels = input_shape
        options = {"initializer": "ones", "regularizer": self.regularizer}
        self.scale_h = self.add_weight("scale_h", (rows, 1, 1), **options)
        self.scale_w = self.add_weight("scale_w", (1, columns, 1), **options)
        self.scale_c = self.add_weight("scale_c", (1, 1, channels), **options)
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        return inputs * (self.scale_h * self.scale_w * self.scale_c)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "regularizer": regularizers.serialize(self.regularizer)}


class _Style(NamedTuple):
    """In what the networks of this file differ.

    Attributes
    ----------
    name : str
    input_quantizer : str or layer, optional
    binary : bool
        Whether weights are binary; those that are not are regularized.
    gated : bool
        Whether convolutions are scaled by a function of their input instead of learned constants.
    """

    name: str
    input_quantizer: Any
    binary: bool
    gated: bool

    def regularizer(self) -> Any:
        return None if self.binary else regularizers.l2(1e-5)


def _norm(x: Any, name: str) -> Any:
    return layers.BatchNormalization(momentum=0.99, name=f"{name}_batch_norm")(x)


def _first(image: Any, name: str, regularizer: Any, prelu: bool) -> Any:
    x = layers.Conv2D(
        64,
        7,
        strides=2,
        padding="same",
        kernel_initializer=_INITIALIZER,
        kernel_regularizer=regularizer,
        use_bias=False,
        name=f"{name}_conv2d",
    )(image)
    x = _norm(x, name)
    x = layers.PReLU(shared_axes=[1, 2], name=f"{name}_prelu")(x) if prelu else layers.ReLU(name=f"{name}_relu")(x)
    return layers.MaxPooling2D(3, strides=2, padding="same", name=f"{name}_pool")(x)


def _last(x: Any, num_classes: int, name: str) -> Any:
    x = layers.Dense(num_classes, name=f"{name}_logits")(global_pool(x, f"{name}_global_pool"))
    return layers.Softmax(dtype="float32", name=f"{name}_probs")(x)


def _shortcut(x: Any, filters: int, name: str, regularizer: Any) -> Any:
    if x.shape[-1] == filters:
        return x
    x = layers.AveragePooling2D(2, strides=2, padding="same", name=f"{name}_shortcut_pool")(x)
    x = layers.Conv2D(
        filters,
        1,
        kernel_initializer=_INITIALIZER,
        kernel_regularizer=regularizer,
        use_bias=False,
        name=f"{name}_shortcut_conv2d",
    )(x)
    return _norm(x, f"{name}_shortcut")


def _gate(x: Any, inputs: Any, name: str, regularizer: Any) -> Any:
    """`x` with each channel scaled by a small network's reading of `inputs`."""
    options = {"kernel_initializer": "he_normal", "kernel_regularizer": regularizer, "use_bias": False}
    channels, filters = inputs.shape[-1], x.shape[-1]
    scales = global_pool(inputs, f"{name}_scaling_pool")
    scales = layers.Dense(channels // 8, activation="relu", name=f"{name}_scaling_dense_reduce", **options)(scales)
    scales = layers.Dense(filters, activation="sigmoid", name=f"{name}_scaling_dense_expand", **options)(scales)
    scales = layers.Reshape((1, 1, filters), name=f"{name}_scaling_reshape")(scales)
    return layers.Multiply(name=f"{name}_scaling_multiplication")([x, scales])


def _half_block(x: Any, filters: int, name: str, style: _Style) -> Any:
    shortcut = _shortcut(x, filters, name, style.regularizer())
    inputs = _norm(x, name)
    outputs = QuantConv2D(
        filters,
        3,
        strides=1 if x.shape[-1] == filters else 2,
        padding="same",
        input_quantizer=style.input_quantizer,
        kernel_quantizer="ste_sign" if style.binary else None,
        kernel_constraint="weight_clip" if style.binary else None,
        kernel_regularizer=style.regularizer(),
        kernel_initializer=_INITIALIZER,
        use_bias=False,
        name=f"{name}_conv2d",
    )(inputs)
    if style.gated:
        outputs = _gate(outputs, inputs, name, style.regularizer())
    else:
        outputs = LearnedRescaleLayer(style.regularizer(), name=f"{name}_rescale")(outputs)
    outputs = layers.PReLU(shared_axes=[1, 2], name=f"{name}_prelu")(outputs)
    return layers.Add(name=f"{name}_skip_add")([outputs, shortcut])


def _filters(block: int) -> int:
    """Of blocks 2 to 9: they double at 4, 6 and 8."""
    return 32 * 2 ** (block // 2)


def _draw(image: Any, num_classes: int | None, style: _Style) -> Any:
    x = _first(image, f"{style.name}_block_1", style.regularizer(), prelu=True)
    for block in range(2, 10):
        name = f"{style.name}_block_{block}"
        for half in "ab":
            x = _half_block(x, _filters(block), f"{name}{half}", style)
        x = layers.Activation("linear", name=f"{name}_out")(x)
    return x if num_classes is None else _last(x, num_classes, f"{style.name}_block_10")


@architecture(
    "r2b_bnn",
    Published(
        File(
            "r2b-v0.1.0",
            "r2b_weights.h5",
            "e8fd16ca1ab9810ac3835f24f5c62758a57bc32a615f73aaa50d382d2b9617e1",
        ),
        File(
            "r2b-v0.1.0",
            "r2b_weights_notop.h5",
            "4ec47abf1a4da5c65f4908076257e8d5c812673891089a88c9d9e84e949d1dab",
        ),
    ),
)
def RealToBinaryNet(image: Any, num_classes: int | None) -> Any:
    """Real-to-binary network with binary weights and activations, the last of its stages.

    References
    ----------
    Martinez et al., "Training binary neural networks with real-to-binary convolutions", ICLR 2020, arXiv:2003.11535.
    """
    return _draw(image, num_classes, _Style("r2b_bnn", "ste_sign", binary=True, gated=True))


@architecture("r2b_ban")
def RealToBinNetBAN(image: Any, num_classes: int | None) -> Any:
    """Real-to-binary network with binary activations and real weights, the teacher of `RealToBinaryNet`.

    References
    ----------
    Martinez et al., "Training binary neural networks with real-to-binary convolutions", ICLR 2020, arXiv:2003.11535.
    """
    return _draw(image, num_classes, _Style("r2b_ban", "ste_sign", binary=False, gated=True))


@architecture("r2b_fp")
def RealToBinNetFP(image: Any, num_classes: int | None) -> Any:
    """Real-to-binary network with tanh in the place of the sign and real weights, the teacher of `RealToBinNetBAN`.

    References
    ----------
    Martinez et al., "Training binary neural networks with real-to-binary convolutions", ICLR 2020, arXiv:2003.11535.
    """
    return _draw(image, num_classes, _Style("r2b_fp", layers.Activation("tanh"), binary=False, gated=True))


@architecture("baseline_bnn")
def StrongBaselineNetBNN(image: Any, num_classes: int | None) -> Any:
    """The baseline that real-to-binary networks improve on, with binary weights and activations.

    References
    ----------
    Martinez et al., "Training binary neural networks with real-to-binary convolutions", ICLR 2020, arXiv:2003.11535,
    section 4.1.
    """
    return _draw(image, num_classes, _Style("baseline_bnn", "ste_sign", binary=True, gated=False))


@architecture("baseline_ban")
def StrongBaselineNetBAN(image: Any, num_classes: int | None) -> Any:
    """`StrongBaselineNetBNN` with real weights, from which it is initialized.

    References
    ----------
    Martinez et al., "Training binary neural networks with real-to-binary convolutions", ICLR 2020, arXiv:2003.11535,
    section 4.1.
    """
    return _draw(image, num_classes, _Style("baseline_ban", "ste_sign", binary=False, gated=False))


@architecture("resnet_fp")
def ResNet18FP(image: Any, num_classes: int | None) -> Any:
    """A real ResNet of 18 layers, the teacher of `RealToBinNetFP`.

    References
    ----------
    Martinez et al., "Training binary neural networks with real-to-binary convolutions", ICLR 2020, arXiv:2003.11535.
    """
    regularizer = regularizers.l2(1e-5)
    x = _first(image, "resnet_fp_block_1", regularizer, prelu=False)
    for block in range(2, 10):
        name, filters = f"resnet_fp_block_{block}", _filters(block)
        strides = 1 if x.shape[-1] == filters else 2
        shortcut = _shortcut(x, filters, name, regularizer)
        for half in "ab":
            x = layers.Conv2D(
                filters,
                3,
                strides=strides if half == "a" else 1,
                padding="same",
                kernel_regularizer=regularizer,
                name=f"{name}{half}_conv2d",
            )(x)
            x = layers.Activation("relu", name=f"{name}{half}_relu")(_norm(x, f"{name}{half}"))
        x = layers.Add(name=f"{name}_skip_add")([x, shortcut])
        x = layers.ReLU(name=f"{name}_out")(x)
    return x if num_classes is None else _last(x, num_classes, "resnet_fp_block_10")
