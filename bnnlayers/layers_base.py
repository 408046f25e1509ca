"""What a quantised layer adds to the Keras layer beneath it, as mixins.

Keras's `call` is ``convolution_op(inputs, kernel)``, bias, activation. The mixins make the input `Quantized`, make the
kernel a `QuantizedVariable`, and read it inside ``quantized_scope(True)``. The product then finds its operands' types
by itself.
"""

from __future__ import annotations

import logging
from typing import Any

from . import context, quantizers
from .keras import layers
from .keras.base_layer import context as calling
from .ops import product
from .ops.norm import Normalized
from .ops.quantize import Quantized
from .quantized_variable import QuantizedVariable

log = logging.getLogger(__name__)


class BaseLayer(layers.Layer):
    """A layer whose input may be quantised, and whose kernels may be.

    Attributes
    ----------
    kernels : dict of str to str
        The quantizer argument of each kernel that can be quantised.
    """

    kernels: dict[str, str] = {}
    _ran: tuple[str, ...] = ()

    def __init__(self, *args: Any, input_quantizer: Any = None, **kwargs: Any) -> None:
        given = {
            argument: quantizers.get_kernel_quantizer(kwargs.pop(argument, None)) for argument in self._arguments()
        }
        super().__init__(*args, **kwargs)
        self.input_quantizer = quantizers.get(input_quantizer)
        for argument, quantizer in given.items():
            setattr(self, argument, quantizer)
            self._warn_without_constraint(argument, quantizer)

    def _arguments(self) -> list[str]:
        return list(self.kernels.values())

    def _warn_without_constraint(self, argument: str, quantizer: Any) -> None:
        constraint = argument.replace("quantizer", "constraint")
        binary = getattr(quantizer, "precision", None) == 1 and not isinstance(quantizer, quantizers.NoOp)
        if binary and not getattr(self, constraint):
            log.warning(
                "%s: using the binary weight quantizer `%s` without `%s` may starve weights: outside of the clip value "
                "their gradient stays zero.",
                self.name,
                argument,
                constraint,
            )

    def _get_quantizer(self, name: str) -> Any:
        """The quantizer of the weight called `name`, or None."""
        return getattr(self, self.kernels[name]) if name in self.kernels else None

    def _make_variable(self, name: str, **kwargs: Any) -> Any:
        variable = super()._make_variable(name, **kwargs)
        quantizer = self._get_quantizer(name)
        if quantizer is None:
            return variable
        _build_quantizer(quantizer, variable.shape)
        return QuantizedVariable.from_variable(variable, quantizer)

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        _build_quantizer(self.input_quantizer, input_shape)

    def call(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if self.input_quantizer:
            inputs = Quantized(inputs, self.input_quantizer)
        scope, ran = context.scope, product.ran
        outer = scope.quantize, ran.names
        scope.quantize, ran.names = True, []
        try:
            outputs = super().call(inputs, *args, **kwargs)
            self.__dict__["_ran"] = tuple(ran.names)
        finally:
            scope.quantize, ran.names = outer
        return outputs

    def _knows(self, kind: type) -> bool:
        # The sign of a normalized input needs no floats in between.
        signs = type(self).call is BaseLayer.call and type(self.input_quantizer) is quantizers.SteSign
        return signs and kind is Normalized

    @property
    def arithmetic(self) -> tuple[str, ...]:
        """What each product of the last call ran on: "xnor", "signed" or "float".

        A layer that has not been called has run nothing: ``()``.
        """
        return self._ran

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "input_quantizer": quantizers.serialize(self.input_quantizer),
            **{argument: quantizers.serialize(getattr(self, argument)) for argument in self._arguments()},
        }


def _build_quantizer(quantizer: Any, shape: Any) -> None:
    """A quantizer that is a layer is built with its user: its weights and metrics exist before the first call."""
    if isinstance(quantizer, layers.Layer) and not quantizer.built:
        outer = calling.call
        calling.call = (quantizer.name, None, outer)
        try:
            quantizer._build(shape)
        finally:
            calling.call = outer


class QuantizerBase(BaseLayer):
    """A layer with one kernel, quantised by `kernel_quantizer`."""

    kernels = {"kernel": "kernel_quantizer"}


class QuantizerDepthwiseBase(BaseLayer):
    """A layer with one kernel, quantised by `depthwise_quantizer`."""

    kernels = {"depthwise_kernel": "depthwise_quantizer"}


class QuantizerSeparableBase(BaseLayer):
    """A layer with two kernels, quantised by `depthwise_quantizer` and `pointwise_quantizer`."""

    kernels = {"depthwise_kernel": "depthwise_quantizer", "pointwise_kernel": "pointwise_quantizer"}


class QuantizerBaseConv(layers.Layer):
    """A convolution that pads after its input has been quantised, with `pad_values`."""

    padding: str

    def __init__(self, *args: Any, pad_values: float = 0.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pad_values = pad_values
        if self.padding == "causal" and pad_values != 0.0:
            raise ValueError(
                f"{type(self).__name__}: Causal padding with `pad_values != 0` is not supported, got {pad_values}."
            )

    def _convolution_arguments(self) -> dict[str, Any]:
        return {**super()._convolution_arguments(), "pad_values": float(self.pad_values)}  # type: ignore[misc]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pad_values": self.pad_values}
