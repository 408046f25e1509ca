"""Quantised layers: the Keras layer of the same name, with quantizers for its input and its kernels.

With every quantizer None a layer is its Keras layer. With quantizers whose values fit in bits it runs on packed
operands; ``layer.arithmetic`` says what ran.
"""

from __future__ import annotations

from typing import Any

from . import utils
from .keras import layers
from .layers_base import QuantizerBase, QuantizerBaseConv, arguments

__all__ = ["QuantConv1D", "QuantConv2D", "QuantConv3D", "QuantDense"]


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
