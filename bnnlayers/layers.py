"""Quantised layers: the Keras layer of the same name, with quantizers for its input and its kernels.

With every quantizer None a layer is its Keras layer. With quantizers whose values fit in bits it runs on packed
operands; ``layer.arithmetic`` says what ran.
"""

from __future__ import annotations

from typing import Any

from . import utils
from .keras import layers
from .keras.layers.arguments import arguments
from .layers_base import QuantizerBase, QuantizerBaseConv, QuantizerDepthwiseBase, QuantizerSeparableBase

__all__ = [
    "QuantConv1D",
    "QuantConv2D",
    "QuantConv2DTranspose",
    "QuantConv3D",
    "QuantConv3DTranspose",
    "QuantDense",
    "QuantDepthwiseConv2D",
    "QuantLocallyConnected1D",
    "QuantLocallyConnected2D",
    "QuantSeparableConv1D",
    "QuantSeparableConv2D",
]


@utils.register_keras_custom_object
class QuantDense(QuantizerBase, layers.Dense):
    """Densely connected layer: ``activation(input_quantizer(x) @ kernel_quantizer(kernel) + bias)``.

    Parameters
    ----------
    units : int
        Outputs per sample.
    activation : str or callable, optional
    use_bias : bool
    input_quantizer, kernel_quantizer : str, Quantizer or callable, optional
        Applied to the input and to the kernel.
    kernel_initializer, bias_initializer : str or Initializer
    kernel_regularizer, bias_regularizer, activity_regularizer : str or Regularizer, optional
    kernel_constraint, bias_constraint : str or Constraint, optional
        A binary kernel wants ``kernel_constraint="weight_clip"``.

    Notes
    -----
    Input (batch, ..., K), kernel (K, units), output (batch, ..., units).
    """

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        input_quantizer: Any = None,
        kernel_quantizer: Any = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**arguments(locals()))


_CONV = """{rank}-D convolution of a quantised input with a quantised kernel.

    Parameters
    ----------
    filters : int
        Channels of the output.
    kernel_size : int or sequence of int
    strides : int or sequence of int
    padding : {{"valid", "same"{causal}}}
    pad_values : float
        What "same" pads with, after the input has been quantised. 0, +1 and -1 keep a packed input packed; with another
        value it runs on floats.
    data_format : {{"channels_last", "channels_first"}}, optional
    dilation_rate : int or sequence of int
        Not together with strides.
    groups : int
        Channels and filters are split into that many independent convolutions.
    activation : str or callable, optional
    use_bias : bool
    input_quantizer, kernel_quantizer : str, Quantizer or callable, optional
        Applied to the input and to the kernel.
    kernel_initializer, bias_initializer : str or Initializer
    kernel_regularizer, bias_regularizer, activity_regularizer : str or Regularizer, optional
    kernel_constraint, bias_constraint : str or Constraint, optional
        A binary kernel wants ``kernel_constraint="weight_clip"``.

    Raises
    ------
    ValueError
        For arguments that do not fit together; see the message.

    Notes
    -----
    Input (batch, spatial..., C), kernel (kernel_size..., C / groups, filters), output (batch, spatial..., filters);
    with "channels_first" the channels of input and output are axis 1.
    """


@utils.register_keras_custom_object
class QuantConv1D(QuantizerBase, QuantizerBaseConv, layers.Conv1D):
    __doc__ = _CONV.format(rank=1, causal=', "causal"')

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        pad_values: float = 0.0,
        data_format: str = "channels_last",
        dilation_rate: Any = 1,
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        input_quantizer: Any = None,
        kernel_quantizer: Any = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**arguments(locals()))


@utils.register_keras_custom_object
class QuantConv2D(QuantizerBase, QuantizerBaseConv, layers.Conv2D):
    __doc__ = _CONV.format(rank=2, causal="")

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = (1, 1),
        padding: str = "valid",
        pad_values: float = 0.0,
        data_format: str | None = None,
        dilation_rate: Any = (1, 1),
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        input_quantizer: Any = None,
        kernel_quantizer: Any = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**arguments(locals()))


@utils.register_keras_custom_object
class QuantConv3D(QuantizerBase, QuantizerBaseConv, layers.Conv3D):
    __doc__ = _CONV.format(rank=3, causal="")

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = (1, 1, 1),
        padding: str = "valid",
        pad_values: float = 0.0,
        data_format: str | None = None,
        dilation_rate: Any = (1, 1, 1),
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        input_quantizer: Any = None,
        kernel_quantizer: Any = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**arguments(locals()))


