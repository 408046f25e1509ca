"""Convolutions: one class for every number of spatial axes."""

from __future__ import annotations

from ...geometry import output_length
from ...ops import merge, product
from ...ops import shape as shape_ops
from .. import activations
from ..base_layer import InputSpec
from ..structure import TensorShape
from .arguments import ConfiguredLayer, arguments, data_format_of, integers, padding_of
from .core import activate, waits_to_rectify


class Conv(ConfiguredLayer):
    """``activation(convolution(inputs, kernel) + bias)`` over `rank` spatial axes.

    The input has the shape ``(batch, spatial..., channels)`` or, for channels_first,
    ``(batch, channels, spatial...)``; the kernel ``(kernel_size..., channels / groups, filters)``.

    Parameters
    ----------
    filters : int
        Channels of the output.
    kernel_size, strides, dilation_rate : int or sequence of int
        One entry per spatial axis.
    padding : {"valid", "same", "causal"}
        "causal" is for one axis: the output never reads what comes later.
    data_format : {"channels_last", "channels_first"}, optional
    groups : int
        Each group of filters reads only its group of channels.
    activation : str or callable, optional
    use_bias : bool
    kernel_initializer, bias_initializer : str or callable
    kernel_regularizer, bias_regularizer, activity_regularizer : str or callable, optional
    kernel_constraint, bias_constraint : str or callable, optional

    Raises
    ------
    ValueError
        If strides and dilation are both above one, `groups` does not divide `filters`, or an
        argument is out of range.
    """

    rank: int

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        data_format=None,
        dilation_rate=1,
        groups=1,
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        **kwargs,
    ):
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        allowed = ("valid", "same", "causal") if self.rank == 1 else ("valid", "same")
        self._configure(
            filters=filters if filters is None else int(filters),
            kernel_size=integers(kernel_size, self.rank, "kernel_size"),
            strides=integers(strides, self.rank, "strides"),
            padding=padding_of(padding, allowed),
            data_format=data_format_of(data_format),
            dilation_rate=integers(dilation_rate, self.rank, "dilation_rate"),
            groups=groups or 1,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
        )
        if self.filters is not None and self.filters <= 0:
            raise ValueError(
                f"Invalid value for argument `filters`. Expected a strictly positive value. Received filters={filters}."
            )
        if self.groups < 1 or (self.filters or 0) % self.groups:
            raise ValueError(
                "The number of filters must be evenly divisible by the number of groups. "
                f"Received: groups={groups}, filters={filters}"
            )
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                "`strides > 1` not supported in conjunction with `dilation_rate > 1`. "
                f"Received: strides={self.strides} and dilation_rate={self.dilation_rate}"
            )
        self.input_spec = InputSpec(min_ndim=self.rank + 2)

    @property
    def _channel_axis(self):
        return -1 if self.data_format == "channels_last" else -1 - self.rank

    def _input_channels(self, input_shape):
        channels = input_shape[self._channel_axis]
        if channels is None:
            raise ValueError(
                "The channel dimension of the inputs should be defined. The input_shape received "
                f"is {tuple(input_shape)}, where axis {self._channel_axis} (0-based) is the "
                "channel dimension, which found to be `None`."
            )
        return channels

    def build(self, input_shape):
        channels = self._input_channels(input_shape)
        if channels % self.groups:
            raise ValueError(
                "The number of input channels must be evenly divisible by the number of groups. "
                f"Received groups={self.groups}, but the input has {channels} channels (full input "
                f"shape is {tuple(input_shape)})."
            )
        self.compute_output_shape(input_shape)
        self.kernel = self.add_weight(
            "kernel",
            shape=(*self.kernel_size, channels // self.groups, self.filters),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self._add_bias(self.filters)
        self._specify_channels(channels)
        super().build(input_shape)

    def _add_bias(self, filters):
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                "bias",
                shape=(filters,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def _specify_channels(self, channels):
        self.input_spec = InputSpec(min_ndim=self.rank + 2, axes={self._channel_axis: channels})

    def _convolution_arguments(self):
        """What the product needs to know beside its two operands."""
        return {
            "strides": self.strides,
            "padding": self.padding,
            "data_format": self.data_format,
            "dilation_rate": self.dilation_rate,
            "groups": self.groups,
        }

    def convolution_op(self, inputs, kernel):
        """The convolution itself; a subclass may replace or surround it."""
        return product.conv(inputs, kernel, **self._convolution_arguments())

    def call(self, inputs, later=0):
        if later and self._is_product():
            outputs = product.conv(inputs, self.kernel, **self._convolution_arguments(), later=True)
        else:
            outputs = self.convolution_op(inputs, self.kernel)
        return self._finish(outputs, later)

    def _waits(self, readers):
        if waits_to_rectify(self.activation, readers):
            return True
        linear = self.activation is activations.linear
        return linear and self._is_product() and len(readers) == 1 and readers[0]._knows(product.Waiting)

    def _is_product(self):
        """Whether the output is that of the product itself, but for the activation."""
        return not self.use_bias and type(self).convolution_op is Conv.convolution_op

    def _finish(self, outputs, later=0):
        """Bias and activation."""
        if self.use_bias:
            bias = self.bias
            if self.data_format == "channels_first":
                bias = shape_ops.reshape(bias, shape=(-1,) + (1,) * self.rank)
            outputs = merge.add(outputs, bias)
        return activate(self.activation, outputs, later)

    def _output_length(self, length, axis):
        return output_length(
            length,
            self.kernel_size[axis],
            self.padding,
            self.strides[axis],
            self.dilation_rate[axis],
        )

    def _output_channels(self, input_shape):
        return self.filters

    def compute_output_shape(self, input_shape):
        shape = TensorShape(input_shape)
        first = self.data_format == "channels_first"
        lead = len(shape) - self.rank - 1
        spatial = shape[lead + first : lead + first + self.rank]
        spatial = [None if n is None else self._output_length(n, i) for i, n in enumerate(spatial)]
        if any(n is not None and n <= 0 for n in spatial):
            raise ValueError(
                f"One of the dimensions in the output is <= 0 due to downsampling in {self.name}. "
                f"Consider increasing the input size. Received input shape {tuple(shape)} which "
                "would produce output shape with a zero or negative value in a dimension."
            )
        channels = (self._output_channels(shape),)
        tail = (*channels, *spatial) if first else (*spatial, *channels)
        return TensorShape((*shape[:lead], *tail))


class Conv1D(Conv):
    __doc__ = (Conv.__doc__ or "").replace("`rank` spatial axes", "one spatial axis")
    rank = 1

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        data_format="channels_last",
        dilation_rate=1,
        groups=1,
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        **kwargs,
    ):
        super().__init__(**arguments(locals()))


class Conv2D(Conv):
    __doc__ = (Conv.__doc__ or "").replace("`rank`", "two")
    rank = 2

    def __init__(
        self,
        filters,
        kernel_size,
        strides=(1, 1),
        padding="valid",
        data_format=None,
        dilation_rate=(1, 1),
        groups=1,
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        **kwargs,
    ):
        super().__init__(**arguments(locals()))


class Conv3D(Conv):
    __doc__ = (Conv.__doc__ or "").replace("`rank`", "three")
    rank = 3

    def __init__(
        self,
        filters,
        kernel_size,
        strides=(1, 1, 1),
        padding="valid",
        data_format=None,
        dilation_rate=(1, 1, 1),
        groups=1,
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        **kwargs,
    ):
        super().__init__(**arguments(locals()))


Convolution1D, Convolution2D, Convolution3D = Conv1D, Conv2D, Conv3D

__all__ = [
    "Conv",
    "Conv1D",
    "Conv2D",
    "Conv3D",
    "Convolution1D",
    "Convolution2D",
    "Convolution3D",
]
