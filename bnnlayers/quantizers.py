"""Quantizers: a forward value in few bits, and the pseudo-gradient that lets it be trained.

A quantizer is given to a layer as ``input_quantizer`` or ``kernel_quantizer``, used as an activation, or called. It may
be named by a string, an object, a function of this module, or any callable of your own:

>>> lq.layers.QuantDense(64, kernel_quantizer="ste_sign")
>>> lq.layers.QuantDense(64, kernel_quantizer=lq.quantizers.SteSign(clip_value=1.0))

Called, it returns floats. A layer asks for more: ``encode(x, axis)`` gives a packed `BitArray` if the values fit in
bits, and floats if they do not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import context, ops, utils
from .keras import layers
from .keras import utils as keras_utils
from .ops.quantize import Memo
from .tape import read

__all__ = ["ApproxSign", "NoOp", "NoOpQuantizer", "Quantizer", "SteSign"]


def ste_sign(x: Any, clip_value: float | None = 1.0) -> Any:
    """Sign with a straight-through gradient; see `SteSign`. Keeps float64."""
    return ops.quantize.ste_sign(x, clip_value=clip_value)


def approx_sign(x: Any) -> Any:
    """Sign with a piecewise-linear gradient; see `ApproxSign`. Keeps float64."""
    return ops.quantize.approx_sign(x)


# A layer asks its quantizer for `encode`, be it an object or one of the functions above.
ste_sign.encode = ops.quantize.ste_sign  # type: ignore[attr-defined]
approx_sign.encode = ops.quantize.approx_sign  # type: ignore[attr-defined]


class Quantizer(layers.Layer):
    """Base class of quantizers, to subclass for your own.

    Attributes
    ----------
    precision : int or None
        Bits of a quantized value, which `bnnlayers.models.summary` counts.
    """

    precision: int | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # A subclass with values of its own must not inherit the bits of its parent's.
        if "call" in cls.__dict__ and "encode" not in cls.__dict__:
            cls.encode = Quantizer.encode  # type: ignore[method-assign]

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def encode(self, x: Any, *, axis: int, memo: Memo | None = None) -> Any:
        """The quantized values for a product that reduces along `axis`: a `BitArray`, or floats."""
        return self(x)


class _BaseQuantizer(Quantizer):
    def __init__(self, *args: Any, metrics: Any = None, **kwargs: Any) -> None:
        self._custom_metrics = metrics
        super().__init__(*args, **kwargs)

    def call(self, inputs: Any) -> Any:
        return inputs


def _single(x: Any) -> Any:
    """A quantizer is a layer of dtype float32, and casts as layers do."""
    x = read(x)
    return x.astype(np.float32) if x.dtype == np.float64 else x


@utils.register_keras_custom_object
class NoOp(_BaseQuantizer):
    """Returns what it is given; marks a variable with a precision, for `Bop` and the summary.

    Parameters
    ----------
    precision : int
    metrics : list of str, optional
        Training metrics; default those of `bnnlayers.context.metrics_scope`.
    """

    def __init__(self, precision: int, **kwargs: Any) -> None:
        self.precision = precision
        super().__init__(**kwargs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "precision": self.precision}


NoOpQuantizer = NoOp


@utils.register_alias("ste_sign")
@utils.register_keras_custom_object
class SteSign(_BaseQuantizer):
    """Sign, with the straight-through gradient inside ``|x| <= clip_value``.

    The value is +1 where ``x >= 0`` and -1 elsewhere. A product reads it as one bit, and backward keeps one more.

    Parameters
    ----------
    clip_value : float or None
        None lets every gradient through.
    metrics : list of str, optional
        Training metrics; default those of `bnnlayers.context.metrics_scope`.

    References
    ----------
    Hubara et al., "Binarized Neural Networks: Training Deep Neural Networks with Weights and Activations Constrained
    to +1 or -1", arXiv:1602.02830.
    """

    precision = 1

    def __init__(self, clip_value: float | None = 1.0, **kwargs: Any) -> None:
        self.clip_value = clip_value
        super().__init__(**kwargs)

    def call(self, inputs: Any) -> Any:
        return super().call(ste_sign(inputs, clip_value=self.clip_value))

    def encode(self, x: Any, *, axis: int, memo: Memo | None = None) -> Any:
        return ops.quantize.ste_sign(_single(x), clip_value=self.clip_value, axis=axis, memo=memo)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "clip_value": self.clip_value}


@utils.register_alias("approx_sign")
@utils.register_keras_custom_object
class ApproxSign(_BaseQuantizer):
    """Sign, with the gradient ``2 - 2 |x|`` inside [-1, 1] and 0 outside.

    Parameters
    ----------
    metrics : list of str, optional
        Training metrics; default those of `bnnlayers.context.metrics_scope`.

    References
    ----------
    Liu et al., "Bi-Real Net: Enhancing the Performance of 1-bit CNNs With Improved Representational Capability and
    Advanced Training Algorithm", arXiv:1808.00278.
    """

    precision = 1

    def call(self, inputs: Any) -> Any:
        return super().call(approx_sign(inputs))

    def encode(self, x: Any, *, axis: int, memo: Memo | None = None) -> Any:
        return ops.quantize.approx_sign(_single(x), axis=axis, memo=memo)


QuantizerType = Quantizer | Callable[[Any], Any]


def serialize(quantizer: Any) -> Any:
    """The configuration of a quantizer, as JSON can hold it."""
    return keras_utils.serialize_keras_object(quantizer)


def deserialize(name: Any, custom_objects: dict[str, Any] | None = None) -> Any:
    """The quantizer that `serialize` described, or the one of that name."""
    return keras_utils.deserialize_keras_object(
        name, module_objects=globals(), custom_objects=custom_objects, printable_module_name="quantization function"
    )


def get(identifier: Any) -> Any:
    """A quantizer from its name, configuration or itself; None stays None.

    Raises
    ------
    ValueError
        If the identifier is none of these.
    """
    if identifier is None:
        return None
    if isinstance(identifier, str):
        return deserialize({"class_name": identifier, "config": {}})
    if isinstance(identifier, dict):
        return deserialize(identifier)
    if callable(identifier):
        return identifier
    raise ValueError(f"Could not interpret quantization function identifier: {identifier}")


def get_kernel_quantizer(identifier: Any) -> Any:
    """As `get`, and gives the quantizer the training metrics of the current `bnnlayers.context.metrics_scope`."""
    quantizer = get(identifier)
    if isinstance(quantizer, _BaseQuantizer) and not quantizer._custom_metrics:
        quantizer._custom_metrics = list(context.get_training_metrics())
    return quantizer