_DEPTHWISE = """Depthwise convolution of a quantised input: every channel with quantised filters of its own.

    Parameters
    ----------
    kernel_size : int or sequence of int
    strides : int or sequence of int
    padding : {"valid", "same"}
    pad_values : float
        What "same" pads with, after the input has been quantised. 0, +1 and -1 keep a packed input packed; with another
        value it runs on floats.
    depth_multiplier : int
        Filters of each channel.
    data_format : {"channels_last", "channels_first"}, optional
    dilation_rate : int or sequence of int
        Not together with strides.
    activation : str or callable, optional
    use_bias : bool
    input_quantizer, depthwise_quantizer : str, Quantizer or callable, optional
        Applied to the input and to the kernel.
    depthwise_initializer, bias_initializer : str or Initializer
    depthwise_regularizer, bias_regularizer, activity_regularizer : str or Regularizer, optional
    depthwise_constraint, bias_constraint : str or Constraint, optional
        A binary kernel wants ``depthwise_constraint="weight_clip"``.

    Raises
    ------
    ValueError
        For arguments that do not fit together; see the message.

    Notes
    -----
    Input (batch, rows, columns, C), kernel (kernel_size..., C, depth_multiplier), output (batch, rows, columns,
    C * depth_multiplier); with "channels_first" the channels of input and output are axis 1.
    """


@utils.register_keras_custom_object
class QuantDepthwiseConv2D(QuantizerDepthwiseBase, QuantizerBaseConv, layers.DepthwiseConv2D):
    __doc__ = _DEPTHWISE

    def __init__(
        self,
        kernel_size: Any,
        strides: Any = (1, 1),
        padding: str = "valid",
        pad_values: float = 0.0,
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: Any = (1, 1),
        activation: Any = None,
        use_bias: bool = True,
        input_quantizer: Any = None,
        depthwise_quantizer: Any = None,
        depthwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**arguments(locals()))


_SEPARABLE = """{rank}-D depthwise convolution of a quantised input, then one of a single tap that mixes the channels.

    The input is quantised once; what lies between the two convolutions is not.

    Parameters
    ----------
    filters : int
        Channels of the output.
    kernel_size : int or sequence of int
    strides : int or sequence of int
    padding : {{"valid", "same"{causal}}}
    pad_values : float
        What "same" pads with, after the input has been quantised. 0, +1 and -1 keep a packed input packed; with another
        value it runs on floats.
    data_format : {{"channels_last", "channels_first"}}, optional
    dilation_rate : int or sequence of int
        Not together with strides.
    depth_multiplier : int
        Filters of each channel in the depthwise convolution.
    activation : str or callable, optional
    use_bias : bool
    input_quantizer, depthwise_quantizer, pointwise_quantizer : str, Quantizer or callable, optional
        Applied to the input and to the two kernels.
    depthwise_initializer, pointwise_initializer, bias_initializer : str or Initializer
    depthwise_regularizer, pointwise_regularizer, bias_regularizer, activity_regularizer : str or Regularizer, optional
    depthwise_constraint, pointwise_constraint, bias_constraint : str or Constraint, optional
        Binary kernels want "weight_clip".

    Raises
    ------
    ValueError
        For arguments that do not fit together; see the message.

    Notes
    -----
    Input (batch, spatial..., C), kernels (kernel_size..., C, depth_multiplier) and (1..., C * depth_multiplier,
    filters), output (batch, spatial..., filters); with "channels_first" the channels of input and output are axis 1.
    """


@utils.register_keras_custom_object
class QuantSeparableConv1D(QuantizerSeparableBase, QuantizerBaseConv, layers.SeparableConv1D):
    __doc__ = _SEPARABLE.format(rank=1, causal=', "causal"')

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        pad_values: float = 0.0,
        data_format: str | None = None,
        dilation_rate: Any = 1,
        depth_multiplier: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        input_quantizer: Any = None,
        depthwise_quantizer: Any = None,
        pointwise_quantizer: Any = None,
        depthwise_initializer: Any = "glorot_uniform",
        pointwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        pointwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        pointwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**arguments(locals()))


@utils.register_keras_custom_object
class QuantSeparableConv2D(QuantizerSeparableBase, QuantizerBaseConv, layers.SeparableConv2D):
    __doc__ = _SEPARABLE.format(rank=2, causal="")

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = (1, 1),
        padding: str = "valid",
        pad_values: float = 0.0,
        data_format: str | None = None,
        dilation_rate: Any = (1, 1),
        depth_multiplier: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        input_quantizer: Any = None,
        depthwise_quantizer: Any = None,
        pointwise_quantizer: Any = None,
        depthwise_initializer: Any = "glorot_uniform",
        pointwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        pointwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        pointwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**arguments(locals()))


