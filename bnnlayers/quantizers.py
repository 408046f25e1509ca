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
from .bits import BitArray
from .keras import layers
from .keras import utils as keras_utils
from .keras.base_layer import context as calling
from .metrics import FlipRatio
from .ops.norm import Normalized
from .ops.quantize import Memo
from .tape import plain, read

__all__ = [
    "ApproxSign",
    "DoReFa",
    "DoReFaQuantizer",
    "MagnitudeAwareSign",
    "NoOp",
    "NoOpQuantizer",
    "Quantizer",
    "SteHeaviside",
    "SteSign",
    "SteTern",
    "SwishSign",
]


def ste_sign(x: Any, clip_value: float | None = 1.0) -> Any:
    """Sign with a straight-through gradient; see `SteSign`. Keeps float64."""
    return ops.quantize.ste_sign(x, clip_value=clip_value)


def approx_sign(x: Any) -> Any:
    """Sign with a piecewise-linear gradient; see `ApproxSign`. Keeps float64."""
    return ops.quantize.approx_sign(x)


def ste_heaviside(x: Any, clip_value: float | None = 1.0) -> Any:
    """Step to {0, 1} with a straight-through gradient; see `SteHeaviside`. Keeps float64."""
    return ops.quantize.ste_heaviside(x, clip_value=clip_value)


def swish_sign(x: Any, beta: float = 5.0) -> Any:
    """Sign with the gradient of SignSwish; see `SwishSign`. Keeps float64."""
    return ops.quantize.swish_sign(x, beta=beta)


def ste_tern(
    x: Any,
    threshold_value: float = 0.05,
    ternary_weight_networks: bool = False,
    clip_value: float | None = 1.0,
) -> Any:
    """Ternary values with a straight-through gradient; see `SteTern`. Keeps float64."""
    threshold = _ternary_threshold(x) if ternary_weight_networks else threshold_value
    return ops.quantize.ste_tern(x, threshold=threshold, clip_value=clip_value)


def _ternary_threshold(x: Any) -> float:
    """0.7 times the mean magnitude of the whole tensor."""
    x = plain(x)
    with np.errstate(over="ignore"):
        return 0.7 * np.abs(x).sum() / x.dtype.type(max(x.size, 1))


# A layer asks its quantizer for `encode`, be it an object or one of the functions above.
for _function in (ste_sign, approx_sign, ste_heaviside, swish_sign, ste_tern):
    _function.encode = getattr(ops.quantize, _function.__name__)  # type: ignore[attr-defined]


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
        if "call" in cls.__dict__ and not {"encode", "_packed"} & set(cls.__dict__):
            cls.encode = Quantizer.encode  # type: ignore[method-assign]
        if "_packed" in cls.__dict__ and "_kind" not in cls.__dict__:
            cls._kind = None  # type: ignore[attr-defined]

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def encode(self, x: Any, *, axis: int, memo: Memo | None = None) -> Any:
        """The quantized values for a product that reduces along `axis`: a `BitArray`, or floats."""
        return self(x)


class _BaseQuantizer(Quantizer):
    # Another object after every change of an attribute: what was encoded while it was the same still holds. None where
    # every encoding counts.
    _state: object = None
    # The kind of bits, where the class alone decides about them; and the same if to pack is all that is to be done.
    _kind: str | None = None
    _packs: str | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        pure = "flip_ratio" not in self.__dict__ and type(self).encode is _BaseQuantizer.encode
        self.__dict__["_state"] = object() if pure else None
        self.__dict__["_packs"] = self._kind if pure and self.__dict__.get("built") else None

    def __init__(self, *args: Any, metrics: Any = None, **kwargs: Any) -> None:
        self._custom_metrics = metrics
        super().__init__(*args, **kwargs)

    def build(self, input_shape: Any) -> None:
        if "flip_ratio" in (self._custom_metrics or ()):
            self.flip_ratio = FlipRatio(name=f"flip_ratio/{self.name}")
            self.flip_ratio.build(input_shape)
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        return self._observed(inputs)

    def encode(self, x: Any, *, axis: int, memo: Memo | None = None) -> Any:
        if type(x) is not Normalized:
            x = read(x)
        if x.dtype.char == "d":  # a quantizer is a layer of dtype float32, and casts as layers do
            x = x.astype(np.float32)
        if not self.built:
            self._maybe_build(x)
        values = self._packed(x, axis, memo)
        return values if self._state is not None else self._observed(values)

    def _packed(self, x: Any, axis: int, memo: Memo | None) -> Any:
        """What `call` returns, as bits packed along `axis` if the values fit in bits."""
        return x

    def _observed(self, values: Any) -> Any:
        """The values, counted by the training metrics: every read counts, a cached one too."""
        if "flip_ratio" in self.__dict__ and not calling.inferring:
            self.flip_ratio.update_state(values)
        return values


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
    _kind = "sign"

    def __init__(self, clip_value: float | None = 1.0, **kwargs: Any) -> None:
        self.clip_value = clip_value
        super().__init__(**kwargs)

    def call(self, inputs: Any) -> Any:
        return super().call(ste_sign(inputs, clip_value=self.clip_value))

    def _packed(self, x: Any, axis: int, memo: Memo | None) -> Any:
        if isinstance(x, Normalized):
            return x.signs(self.clip_value, axis)
        return ops.quantize.ste_sign(x, clip_value=self.clip_value, axis=axis, memo=memo)

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
    _kind = "sign"

    def call(self, inputs: Any) -> Any:
        return super().call(approx_sign(inputs))

    def _packed(self, x: Any, axis: int, memo: Memo | None) -> Any:
        return ops.quantize.approx_sign(x, axis=axis, memo=memo)


