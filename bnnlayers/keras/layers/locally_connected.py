"""Locally connected layers: one class for every number of spatial axes."""

from __future__ import annotations

import math
import warnings

from ...geometry import output_length
from ...ops import local, merge
from ...ops import shape as shape_ops
from ..base_layer import InputSpec
from ..structure import TensorShape
from .arguments import ConfiguredLayer, arguments, data_format_of, integers, padding_of
from .core import activate

_LARGE = 2**28


class LocallyConnected(ConfiguredLayer):
    """A convolution whose kernel is another one at every output pixel.

    The input has the shape ``(batch, spatial..., channels)`` or, for channels_first,
    ``(batch, channels, spatial...)``. The bias is ``(outputs..., filters)`` in both.

    Parameters
    ----------
    filters : int
        Channels of the output.
    kernel_size, strides : int or sequence of int
        One entry per spatial axis.
    padding : {"valid", "same"}
        "same" needs implementation 2 or 3.
    data_format : {"channels_last", "channels_first"}, optional
    activation : str or callable, optional
    use_bias : bool
    kernel_initializer, bias_initializer : str or callable
    kernel_regularizer, bias_regularizer, activity_regularizer : str or callable, optional
    kernel_constraint, bias_constraint : str or callable, optional
    implementation : {1, 2, 3}
        Layout of the kernel. The values are the same; see Notes.

    Raises
    ------
    ValueError
        If an argument is out of range, or the padding is "same" in implementation 1.

    Warns
    -----
    UserWarning
        If the dense kernel of implementation 2 takes more than 256 MiB.

    Notes
    -----
    1 holds ``(output pixels, kernel pixels * channels, filters)``: the smallest that a kernel can
    be, and the layout that products read as it is. Take it unless you need "same".

    2 holds a weight for every input and every output, ``(inputs..., channels, outputs...,
    filters)``, of which only those connected are ever used. It is what a model must be in to become
    a dense layer, and where a quantizer that looks at the whole kernel sees the unconnected weights
    too. It is for small inputs: its size is that of 1 times input pixels / kernel pixels.

    3 holds the connected weights in one row, ordered by output and then by input: as small as 1,
    and smaller where "same" reaches over the border. Take it for "same".

    Measured for an input of 16 x 16 pixels and 32 channels and 32 filters of 3 x 3, in MiB: the
    kernel takes 6.9, 196 and 6.9 in the three implementations, a prediction of 8 images at most 9,
    212 and 9, a training step 18, 417 and 25.
    """

    rank: int
    filters: int
    kernel_size: tuple[int, ...]

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        data_format=None,
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        implementation=1,
        **kwargs,
    ):
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self._configure(
            filters=filters,
            kernel_size=integers(kernel_size, self.rank, "kernel_size"),
            strides=integers(strides, self.rank, "strides"),
            padding=padding_of(padding, ("valid", "same")),
            data_format=data_format_of(data_format),
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            implementation=implementation,
        )
        if self.padding != "valid" and implementation == 1:
            raise ValueError(
                f"Invalid border mode for {type(self).__name__} "
                f'(only "valid" is supported if implementation is 1): {padding}'
            )
        self.input_spec = InputSpec(ndim=self.rank + 2)

    def _connection_arguments(self):
        names = ("kernel_size", "strides", "padding", "data_format", "implementation")
        return {name: getattr(self, name) for name in names}

    def build(self, input_shape):
        shape = TensorShape(input_shape)
        first = self.data_format == "channels_first"
        channels, spatial = (shape[1], shape[2:]) if first else (shape[-1], shape[1:-1])
        if None in spatial or channels is None:
            raise ValueError(
                f"The spatial dimensions and the channels of the inputs to a {type(self).__name__} "
                f"layer should be fully defined, but layer received the inputs shape {tuple(shape)}"
            )
        outputs = self._output_pixels(spatial)
        if min(outputs) <= 0:
            raise ValueError(
                f"One of the dimensions in the output is <= 0 due to downsampling in {self.name}. "
                f"Consider increasing the input size. Received input shape {tuple(shape)} which "
                "would produce output shape with a zero or negative value in a dimension."
            )
        if self.implementation not in (1, 2, 3):
            raise ValueError(f"Unrecognized implementation mode: {self.implementation}.")
        joined = local.connections(spatial, channels, self.filters, **self._connection_arguments())
        self.kernel_shape = joined.kernel_shape(self.rank)
        self._warn_of_size(joined)
        self.kernel = self.add_weight(
            "kernel",
            shape=self.kernel_shape,
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                "bias",
                shape=(*outputs, self.filters),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self.input_spec = InputSpec(ndim=self.rank + 2, axes={1 if first else -1: channels})
        super().build(input_shape)

    def _warn_of_size(self, joined):
        size = 4 * math.prod(self.kernel_shape)
        if self.implementation == 2 and size > _LARGE:
            used = 4 * math.prod(joined._replace(implementation=3).kernel_shape(self.rank))
            warnings.warn(
                f"{self.name}: implementation 2 makes a dense kernel of {size / 2**20:.0f} MiB, of "
                f"which {used / 2**20:.1f} MiB are connected; implementation 3 holds only those.",
                stacklevel=2,
            )

    def call(self, inputs):
        outputs = local.locally_connected(
            inputs, self.kernel, filters=self.filters, **self._connection_arguments()
        )
        if self.use_bias:
            bias = self.bias
            if self.data_format == "channels_first":
                # Keras reads the same numbers in another order, and does not transpose them.
                bias = shape_ops.reshape(bias, shape=(self.filters, *outputs.shape[2:]))
            outputs = merge.add(outputs, bias)
        return activate(self.activation, outputs)

    def _output_pixels(self, spatial):
        axes = zip(spatial, self.kernel_size, self.strides, strict=True)
        return [None if n is None else output_length(n, k, self.padding, s) for n, k, s in axes]

    def compute_output_shape(self, input_shape):
        shape = TensorShape(input_shape)
        if self.data_format == "channels_first":
            return TensorShape((shape[0], self.filters, *self._output_pixels(shape[2:])))
        return TensorShape((shape[0], *self._output_pixels(shape[1:-1]), self.filters))


class LocallyConnected1D(LocallyConnected):
    __doc__ = LocallyConnected.__doc__
    rank = 1


class LocallyConnected2D(LocallyConnected):
    __doc__ = LocallyConnected.__doc__
    rank = 2

    def __init__(
        self,
        filters,
        kernel_size,
        strides=(1, 1),
        padding="valid",
        data_format=None,
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        implementation=1,
        **kwargs,
    ):
        super().__init__(**arguments(locals()))


__all__ = ["LocallyConnected1D", "LocallyConnected2D"]