_TRANSPOSED = """{rank}-D transposed convolution of a quantised input with a quantised kernel.

    Parameters
    ----------
    filters : int
        Channels of the output.
    kernel_size : int or sequence of int
    strides : int or sequence of int
    padding : {{"valid", "same"}}
    output_padding : int or sequence of int, optional
        Pixels added to the shortest output that a convolution would bring to the input's size; less than the strides.
        By default the output is `strides` times as long as the input, or long enough for the kernel.
    data_format : {{"channels_last", "channels_first"}}, optional
    dilation_rate : int or sequence of int
        {dilation}
    activation : str or callable, optional
    use_bias : bool
    input_quantizer, kernel_quantizer : str, Quantizer or callable, optional
        Applied to the input and to the kernel.
    kernel_initializer, bias_initializer : str or Initializer
    kernel_regularizer, bias_regularizer, activity_regularizer : str or Regularizer, optional
    kernel_constraint, bias_constraint : str or Constraint, optional
        A binary kernel wants ``kernel_constraint="weight_clip"``.

    Raises
    ------
    ValueError
        For arguments that do not fit together; see the message.

    Notes
    -----
    Input (batch, spatial..., C), kernel (kernel_size..., filters, C), output (batch, spatial..., filters); with
    "channels_first" the channels of input and output are axis 1. A scale of the kernel's last axis lies on the channels
    that are summed over, so that the input then is multiplied by it and the product runs on floats times bits.
    """


@utils.register_keras_custom_object
class QuantConv2DTranspose(QuantizerBase, layers.Conv2DTranspose):
    __doc__ = _TRANSPOSED.format(rank=2, dilation="Not together with strides.")

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = (1, 1),
        padding: str = "valid",
        output_padding: Any = None,
        data_format: str | None = None,
        dilation_rate: Any = (1, 1),
        activation: Any = None,
        use_bias: bool = True,
        input_quantizer: Any = None,
        kernel_quantizer: Any = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**arguments(locals()))


@utils.register_keras_custom_object
class QuantConv3DTranspose(QuantizerBase, layers.Conv3DTranspose):
    __doc__ = _TRANSPOSED.format(rank=3, dilation="Ignored, as Keras ignores it.")

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = (1, 1, 1),
        padding: str = "valid",
        output_padding: Any = None,
        data_format: str | None = None,
        dilation_rate: Any = (1, 1, 1),
        activation: Any = None,
        use_bias: bool = True,
        input_quantizer: Any = None,
        kernel_quantizer: Any = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**arguments(locals()))


_LOCAL = """{rank}-D convolution of a quantised input with another quantised kernel at every output pixel.

    Parameters
    ----------
    filters : int
        Channels of the output.
    kernel_size : int or sequence of int
    strides : int or sequence of int
    padding : {{"valid", "same"}}
        "same" needs implementation 2 or 3.
    data_format : {{"channels_last", "channels_first"}}, optional
    activation : str or callable, optional
    use_bias : bool
    input_quantizer, kernel_quantizer : str, Quantizer or callable, optional
        Applied to the input and to the kernel.
    kernel_initializer, bias_initializer : str or Initializer
    kernel_regularizer, bias_regularizer, activity_regularizer : str or Regularizer, optional
    kernel_constraint, bias_constraint : str or Constraint, optional
        A binary kernel wants ``kernel_constraint="weight_clip"``.
    implementation : {{1, 2, 3}}
        Layout of the kernel: compact, dense, or a row of what is connected. See
        `bnnlayers.keras.layers.LocallyConnected{rank}D` for what suits when.

    Raises
    ------
    ValueError
        For arguments that do not fit together; see the message.

    Notes
    -----
    Input (batch, spatial..., C), output (batch, spatial..., filters), bias (spatial..., filters); with "channels_first"
    the channels of input and output are axis 1. The kernel is quantised in its own layout: in implementation 2 a
    quantizer that looks at the whole kernel sees the unconnected weights too, and in 3 `MagnitudeAwareSign` finds no
    axis to take a mean over.
    """


@utils.register_keras_custom_object
class QuantLocallyConnected1D(QuantizerBase, layers.LocallyConnected1D):
    __doc__ = _LOCAL.format(rank=1)

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        data_format: str | None = None,
        activation: Any = None,
        use_bias: bool = True,
        input_quantizer: Any = None,
        kernel_quantizer: Any = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        implementation: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**arguments(locals()))


@utils.register_keras_custom_object
class QuantLocallyConnected2D(QuantizerBase, layers.LocallyConnected2D):
    __doc__ = _LOCAL.format(rank=2)

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = (1, 1),
        padding: str = "valid",
        data_format: str | None = None,
        activation: Any = None,
        use_bias: bool = True,
        input_quantizer: Any = None,
        kernel_quantizer: Any = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        implementation: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**arguments(locals()))