@utils.register_alias("ste_heaviside")
@utils.register_keras_custom_object
class SteHeaviside(_BaseQuantizer):
    """Step to {0, 1}, with the straight-through gradient inside ``|x| <= clip_value``.

    The value is 1 where ``x > 0`` and 0 elsewhere: one bit, though not a sign.

    Parameters
    ----------
    clip_value : float or None
        None lets every gradient through.
    metrics : list of str, optional
        Training metrics; default those of `bnnlayers.context.metrics_scope`.
    """

    precision = 1
    _kind = "unit"

    def __init__(self, clip_value: float | None = 1.0, **kwargs: Any) -> None:
        self.clip_value = clip_value
        super().__init__(**kwargs)

    def call(self, inputs: Any) -> Any:
        return super().call(ste_heaviside(inputs, clip_value=self.clip_value))

    def _packed(self, x: Any, axis: int, memo: Memo | None) -> Any:
        return ops.quantize.ste_heaviside(x, clip_value=self.clip_value, axis=axis, memo=memo)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "clip_value": self.clip_value}


@utils.register_alias("swish_sign")
@utils.register_keras_custom_object
class SwishSign(_BaseQuantizer):
    """Sign, with the gradient ``beta (2 - beta x tanh(beta x / 2)) / (1 + cosh(beta x))``.

    Parameters
    ----------
    beta : float
        The larger, the closer the gradient is to that of the sign.
    metrics : list of str, optional
        Training metrics; default those of `bnnlayers.context.metrics_scope`.

    References
    ----------
    Darabi et al., "BNN+: Improved Binary Network Training", arXiv:1812.11800.
    """

    precision = 1
    _kind = "sign"

    def __init__(self, beta: float = 5.0, **kwargs: Any) -> None:
        self.beta = beta
        super().__init__(**kwargs)

    def call(self, inputs: Any) -> Any:
        return super().call(swish_sign(inputs, beta=self.beta))

    def _packed(self, x: Any, axis: int, memo: Memo | None) -> Any:
        return ops.quantize.swish_sign(x, beta=self.beta, axis=axis, memo=memo)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta": self.beta}


@utils.register_alias("magnitude_aware_sign")
@utils.register_keras_custom_object
class MagnitudeAwareSign(_BaseQuantizer):
    """Sign times the mean magnitude of each entry of the last axis, which no gradient flows through.

    A product reads one bit per value and a factor per entry of the last axis.

    Parameters
    ----------
    clip_value : float or None
        Of the straight-through gradient, which is scaled too; None lets every gradient through.
    metrics : list of str, optional
        Training metrics; default those of `bnnlayers.context.metrics_scope`.

    References
    ----------
    Liu et al., "Bi-Real Net: Enhancing the Performance of 1-bit CNNs With Improved Representational Capability and
    Advanced Training Algorithm", arXiv:1808.00278, section 3.3.
    """

    precision = 1

    def __init__(self, clip_value: float | None = 1.0, **kwargs: Any) -> None:
        self.clip_value = clip_value
        super().__init__(**kwargs)

    @staticmethod
    def _scale(x: Any) -> Any:
        x = plain(x)
        return np.abs(x).mean(axis=tuple(range(x.ndim - 1)))

    def call(self, inputs: Any) -> Any:
        return super().call(self._scale(inputs) * ste_sign(inputs, clip_value=self.clip_value))

    def _packed(self, x: Any, axis: int, memo: Memo | None) -> Any:
        bits = ops.quantize.ste_sign(x, clip_value=self.clip_value, axis=axis, memo=memo)
        scale = self._scale(x) if memo is None else memo.get("scale")
        if scale is None:
            scale = memo["scale"] = self._scale(x)  # type: ignore[index]
        return ops.quantize.scaled(bits, scale) if isinstance(bits, BitArray) else scale * bits

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "clip_value": self.clip_value}


