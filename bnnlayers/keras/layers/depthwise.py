"""Depthwise and separable convolutions: one class for every number of spatial axes."""

from __future__ import annotations

from ...ops import product
from ...ops.depthwise import depthwise_conv
from ..base_layer import InputSpec, Layer
from .arguments import arguments
from .convolutional import Conv


class _Depthwise(Conv):
    """A convolution that begins with filters of their own for every channel."""

    def _add_depthwise_kernel(self, channels):
        self.depthwise_kernel = self.add_weight(
            "depthwise_kernel",
            shape=(*self.kernel_size, channels, self.depth_multiplier),
            initializer=self.depthwise_initializer,
            regularizer=self.depthwise_regularizer,
            constraint=self.depthwise_constraint,
        )

    def _convolution_arguments(self):
        found = super()._convolution_arguments()
        del found["groups"]
        return found

    def convolution_op(self, inputs, kernel):
        """The depthwise convolution itself; a subclass may replace or surround it."""
        return depthwise_conv(inputs, kernel, **self._convolution_arguments())

    def get_config(self):
        config = super().get_config()
        for name in ("kernel_initializer", "kernel_regularizer", "kernel_constraint"):
            del config[name]
        return config


_OF_DEPTHWISE = (
    "depth_multiplier",
    "depthwise_initializer",
    "depthwise_regularizer",
    "depthwise_constraint",
)


class DepthwiseConv(_Depthwise):
    """``activation(depthwise convolution(inputs, depthwise_kernel) + bias)``.

    Every channel is convolved with `depth_multiplier` filters of its own, and channels do not mix.
    The input has the shape ``(batch, spatial..., channels)`` or, for channels_first,
    ``(batch, channels, spatial...)``; the kernel ``(kernel_size..., channels, depth_multiplier)``.
    The output has ``channels * depth_multiplier`` channels, those of one input channel in a row.

    Parameters
    ----------
    kernel_size, strides, dilation_rate : int or sequence of int
        One entry per spatial axis.
    padding : {"valid", "same"}
    depth_multiplier : int
    data_format : {"channels_last", "channels_first"}, optional
    activation : str or callable, optional
    use_bias : bool
    depthwise_initializer, bias_initializer : str or callable
    depthwise_regularizer, bias_regularizer, activity_regularizer : str or callable, optional
    depthwise_constraint, bias_constraint : str or callable, optional

    Raises
    ------
    ValueError
        If strides and dilation are both above one, or an argument is out of range.
    """

    def __init__(
        self,
        kernel_size,
        strides=1,
        padding="valid",
        depth_multiplier=1,
        data_format=None,
        dilation_rate=1,
        activation=None,
        use_bias=True,
        depthwise_initializer="glorot_uniform",
        bias_initializer="zeros",
        depthwise_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        depthwise_constraint=None,
        bias_constraint=None,
        **kwargs,
    ):
        super().__init__(filters=None, **arguments(locals(), without=_OF_DEPTHWISE))
        self._configure(
            depth_multiplier=depth_multiplier,
            depthwise_initializer=depthwise_initializer,
            depthwise_regularizer=depthwise_regularizer,
            depthwise_constraint=depthwise_constraint,
        )

    def build(self, input_shape):
        if len(input_shape) != self.rank + 2:
            raise ValueError(
                f"Inputs to `DepthwiseConv` should have rank {self.rank + 2}. "
                f"Received input_shape={tuple(input_shape)}."
            )
        channels = self._input_channels(input_shape)
        self.compute_output_shape(input_shape)
        self._add_depthwise_kernel(channels)
        self._add_bias(channels * self.depth_multiplier)
        self._specify_channels(channels)
        Layer.build(self, input_shape)

    def call(self, inputs):
        return self._finish(self.convolution_op(inputs, self.depthwise_kernel))

    def _output_channels(self, input_shape):
        channels = input_shape[self._channel_axis]
        return None if channels is None else channels * self.depth_multiplier

    def get_config(self):
        config = super().get_config()
        del config["filters"]
        return config


class DepthwiseConv1D(DepthwiseConv):
    __doc__ = DepthwiseConv.__doc__
    rank = 1


class DepthwiseConv2D(DepthwiseConv):
    __doc__ = DepthwiseConv.__doc__
    rank = 2

    def __init__(
        self,
        kernel_size,
        strides=(1, 1),
        padding="valid",
        depth_multiplier=1,
        data_format=None,
        dilation_rate=(1, 1),
        activation=None,
        use_bias=True,
        depthwise_initializer="glorot_uniform",
        bias_initializer="zeros",
        depthwise_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        depthwise_constraint=None,
        bias_constraint=None,
        **kwargs,
    ):
        super().__init__(**arguments(locals()))


