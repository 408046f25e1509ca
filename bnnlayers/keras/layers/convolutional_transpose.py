"""Transposed convolutions: one class for every number of spatial axes."""

from __future__ import annotations

from ...geometry import transposed_length
from ...ops import product
from ..base_layer import InputSpec, Layer
from ..structure import TensorShape
from .arguments import arguments, integers
from .convolutional import Conv1D, Conv2D, Conv3D

_DOC = """Transposed convolution over {axes}: the way back of a convolution.

    The input has the shape ``(batch, spatial..., channels)`` or, for channels_first,
    ``(batch, channels, spatial...)``; the kernel ``(kernel_size..., filters, channels)``.

    Parameters
    ----------
    filters : int
        Channels of the output.
    kernel_size, strides, dilation_rate : int or sequence of int
        One entry per spatial axis.{dilation}
    padding : {{"valid", "same"}}
    output_padding : int or sequence of int, optional
        Pixels added to the shortest output that a convolution would bring to the input's size;
        less than the strides. By default the output is `strides` times as long as the input, or
        long enough for the kernel.
    data_format : {{"channels_last", "channels_first"}}, optional
    activation : str or callable, optional
    use_bias : bool
    kernel_initializer, bias_initializer : str or callable
    kernel_regularizer, bias_regularizer, activity_regularizer : str or callable, optional
    kernel_constraint, bias_constraint : str or callable, optional

    Raises
    ------
    ValueError
        If strides and dilation are both above one, or an argument is out of range.

    References
    ----------
    Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285.
    """


class _Transposed:
    """What makes a convolution a transposed one; a mixin before the convolution's class."""

    def __init__(self, *args, output_padding=None, **kwargs):
        super().__init__(*args, **kwargs)
        if self.padding == "causal":
            raise ValueError("The `padding` argument must be one of ('valid', 'same'). Received: causal")
        if output_padding is not None:
            output_padding = integers(output_padding, self.rank, "output_padding", allow_zero=True)
            if any(p >= s for p, s in zip(output_padding, self.strides, strict=True)):
                raise ValueError(
                    "Strides must be greater than output padding. "
                    f"Received strides={self.strides}, output_padding={output_padding}."
                )
        self._configure(output_padding=output_padding)

    @property
    def _dilation(self):
        return self.dilation_rate

    def build(self, input_shape):
        if len(input_shape) != self.rank + 2:
            raise ValueError(f"Inputs should have rank {self.rank + 2}. Received input_shape={tuple(input_shape)}.")
        channels = self._input_channels(input_shape)
        self.input_spec = InputSpec(ndim=self.rank + 2, axes={self._channel_axis: channels})
        self.kernel = self.add_weight(
            "kernel",
            shape=(*self.kernel_size, self.filters, channels),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self._add_bias(self.filters)
        Layer.build(self, input_shape)

    def convolution_op(self, inputs, kernel):
        """The transposed convolution itself; a subclass may replace or surround it."""
        return product.conv_transpose(
            inputs,
            kernel,
            strides=self.strides,
            padding=self.padding,
            output_padding=self.output_padding,
            data_format=self.data_format,
            dilation_rate=self._dilation,
        )

    def compute_output_shape(self, input_shape):
        shape = TensorShape(input_shape)
        first = self.data_format == "channels_first"
        more = self.output_padding or (None,) * self.rank
        axes = zip(self.kernel_size, self.strides, self._dilation, more, strict=True)
        spatial = [
            None if n is None else transposed_length(n, k, self.padding, s, d, p)
            for n, (k, s, d, p) in zip(shape[1 + first :], axes, strict=False)
        ]
        tail = (self.filters, *spatial) if first else (*spatial, self.filters)
        return TensorShape((shape[0], *tail))


class Conv1DTranspose(_Transposed, Conv1D):
    __doc__ = _DOC.format(axes="one spatial axis", dilation="")

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        output_padding=None,
        data_format=None,
        dilation_rate=1,
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


class Conv2DTranspose(_Transposed, Conv2D):
    __doc__ = _DOC.format(axes="two spatial axes", dilation="")

    def __init__(
        self,
        filters,
        kernel_size,
        strides=(1, 1),
        padding="valid",
        output_padding=None,
        data_format=None,
        dilation_rate=(1, 1),
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


class Conv3DTranspose(_Transposed, Conv3D):
    __doc__ = _DOC.format(axes="three spatial axes", dilation=" Keras ignores `dilation_rate` here, and so does this.")

    def __init__(
        self,
        filters,
        kernel_size,
        strides=(1, 1, 1),
        padding="valid",
        output_padding=None,
        data_format=None,
        dilation_rate=(1, 1, 1),
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

    @property
    def _dilation(self):
        return (1, 1, 1)

    def get_config(self):
        config = super().get_config()
        del config["dilation_rate"]
        return config


Convolution1DTranspose = Conv1DTranspose
Convolution2DTranspose = Deconvolution2D = Conv2DTranspose
Convolution3DTranspose = Deconvolution3D = Conv3DTranspose

__all__ = [
    "Conv1DTranspose",
    "Conv2DTranspose",
    "Conv3DTranspose",
    "Convolution1DTranspose",
    "Convolution2DTranspose",
    "Convolution3DTranspose",
    "Deconvolution2D",
    "Deconvolution3D",
]