@utils.register_alias("ste_tern")
@utils.register_keras_custom_object
class SteTern(_BaseQuantizer):
    """-1, 0 or +1: the sign where ``|x|`` reaches a threshold, with a straight-through gradient.

    Parameters
    ----------
    threshold_value : float
    ternary_weight_networks : bool
        Whether the threshold is 0.7 times the mean magnitude of the tensor instead, as the paper has it.
    clip_value : float or None
        None lets every gradient through.
    metrics : list of str, optional
        Training metrics; default those of `bnnlayers.context.metrics_scope`.

    References
    ----------
    Li et al., "Ternary Weight Networks", arXiv:1605.04711.
    """

    precision = 2

    def __init__(
        self,
        threshold_value: float = 0.05,
        ternary_weight_networks: bool = False,
        clip_value: float | None = 1.0,
        **kwargs: Any,
    ) -> None:
        self.threshold_value = threshold_value
        self.ternary_weight_networks = ternary_weight_networks
        self.clip_value = clip_value
        super().__init__(**kwargs)

    def call(self, inputs: Any) -> Any:
        return super().call(ste_tern(inputs, self.threshold_value, self.ternary_weight_networks, self.clip_value))

    def _packed(self, x: Any, axis: int, memo: Memo | None) -> Any:
        threshold = _ternary_threshold(x) if self.ternary_weight_networks else self.threshold_value
        return ops.quantize.ste_tern(x, threshold=threshold, clip_value=self.clip_value, axis=axis, memo=memo)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "threshold_value": self.threshold_value,
            "ternary_weight_networks": self.ternary_weight_networks,
            "clip_value": self.clip_value,
        }


@utils.register_alias("dorefa_quantizer")
@utils.register_keras_custom_object
class DoReFa(_BaseQuantizer):
    """Values in `k_bit` bits, as multiples of ``1 / n`` with ``n = 2**k_bit - 1``.

    Activations are clipped to [0, 1] and rounded, half to even. Weights become ``2 round((t / (2 max|t|) + 1/2) n) / n
    - 1`` of ``t = tanh(w)``, in [-1, 1]. A product reads `k_bit` planes of bits.

    Parameters
    ----------
    k_bit : int
    mode : {"activations", "weights"}
    metrics : list of str, optional
        Training metrics; default those of `bnnlayers.context.metrics_scope`.

    Raises
    ------
    ValueError
        If `mode` is none of these, also when it was set later.

    References
    ----------
    Zhou et al., "DoReFa-Net: Training Low Bitwidth Convolutional Neural Networks with Low Bitwidth Gradients",
    arXiv:1606.06160.
    """

    def __init__(self, k_bit: int = 2, mode: str = "activations", **kwargs: Any) -> None:
        self.precision = k_bit
        self.mode = mode
        self._function()
        super().__init__(**kwargs)

    def call(self, inputs: Any) -> Any:
        return super().call(self._quantize(inputs))

    def _packed(self, x: Any, axis: int, memo: Memo | None) -> Any:
        if self.precision not in range(1, 9):
            return self._quantize(x)
        more = {"memo": memo} if self.mode == "weights" else {}
        return self._quantize(x, axis=axis, **more)

    def _quantize(self, x: Any, **face: Any) -> Any:
        return self._function()(x, k_bit=self.precision, **face)

    def _function(self) -> Any:
        functions = {"activations": ops.quantize.dorefa_activations, "weights": ops.quantize.dorefa_weights}
        if self.mode not in functions:
            raise ValueError(f"DoReFa: argument 'mode' must be 'activations' or 'weights', got {self.mode!r}")
        return functions[self.mode]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "k_bit": self.precision, "mode": self.mode}


DoReFaQuantizer = DoReFa


QuantizerType = Quantizer | Callable[[Any], Any]


def serialize(quantizer: Any, use_legacy_format: bool = False) -> Any:
    """The configuration of a quantizer, as JSON can hold it. There is one format: the second argument has no effect."""
    return keras_utils.serialize_keras_object(quantizer)


def deserialize(name: Any, custom_objects: dict[str, Any] | None = None, use_legacy_format: bool = False) -> Any:
    """The quantizer that `serialize` described, or the one of that name. Every format of Keras 2 is read."""
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
        quantizer._custom_metrics = list(context.get_training_metrics()) or None
    return quantizer