_OF_SEPARABLE = (
    *_OF_DEPTHWISE,
    "pointwise_initializer",
    "pointwise_regularizer",
    "pointwise_constraint",
)


class SeparableConv(_Depthwise):
    """A depthwise convolution, then one of a single tap that mixes the channels; bias, activation.

    The input has the shape ``(batch, spatial..., channels)`` or, for channels_first,
    ``(batch, channels, spatial...)``; the depthwise kernel
    ``(kernel_size..., channels, depth_multiplier)``, the pointwise one
    ``(1..., channels * depth_multiplier, filters)``.

    Parameters
    ----------
    filters : int
        Channels of the output.
    kernel_size, strides, dilation_rate : int or sequence of int
        One entry per spatial axis, for the depthwise convolution.
    padding : {"valid", "same", "causal"}
        "causal" is for one axis: the output never reads what comes later.
    data_format : {"channels_last", "channels_first"}, optional
    depth_multiplier : int
        Filters of each channel in the depthwise convolution.
    activation : str or callable, optional
    use_bias : bool
    depthwise_initializer, pointwise_initializer, bias_initializer : str or callable
    depthwise_regularizer, pointwise_regularizer, bias_regularizer : str or callable, optional
    activity_regularizer : str or callable, optional
    depthwise_constraint, pointwise_constraint, bias_constraint : str or callable, optional

    Raises
    ------
    ValueError
        If strides and dilation are both above one, or an argument is out of range.
    """

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        data_format=None,
        dilation_rate=1,
        depth_multiplier=1,
        activation=None,
        use_bias=True,
        depthwise_initializer="glorot_uniform",
        pointwise_initializer="glorot_uniform",
        bias_initializer="zeros",
        depthwise_regularizer=None,
        pointwise_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        depthwise_constraint=None,
        pointwise_constraint=None,
        bias_constraint=None,
        **kwargs,
    ):
        super().__init__(**arguments(locals(), without=_OF_SEPARABLE))
        self._configure(
            depth_multiplier=depth_multiplier,
            depthwise_initializer=depthwise_initializer,
            pointwise_initializer=pointwise_initializer,
            depthwise_regularizer=depthwise_regularizer,
            pointwise_regularizer=pointwise_regularizer,
            depthwise_constraint=depthwise_constraint,
            pointwise_constraint=pointwise_constraint,
        )

    def build(self, input_shape):
        channels = self._input_channels(input_shape)
        self.input_spec = InputSpec(ndim=self.rank + 2, axes={self._channel_axis: channels})
        self.compute_output_shape(input_shape)
        self._add_depthwise_kernel(channels)
        self.pointwise_kernel = self.add_weight(
            "pointwise_kernel",
            shape=(*(1,) * self.rank, channels * self.depth_multiplier, self.filters),
            initializer=self.pointwise_initializer,
            regularizer=self.pointwise_regularizer,
            constraint=self.pointwise_constraint,
        )
        self._add_bias(self.filters)
        Layer.build(self, input_shape)

    def call(self, inputs):
        spread = self.convolution_op(inputs, self.depthwise_kernel)
        mixed = product.conv(spread, self.pointwise_kernel, data_format=self.data_format)
        return self._finish(mixed)


class SeparableConv1D(SeparableConv):
    __doc__ = SeparableConv.__doc__
    rank = 1


class SeparableConv2D(SeparableConv):
    __doc__ = SeparableConv.__doc__
    rank = 2

    def __init__(
        self,
        filters,
        kernel_size,
        strides=(1, 1),
        padding="valid",
        data_format=None,
        dilation_rate=(1, 1),
        depth_multiplier=1,
        activation=None,
        use_bias=True,
        depthwise_initializer="glorot_uniform",
        pointwise_initializer="glorot_uniform",
        bias_initializer="zeros",
        depthwise_regularizer=None,
        pointwise_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        depthwise_constraint=None,
        pointwise_constraint=None,
        bias_constraint=None,
        **kwargs,
    ):
        super().__init__(**arguments(locals()))


SeparableConvolution1D, SeparableConvolution2D = SeparableConv1D, SeparableConv2D

__all__ = [
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "SeparableConv1D",
    "SeparableConv2D",
    "SeparableConvolution1D",
    "SeparableConvolution2D",
]
